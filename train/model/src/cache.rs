//! Keys and values of the tokens seen so far, so that nothing is computed twice.

use tch::{Device, Kind, Tensor};

use crate::Config;
use crate::qwen2::sdpa;

/// The KV cache of one sequence: per layer keys and values, `[1, kv heads, capacity, D]`. The
/// capacity doubles as needed, so that appending costs constant time a token on average.
#[derive(Debug)]
pub struct Cache {
    layers: Vec<(Tensor, Tensor)>,
    len: i64,
}

impl Cache {
    pub(crate) fn new(config: &Config, kind: Kind, device: Device) -> Self {
        let shape = [1, config.num_key_value_heads, 0, config.head_dim()];
        let empty = || Tensor::empty(shape, (kind, device));
        Self { layers: (0..config.num_hidden_layers).map(|_| (empty(), empty())).collect(), len: 0 }
    }

    /// Tokens in the sequence.
    pub fn len(&self) -> i64 {
        self.len
    }

    /// Whether nothing has been seen yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets all but the first `len` tokens.
    pub fn truncate(&mut self, len: i64) {
        self.len = self.len.min(len);
    }

    /// Makes room for `more` tokens.
    pub(crate) fn reserve(&mut self, more: i64) {
        let needed = self.len + more;
        for tensor in self.layers.iter_mut().flat_map(|(k, v)| [k, v]) {
            let mut size = tensor.size();
            if size[2] < needed {
                size[2] = needed.max(2 * size[2]).max(64);
                let grown = Tensor::zeros(&size, (tensor.kind(), tensor.device()));
                grown.narrow(2, 0, self.len).copy_(&tensor.narrow(2, 0, self.len));
                *tensor = grown;
            }
        }
    }

    /// Stores the new tokens' keys and values (`[T, kv heads, D]`) of layer `n` behind those of
    /// the `len` tokens before, and attends from `query` (`[T, heads, D]`) to all of them.
    pub(crate) fn attend(
        &mut self,
        n: usize,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
    ) -> Tensor {
        let heads_first = |t: &Tensor| t.transpose(0, 1).unsqueeze(0); // [1, heads, T, D]
        let new = query.size()[0];
        let all = self.len + new;
        let (keys, values) = &self.layers[n];
        keys.narrow(2, self.len, new).copy_(&heads_first(key));
        values.narrow(2, self.len, new).copy_(&heads_first(value));
        let (keys, values) = (keys.narrow(2, 0, all), values.narrow(2, 0, all));
        // SDPA's own causal mask counts from the first key, which is right only without a past.
        let mask = (new > 1 && self.len > 0)
            .then(|| Tensor::ones([new, all], (Kind::Bool, query.device())).tril(self.len));
        let attended =
            sdpa(&heads_first(query), &keys, &values, mask.as_ref(), new > 1 && self.len == 0);
        attended.squeeze_dim(0).transpose(0, 1)
    }

    /// Counts `new` tokens as seen, once every layer has stored them.
    pub(crate) fn advance(&mut self, new: i64) {
        self.len += new;
    }
}
