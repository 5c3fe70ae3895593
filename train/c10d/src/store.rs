//! Notes that ranks leave for one another, apart from collectives: from any thread, each within a
//! time.

use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::native::Native;

/// The store of a group. Copies share it, and may outlive the group.
#[derive(Clone)]
pub struct Store {
    /// To a thread of its own: while the rank that serves the store is stopped, nothing answers.
    clerk: Sender<Order>,
    patience: Duration,
}

type Order = Box<dyn FnOnce(&Native) + Send>;

impl Store {
    pub(crate) fn new(native: Native, patience: Duration) -> Self {
        let (clerk, orders) = mpsc::channel::<Order>();
        thread::spawn(move || orders.into_iter().for_each(|order| order(&native)));
        Self { clerk, patience }
    }

    /// Leaves `text` under `key`, in place of what was there.
    ///
    /// # Errors
    /// When the store is lost, with the rank or the launcher that serves it, or does not answer
    /// within the group's timeout.
    pub fn set(&self, key: &str, text: &str) -> Result<()> {
        let (name, text) = (key.to_owned(), text.to_owned());
        self.ask(move |native| native.set(&name, text.as_bytes()))
            .with_context(|| format!("leaving the note {key:?}"))
    }

    /// What stands under `key` now.
    ///
    /// # Errors
    /// As [`Store::set`].
    pub fn get(&self, key: &str) -> Result<Option<String>> {
        let name = key.to_owned();
        let found = self.ask(move |native| native.get(&name));
        let found = found.with_context(|| format!("reading the note {key:?}"))?;
        Ok(found.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn ask<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Native) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, answer) = mpsc::channel();
        // Who has lost patience hears nothing.
        let _ = self.clerk.send(Box::new(move |native| drop(sender.send(what(native)))));
        match answer.recv_timeout(self.patience) {
            Ok(answer) => answer,
            Err(_) => bail!("no answer for {:?}", self.patience),
        }
    }
}
