//! The demo model's folder without weights: a shape, and a tokenizer in Hugging Face's format.
//!
//! The tokenizer is Qwen2's, byte-level BPE, with merges for the words of the demo's worlds alone:
//! such a word is one token, anything else falls to bytes, so every text has its tokens.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::words::WORLDS;

/// Words that open a text or a turn, or follow a sign.
const OPENING: [&str; 11] = [
    "user",
    "assistant",
    "system",
    "think",
    "answer",
    "Final",
    "Find",
    "Facts",
    "Same",
    "Also",
    "Again",
];

/// Words behind a space that no kind of things has.
const INNER: [&str; 10] =
    [" Answer", " Wait", " Find", " Walk", " yes", " no", " Problem", " Show", " every", " step"];

const SPECIAL: [&str; 4] = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_pad|>"];

/// How Qwen2 cuts a text into words before byte pairs are merged.
const WORD: &str = "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|\
    \x20?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

/// ChatML without a default system message.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{'<|im_start|>' + message['role'] + \
    '\\n' + message['content'] + '<|im_end|>' + '\\n'}}{% endfor %}{% if add_generation_prompt %}\
    {{ '<|im_start|>assistant\\n' }}{% endif %}";

/// The folder's files: name and content.
pub fn files() -> Vec<(&'static str, Value)> {
    vec![
        ("config.json", config()),
        ("generation_config.json", generation_config()),
        ("tokenizer.json", tokenizer()),
        ("tokenizer_config.json", tokenizer_config()),
    ]
}

fn config() -> Value {
    json!({
        "architectures": ["Qwen2ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": id("<|endoftext|>"),
        "eos_token_id": id("<|im_end|>"),
        "hidden_act": "silu",
        "hidden_size": 128,
        "initializer_range": 0.06,
        "intermediate_size": 384,
        "max_position_embeddings": 1024,
        "max_window_layers": 6,
        "model_type": "qwen2",
        "num_attention_heads": 4,
        "num_hidden_layers": 6,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000.0,
        "sliding_window": null,
        "tie_word_embeddings": true,
        "torch_dtype": "float32",
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": vocabulary().len() + SPECIAL.len(),
    })
}

fn generation_config() -> Value {
    json!({
        "bos_token_id": id("<|endoftext|>"),
        "do_sample": false,
        "eos_token_id": [id("<|im_end|>"), id("<|endoftext|>")],
        "pad_token_id": id("<|fim_pad|>"),
    })
}

fn tokenizer() -> Value {
    let ids = vocabulary().into_iter().enumerate().map(|(id, token)| (token, json!(id)));
    let ids: serde_json::Map<String, Value> = ids.collect();
    let merges: Vec<String> = merges().iter().map(|(a, b)| format!("{a} {b}")).collect();
    let added: Vec<Value> = SPECIAL.iter().map(|name| added_token(name)).collect();
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": { "type": "NFC" },
        "pre_tokenizer": {
            "type": "Sequence",
            "pretokenizers": [
                {
                    "type": "Split",
                    "pattern": { "Regex": WORD },
                    "behavior": "Isolated",
                    "invert": false,
                },
                byte_level(),
            ],
        },
        "post_processor": null,
        "decoder": byte_level(),
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": false,
            "vocab": ids,
            "merges": merges,
        },
    })
}

fn tokenizer_config() -> Value {
    let added: serde_json::Map<String, Value> = SPECIAL
        .iter()
        .map(|name| {
            let mut token = added_token(name);
            let id = token.as_object_mut().and_then(|token| token.remove("id"));
            (id.expect("an id").to_string(), token)
        })
        .collect();
    json!({
        "add_bos_token": false,
        "add_prefix_space": false,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<|im_start|>", "<|im_end|>"],
        "bos_token": null,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": "<|im_end|>",
        "model_max_length": 1024,
        "pad_token": "<|fim_pad|>",
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": null,
    })
}

/// Every token but the special ones, in the order of their ids: 256 bytes, then what the merges
/// make.
fn vocabulary() -> Vec<String> {
    let bytes = (0..=255).map(|byte| byte_char(byte).to_string());
    bytes.chain(merges().into_iter().map(|(left, right)| left + &right)).collect()
}

/// Every word, with the space before it where it has one.
fn words() -> Vec<String> {
    let mut words: Vec<String> =
        OPENING.iter().chain(&INNER).map(|word| word.to_string()).collect();
    for kind in &WORLDS {
        let question = kind.question.replace(['{', '}', ',', '.', ':', '?'], " ");
        let places = ["course", "start", "first", "second"];
        words.extend(
            question
                .split_whitespace()
                .filter(|word| !places.contains(word))
                .enumerate()
                .map(|(nth, word)| if nth == 0 { word.to_string() } else { format!(" {word}") }),
        );
        let named = kind.names.iter().chain(&kind.firsts).chain(&kind.seconds);
        words.extend(named.map(|word| format!(" {word}")));
    }
    words.push(" first".into());
    words.sort();
    words.dedup();
    words
}

/// Byte-pair encoding of the words: the most frequent pair of neighbours is merged (of equals, the
/// first by its text) until every word is one token.
fn merges() -> Vec<(String, String)> {
    let texts = words().into_iter();
    let spell = |text: String| text.bytes().map(|byte| byte_char(byte).to_string()).collect();
    let mut words: Vec<Vec<String>> = texts.map(spell).collect();
    let mut merges = Vec::new();
    loop {
        let mut counts: BTreeMap<(&String, &String), usize> = BTreeMap::new();
        for pair in words.iter().flat_map(|word| word.windows(2)) {
            *counts.entry((&pair[0], &pair[1])).or_default() += 1;
        }
        let best = counts.into_iter().max_by_key(|(pair, count)| (*count, Reverse(*pair)));
        let Some(((left, right), _)) = best else { return merges };
        let merge = (left.clone(), right.clone());
        words.iter_mut().for_each(|word| join(word, &merge));
        merges.push(merge);
    }
}

/// Joins every occurrence of the pair, from the left.
fn join(word: &mut Vec<String>, (left, right): &(String, String)) {
    let mut at = 0;
    while at + 1 < word.len() {
        if word[at] == *left && word[at + 1] == *right {
            let joined = word.remove(at) + &word[at];
            word[at] = joined;
        }
        at += 1;
    }
}

fn id(special: &str) -> usize {
    let nth = SPECIAL.iter().position(|name| *name == special);
    vocabulary().len() + nth.expect("a special token")
}

fn added_token(name: &str) -> Value {
    json!({
        "id": id(name),
        "content": name,
        "single_word": false,
        "lstrip": false,
        "rstrip": false,
        "normalized": false,
        "special": true,
    })
}

fn byte_level() -> Value {
    json!({
        "type": "ByteLevel",
        "add_prefix_space": false,
        "trim_offsets": false,
        "use_regex": false,
    })
}

/// The character that stands for a byte in a byte-level vocabulary (GPT-2's table): itself where
/// it is printable, else one from U+0100 on.
fn byte_char(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let before = (0..byte).filter(|byte| !printable(*byte)).count() as u32;
    char::from_u32(0x100 + before).expect("a character")
}
