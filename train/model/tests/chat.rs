//! Chat templates of several writers, and tokenizer files with state left in them.

use std::fs;

use model::chat::Chat;
use serde_json::{Value, json};

/// A word-level tokenizer with ChatML's control tokens; `extra` entries on top.
fn tokenizer(extra: &[(&str, Value)]) -> Value {
    let words = ["user", "assistant", "system", "You", "are", "kind.", "You're", "q", "?"];
    let vocab: serde_json::Map<String, Value> =
        words.iter().enumerate().map(|(id, word)| (word.to_string(), json!(id))).collect();
    let control = |id: usize, content: &str| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": true})
    };
    let mut json = json!({
        "version": "1.0",
        "added_tokens": [control(50, "<|im_start|>"), control(51, "<|im_end|>")],
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "model": {"type": "WordLevel", "unk_token": "?", "vocab": vocab},
    });
    for (key, value) in extra {
        json[*key] = value.clone();
    }
    json
}

fn prompt(tokenizer: &Value, template: &str) -> anyhow::Result<Vec<i64>> {
    let folder = tempfile::tempdir()?;
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string())?;
    fs::write(folder.path().join("chat_template.jinja"), template)?;
    Chat::read(folder.path())?.prompt("q")
}

#[test]
fn the_default_system_text_is_read_out_of_the_template() {
    let user = "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}";
    let none = [50, 0, 7, 51, 50, 1].as_slice();
    let kind = [50, 2, 3, 4, 5, 51, 50, 0, 7, 51, 50, 1].as_slice();
    let youre = [50, 2, 6, 5, 51, 50, 0, 7, 51, 50, 1].as_slice();
    let rows = [
        ("", none),
        // Qwen2.5: a caller's own system text first, the default after it.
        (
            "{{ '<|im_start|>system\\n' + m.content + '<|im_end|>\\n' }}\
             {{ '<|im_start|>system\\nYou are kind.<|im_end|>\\n' }}",
            kind,
        ),
        // With the new line itself, as some converters write it.
        ("{{ '<|im_start|>system\nYou are kind.<|im_end|>\n' }}", kind),
        ("{{ '<|im_start|>system\\nYou\\'re kind.<|im_end|>\\n' }}", youre),
    ];
    for (system, expected) in rows {
        let found = prompt(&tokenizer(&[]), &format!("{system}{user}")).unwrap();
        assert_eq!(found, expected, "{system}");
    }
    let error = prompt(&tokenizer(&[]), "[INST] {{ m.content }} [/INST]").unwrap_err();
    assert!(format!("{error:#}").contains("the chat template is not ChatML"), "{error:#}");
}

#[test]
fn truncation_and_padding_left_in_a_tokenizer_file_do_nothing() {
    let user = "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}";
    let truncation = json!({"direction": "Right", "max_length": 1, "strategy": "LongestFirst",
        "stride": 0});
    let padding = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 8, "pad_type_id": 0, "pad_token": "?"});
    let with_state = tokenizer(&[("truncation", truncation), ("padding", padding)]);
    let expected = prompt(&tokenizer(&[]), user).unwrap();
    assert_eq!(prompt(&with_state, user).unwrap(), expected);
    let error = prompt(&json!([]), user).unwrap_err();
    assert!(format!("{error:#}").contains("a JSON object is expected"), "{error:#}");
}

/// A template is text of a stranger. None is run, so none can loop, grow, read files or say
/// anything of its own: the prompt is ChatML's, or the folder is refused.
#[test]
fn a_hostile_template_does_nothing() {
    let chatml = "{{ '<|im_start|>user\\n' + m.content + '<|im_end|>\\n' }}";
    let plain = prompt(&tokenizer(&[]), chatml).unwrap();
    let nested = |n: usize| "{% for a in range(100000) %}".repeat(n);
    let ended = |n: usize| "{% endfor %}".repeat(n);
    let mut rows: Vec<String> = [
        "{% for i in range(10 ** 12) %}x{% endfor %}",
        "{{ 'x' * 10 ** 10 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set a = ['x'] %}{% for i in range(64) %}{% set a = a + a %}{% endfor %}{{ a }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ lipsum.__globals__['os'].system('id') }}",
        "{% include '/etc/passwd' %}",
        "{% import '/etc/passwd' as p %}{{ p }}",
        "{% extends '../../secret' %}",
        "{{ messages | map('upper') | list | tojson * 9999999 }}",
        "{{ range(999999999) | list }}",
        "{{ 'a' | center(999999999) }}",
        "{{ '%999999999d' | format(1) }}",
        "{{ raise_exception('x' * 999999999) }}",
        "{{ strftime_now('%Y' * 99999999) }}",
        "{% set ns = namespace(x=[]) %}{% for i in range(10**9) %}{% set ns.x = [ns.x] %}{% endfor %}",
        "{% filter upper %}{% filter lower %}{% filter upper %}",
        "{{",
        "{% if",
        "{# never closed",
        "{% raw %}",
        "\u{0} \u{1b}[2J \u{202e}",
    ]
    .map(String::from)
    .into();
    rows.push(nested(30) + &ended(30));
    rows.push("(".repeat(100_000) + &")".repeat(100_000));
    rows.push(format!("{{{{ {}1{} }}}}", "[".repeat(90_000), "]".repeat(90_000)));
    rows.push("'".repeat(900_000));
    rows.push("\\\\'".repeat(200_000));
    rows.push("<|im_start|>system\\n'".repeat(40_000));
    for row in rows {
        for template in [format!("{row}{chatml}"), format!("{chatml}{row}")] {
            let begun = std::time::Instant::now();
            let found = prompt(&tokenizer(&[]), &template);
            let (took, shown) = (begun.elapsed(), &row.chars().take(60).collect::<String>());
            assert_eq!(found.ok().as_deref(), Some(&plain[..]), "{shown}");
            assert!(took.as_millis() < 1000, "{took:?}: {shown}");
        }
    }
    let error = prompt(&tokenizer(&[]), &chatml.repeat(40_000)).unwrap_err();
    assert!(format!("{error:#}").contains("a chat template of more than"), "{error:#}");
}
