//! What must stay as it was when a run goes on: every key that decides what it learns.

use anyhow::{Context, Result, bail};
use toml::{Table, Value};

use crate::config::Config;

/// Sections and keys that a resumed run may change: how it runs, not what it computes. The examples
/// and the model's shape are held by their digests, wherever they lie.
const FREE: [&str; 9] = [
    "batch.micro_batch_tokens",
    "checkpoint",
    "data.examples",
    "distributed",
    "guard",
    "memory",
    "model.path",
    "model.save_dtype",
    "output",
];

/// Refuses to go on with another config than the run was trained with; `then` is a checkpoint's,
/// `now` the effective one.
///
/// # Errors
/// Names the first key that is not as it was.
pub fn check(then: &Table, now: &Table) -> Result<()> {
    // A key that is new since then has its default.
    let place = "the config in the checkpoint's manifest";
    let then = then.clone().try_into::<Config>().context(place)?;
    let then = Table::try_from(&then).context(place)?;
    let (then, now) = (Value::Table(then), Value::Table(now.clone()));
    let Some((key, was, is)) = changed("", Some(&then), Some(&now)) else { return Ok(()) };
    bail!(
        "{key} is {is}, and this run was trained with {was}: set it back in its run.toml, or start \
         a new run; only {} may change on the way",
        FREE.join(", ")
    )
}

/// The first key that differs, and both values.
fn changed(
    key: &str,
    then: Option<&Value>,
    now: Option<&Value>,
) -> Option<(String, String, String)> {
    if FREE.contains(&key) {
        return None;
    }
    match (then, now) {
        (Some(Value::Table(then)), Some(Value::Table(now))) => {
            let keys = then.keys().chain(now.keys());
            let inside = |name: &String| match key {
                "" => name.clone(),
                _ => format!("{key}.{name}"),
            };
            keys.into_iter().find_map(|name| changed(&inside(name), then.get(name), now.get(name)))
        }
        // What JSON gives back may differ in a float's last bit.
        (Some(Value::Float(a)), Some(Value::Float(b))) if (a - b).abs() <= 1e-12 * a.abs() => None,
        (then, now) if then == now => None,
        (then, now) => {
            let text = |value: Option<&Value>| value.map_or("not set".into(), Value::to_string);
            Some((key.to_owned(), text(then), text(now)))
        }
    }
}
