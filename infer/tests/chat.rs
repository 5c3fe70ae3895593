//! `infer chat` through pipes: answers on one side, all else on the other, and commands in between.

mod support;

use std::io::{BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use infer::chat::Conversation;
use infer::engine::Engine;
use infer::engine::local::Local;
use infer::serve::asked::House;
use model::chat::Chat;
use support::client::{config, local_engine};
use support::write_checkpoint;

/// A conversation with the tiny model.
fn conversation() -> (Conversation<Local>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    write_checkpoint(folder.path());
    let config = config(folder.path(), "");
    let chat = Chat::read(folder.path()).unwrap();
    let keys = &config.generation;
    let house = House::new(chat, keys, 250, &config.thinking, "tiny".into(), 1).unwrap();
    let engine: Engine<Local> = local_engine(&config);
    (Conversation::new(house, engine, None), folder)
}

/// What comes of these lines: answers, and all else.
fn say(conversation: &mut Conversation<Local>, lines: &str, is_terminal: bool) -> [String; 2] {
    let (mut out, mut beside) = (Vec::new(), Vec::new());
    conversation.converse(Cursor::new(lines), &mut out, &mut beside, is_terminal).unwrap();
    [out, beside].map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn answers_go_out_and_thoughts_beside() {
    let (mut talk, _folder) = conversation();
    let [out, beside] = say(&mut talk, "Hello\n", false);
    assert!(!out.trim().is_empty() && beside.is_empty(), "{out:?} {beside:?}");
    let [again, _] = say(&mut talk, "/reset\nHello\n", false);
    assert_eq!(again, out, "a conversation that begins anew");
    let [third, _] = say(&mut talk, "Hello\n", false);
    assert_ne!(third, out, "it goes on");
    let [forced, thoughts] = say(&mut talk, "/reset\n/budget 12\n/wait 1 Hmm\nHello\n", false);
    assert_ne!(forced, out);
    assert!(thoughts.contains("at most 12 tokens, 1 ends ignored, with \"Hmm\""), "{thoughts}");
    assert!(thoughts.lines().count() > 2, "the thinking is beside: {thoughts}");
    let [free, _] = say(&mut talk, "/reset\n/budget off\nHello", false);
    assert_eq!(free, out);
}

#[test]
fn a_terminal_sees_thinking_dimmed_and_no_other_escape() {
    let (mut talk, _folder) = conversation();
    let [out, _] = say(&mut talk, "/budget 9\nHello\n/quit\nnever\n", true);
    assert_eq!(out.matches("\x1b[2m").count(), 1, "{out:?}");
    assert!(out.contains("\x1b[0m\n\n"), "{out:?}");
    assert_eq!(out.matches("> ").count(), 3, "{out:?}");
}

#[test]
fn mistakes_are_explained() {
    let (mut talk, _folder) = conversation();
    for (line, part) in [
        ("/budget many", "how many tokens?"),
        ("/wait", "how many times?"),
        ("/dance", "there is no command /dance"),
        ("/help", "/system TEXT"),
        ("/system Be brief.", "begins anew"),
    ] {
        let [out, beside] = say(&mut talk, line, false);
        assert!(out.is_empty() && beside.contains(part), "{line}: {beside}");
    }
    let [out, beside] = say(&mut talk, &"long ".repeat(100), false);
    assert!(out.is_empty() && beside.contains("/reset begins anew"), "{beside}");
}

/// A model that ends its answers at once.
#[test]
fn an_empty_answer_is_told() {
    let (talk, folder) = conversation();
    drop(talk);
    let config = config(folder.path(), "");
    let chat = Chat::read(folder.path()).unwrap();
    // All of its tokens end an answer.
    let tokens = (' '..='~').map(String::from).chain(["\n".into(), "<|im_end|>".into()]);
    let mut keys = config.generation.clone();
    keys.until = tokens.collect();
    let house = House::new(chat, &keys, 250, &config.thinking, "tiny".into(), 1).unwrap();
    let mut talk = Conversation::new(house, local_engine(&config), None);
    let [out, beside] = say(&mut talk, "Hello\n", false);
    assert!(out.trim().is_empty() && beside.contains("there is no answer"), "{out:?} {beside}");
}

/// A limit above the context is taken back, with a word.
#[test]
fn there_is_room_for_an_answer() {
    let (mut talk, _folder) = conversation();
    let [out, beside] = say(&mut talk, "/budget 240\nHello\n", false);
    assert!(beside.contains("tokens of thinking: the context has no room for more"), "{beside}");
    assert!(!out.trim().is_empty(), "{beside}");
}

/// Input whose second line comes with a Ctrl-C.
struct Interrupted(Cursor<Vec<u8>>, Arc<AtomicBool>);

impl Read for Interrupted {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.1.store(true, Ordering::SeqCst);
        self.0.read(into)
    }
}

#[test]
fn an_interrupt_between_answers_stops_none() {
    let (mut talk, _folder) = conversation();
    let input = Interrupted(Cursor::new(b"Hello\n".to_vec()), Arc::clone(&talk.stop));
    let (mut out, mut beside) = (Vec::new(), Vec::new());
    talk.converse(BufReader::new(input), &mut out, &mut beside, false).unwrap();
    assert!(!out.is_empty() && beside.is_empty());
}

/// Output that stops the answer as soon as some of it is there.
struct Stopping(Vec<u8>, Arc<AtomicBool>);

impl std::io::Write for Stopping {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.1.store(true, Ordering::SeqCst);
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn an_interrupt_stops_the_answer_and_not_the_conversation() {
    let (mut talk, _folder) = conversation();
    let [whole, _] = say(&mut talk, "Hello\n/reset\n", false);
    let (mut out, mut beside) = (Stopping(Vec::new(), Arc::clone(&talk.stop)), Vec::new());
    talk.converse(Cursor::new("Hello\n"), &mut out, &mut beside, false).unwrap();
    let cut = String::from_utf8(out.0).unwrap();
    assert!(whole.starts_with(cut.trim_end()) && cut.len() < whole.len(), "{cut:?} {whole:?}");
    assert!(String::from_utf8(beside).unwrap().contains("(stopped)"));
    let [out, _] = say(&mut talk, "And now?\n", false);
    assert!(!out.trim().is_empty());
}
