//! Texts that try to act, and a headless browser that sees whether one does.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Marks the root element.
const ACT: &str = "document.documentElement.setAttribute('script'+'ran',1)";

/// The plainest of all scripts.
pub fn script() -> String {
    format!("<script>{ACT}</script>")
}

/// 300 texts: 192 that break out of a place in a page and run a script, 108 that steer a terminal.
pub fn hostile() -> Vec<String> {
    let breaks = ["", "\"", "'", ">", "\">", "'>", "-->", "]]>", "</title>", "</style>", "</pre>"];
    let breaks = breaks.into_iter().chain(["</svg>", "</text>", "</summary>", "\u{0}<", "<!--"]);
    let acts = [
        script(),
        format!("<img src=x onerror=\"{ACT}\">"),
        format!("<svg/onload={ACT}>"),
        format!("<body onload={ACT}>"),
        format!("<details open ontoggle={ACT}>"),
        format!("<style onload={ACT}></style>"),
        format!("<math><mtext><script>{ACT}</script>"),
        format!("<iframe srcdoc=\"<script>parent.{ACT}</script>\">"),
        format!(" onmouseover={ACT} autofocus onfocus={ACT} tabindex=1 "),
        format!("<a href=javascript:{ACT}>"),
        format!("&lt;script&gt;{ACT}&lt;/script&gt;"),
        format!("＜script＞{ACT}＜/script＞"),
    ];
    let web = breaks.flat_map(|end| acts.iter().map(move |act| format!("{end}{act}")));
    let steers = [
        "\u{1b}[31m",
        "\u{1b}[2J",
        "\u{1b}[H",
        "\u{1b}[6n",
        "\u{1b}[?1049h",
        "\u{1b}[201~",
        "\u{1b}]0;owned\u{7}",
        "\u{1b}]52;c;b3duZWQ=\u{7}",
        "\u{1b}]8;;file:///\u{1b}\\here",
        "\u{1b}]1337;File=:AA==\u{7}",
        "\u{1b}P+q544e\u{1b}\\",
        "\u{1b}_G\u{1b}\\",
        "\u{1b}c",
        "\u{9b}31m",
        "\u{9d}0;owned\u{9c}",
        "\u{90}q\u{9c}",
        "\u{85}",
        "\u{7}\u{7}",
        "\u{8}\u{8}",
        "\r\u{1b}[K",
        "\u{b}\u{c}",
        "\u{7f}",
        "\u{202e}",
        "\u{2066}",
        "\u{200b}",
        "\u{feff}",
        "\u{e0041}",
    ];
    let around = |steer: &str| {
        [
            format!("{steer}text"),
            format!("te{steer}xt"),
            format!("text{steer}\n{steer}"),
            format!("\\boxed{{{steer}}}"),
        ]
    };
    web.chain(steers.into_iter().flat_map(around)).collect()
}

/// A headless browser that works on this machine.
pub struct Browser {
    program: PathBuf,
    folder: tempfile::TempDir,
}

impl Browser {
    /// `None` with a message where there is none.
    pub fn find() -> Option<Self> {
        let names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome"];
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&folders)
            .flat_map(|folder| names.map(|name| folder.join(name)))
            .find(|program| program.is_file());
        let Some(program) = found else {
            eprintln!("skipped: no {} in PATH", names.join(", "));
            return None;
        };
        let browser = Browser { program, folder: tempfile::tempdir().unwrap() };
        let bare = format!("<html><body>{}</body></html>", script());
        let Some(seen) = browser.dom(&bare) else {
            eprintln!("skipped: {} does not work here", browser.program.display());
            return None;
        };
        assert!(seen.contains("scriptran"), "this browser runs scripts");
        Some(browser)
    }

    /// Whether a script of the page ran, all scripts being hostile ones.
    pub fn runs_script(&self, page: &str) -> bool {
        self.dom(page).expect("the browser still works").contains("scriptran")
    }

    /// The page as the browser understood it; `None` when it did not.
    fn dom(&self, page: &str) -> Option<String> {
        let file: &Path = &self.folder.path().join("page.html");
        std::fs::write(file, page).unwrap();
        let out = Command::new(&self.program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
            .args(["--timeout=20000", "--dump-dom"])
            .arg(format!("--user-data-dir={}", self.folder.path().join("profile").display()))
            .arg(format!("file://{}", file.display()))
            .output()
            .ok()?;
        let dom = String::from_utf8_lossy(&out.stdout).into_owned();
        dom.contains("</html>").then_some(dom)
    }
}
