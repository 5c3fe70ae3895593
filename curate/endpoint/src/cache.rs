//! Replies on disk: one SQLite file, in which whatever was paid for stays.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rusqlite::{Connection, OptionalExtension as _, params};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::request::{RequestKey, hex};
use crate::settings::Settings;

/// The columns that are summed stand before the long one, so that sums need not read replies.
const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS replies (
        key BLOB PRIMARY KEY,
        id TEXT NOT NULL, base_url TEXT NOT NULL, model TEXT NOT NULL,
        cost REAL NOT NULL,
        digest TEXT NOT NULL,
        reply TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS lost (
        id TEXT NOT NULL, base_url TEXT NOT NULL, model TEXT NOT NULL,
        cost REAL NOT NULL,
        why TEXT NOT NULL
    );
    CREATE TABLE IF NOT EXISTS batched (custom_id TEXT PRIMARY KEY, key BLOB NOT NULL);
";
/// `PRAGMA user_version` of these tables.
const VERSION: i64 = 1;

#[derive(Debug)]
pub(crate) struct Cache {
    path: PathBuf,
    db: Connection,
}

/// What the cache holds for a request.
pub(crate) enum Found {
    /// The body of its reply, and what that cost.
    Reply(Value, f64),
    /// An entry whose bytes are not the ones that were written.
    Damaged,
    Nothing,
}

/// One line for the books.
pub(crate) enum Entry<'a> {
    Reply {
        key: RequestKey,
        id: &'a str,
        raw: &'a Value,
        cost: f64,
    },
    /// A call that was probably charged and brought nothing.
    Lost {
        id: &'a str,
        cost: f64,
        why: &'a str,
    },
}

impl Cache {
    /// Opens or creates the file. Whatever is committed survives a crash of program and machine.
    pub fn open(path: &Path) -> Result<Cache> {
        let shown = path.display();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot create {}", folder.display()))?;
        }
        let open = || -> rusqlite::Result<(Connection, i64)> {
            let db = Connection::open(path)?;
            db.busy_timeout(Duration::from_secs(60))?;
            db.pragma_update(None, "journal_mode", "WAL")?;
            db.pragma_update(None, "synchronous", "FULL")?;
            let version = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
            if version == 0 {
                db.execute_batch(TABLES)?;
                db.pragma_update(None, "user_version", VERSION)?;
            }
            Ok((db, version))
        };
        let (db, version) =
            open().with_context(|| format!("cannot open {shown} as a cache of replies"))?;
        if version != 0 && version != VERSION {
            bail!("{shown} is a cache of version {version}, not {VERSION}: name another file");
        }
        Ok(Cache { path: path.to_path_buf(), db })
    }

    /// Keeps other runs from paying for the same requests meanwhile, until the file is dropped.
    pub fn lock(&self) -> Result<File> {
        let mut path = self.path.clone().into_os_string();
        path.push(".lock");
        let path = PathBuf::from(path);
        let file =
            File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => bail!(
                "another run is using the cache {}: wait for its end, or name another file",
                self.path.display()
            ),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    pub fn get(&self, key: RequestKey) -> Result<Found> {
        let read = || {
            let mut query =
                self.db.prepare_cached("SELECT digest, cost, reply FROM replies WHERE key = ?")?;
            let found = query.query_row([key.0], |row| {
                let (digest, reply) = (row.get_ref(0)?.as_bytes()?, row.get_ref(2)?.as_bytes()?);
                if digest != digest_of(key, reply).as_bytes() {
                    return Ok(Found::Damaged);
                }
                let cost = row.get(1)?;
                Ok(serde_json::from_slice(reply)
                    .map_or(Found::Damaged, |raw| Found::Reply(raw, cost)))
            });
            Ok::<_, rusqlite::Error>(found.optional()?.unwrap_or(Found::Nothing))
        };
        read().with_context(|| self.cannot("read"))
    }

    pub fn has(&self, key: RequestKey) -> Result<bool> {
        let query = self.db.prepare_cached("SELECT 1 FROM replies WHERE key = ?");
        query.and_then(|mut query| query.exists([key.0])).with_context(|| self.cannot("read"))
    }

    /// What all calls to this server and model have cost so far.
    pub fn spent(&self, settings: &Settings) -> Result<f64> {
        let of = "WHERE base_url = ?1 AND model = ?2";
        let sum = format!(
            "SELECT (SELECT total(cost) FROM replies {of}) + (SELECT total(cost) FROM lost {of})"
        );
        self.db
            .query_row(&sum, [settings.server(), &settings.model], |row| row.get(0))
            .with_context(|| self.cannot("read"))
    }

    /// Writes the entries down for good, all or none.
    pub fn put(&self, settings: &Settings, entries: &[Entry<'_>]) -> Result<()> {
        let (server, model) = (settings.server(), &settings.model);
        let write = || -> rusqlite::Result<()> {
            let transaction = self.db.unchecked_transaction()?;
            for entry in entries {
                match entry {
                    Entry::Reply { key, id, raw, cost } => {
                        let reply = raw.to_string();
                        let digest = digest_of(*key, reply.as_bytes());
                        let mut insert = transaction.prepare_cached(
                            "INSERT OR REPLACE INTO replies
                             (key, id, base_url, model, cost, digest, reply)
                             VALUES (?, ?, ?, ?, ?, ?, ?)",
                        )?;
                        insert.execute(params![key.0, id, server, model, cost, digest, reply])?;
                    }
                    Entry::Lost { id, cost, why } => {
                        let mut insert = transaction
                            .prepare_cached("INSERT INTO lost VALUES (?, ?, ?, ?, ?)")?;
                        insert.execute(params![id, server, model, cost, why])?;
                    }
                }
            }
            transaction.commit()
        };
        write().with_context(|| self.cannot("write"))
    }

    /// Remembers which request each line of a batch file stands for.
    pub fn put_batched(&self, lines: &[(String, RequestKey)]) -> Result<()> {
        let write = || -> rusqlite::Result<()> {
            let transaction = self.db.unchecked_transaction()?;
            for (custom_id, key) in lines {
                transaction
                    .prepare_cached("INSERT OR REPLACE INTO batched VALUES (?, ?)")?
                    .execute(params![custom_id, key.0])?;
            }
            transaction.commit()
        };
        write().with_context(|| self.cannot("write"))
    }

    /// The request of a line of a batch file.
    pub fn batched(&self, custom_id: &str) -> Result<Option<RequestKey>> {
        let read = || -> rusqlite::Result<Option<[u8; 32]>> {
            let mut query =
                self.db.prepare_cached("SELECT key FROM batched WHERE custom_id = ?")?;
            query.query_row([custom_id], |row| row.get(0)).optional()
        };
        Ok(read().with_context(|| self.cannot("read"))?.map(RequestKey))
    }

    fn cannot(&self, what: &str) -> String {
        format!("cannot {what} the cache {}", self.path.display())
    }
}

/// Binds a reply to its request: an entry that was edited, or moved to another key, is noticed.
fn digest_of(key: RequestKey, reply: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(key.0);
    digest.update(reply);
    hex(&digest.finalize())
}
