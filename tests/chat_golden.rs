//! Examples as text, tokens and train mask against transformers' chat template and TRL's collator.

use std::fs;

use model::chat::Chat;
use record::example;
use record::row::Row;
use serde::Deserialize;

use crate::compare::golden;
use crate::real_model::model_folder;

/// A line of `tests/golden/chat.jsonl`.
#[derive(Deserialize)]
struct Conversation {
    name: String,
    question: String,
    thinking_trajectories: Vec<String>,
    attempt: String,
    text: String,
    /// In Qwen2.5's vocabulary.
    ids: Vec<i64>,
    /// 1 where the loss counts.
    train: Vec<u8>,
}

impl Conversation {
    fn row(&self) -> Row {
        Row {
            question: self.question.clone(),
            thinking_trajectories: self.thinking_trajectories.clone(),
            attempt: Some(self.attempt.clone()),
            ..Row::default()
        }
    }
}

fn conversations() -> Vec<Conversation> {
    let file = fs::read_to_string(golden("chat.jsonl")).unwrap();
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn text_equals_the_chat_template() {
    for conversation in conversations() {
        let text = example::text(&conversation.row()).unwrap();
        assert_eq!(text, conversation.text, "`{}`", conversation.name);
    }
}

#[test]
fn real_model_ids_and_mask_equal_transformers_and_trl() {
    let Some(folder) = model_folder() else { return };
    let chat = Chat::read(&folder).unwrap();
    let conversations = conversations();
    for conversation in &conversations {
        let Conversation { name, question, ids, text, .. } = conversation;
        let (thinking, answer) = example::parts(&conversation.row()).unwrap();
        let ours = chat.example(question, &thinking, &answer).unwrap();
        assert_eq!(ours.ids, *ids, "ids of `{name}`");
        let train = (0..ids.len()).map(|i| u8::from(i >= ours.trained_from));
        assert_eq!(train.collect::<Vec<u8>>(), conversation.train, "train mask of `{name}`");
        // NFC is the one change that decoding cannot undo.
        if name != "decomposed accents" {
            assert_eq!(chat.tokenizer.decode(ids).unwrap(), *text, "decoded ids of `{name}`");
        }
    }
    let tokens: usize = conversations.iter().map(|conversation| conversation.ids.len()).sum();
    println!("{} conversations, {tokens} ids and labels: all equal", conversations.len());
}
