//! Sequence parallelism: each rank of a group has some of the tokens; for attention they exchange
//! them, so that each has all tokens of some heads (DeepSpeed Ulysses, arXiv 2309.14509).

use c10d::Group;
use model::qwen2::attend_segments;
use tch::Tensor;

/// Attention over a micro-batch whose tokens are cut evenly over `group`, for
/// [`model::qwen2::DecoderLayer::forward`]: queries `[t, heads, D]`, keys and values
/// `[t, kv heads, D]` of this rank's tokens. `cu_seqlens` covers the tokens of all ranks.
pub fn attend<'a>(
    group: &'a Group,
    cu_seqlens: &'a [i64],
) -> impl Fn(Tensor, Tensor, Tensor) -> Tensor + 'a {
    let within = attend_segments(cu_seqlens);
    move |query, key, value| {
        let ranks = group.world_size() as i64;
        if ranks == 1 {
            return within(query, key, value);
        }
        let (t, heads, d) = query.size3().expect("queries are [t, heads, D]");
        let kv = key.size()[1];
        // One exchange for all three: each rank's share of heads side by side.
        let shares = [(&query, heads / ranks), (&key, kv / ranks), (&value, kv / ranks)]
            .map(|(x, share)| x.view([t, ranks, share, d]));
        let sent = Tensor::cat(&shares, 2).transpose(0, 1).contiguous(); // [G, t, share, D]
        let sizes = [heads / ranks, kv / ranks, kv / ranks];
        let mine = exchange(group, &sent).reshape([ranks * t, -1, d]).split_with_sizes(sizes, 1);
        let [q, k, v]: [Tensor; 3] = mine.try_into().expect("three parts");
        let attended = within(q, k, v).reshape([ranks, t, heads / ranks, d]);
        let back = exchange(group, &attended.contiguous()); // [G of heads, t, heads / G, D]
        back.transpose(0, 1).reshape([t, heads, d])
    }
}

/// Attention has no way to hand an error up; a group that fails here is reported by its panic,
/// which the run turns into an error.
fn exchange(group: &Group, x: &Tensor) -> Tensor {
    group.exchange(x).unwrap_or_else(|error| panic!("{error:#}"))
}
