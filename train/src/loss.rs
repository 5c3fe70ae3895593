//! Head and cross-entropy in chunks over the targets: the full logits never exist.
//!
//! The head runs only on rows that predict a trained token, and each chunk's gradient is formed
//! before the next chunk's logits, so that memory holds one `[chunk, V]` at a time.

use anyhow::Result;
use c10d::aten::vjp;
use c10d::fused;
use model::Config;
use tch::{Kind, Tensor};

use crate::data::MicroBatch;

/// Target rows whose logits are in memory at once: 160 MB or 1.2 GB of them at 152,064 tokens.
///
/// On a CPU 256 rows are as fast as 1,024, and 128 a tenth slower (seen at H 512). A GPU adds each
/// chunk's gradient of the head to the sum in a pass of its own, reckoned at half the time of the
/// products at 1,024 rows and a quarter at 2,048 (not run).
pub fn chunk(on_gpu: bool) -> i64 {
    if on_gpu { 2048 } else { 256 }
}

/// The loss of a micro-batch and its gradients.
#[derive(Debug)]
pub struct Gradients {
    /// Weighted sum of the targets' negative log-likelihoods, fp32 scalar on the device.
    pub loss: Tensor,
    /// With respect to the hidden state, `[T, H]`.
    pub hidden: Tensor,
    /// With respect to the final norm's weight, `[H]`.
    pub norm: Tensor,
}

/// From the last layer's output `hidden` (`[T, H]`) to the loss and the gradients of everything
/// after that layer. The gradient with respect to the head's matrix goes into `head_gradient`
/// (`[V, H]` fp32, whatever it held). `chunk` bounds the rows of logits held at once.
pub fn head_and_loss(
    config: &Config,
    hidden: &Tensor,
    norm: &Tensor,
    head: &Tensor,
    head_gradient: &Tensor,
    batch: &MicroBatch,
    chunk: i64,
) -> Result<Gradients> {
    let _guard = tch::no_grad_guard();
    assert!(batch.targets.numel() > 0, "a micro-batch has targets");
    let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
    let (hidden, norm) = (leaf(hidden), leaf(norm));
    let normed = tch::with_grad(|| {
        fused::rms_norm(&hidden.index_select(0, &batch.predicts), &norm, config.rms_norm_eps)
    });
    let (rows, vocab) = (batch.targets.size()[0], config.vocab_size);
    let mut loss = Tensor::zeros([], (Kind::Float, hidden.device()));
    let normed_gradient = normed.empty_like();
    let options = (Kind::Float, hidden.device());
    let logits = Tensor::empty([chunk.min(rows), vocab], options);
    for start in (0..rows).step_by(chunk as usize) {
        let count = chunk.min(rows - start);
        let cut = |t: &Tensor| t.narrow(0, start, count);
        let (part, mut logits) = (cut(&normed.detach()), logits.narrow(0, 0, count));
        product(&logits, &part, &head.tr());
        loss += fused::cross_entropy_(&mut logits, &cut(&batch.targets), &cut(&batch.weights));
        let gradient = logits.to_kind(head.kind());
        product(&cut(&normed_gradient), &gradient, head);
        // Summed in fp32: in bf16 the chunks' sum would lose what the single products kept.
        match start {
            0 => product(head_gradient, &gradient.tr(), &part),
            _ => add_product(head_gradient, &gradient.tr(), &part),
        }
    }
    let mut gradients = vjp(&[&normed], &[&normed_gradient], &[&hidden, &norm])?;
    let (norm, hidden) = (gradients.pop().expect("two"), gradients.pop().expect("two"));
    Ok(Gradients { loss, hidden, norm })
}

/// `out = a b`, whatever the kinds.
fn product(out: &Tensor, a: &Tensor, b: &Tensor) {
    if out.kind() == a.kind() {
        let _ = a.mm_out(out, b);
    } else {
        out.shallow_clone().copy_(&a.mm(b));
    }
}

/// `out += a b`, whatever the kinds.
fn add_product(out: &Tensor, a: &Tensor, b: &Tensor) {
    let mut out = out.shallow_clone();
    let _ = match out.kind() == a.kind() {
        true => out.addmm_(a, b),
        false => out.g_add_(&a.mm(b)),
    };
}
