//! What the tests of the engine share: models that are functions, and a tiny real one.

#![allow(dead_code)] // each test binary uses its part

pub mod client;
pub mod run;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use infer::budget::Spec;
use infer::engine::blocks::Copy;
use infer::engine::{Completion, Engine, Generate, Model, Request, Sampling, Settings};
use model::{Config, Layout, Segment, Tokenizer};
use serde_json::{Value, json};
use tch::Tensor;

type Logits<'a> = Box<dyn FnMut(&[i64]) -> Vec<f32> + 'a>;

/// A model whose logits are a function of all ids before. It keeps the ids of every block of its
/// cache, so that a sequence whose blocks are mixed up gets other logits.
pub struct Function<'a> {
    logits: Logits<'a>,
    blocks: BTreeMap<usize, Vec<i64>>,
    block_len: usize,
}

impl Model for Function<'_> {
    fn pass(&mut self, segments: &[Segment], logits: &mut Vec<f32>) -> Result<()> {
        for segment in segments {
            for (n, &id) in segment.ids.iter().enumerate() {
                let at = segment.start + n;
                let block = self.blocks.entry(segment.blocks[at / self.block_len]).or_default();
                block.truncate(at % self.block_len);
                assert_eq!(block.len(), at % self.block_len, "a gap before position {at}");
                block.push(id);
            }
        }
        for segment in segments {
            let ids = segment.blocks.iter().flat_map(|block| &self.blocks[block]);
            let len = segment.start + segment.ids.len();
            let ids: Vec<i64> = ids.copied().take(len).collect();
            assert_eq!(ids.len(), len, "positions are missing");
            (len - segment.logits + 1..=len).for_each(|n| logits.extend((self.logits)(&ids[..n])));
        }
        Ok(())
    }

    fn copy(&mut self, copy: Copy) {
        let ids = self.blocks[&copy.from][..copy.positions].to_vec();
        self.blocks.insert(copy.to, ids);
    }
}

/// An engine over such a function, with `vocab` ids.
pub fn engine<'a>(
    logits: impl FnMut(&[i64]) -> Vec<f32> + 'a,
    vocab: usize,
    settings: Settings,
) -> Engine<Function<'a>> {
    engine_of(logits, tokenizer(vocab), settings)
}

/// The same with any tokenizer.
pub fn engine_of<'a>(
    logits: impl FnMut(&[i64]) -> Vec<f32> + 'a,
    tokenizer: Arc<Tokenizer>,
    settings: Settings,
) -> Engine<Function<'a>> {
    let block_len = settings.block_len;
    let model = Function { logits: Box::new(logits), blocks: BTreeMap::new(), block_len };
    Engine::new(model, tokenizer, settings)
}

/// One slot, and room for any test's sequence.
pub const ONE: Settings = Settings { slots: 1, blocks: 64, block_len: 256, prefill_chunk: 256 };

/// A greedy request.
pub fn request(spec: &Spec, prompt: &[i64]) -> Request {
    Request {
        name: "a request".into(),
        prompt: prompt.into(),
        spec: Arc::new(spec.clone()),
        sampling: Sampling::GREEDY,
        seed: 0,
        stop: vec![],
        logprobs: None,
        prompt_logprobs: None,
        logit_bias: vec![],
    }
}

/// All completions, in the requests' order.
pub fn answers(who: &mut impl Generate, requests: &[Request]) -> Vec<Completion> {
    let mut all: Vec<Option<Completion>> = requests.iter().map(|_| None).collect();
    who.generate(requests, &mut |n, completion| {
        assert!(all[n].replace(completion).is_none(), "request {n} is answered twice");
        Ok(())
    })
    .unwrap();
    all.into_iter().map(|one| one.expect("every request is answered")).collect()
}

/// A tokenizer whose ids from 0 are the letters from `a` on, each alone.
pub fn tokenizer(vocab: usize) -> Arc<Tokenizer> {
    let letter = |id: usize| char::from_u32(97 + id as u32).unwrap().to_string();
    tokenizer_of((0..vocab).map(letter))
}

/// A tokenizer whose ids from 0 have these texts; only the single characters come of texts.
pub fn tokenizer_of(texts: impl Iterator<Item = String>) -> Arc<Tokenizer> {
    let vocab: BTreeMap<String, usize> = texts.enumerate().map(|(id, text)| (text, id)).collect();
    Arc::new(Tokenizer::parse(tokenizer_json(&vocab, &[]).to_string().as_bytes()).unwrap())
}

/// A tokenizer of single characters with any ids.
pub fn tokenizer_with<const N: usize>(tokens: [(&str, usize); N]) -> Arc<Tokenizer> {
    let vocab = tokens.map(|(text, id)| (text.to_string(), id)).into();
    Arc::new(Tokenizer::parse(tokenizer_json(&vocab, &[]).to_string().as_bytes()).unwrap())
}

/// A `tokenizer.json` with one token for each character.
fn tokenizer_json(vocab: &BTreeMap<String, usize>, added: &[Value]) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
            "byte_fallback": false, "vocab": vocab, "merges": []},
    })
}

const CONTROL: [&str; 2] = ["<|im_start|>", "<|im_end|>"];

/// A checkpoint folder: one byte-like token for each character of ASCII, the control tokens behind
/// them, two layers of random weights, and ten rows of vocabulary that no token has.
pub fn write_checkpoint(folder: &Path) {
    write_checkpoint_of(folder, 2, 1);
}

/// The same with so many heads.
pub fn write_checkpoint_of(folder: &Path, heads: usize, kv_heads: usize) {
    fs::create_dir_all(folder).unwrap();
    let characters: Vec<char> = (' '..='~').chain(['\n']).collect();
    let vocab: BTreeMap<String, usize> =
        characters.iter().enumerate().map(|(id, c)| (c.to_string(), id)).collect();
    let added = |(n, name): (usize, &&str)| {
        json!({
            "id": characters.len() + n, "content": name, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        })
    };
    let added: Vec<Value> = CONTROL.iter().enumerate().map(added).collect();
    let tokenizer = tokenizer_json(&vocab, &added);
    let write = |name: &str, value: &Value| {
        fs::write(folder.join(name), value.to_string()).unwrap();
    };
    write("tokenizer.json", &tokenizer);
    let template = "{{'<|im_start|>user\\n' + messages[0].content + '<|im_end|>\\n'}}";
    write("tokenizer_config.json", &json!({"chat_template": template}));
    let config = json!({
        "model_type": "qwen2", "vocab_size": characters.len() + CONTROL.len() + 10,
        "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": heads, "num_key_value_heads": kv_heads, "max_position_embeddings": 256,
        "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "tie_word_embeddings": true,
        "hidden_act": "silu",
    });
    write("config.json", &config);
    let config = Config::parse(&config.to_string()).unwrap();
    // Not libtorch's own random numbers: tests on other threads draw from those too.
    let mut random = record::seed::rng(1, &["weights"]);
    let mut normal = || (0..12).map(|_| random.uniform()).sum::<f64>() as f32 - 6.0;
    let layout = Layout::new(&config);
    let mut draw = |shape: &[i64]| {
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| normal()).collect();
        Tensor::from_slice(&values).reshape(shape)
    };
    let tensors: Vec<(&str, Tensor)> =
        layout.params().map(|param| (param.name.as_str(), draw(&param.shape))).collect();
    Tensor::write_safetensors(&tensors, folder.join("model.safetensors")).unwrap();
}

/// Plain generation of a few ids.
pub fn simple_spec() -> Spec {
    Spec {
        thinking_start: vec![],
        thinking_end: vec![],
        thinking: None,
        until: vec![0],
        min_gen_toks: 0,
        max_gen_toks: 8,
        max_model_len: 100,
    }
}
