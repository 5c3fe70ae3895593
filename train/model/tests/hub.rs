//! A model from the hub: a download through a local stand-in, the cache without a network, and
//! names that are refused.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use model::hub::{model_folder, tokenizer_folder};

/// What the stand-in serves besides the listing.
fn files() -> BTreeMap<&'static str, &'static str> {
    [
        ("/tiny/qwen/resolve/main/config.json", "{\"model_type\": \"qwen2\"}"),
        ("/tiny/qwen/resolve/main/model.safetensors", "weights"),
        ("/tiny/qwen/resolve/main/tokenizer.json", "{\"version\": \"1.0\"}"),
    ]
    .into()
}

const LISTING: &str = r#"{"sha": "0123abcd", "siblings": [{"rfilename": "config.json"},
    {"rfilename": "../outside.json"}, {"rfilename": "README.md"}, {"rfilename": "tokenizer.json"},
    {"rfilename": "model.safetensors"}]}"#;

/// Answers one connection's requests as the hub does: ranges, commit and etag in the headers.
fn serve(stream: TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    loop {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_ascii_lowercase()),
            }
        }
        let path = lines[0].split(' ').nth(1).unwrap_or_default();
        let answer = match (path, files().get(path)) {
            ("/api/models/tiny/qwen/revision/main", _) => {
                format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{LISTING}", LISTING.len())
            }
            (_, Some(body)) => {
                let first = lines.iter().any(|line| line == "range: bytes=0-0");
                let (status, part) =
                    if first { ("206 Partial", &body[..1]) } else { ("200 OK", *body) };
                format!(
                    "HTTP/1.1 {status}\r\nETag: \"{}\"\r\nX-Repo-Commit: 0123abcd\r\n\
                     Content-Range: bytes 0-{}/{}\r\nContent-Length: {}\r\n\r\n{part}",
                    body.len(),
                    part.len() - 1,
                    body.len(),
                    part.len()
                )
            }
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_string(),
        };
        (&stream).write_all(answer.as_bytes())?;
    }
}

/// `model_folder(name)` in a process of its own, whose hub is at `port` and whose cache is `home`.
fn ask(name: &str, home: &Path, port: u16) -> String {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env("HUB_TEST_NAME", name)
        .env("HF_HOME", home)
        .env("HF_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .stderr(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 passed"), "{text}");
    text
}

/// Not a test of its own: the body of the processes that `ask` starts.
#[test]
fn child() {
    if let Ok(name) = std::env::var("HUB_TEST_NAME") {
        let found = match name.strip_suffix(" without weights") {
            Some(name) => tokenizer_folder(name),
            None => model_folder(&name),
        };
        match found {
            Ok(folder) => println!("folder={}", folder.display()),
            Err(error) => println!("error={error:#}"),
        }
    }
}

#[test]
fn a_model_is_downloaded_once_and_then_found_without_the_hub() {
    let home = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || serve(stream));
        }
    });
    let folder = |text: &str| {
        let line = text.lines().find_map(|line| line.split_once("folder="));
        line.map(|(_, path)| path.to_string()).unwrap_or_else(|| panic!("{text}"))
    };
    let bare = folder(&ask("tiny/qwen without weights", home.path(), port));
    assert!(Path::new(&bare).join("tokenizer.json").exists());
    assert!(!Path::new(&bare).join("model.safetensors").exists());
    let first = folder(&ask("tiny/qwen", home.path(), port));
    assert_eq!(first, bare);
    for (path, body) in files() {
        let name = path.rsplit('/').next().unwrap();
        assert_eq!(std::fs::read_to_string(Path::new(&first).join(name)).unwrap(), body);
    }
    assert!(!Path::new(&first).join("README.md").exists());
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert_eq!(folder(&ask("tiny/qwen", home.path(), nobody)), first);
    let text = ask("tiny/other", home.path(), nobody);
    assert!(text.contains("downloading tiny/other@main from the Hugging Face hub"), "{text}");
}

#[test]
fn what_is_neither_a_folder_nor_a_repository_is_refused() {
    let revisions =
        ["a/b@../x", "a/b@x/../../y", "a/b@/x", "a/b@", "a/b@x?y", "a/b@x y", "a/b@x@y"];
    let names = ["none", "a/b/c", "../x", "a/..", "a b/c", "/etc/none", "a/"];
    for name in names.into_iter().chain(revisions) {
        let text = format!("{:#}", model_folder(name).unwrap_err());
        assert!(text.contains("is neither a folder here nor a hub repository"), "{name}: {text}");
    }
}
