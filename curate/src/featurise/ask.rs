//! Asking a model about many questions: prompts out, readings of its replies back, in order.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use endpoint::{Cause, Client, Estimate, Reply, Request, Totals, batch};
use serde_json::Value;

use super::config::Model;
use super::prompt::{Prompt, Texts};
use crate::progress;

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
    /// Where nothing was sent: what would have been, in a line.
    pub preview: String,
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
        let only_looks = *mode == Mode::Estimate && results.is_none();
        let open = if only_looks { Client::peek } else { Client::open };
        let client = open(model.endpoint.clone(), cache).with_context(in_section)?;
        if let (Mode::Send, Err(error)) = (mode, client.check_key()) {
            let unless = "the run stops there unless the cache has all replies";
            progress::line(&format!("[{name}] {error:#}; {unless}"));
        }
        let asker = Self { name, model: model.clone(), prompt, client, mode: mode.clone() };
        if let Some(folder) = results.map(|folder| folder.join(name)).filter(|f| f.is_dir()) {
            asker.take_results(&folder)?;
        }
        Ok(asker)
    }

    /// Results of which none is of use are an error: else everything would be paid again.
    fn take_results(&self, folder: &Path) -> Result<()> {
        let (mut all, mut useful) = (0, 0);
        let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
        let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.retain(|file| file.extension().is_some_and(|extension| extension == "jsonl"));
        files.sort();
        for file in files {
            let imported = batch::read(&self.client, &file)?;
            let batch::Imported { lines, stored, known, strangers, .. } = imported;
            (all, useful) = (all + lines, useful + stored + known);
            progress::line(&format!(
                "[{}] {}: {lines} results, {stored} taken in, {known} known already, {strangers} \
                 that nobody asked for; without a reply: {:?}",
                self.name,
                file.display(),
                imported.failed
            ));
        }
        let folder = folder.display();
        ensure!(all > 0, "{folder}: no *.jsonl with results: put there what the batch API gave");
        ensure!(
            useful > 0,
            "{folder}: none of its {all} lines answers a request of this cache: name the results \
             and not the requests, and the `cache` with which --write-batches wrote these"
        );
        Ok(())
    }

    /// In an estimate: a text as long as a reply is expected to be, to count what follows it with.
    pub fn stand_in(&self) -> Option<String> {
        // A token of English is about four bytes; two models' answers differ.
        let words = || "word".repeat(self.model.expected_tokens as usize);
        (self.mode == Mode::Estimate).then(|| format!("{}: {}", self.name, words()))
    }

    /// Asks about each question, by a name of its own and its texts, and gives back what `read`
    /// makes of the replies, in the same order. A reply of which it makes nothing is drawn again,
    /// `draws` times in all. No reply, or none that could be read, is `None`; no reply to any
    /// question is an error.
    ///
    /// Unless the mode is to send, all are `None`, except where the cache has every reply already.
    pub fn ask<T>(
        &self,
        questions: &[(String, Texts)],
        draws: u64,
        read: impl Fn(&Reply) -> Option<T>,
    ) -> Result<(Vec<Option<T>>, Asked)> {
        let mut readings: Vec<Option<T>> = questions.iter().map(|_| None).collect();
        let model = self.model.endpoint.model.clone();
        let mut asked =
            Asked { name: self.name, model, questions: questions.len(), ..Asked::default() };
        let all = questions.iter().map(|(name, texts)| self.request(name, texts, 0));
        let draws = match &self.mode {
            Mode::Send => draws,
            mode => {
                let (answered, preview) = match mode {
                    Mode::Batches(folder) => self.write_batches(all, folder)?,
                    _ => self.estimate(all)?,
                };
                asked.preview = preview;
                u64::from(answered && !questions.is_empty())
            }
        };
        let place: HashMap<String, usize> =
            questions.iter().enumerate().map(|(at, (name, _))| (self.id(name), at)).collect();
        let mut open: Vec<usize> = (0..questions.len()).collect();
        for draw in 0..draws {
            let requests = open.iter().map(|&at| (&questions[at].0, &questions[at].1));
            let requests = requests.map(|(name, texts)| self.request(name, texts, draw));
            let steps = Steps::new(self.name, open.len());
            let (mut unread, mut met) = (Vec::new(), String::new());
            let totals = self.client.run(requests, |request, reply| {
                let at = place[&request.id];
                match reply {
                    Ok(reply) => match read(&reply) {
                        Some(reading) => readings[at] = Some(reading),
                        None => unread.push(at),
                    },
                    Err(failure) => {
                        *asked.failed.entry(failure.cause.name()).or_default() += 1;
                        met = failure.message;
                    }
                }
                steps.one();
                Ok(())
            })?;
            drop(steps);
            if asked.failed.get(Cause::Exhausted.name()) == Some(&questions.len()) {
                let (name, all, server) =
                    (self.name, questions.len(), &self.model.endpoint.base_url);
                bail!(
                    "the section [{name}]: none of {all} questions has a reply from {server}; \
                       the last call: {met}: check that the server runs and is reachable"
                );
            }
            if totals.paid + totals.calls > 0 {
                let Totals { cached, paid, cost, .. } = totals;
                let what = format!("{cached} from the cache, {paid} paid, cost {cost:.4}");
                progress::line(&format!("[{}] {what}", self.name));
            }
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

    /// Are all requests answered already? And what the others would cost.
    fn estimate(&self, requests: impl Iterator<Item = Request>) -> Result<(bool, String)> {
        let estimate = self.client.estimate(requests, self.model.expected_tokens)?;
        let Estimate { requests, cached, prompt_tokens, completion_tokens, .. } = estimate;
        let preview = format!(
            "[{}] {requests} requests, {cached} answered already; about {prompt_tokens} tokens out \
             and {completion_tokens} back, cost {:.2} (so far {:.2})",
            self.name, estimate.cost, estimate.spent
        );
        Ok((cached == requests, preview))
    }

    /// Are all requests answered already? The others are written into the section's folder.
    fn write_batches(
        &self,
        requests: impl Iterator<Item = Request>,
        folder: &Path,
    ) -> Result<(bool, String)> {
        let written = batch::write(&self.client, requests, &folder.join(self.name))?;
        let batch::Written { requests, cached, files } = written;
        let preview = format!(
            "[{}] {requests} requests, {cached} answered already, the others in {} files",
            self.name,
            files.len()
        );
        Ok((cached == requests, preview))
    }

    /// The request for one question; a further draw differs by its seed.
    fn request(&self, name: &str, texts: &Texts, draw: u64) -> Request {
        let model = &self.model;
        let messages = self.prompt.messages(texts);
        let mut request = Request::new(self.id(name), messages, model.max_tokens);
        match model.temperature {
            Some(temperature) => request.temperature = temperature,
            None => request.extra.extend([("temperature".to_string(), Value::Null)]),
        }
        request.extra.extend(model.parameters.clone());
        request.seed = (draw > 0).then_some(draw);
        request
    }

    fn id(&self, name: &str) -> String {
        format!("{}-{name}", self.name)
    }
}

/// How far the asking is: a bar on a terminal, elsewhere a line at every tenth.
struct Steps {
    name: &'static str,
    bar: progress::Bar,
    at: Cell<usize>,
    total: usize,
}

impl Steps {
    fn new(name: &'static str, total: usize) -> Self {
        let bar = progress::bar(name, Some(total as u64));
        Self { name, bar, at: Cell::new(0), total }
    }

    fn one(&self) {
        let (at, total) = (self.at.get() + 1, self.total);
        self.at.set(at);
        self.bar.advance(1);
        let a_tenth_more = at * 10 / total > (at - 1) * 10 / total;
        if total >= 100 && a_tenth_more && !std::io::stderr().is_terminal() {
            progress::line(&format!("[{}] {at} of {total}", self.name));
        }
    }
}
