//! The model against transformers: logits, RoPE tables, cached decoding, every stored format.

use std::fs;

use model::{Config, Decoder, Qwen2, Rope, Segment};
use serde_json::json;
use tch::{Device, IndexOp, Kind, Tensor};

use crate::compare::{Comparison, Tensors, golden, integers, largest, read_tensors};

/// fp32 itself is up to 2.1e-6 away from fp64 on these models.
const LOGITS_BOUND: f64 = 1e-5;

const TINY: [&str; 4] =
    ["tiny-tied-gqa1", "tiny-tied-gqa4", "tiny-untied-gqa1", "tiny-untied-gqa4"];

fn load(folder: &str) -> Qwen2 {
    Qwen2::load(&golden(folder), Device::Cpu, Kind::Float).unwrap()
}

fn expected(folder: &str) -> Tensors {
    read_tensors(&golden(folder).join("expected.safetensors"))
}

fn examples(expected: &Tensors) -> Vec<(Vec<i64>, &Tensor)> {
    let example = |i| (integers(&expected[&format!("ids.{i}")]), &expected[&format!("logits.{i}")]);
    (0..3).map(example).collect()
}

#[track_caller]
fn check_logits(folder: &str, expected_in: &str) {
    let model = load(folder);
    let expected = expected(expected_in);
    let mut comparison = Comparison::new(folder);
    for (i, (ids, logits)) in examples(&expected).iter().enumerate() {
        let ours = model.logits(ids, &[0, ids.len() as i64]);
        comparison.add(&format!("logits.{i}"), &ours, logits, LOGITS_BOUND);
    }
    comparison.finish();
}

#[test]
fn logits_equal_transformers() {
    for folder in TINY {
        check_logits(folder, folder);
    }
}

#[test]
fn every_stored_format_loads() {
    check_logits("tiny-untied-gqa4-sharded", "tiny-untied-gqa4");
    check_logits("tiny-untied-gqa4-bf16", "tiny-untied-gqa4-bf16");
    check_logits("tiny-untied-gqa4-fp16", "tiny-untied-gqa4-fp16");
}

#[test]
fn packed_examples_do_not_see_each_other() {
    for folder in TINY {
        let expected = expected(folder);
        let examples = examples(&expected);
        let (mut ids, mut cu_seqlens) = (Vec::new(), vec![0]);
        for (example, _) in &examples {
            ids.extend(example);
            cu_seqlens.push(ids.len() as i64);
        }
        let ours = load(folder).logits(&ids, &cu_seqlens);
        let mut comparison = Comparison::new(&format!("{folder}, packed"));
        for (i, (_, logits)) in examples.iter().enumerate() {
            let part = ours.i(cu_seqlens[i]..cu_seqlens[i + 1]);
            comparison.add(&format!("logits.{i}"), &part, logits, LOGITS_BOUND);
        }
        comparison.finish();
    }
}

/// Feeds `ids` in pieces of the given sizes to sequences of small blocks, and compares the logits
/// after each piece.
#[track_caller]
fn check_cached(folder: &str, pieces: &[usize]) {
    let model = Decoder::load(&golden(folder), Device::Cpu, Kind::Float).unwrap();
    let expected = expected(folder);
    let (ids, logits) = &examples(&expected)[2];
    assert_eq!(pieces.iter().sum::<usize>(), ids.len());
    let mut comparison = Comparison::new(&format!("{folder}, cached in {pieces:?}"));
    let mut cache = model.new_cache(8, 5);
    let blocks = [3, 0, 7, 2, 5]; // in no order
    let mut seen = 0;
    for piece in pieces {
        let new = &ids[seen..seen + piece];
        let segment = Segment { ids: new, start: seen, blocks: &blocks, logits: 1 };
        let ours = model.pass(&mut cache, &[segment]).unwrap();
        seen += piece;
        let theirs = logits.get(seen as i64 - 1).unsqueeze(0);
        comparison.add(&format!("after token {seen}"), &ours, &theirs, LOGITS_BOUND);
    }
    comparison.finish();
}

#[test]
fn cached_decoding_equals_the_full_forward() {
    for folder in TINY {
        check_cached(folder, &[24]);
        check_cached(folder, &[1; 24]);
        check_cached(folder, &[10, 1, 1, 7, 1, 4]);
    }
}

/// Sequences in one pass do not see each other, share a copied block, and their rows have the bits
/// that they have alone.
#[test]
fn sequences_decode_together_as_alone() {
    for folder in TINY {
        let model = Decoder::load(&golden(folder), Device::Cpu, Kind::Float).unwrap();
        let expected = expected(folder);
        let (ids, logits) = &examples(&expected)[2];
        let mut cache = model.new_cache(8, 16);
        let prompt = Segment { ids: &ids[..9], start: 0, blocks: &[1, 4], logits: 0 };
        let other = Segment { ids: &[7; 20], start: 0, blocks: &[0, 5], logits: 1 };
        let _ = model.pass(&mut cache, &[other, prompt]).unwrap();
        cache.copy(1, 2, 9);
        let wrong = Segment { ids: &[7; 5], start: 9, blocks: &[1, 4], logits: 0 };
        let right = Segment { ids: &ids[9..], start: 9, blocks: &[2, 3], logits: 1 };
        let more = Segment { ids: &[7], start: 20, blocks: &[0, 5], logits: 1 };
        let ours = model.pass(&mut cache, &[wrong, right, more]).unwrap(); // [2, V]
        let mut comparison = Comparison::new("after another sequence's turn");
        comparison.add("logits", &ours.narrow(0, 0, 1), &logits.narrow(0, 23, 1), LOGITS_BOUND);
        comparison.finish();
        let alone = Segment { ids, start: 0, blocks: &[6, 7], logits: 1 };
        let alone = model.pass(&mut cache, &[alone]).unwrap();
        assert_eq!(ours.narrow(0, 0, 1), alone, "{folder}: a row depends on what it came with");
    }
}

/// The tables of head dimension `dim` at positions up to 32,767.
///
/// An angle is a product of two rounded fp32 numbers, so it may be off by two units in the last
/// place of the position: this is the bound, and transformers' own tables need it too. Positions
/// kept in bf16 would be off by up to 64.
#[track_caller]
fn check_rope(dim: i64) {
    let golden = read_tensors(&golden("rope.safetensors"));
    let config = json!({
        "model_type": "qwen2", "vocab_size": 1, "intermediate_size": 1, "num_hidden_layers": 1,
        "hidden_size": 2 * dim, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 32768, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
    });
    let config = Config::parse(&config.to_string()).unwrap();
    let positions = &golden["positions"];
    let rope = Rope::new(&config, 32768, Device::Cpu);
    let ours = rope.at(positions, Kind::Float);
    let rounded = rope.at(positions, Kind::BFloat16);
    for (name, ours, rounded) in [("cos", ours.0, rounded.0), ("sin", ours.1, rounded.1)] {
        let (ours, rounded) = (ours.squeeze_dim(1), rounded.squeeze_dim(1));
        let theirs = &golden[&format!("{name}.{dim}")];
        let exact = &golden[&format!("exact_{name}.{dim}")];
        for (row, position) in integers(positions).into_iter().enumerate() {
            let row = row as i64;
            let off = largest(&(ours.get(row) - exact.get(row)));
            let their_off = largest(&(theirs.get(row) - exact.get(row)));
            let apart = largest(&(ours.get(row) - theirs.get(row)));
            let bound = (position + 1) as f64 * f64::from(f32::EPSILON);
            println!(
                "{name}, head dim {dim}, position {position}: {off:.1e} from exact (transformers \
                 {their_off:.1e}), {apart:.1e} from transformers; bound {bound:.1e}"
            );
            assert!(off <= bound, "{name}, head dim {dim}, position {position}: {off} > {bound}");
            let off = largest(&(rounded.get(row) - exact.get(row)));
            assert!(
                off <= bound + 1.0 / 256.0,
                "{name} in bf16, position {position}: off by {off}"
            );
        }
    }
}

#[test]
fn rope_holds_at_position_30_000() {
    for dim in [8, 64, 128] {
        check_rope(dim);
    }
}

/// Attention depends on distances alone, so a sequence moved far along scores as it did at the
/// start, to the precision that fp32 angles have there.
#[test]
fn rope_scores_depend_on_distance() {
    let config = Config::read(&golden("tiny-tied-gqa1")).unwrap();
    let rope = Rope::new(&config, 32768, Device::Cpu);
    let ramp = |step: f64| (Tensor::arange(8, (Kind::Float, Device::Cpu)) * step).view([1, 1, 8]);
    let (query, key) = (ramp(0.3).sin(), ramp(0.7).cos());
    let turned = |x: &Tensor, position: i64| {
        let rotation = rope.at(&Tensor::from_slice(&[position]), Kind::Float);
        c10d::fused::rope(&Tensor::cat(&[x, x, x], 1).view([1, 24]), &rotation, 1, 1).0
    };
    let score = |at, distance| {
        (turned(&query, at) * turned(&key, at - distance)).sum(Kind::Float).double_value(&[])
    };
    for distance in [0, 1, 17, 1000] {
        let (near, far) = (score(1000, distance), score(31_000, distance));
        assert!((near - far).abs() < 2e-3, "distance {distance}: {near} near, {far} far");
    }
}

#[test]
fn config_reads_both_layouts() {
    let new = Config::read(&golden("tiny-untied-gqa4")).unwrap();
    let old = Config::read(&golden("tiny-untied-gqa4-sharded")).unwrap();
    assert_eq!((new.rope_theta(), old.rope_theta()), (1e6, 1e6));
    assert_eq!((new.head_dim(), old.head_dim()), (8, 8));
    assert_eq!((new.num_parameters(), old.num_parameters()), (15_104, 15_104));
    let text = fs::read_to_string(golden("tiny-untied-gqa4/config.json")).unwrap();
    for (from, to, says) in [
        ("\"qwen2\"", "\"llama\"", "model_type is `llama`"),
        ("\"silu\"", "\"gelu\"", "hidden_act is `gelu`"),
        ("\"use_sliding_window\": false", "\"use_sliding_window\": true", "use_sliding_window"),
        ("\"default\"", "\"yarn\"", "scaled RoPE"),
        ("\"num_attention_heads\": 4", "\"num_attention_heads\": 5", "num_attention_heads 5"),
        ("\"hidden_size\"", "\"hidden_sizes\"", "missing field `hidden_size`"),
    ] {
        let error = Config::parse(&text.replace(from, to)).expect_err(to);
        assert!(format!("{error:#}").contains(says), "{to}: {error:#}");
    }
}
