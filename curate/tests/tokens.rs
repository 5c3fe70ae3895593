//! Token counts against Hugging Face's own tokenizer, built from the same ranks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use curate::tokens::Tokens;
use record::seed::{Rng, rng};
use serde_json::{Value, json};

use crate::shared::{lines, shared, text};

/// Strings of random characters to compare; `just tokens` sets a million.
fn random_strings() -> u64 {
    let count = std::env::var("S1_TOKEN_STRINGS");
    count.map_or(1_000, |count| count.parse().expect("S1_TOKEN_STRINGS is a number"))
}

#[test]
fn a_wrong_file_is_an_error_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let check = |name: &str, content: Option<&str>, expected: &str| {
        let path = folder.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let error = format!("{:#}", Tokens::open(&path).err().expect("this is no tokenizer"));
        assert!(error.contains(name) && error.contains(expected), "{error}");
    };
    check("none.json", None, "name the tokenizer.json of a Qwen2.5 model");
    check("text.json", Some("no"), "not JSON");
    check("list.json", Some("[]"), "a JSON object is expected");
    check("empty.json", Some("{}"), "not a usable tokenizer");
    check("short.tiktoken", Some("IQ== 0\nIg== 1\n"), "2 ranks where Qwen2.5 has 151643");
    check("model.bin", Some(""), "ends in .json or .tiktoken");
}

/// Ids that other people's tokenizers gave, and lengths that came with traces.
#[test]
fn ids_are_the_recorded_ones() {
    let Some((tokens, folder)) = tokens() else { return };
    let cases = lines(&folder.join("tokenizer/token_cases.jsonl"));
    for case in &cases {
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokens.ids(text(&case["text"])).unwrap(), expected, "{}", case["id"]);
    }
    let mut traces = 0;
    for file in ["skyt1_32b_long_cot", "r1_family_small"] {
        for trace in lines(&folder.join("traces").join(file).with_extension("jsonl")) {
            let counts = [&trace["thinking"], &trace["answer"]].map(|t| tokens.count(text(t)));
            let counts = counts.map(|count| count.unwrap());
            let recorded = [&trace["thinking_tokens"], &trace["answer_tokens"]];
            assert_eq!(counts, recorded.map(|count| count.as_i64().unwrap()), "{}", trace["id"]);
            traces += 1;
        }
    }
    eprintln!("{} texts with recorded ids, {traces} traces with recorded lengths", cases.len());
}

/// The control tokens of a conversation mean themselves, as in `tokenizer.encode`.
#[test]
fn control_tokens_count_as_one() {
    let Some((tokens, _)) = tokens() else { return };
    assert_eq!(tokens.count("").unwrap(), 0);
    assert_eq!(tokens.ids("<|im_start|>think").unwrap(), [151_644, 26_865]);
    assert_eq!(tokens.count("<|im_end|><tool_call>\n<|file_sep|>").unwrap(), 4);
}

#[test]
fn ids_equal_those_of_tokenizers() {
    let Some((tokens, folder)) = tokens() else { return };
    let json = tokenizer_json(&folder.join("tokenizer/qwen.tiktoken")).to_string();
    let truth = tokenizers::Tokenizer::from_str(&json).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokenizer.json");
    std::fs::write(&path, &json).unwrap();
    let from_json = Tokens::open(&path).unwrap();
    let mut compared = 0;
    let mut check = |text: &str| {
        let expected = truth.encode_fast(text, false).unwrap();
        assert_eq!(tokens.ids(text).unwrap(), expected.get_ids(), "{text:?}");
        assert_eq!(from_json.ids(text).unwrap(), expected.get_ids(), "{text:?}");
        compared += expected.get_ids().len();
    };
    let strings = random_strings();
    let mut random = rng(0, &["token strings"]);
    for _ in 0..strings {
        check(&random_string(&mut random));
    }
    // All of the real texts when the run is the long one.
    let every = if strings > 100_000 { 1 } else { 150 };
    let mut real = 0;
    for line in texts(&folder).into_iter().step_by(every) {
        check(&line);
        real += 1;
    }
    eprintln!("{strings} random strings and {real} real texts: {compared} ids, all equal");
}

/// Every question, solution and trace of the folder.
fn texts(folder: &Path) -> Vec<String> {
    let mut files: Vec<PathBuf> = ["pool", "traces", "eval", "generations"]
        .iter()
        .flat_map(|name| std::fs::read_dir(folder.join(name)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    files.sort();
    let columns = ["question", "solution", "thinking", "answer", "output"];
    let of_line = |line: &Value| {
        let text = |column: &&str| line[*column].as_str().map(str::to_string);
        columns.iter().filter_map(text).collect::<Vec<_>>()
    };
    files.iter().flat_map(|file| lines(file)).flat_map(|line| of_line(&line)).collect()
}

/// A string of up to 15 pieces: characters of many scripts and classes, white space, combining
/// marks, contractions, control tokens and fragments of them.
fn random_string(random: &mut Rng) -> String {
    const PIECES: [&str; 30] = [
        " ",
        "  ",
        "\n",
        "\n\n",
        "\r\n",
        "\t",
        "\u{a0}",
        "\u{3000}",
        "'s",
        "'LL",
        "'ſ",
        "'",
        "the",
        " and",
        "12",
        "٣",
        "½",
        "\\frac{1}{2}",
        "$$",
        "<|im_start|>",
        "<|im_",
        "|>",
        "<tool_call>",
        "e\u{301}",
        "\u{1100}\u{1161}\u{11a8}",
        "\u{212b}",
        "ﬁ",
        "👩\u{200d}🔬",
        "漢字",
        "\u{85}",
    ];
    const RANGES: [(u32, u32); 8] = [
        (0x20, 0x7f),
        (0x00, 0x250),
        (0x300, 0x370),
        (0x370, 0x2000),
        (0x2000, 0x3100),
        (0x3100, 0xd7ff),
        (0xe000, 0x1_0000),
        (0x1_0000, 0x11_0000),
    ];
    let pieces = random.below(16);
    let mut string = String::new();
    for _ in 0..pieces {
        if random.below(2) == 0 {
            string.push_str(PIECES[random.below(PIECES.len() as u64) as usize]);
        } else {
            // The first range, ASCII, as often as all others.
            let range = random.below(14).saturating_sub(7) as usize;
            let (from, to) = RANGES[range];
            let code = from + random.below(u64::from(to - from)) as u32;
            string.extend(char::from_u32(code));
        }
    }
    string
}

fn tokens() -> Option<(Tokens, PathBuf)> {
    let folder = shared()?;
    Some((Tokens::open(&folder.join("tokenizer/qwen.tiktoken")).unwrap(), folder))
}

/// The `tokenizer.json` of Qwen2.5, made from its ranks: the merge that makes a token is the last
/// one that the tokens before it leave to do.
fn tokenizer_json(ranks: &Path) -> Value {
    let content = std::fs::read_to_string(ranks).unwrap();
    let ranks = fastokens::tiktoken::parse_tiktoken_model(&content).unwrap();
    let rank_of: HashMap<&[u8], u32> =
        ranks.iter().map(|(bytes, rank)| (bytes.as_slice(), *rank)).collect();
    let written = |bytes: &[u8]| bytes.iter().map(|&byte| byte_letter(byte)).collect::<String>();
    let mut by_rank: Vec<_> = ranks.iter().collect();
    by_rank.sort_by_key(|(_, rank)| *rank);
    let merge = |&(bytes, rank): &&(Vec<u8>, u32)| {
        (bytes.len() > 1).then(|| {
            let (left, right) = last_merge(bytes, *rank, &rank_of);
            json!([written(left), written(right)])
        })
    };
    let merges: Vec<Value> = by_rank.iter().filter_map(merge).collect();
    let vocab: serde_json::Map<String, Value> =
        by_rank.iter().map(|(bytes, rank)| (written(bytes), json!(rank))).collect();
    let special: Value = serde_json::from_str(
        &std::fs::read_to_string(
            Path::new(&shared().unwrap()).join("tokenizer/special_tokens.json"),
        )
        .unwrap(),
    )
    .unwrap();
    let added = special["qwen25_added_tokens"].as_array().unwrap().iter().map(|token| {
        json!({"id": token["id"], "content": token["content"], "special": token["special"],
               "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    });
    let byte_level = |prefix: bool| {
        json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": false,
               "use_regex": false})
    };
    json!({
        "version": "1.0", "truncation": null, "padding": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": special["pattern"]}, "behavior": "Isolated",
             "invert": false},
            byte_level(false),
        ]},
        "post_processor": byte_level(false),
        "decoder": byte_level(false),
        "model": {"type": "BPE", "dropout": null, "unk_token": null,
                  "continuing_subword_prefix": "", "end_of_word_suffix": "",
                  "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                  "vocab": vocab, "merges": merges},
    })
}

/// The two parts that are left of `bytes` when every merge below `rank` is done.
fn last_merge<'a>(
    bytes: &'a [u8],
    rank: u32,
    rank_of: &HashMap<&[u8], u32>,
) -> (&'a [u8], &'a [u8]) {
    let mut cuts: Vec<usize> = (0..=bytes.len()).collect();
    loop {
        let pair = |i: &usize| rank_of.get(&bytes[cuts[*i]..cuts[*i + 2]]).copied();
        let pairs = (0..cuts.len() - 2).filter_map(|i| Some((pair(&i)?, i)));
        match pairs.filter(|(of, _)| *of < rank).min() {
            Some((_, i)) => cuts.remove(i + 1),
            None => break,
        };
    }
    assert_eq!(cuts.len(), 3, "rank {rank} is one merge of two earlier ones");
    (&bytes[..cuts[1]], &bytes[cuts[1]..])
}

/// The letter that stands for a byte in a `tokenizer.json`.
pub fn byte_letter(byte: u8) -> char {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    if printable(byte) {
        return char::from(byte);
    }
    let nth = (0..byte).filter(|&byte| !printable(byte)).count();
    char::from_u32(0x100 + nth as u32).unwrap()
}
