//! Asking a model about many questions: prompts out, readings of its replies back, in order.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use endpoint::{Client, Reply, Request, batch};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;

use super::config::Model;
use super::prompt::{Prompt, Texts};

/// What is done with the requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// They are sent.
    Send,
    /// They are counted, and what they would cost is told.
    Estimate,
    /// Those that have no reply yet are written into this folder, for a vendor's batch API.
    Batches(PathBuf),
}

/// A model that is asked one kind of thing.
#[derive(Debug)]
pub struct Asker {
    name: &'static str,
    model: Model,
    prompt: Prompt,
    client: Client,
    mode: Mode,
}

/// What came of asking, for the summary. It tells no money: a second run costs nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// The section of the config.
    pub name: &'static str,
    /// The model's name.
    pub model: String,
    /// Questions asked about.
    pub questions: usize,
    /// Replies that could be read.
    pub answered: usize,
    /// Replies that could not, in all draws.
    pub unreadable: usize,
    /// Questions without a reply, by cause.
    pub failed: BTreeMap<&'static str, usize>,
}

impl Asker {
    /// Makes ready to ask; nothing is sent yet. Batch results that stand in the section's folder of
    /// `results` are taken into the cache.
    pub fn open(
        name: &'static str,
        model: &Model,
        cache: &Path,
        mode: &Mode,
        results: Option<&Path>,
    ) -> Result<Self> {
        let in_section = || format!("the section [{name}]");
        let prompt = Prompt::read(&model.prompt).with_context(in_section)?;
        let client = Client::open(model.endpoint.clone(), cache).with_context(in_section)?;
        let asker = Self { name, model: model.clone(), prompt, client, mode: mode.clone() };
        if let Some(folder) = results.map(|folder| folder.join(name)).filter(|f| f.is_dir()) {
            asker.take_results(&folder)?;
        }
        Ok(asker)
    }

    fn take_results(&self, folder: &Path) -> Result<()> {
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        for file in files {
            let imported = batch::read(&self.client, &file)?;
            eprintln!("curate: [{}] took in {}: {imported:?}", self.name, file.display());
        }
        Ok(())
    }

    /// In an estimate: a text as long as a reply is expected to be, to count what follows it with.
    pub fn stand_in(&self) -> Option<String> {
        // A token of English is about four bytes.
        (self.mode == Mode::Estimate).then(|| "word".repeat(self.model.expected_tokens as usize))
    }

    /// Asks about each question, by its hash and texts, and gives back what `read` makes of the
    /// replies, in the same order. A reply of which it makes nothing is drawn again, `draws` times
    /// in all. No reply, or none that could be read, is `None`.
    ///
    /// Unless the mode is to send, everything is `None`.
    pub fn ask<T>(
        &self,
        questions: &[(&str, Texts)],
        draws: u64,
        read: impl Fn(&Reply) -> Option<T>,
    ) -> Result<(Vec<Option<T>>, Asked)> {
        let all = || questions.iter().map(|(hash, texts)| self.request(hash, texts, 0));
        let mut readings: Vec<Option<T>> = questions.iter().map(|_| None).collect();
        let model = self.model.endpoint.model.clone();
        let mut asked =
            Asked { name: self.name, model, questions: questions.len(), ..Asked::default() };
        match &self.mode {
            Mode::Send => {}
            Mode::Estimate => {
                let estimate = self.client.estimate(all(), self.model.expected_tokens)?;
                eprintln!("curate: [{}] {estimate:?}", self.name);
                return Ok((readings, asked));
            }
            Mode::Batches(folder) => {
                let written = batch::write(&self.client, all(), &folder.join(self.name))?;
                eprintln!("curate: [{}] {written:?}", self.name);
                return Ok((readings, asked));
            }
        }
        let place: HashMap<String, usize> =
            questions.iter().enumerate().map(|(at, (hash, _))| (self.id(hash), at)).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        for draw in 0..draws {
            let requests = open.iter().map(|&at| (&questions[at].0, &questions[at].1));
            let requests = requests.map(|(hash, texts)| self.request(hash, texts, draw));
            let progress = Progress::new(self.name, open.len());
            let mut unread = Vec::new();
            let totals = self.client.run(requests, |request, reply| {
                let at = place[&request.id];
                match reply {
                    Ok(reply) => match read(&reply) {
                        Some(reading) => readings[at] = Some(reading),
                        None => unread.push(at),
                    },
                    Err(failure) => *asked.failed.entry(failure.cause.name()).or_default() += 1,
                }
                progress.step();
                Ok(())
            })?;
            progress.done(&format!(
                "{} from the cache, {} paid, cost {:.4}",
                totals.cached, totals.paid, totals.cost
            ));
            unread.sort();
            open = unread;
            if open.is_empty() {
                break;
            }
        }
        asked.answered = readings.iter().flatten().count();
        asked.unreadable = open.len();
        Ok((readings, asked))
    }

    /// The request for one question; a further draw differs by its seed.
    fn request(&self, hash: &str, texts: &Texts, draw: u64) -> Request {
        let model = &self.model;
        let messages = self.prompt.messages(texts);
        let mut request = Request::new(self.id(hash), messages, model.max_tokens);
        match model.temperature {
            Some(temperature) => request.temperature = temperature,
            None => request.extra.extend([("temperature".to_string(), Value::Null)]),
        }
        request.extra.extend(model.parameters.clone());
        request.seed = (draw > 0).then_some(draw);
        request
    }

    fn id(&self, hash: &str) -> String {
        format!("{}-{hash}", self.name)
    }
}

/// How far a long work is: a bar on a terminal, elsewhere a line at every tenth.
struct Progress {
    name: &'static str,
    bar: ProgressBar,
    total: u64,
}

impl Progress {
    fn new(name: &'static str, total: usize) -> Self {
        let style = "{prefix} {wide_bar} {pos}/{len}, {eta} left";
        let style = ProgressStyle::with_template(style).expect("the template is right");
        let bar = ProgressBar::new(total as u64).with_style(style).with_prefix(name);
        Self { name, bar, total: total as u64 }
    }

    fn step(&self) {
        self.bar.inc(1);
        let (at, total) = (self.bar.position(), self.total);
        if !std::io::stderr().is_terminal()
            && total >= 100
            && at * 10 / total > (at - 1) * 10 / total
        {
            eprintln!("curate: [{}] {at} of {total}", self.name);
        }
    }

    fn done(&self, what: &str) {
        self.bar.finish_and_clear();
        eprintln!("curate: [{}] {} done: {what}", self.name, self.total);
    }
}
