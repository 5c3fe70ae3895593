//! How a server begins: addresses, models without a chat template, and configs that are refused.

mod support;

use std::time::Duration;

use infer::serve::{Config, Serving};
use model::chat::Chat;
use serde_json::json;
use support::client::{chat, config, local_engine, post, start};
use support::write_checkpoint;

/// R1-Distill-Qwen has Qwen2's weights and a template of its own: its texts can be continued.
#[test]
fn a_model_without_chatml_completes_texts() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    std::fs::write(folder.path().join("chat_template.jinja"), "[INST] {{ m }} [/INST]").unwrap();
    let serving = start(&config(folder.path(), ""));
    let text = json!({"prompt": "Once", "max_tokens": 5});
    assert_eq!(post(serving.address, "/v1/completions", &text).status, 200);
    let talk = post(serving.address, "/v1/chat/completions", &chat("x"));
    assert!(talk.status == 400 && talk.body.contains("not ChatML"), "{}", talk.body);
}

#[test]
fn mistakes_in_the_config_are_told_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let fails = |change: &dyn Fn(&mut Config)| {
        let mut config = config(folder.path(), "");
        change(&mut config);
        let own = config.clone();
        let chat = Chat::read(folder.path()).unwrap();
        let made = config
            .check()
            .and_then(|()| Serving::start(&config, chat, move || Ok(local_engine(&own))).map(drop));
        format!("{:#}", made.unwrap_err())
    };
    let long = fails(&|config| config.thinking.max_thinking_tokens = Some(99_999));
    assert!(long.contains("`max_thinking_tokens` is more than the context"), "{long}");
    let many = fails(&|config| config.model.threads = Some(999));
    assert!(many.contains("model.threads is 999, and this process may use"), "{many}");
    let template =
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}<|im_end|>";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let opened = fails(&|_| {});
    assert!(opened.contains("opens thinking itself"), "{opened}");
}

#[test]
fn a_server_may_be_named() {
    let read = |text: &str| toml::from_str::<infer::serve::Server>(text);
    let named = read("address = \"localhost:8000\"").unwrap().address;
    assert!(named.ip().is_loopback() && named.port() == 8000, "{named}");
    let error = read("address = \"localhost\"").unwrap_err().to_string();
    assert!(error.contains("no address and port such as 127.0.0.1:8000"), "{error}");
}

#[test]
fn other_machines_are_let_in_on_purpose_only() {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let mut config = config(folder.path(), "");
    config.server.address = "0.0.0.0:0".parse().unwrap();
    let chat = || Chat::read(folder.path()).unwrap();
    let own = config.clone();
    let error = Serving::start(&config, chat(), move || Ok(local_engine(&own))).unwrap_err();
    assert!(format!("{error:#}").contains("server.open_to_all"), "{error:#}");
    config.server.open_to_all = true;
    start(&config).stop(Duration::ZERO).unwrap();
}
