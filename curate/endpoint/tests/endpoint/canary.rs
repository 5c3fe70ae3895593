//! A key is in no byte of what the client prints or writes, whatever a server does with it.

use std::fs;
use std::io::Read as _;

use serde_json::json;

use crate::cache;
use crate::kills::client;
use crate::server::{Act, Server};

/// Not a word that anything else could hold.
const CANARY: &str = "sk-canary-7d1f0a94c3e2";

/// A server that says the key back in every place it can, after some good replies.
fn parrot(last: u16) -> Server {
    Server::start(move |call| {
        let header = call.head.lines().find(|line| line.starts_with("authorization"));
        let key = header.and_then(|line| line.rsplit(' ').next()).expect("a key").to_owned();
        assert_eq!(key, CANARY);
        let row: usize = call.question[4..].parse().expect("row-N");
        let words = format!("you sent {key}");
        let choice =
            json!({"message": {"content": words, "reasoning": key}, "finish_reason": "stop"});
        match (row, call.number) {
            (0..10, 1) => Act::Status(500, vec![("x-key", key)], words),
            (10..20, 1) => Act::json(json!({"error": {"message": words}})),
            (20..30, 1) => Act::json(json!({"choices": words})),
            (30..40, 1) => Act::Cut(words),
            (40..50, 1) => Act::Events(format!("data: {{\"error\": \"{words}\"}}\n\n")),
            (50..60, _) => Act::Status(400, vec![], format!("maximum context length, {words}")),
            (60..70, _) => Act::Events(format!(
                "data: {}\n\ndata: [DONE]\n\n",
                json!({"choices": [{"delta": {"content": words}, "finish_reason": "stop"}]})
            )),
            (99, _) => {
                Act::Status(last, vec![("location", key)], json!({"error": words}).to_string())
            }
            _ => Act::json(json!({"choices": [choice], "model": key, "id": key})),
        }
    })
}

#[test]
fn keys_are_nowhere() {
    for (last, says) in
        [(401, "check api_key"), (307, "redirects"), (400, "refuses"), (404, "model")]
    {
        let (folder, cache) = cache();
        let server = parrot(last);
        let mut child = client(&server, &cache, 100, Some(("S1_CANARY_KEY", CANARY)));
        let process = format!("/proc/{}", child.id());
        let mut seen = fs::read(format!("{process}/cmdline")).unwrap_or_default();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        child.stdout.take().expect("its output").read_to_end(&mut out).expect("read");
        child.stderr.take().expect("its errors").read_to_end(&mut err).expect("read");
        child.wait().expect("its end");
        let text = String::from_utf8_lossy(&err);
        assert!(text.contains(says), "{text}");
        assert!(String::from_utf8_lossy(&out).contains("you sent [key]"), "replies were printed");
        seen.extend([out, err].concat());
        let mut files = 0;
        for file in fs::read_dir(folder.path()).expect("a folder") {
            let path = file.expect("a file").path();
            seen.extend(path.to_string_lossy().as_bytes());
            seen.extend(fs::read(path).expect("read"));
            files += 1;
        }
        assert!(files >= 2 && seen.len() > 10_000, "{files} files, {} bytes", seen.len());
        let hits = seen.windows(CANARY.len()).filter(|bytes| *bytes == CANARY.as_bytes()).count();
        println!("{hits} times the key in {} bytes written and printed", seen.len());
        assert_eq!(hits, 0);
    }
}
