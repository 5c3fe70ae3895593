//! Head and cross-entropy in chunks over the targets: the full logits never exist.
//!
//! The head runs only on rows that predict a trained token, and each chunk's gradient is formed
//! before the next chunk's logits, so that memory holds one `[chunk, V]` at a time.

use anyhow::Result;
use c10d::aten::vjp;
use model::Config;
use model::qwen2::rms_norm;
use tch::{Kind, Tensor};

use crate::data::MicroBatch;

/// Target rows whose logits are in memory at once.
pub const CHUNK: i64 = 1024;

/// The loss of a micro-batch and its gradients.
#[derive(Debug)]
pub struct Gradients {
    /// Weighted sum of the targets' negative log-likelihoods, fp32 scalar on the device.
    pub loss: Tensor,
    /// With respect to the hidden state, `[T, H]`.
    pub hidden: Tensor,
    /// With respect to the final norm's weight, `[H]`.
    pub norm: Tensor,
    /// With respect to the head's matrix, `[V, H]`.
    pub head: Tensor,
}

/// From the last layer's output `hidden` (`[T, H]`) to the loss and the gradients of everything
/// after that layer. `chunk` bounds the rows of logits held at once.
pub fn head_and_loss(
    config: &Config,
    hidden: &Tensor,
    norm: &Tensor,
    head: &Tensor,
    batch: &MicroBatch,
    chunk: i64,
) -> Result<Gradients> {
    let leaf = |t: &Tensor| t.detach().set_requires_grad(true);
    let (hidden, norm, head) = (leaf(hidden), leaf(norm), leaf(head));
    let normed = tch::with_grad(|| {
        rms_norm(&hidden.index_select(0, &batch.predicts), &norm, config.rms_norm_eps)
    });
    let rows = batch.targets.size()[0];
    let mut loss = Tensor::zeros([], (Kind::Float, hidden.device()));
    let mut head_gradient: Option<Tensor> = None;
    let mut normed_gradients = Vec::new();
    for start in (0..rows).step_by(chunk as usize) {
        let cut = |t: &Tensor| t.narrow(0, start, chunk.min(rows - start));
        let (part, targets, weights) =
            (leaf(&cut(&normed)), cut(&batch.targets), cut(&batch.weights));
        let nll = tch::with_grad(|| weighted_nll(&part, &head, &targets, &weights));
        let one = nll.ones_like();
        let mut gradients = vjp(&[&nll], &[&one], &[&part, &head])?;
        let of_head = gradients.pop().expect("two gradients");
        // Summed in fp32: in bf16 the chunks' sum would lose what the single products kept.
        head_gradient = Some(match head_gradient {
            Some(sum) => sum + of_head,
            None if rows > chunk => of_head.to_kind(Kind::Float),
            None => of_head,
        });
        normed_gradients.extend(gradients);
        loss += nll.detach();
    }
    let cotangent = Tensor::cat(&normed_gradients, 0);
    let mut gradients = vjp(&[&normed], &[&cotangent], &[&hidden, &norm])?;
    let (norm, hidden) = (gradients.pop().expect("two"), gradients.pop().expect("two"));
    let head = head_gradient.expect("a micro-batch has targets").to_kind(head.kind());
    Ok(Gradients { loss, hidden, norm, head })
}

/// Sum over rows of weight x -log p(target), the softmax in fp32.
///
/// `normed` `[N, H]`, `head` `[V, H]`, `targets` and `weights` `[N]`.
pub fn weighted_nll(normed: &Tensor, head: &Tensor, targets: &Tensor, weights: &Tensor) -> Tensor {
    let logits = normed.linear(head, None::<Tensor>).to_kind(Kind::Float); // [N, V]
    let log_p = logits.log_softmax(-1, Kind::Float).gather(1, &targets.unsqueeze(1), false);
    -(log_p.squeeze_dim(1) * weights).sum(Kind::Float)
}
