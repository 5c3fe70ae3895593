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

fn folder(tokenizer: &Value, template: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).unwrap();
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    folder
}

fn prompt(tokenizer: &Value, template: &str) -> anyhow::Result<Vec<i64>> {
    Chat::read(folder(tokenizer, template).path())?.prompt("q")
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

/// QwQ-32B's template (its tools left out) opens the thinking itself; Qwen3's only where thinking is
/// switched off, which nobody asks for here.
const QWQ: &str = r#"{%- if messages[0]['role'] == 'system' %}
    {{- '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>\n' }}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" and not message.tool_calls %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n<think>\n' }}
{%- endif %}
"#;

#[test]
fn what_the_template_opens_the_answer_with_is_in_the_prompt() {
    let think = |n: usize, text: &str| {
        json!({"id": n, "content": text, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": false})
    };
    let mut added = tokenizer(&[])["added_tokens"].as_array().unwrap().clone();
    added.extend([think(52, "<think>"), think(53, "</think>")]);
    let tokenizer = tokenizer(&[("added_tokens", added.into())]);
    let qwen3 = QWQ.replace(
        "assistant\\n<think>\\n' }}",
        "assistant\\n' }}{%- if enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}",
    );
    let qwen2 = QWQ.replace("<think>\\n", "");
    let raw = QWQ
        .replace("{{- '<|im_start|>assistant\\n<think>\\n' }}", "<|im_start|>assistant\n<think>\n");
    for (template, ids) in [
        (QWQ, &[50, 0, 7, 51, 50, 1, 52][..]),
        (&raw, &[50, 0, 7, 51, 50, 1, 52]),
        (&qwen2, &[50, 0, 7, 51, 50, 1]),
        (&qwen3, &[50, 0, 7, 51, 50, 1]),
    ] {
        let folder = folder(&tokenizer, template);
        let chat = Chat::read(folder.path()).unwrap();
        assert_eq!(chat.prompt("q").unwrap(), ids, "{template}");
        assert_eq!(chat.prompt_of(&[("user", "q")]).unwrap(), ids, "{template}");
        assert_eq!(chat.opens_thinking(), ids.ends_with(&[52]));
        // What is trained is s1's format, whatever the template opens.
        let trained = chat.example("q", "kind.", "You").unwrap();
        assert!(trained.ids.starts_with(&[50, 0, 7, 51, 50, 1, 50]), "{trained:?}");
    }
}

/// Texts can be continued with a tokenizer alone.
#[test]
fn a_folder_without_a_template_has_a_tokenizer() {
    for (template, part) in [("[INST]", "not ChatML"), ("", "whole Hugging Face model folder")] {
        let folder = folder(&tokenizer(&[]), template);
        if template.is_empty() {
            fs::remove_file(folder.path().join("chat_template.jinja")).unwrap();
        }
        let chat = Chat::read(folder.path()).unwrap();
        assert_eq!(chat.tokenizer.encode_text("q").unwrap(), [7]);
        let errors = [
            chat.check_template().unwrap_err(),
            chat.prompt("q").unwrap_err(),
            chat.prompt_of(&[("user", "q")]).unwrap_err(),
            chat.example("q", "", "").unwrap_err(),
        ];
        for error in errors {
            assert!(format!("{error:#}").contains(part), "{error:#}");
        }
    }
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
