//! A hub on this machine: downloads, the cache, and what is said when it refuses or is away.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Output;

use super::{curate, fixtures, folder, succeeds};

const LISTING: &str = r#"{"sha": "c0ffee", "siblings": [{"rfilename": ".gitattributes"},
    {"rfilename": "default/train/0000.parquet"}, {"rfilename": "default/../../../x/train/0.parquet"},
    {"rfilename": "default/partial-test/0000.parquet"}]}"#;

/// Answers one connection's requests as the hub does; without a token it refuses.
fn serve(stream: TcpStream, body: &[u8]) -> std::io::Result<()> {
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
                line => lines.push(line.to_string()),
            }
        }
        let has = |line: &str| lines.iter().any(|known| known.eq_ignore_ascii_case(line));
        let path = lines[0].split(' ').nth(1).unwrap_or_default();
        let resolved = "/datasets/own/set/resolve/c0ffee/default/train/0000.parquet";
        let (head, part) = if !has("authorization: Bearer canary-token") {
            ("HTTP/1.1 401 Unauthorized".to_string(), &b""[..])
        } else if path == "/api/datasets/own/set/revision/refs%2Fconvert%2Fparquet" {
            ("HTTP/1.1 200 OK".to_string(), LISTING.as_bytes())
        } else if path == resolved {
            let first = has("range: bytes=0-0");
            let (status, part) = if first { ("206 Partial", &body[..1]) } else { ("200 OK", body) };
            let range = format!("bytes 0-{}/{}", part.len() - 1, body.len());
            let head = format!(
                "HTTP/1.1 {status}\r\nETag: \"abc\"\r\nX-Repo-Commit: c0ffee\r\n\
                 Content-Range: {range}"
            );
            (head, part)
        } else {
            ("HTTP/1.1 404 Not Found".to_string(), &b""[..])
        };
        (&stream)
            .write_all(format!("{head}\r\nContent-Length: {}\r\n\r\n", part.len()).as_bytes())?;
        (&stream).write_all(part)?;
    }
}

#[test]
fn downloads_once_and_then_needs_no_hub() {
    let source = |split: &str| {
        format!(
            "name = 'S'\n[[read]]\nfrom = {{ dataset = 'own/set', splits = ['{split}'] }}\n\
             question = '{{problem}}'\ncot_type = 'math'\nsource_type = 'own/set'\n"
        )
    };
    let folder = folder(&[("source.toml", &source("train"))]);
    let table = fixtures().join("simplescaling--openaimath/default/train/0000.parquet");
    let body = fs::read(table).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let hub = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let body = body.clone();
            std::thread::spawn(move || serve(stream, &body));
        }
    });
    let run = |env: &[(&str, &str)]| curate(folder.path(), &["collect.toml", "--overwrite"], env);
    let errors = |output: Output| String::from_utf8(output.stderr).unwrap();

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let nobody = format!("http://{nobody}");
    let alone = errors(run(&[("HF_ENDPOINT", &nobody)]));
    assert!(alone.contains("the hub does not answer") && alone.contains("check the network"));
    assert!(!alone.contains("HF_TOKEN"), "{alone}");
    let refused = errors(run(&[("HF_ENDPOINT", &hub)]));
    assert!(refused.contains("401") && refused.contains("needs HF_TOKEN"), "{refused}");
    assert!(refused.contains("the hub refuses"), "{refused}");
    let token = ("HF_TOKEN", "canary-token");
    let online = [("HF_ENDPOINT", hub.as_str()), token];
    succeeds(&run(&online));
    let first = fs::read(folder.path().join("out/pool.parquet")).unwrap();
    let manifest = fs::read_to_string(folder.path().join("out/manifest.json")).unwrap();
    assert!(manifest.contains("hf://datasets/own/set@c0ffee/default/train/0000.parquet"));
    assert!(!manifest.contains("canary"), "the token is written nowhere");

    succeeds(&run(&[("HF_HUB_OFFLINE", "1")]));
    assert_eq!(fs::read(folder.path().join("out/pool.parquet")).unwrap(), first);
    for (hub, what) in [(&nobody, "the hub does not answer"), (&hub, "the hub refuses")] {
        let output = run(&[("HF_ENDPOINT", hub)]);
        succeeds(&output);
        let said = errors(output);
        assert!(said.contains(what) && said.contains("has commit c0ffee"), "{said}");
    }
    fs::write(folder.path().join("source.toml"), source("train").replace("own/", "other/"))
        .unwrap();
    let unknown = errors(run(&online));
    assert!(unknown.contains("the hub has no such data set or revision"), "{unknown}");

    fs::write(folder.path().join("source.toml"), source("test")).unwrap();
    let missing = errors(run(&online));
    assert!(missing.contains("own/set has no default/test/0000.parquet"), "{missing}");
    fs::write(folder.path().join("source.toml"), source("../../../x/train")).unwrap();
    let outside = errors(run(&online));
    assert!(outside.contains("is no name on the hub"), "{outside}");
}
