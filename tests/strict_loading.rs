//! Damaged and mismatched model folders: each is refused with file, tensor and cure in the text.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use model::Checkpoint;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::compare::golden;

/// Tensors of a file as stored: kind, shape, bytes.
type Raw = BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>;

const PLAIN: &str = "tiny-untied-gqa4";
const TIED: &str = "tiny-tied-gqa4";
const SHARDED: &str = "tiny-untied-gqa4-sharded";
const SINGLE_FILE: &str = "model.safetensors";
const SECOND_SHARD: &str = "model-00002-of-00002.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const UP: &str = "model.layers.1.mlp.up_proj.weight";
const DOWN: &str = "model.layers.0.mlp.down_proj.weight";

/// Copies a golden folder, damages the copy, and expects an error that says all of `says`.
#[track_caller]
fn check(what: &str, base: &str, damage: impl FnOnce(&Path), says: &[&str]) {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(golden(base)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
    }
    Checkpoint::open(copy.path()).expect("the undamaged copy opens");
    damage(copy.path());
    let Err(error) = Checkpoint::open(copy.path()) else {
        panic!("{what}: opened without an error");
    };
    let error = format!("{error:#}").replace(&copy.path().display().to_string(), "DIR");
    println!("{what}: {error}");
    for part in says {
        assert!(error.contains(part), "{what}: the error does not say `{part}`: {error}");
    }
}

/// Reads `file`, lets `change` edit its tensors, and writes it again.
fn rewrite(file: &Path, change: impl FnOnce(&mut Raw)) {
    let bytes = fs::read(file).unwrap();
    let stored = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |(name, t): (&str, TensorView)| {
        (name.to_string(), (t.dtype(), t.shape().to_vec(), t.data().to_vec()))
    };
    let mut tensors: Raw = stored.iter().map(raw).collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, bytes))| {
        (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap())
    });
    safetensors::serialize_to_file(views, None, file).unwrap();
}

fn cut(file: &Path, keep: impl FnOnce(usize) -> usize) {
    let bytes = fs::read(file).unwrap();
    fs::write(file, &bytes[..keep(bytes.len())]).unwrap();
}

fn replace(file: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.contains(from), "{from} is not in {}", file.display());
    fs::write(file, text.replace(from, to)).unwrap();
}

#[test]
fn wrong_tensors() {
    let edit = |change: fn(&mut Raw)| move |dir: &Path| rewrite(&dir.join(SINGLE_FILE), change);
    let missing = edit(|t| drop(t.remove(UP)));
    check("missing tensor", PLAIN, missing, &["DIR", UP, "download or export"]);

    let surplus = edit(|t| drop(t.insert("model.extra.weight".into(), t[UP].clone())));
    check("unexpected tensor", PLAIN, surplus, &[SINGLE_FILE, "model.extra.weight"]);

    let turned = edit(|t| t.get_mut(DOWN).unwrap().1.reverse());
    check("turned tensor", PLAIN, turned, &[SINGLE_FILE, DOWN, "[24, 32]", "[32, 24]"]);

    let integers = edit(|t| t.get_mut(DOWN).unwrap().0 = Dtype::I32);
    check("integers", PLAIN, integers, &[SINGLE_FILE, DOWN, "I32"]);

    let head = edit(|t| {
        let mut copy = t["model.embed_tokens.weight"].clone();
        copy.2[5] ^= 1;
        t.insert("lm_head.weight".into(), copy);
    });
    check("tied head that differs", TIED, head, &[SINGLE_FILE, "lm_head.weight", "tie"]);

    let untied = |dir: &Path| {
        replace(&dir.join("config.json"), "embeddings\": true", "embeddings\": false");
    };
    check("no head", TIED, untied, &["DIR", "lm_head.weight", "config.json demands"]);
}

#[test]
fn wrong_files() {
    let whole = ["DIR/model.safetensors", "not a whole safetensors file"];
    let cut_to = |keep: fn(usize) -> usize| move |dir: &Path| cut(&dir.join(SINGLE_FILE), keep);
    check("last byte lost", PLAIN, cut_to(|n| n - 1), &whole);
    check("half lost", PLAIN, cut_to(|n| n / 2), &whole);
    check("header cut", PLAIN, cut_to(|_| 100), &whole);
    check("length cut", PLAIN, cut_to(|_| 4), &whole);
    check("empty file", PLAIN, cut_to(|_| 0), &["DIR/model.safetensors"]);
    let garbage = |dir: &Path| fs::write(dir.join(SINGLE_FILE), [0xff; 4096]).unwrap();
    check("garbage", PLAIN, garbage, &whole);

    let no_weights = |dir: &Path| fs::remove_file(dir.join(SINGLE_FILE)).unwrap();
    check("no weights", PLAIN, no_weights, &["DIR", SINGLE_FILE, INDEX]);
    let pickled =
        |dir: &Path| fs::rename(dir.join(SINGLE_FILE), dir.join("pytorch_model.bin")).unwrap();
    check("pickled weights", PLAIN, pickled, &["DIR", "safetensors", ".bin"]);

    let no_config = |dir: &Path| fs::remove_file(dir.join("config.json")).unwrap();
    check("no config", PLAIN, no_config, &["DIR/config.json"]);
    let half_config = |dir: &Path| cut(&dir.join("config.json"), |n| n / 2);
    check("half a config", PLAIN, half_config, &["DIR/config.json", "line"]);
}

#[test]
fn wrong_shards() {
    let lost = |dir: &Path| fs::remove_file(dir.join(SECOND_SHARD)).unwrap();
    check("lost shard", SHARDED, lost, &["DIR", INDEX, SECOND_SHARD]);

    let short = |dir: &Path| cut(&dir.join(SECOND_SHARD), |n| n - 1);
    check("cut shard", SHARDED, short, &[SECOND_SHARD, "not a whole safetensors file"]);

    let moved = |dir: &Path| rewrite(&dir.join(SECOND_SHARD), |t| drop(t.remove(UP)));
    check("broken promise", SHARDED, moved, &[INDEX, UP, SECOND_SHARD]);

    let outside = |dir: &Path| {
        replace(&dir.join(INDEX), SECOND_SHARD, "../model-00002-of-00002.safetensors");
    };
    check("shard outside", SHARDED, outside, &[INDEX, "../model-00002", "plain file name"]);

    let twice = |dir: &Path| {
        let first = dir.join("model-00001-of-00002.safetensors");
        let bytes = fs::read(first).unwrap();
        let embed = SafeTensors::deserialize(&bytes).unwrap();
        let embed = embed.tensor("model.embed_tokens.weight").unwrap();
        let embed = (embed.dtype(), embed.shape().to_vec(), embed.data().to_vec());
        rewrite(&dir.join(SECOND_SHARD), |t| {
            t.insert("model.embed_tokens.weight".into(), embed);
        });
    };
    check("tensor twice", SHARDED, twice, &[SECOND_SHARD, "model.embed_tokens.weight", "also in"]);

    let no_json = |dir: &Path| fs::write(dir.join(INDEX), "{\"weight_map\": 3}").unwrap();
    check("broken index", SHARDED, no_json, &["DIR", INDEX, "line"]);
}
