//! Values as Python prints them: the `metadata` of s1's rows is the `str()` of a dict.

use std::fmt::Write;

use serde_json::{Map, Value};

/// `repr()` of a dict with these entries, in their order.
pub fn dict(entries: &Map<String, Value>) -> String {
    let mut out = String::new();
    write_dict(&mut out, entries.iter());
    out
}

/// `str()` of a value: a text is itself, everything else its `repr()`.
pub fn text(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::String(text) => out.push_str(text),
        value => write(&mut out, value),
    }
    out
}

fn write(out: &mut String, value: &Value) {
    match value {
        Value::Null => out.push_str("None"),
        Value::Bool(true) => out.push_str("True"),
        Value::Bool(false) => out.push_str("False"),
        Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
            Some(float) => out.push_str(&write_float(float)),
            // Writing to a string cannot fail, here and below.
            None => drop(write!(out, "{number}")),
        },
        Value::String(text) => write_text(out, text),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { ", " } else { "" });
                write(out, item);
            }
            out.push(']');
        }
        Value::Object(entries) => write_dict(out, entries.iter()),
    }
}

fn write_dict<'a>(out: &mut String, entries: impl Iterator<Item = (&'a String, &'a Value)>) {
    out.push('{');
    for (i, (key, value)) in entries.enumerate() {
        out.push_str(if i > 0 { ", " } else { "" });
        write_text(out, key);
        out.push_str(": ");
        write(out, value);
    }
    out.push('}');
}

/// The shortest digits that read back the same, as both languages choose them; Python writes an
/// exponent below 1e-4 and from 1e16 on, with at least two digits.
fn write_float(value: f64) -> String {
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').expect("{:e} writes an exponent");
    let exponent: i32 = exponent.parse().expect("a whole exponent");
    if (-4..16).contains(&exponent) {
        return format!("{value:?}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

fn write_text(out: &mut String, text: &str) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            ' '..='~' => out.push(c),
            c if is_printable(c) => out.push(c),
            c if c < '\u{100}' => drop(write!(out, "\\x{:02x}", c as u32)),
            c if c < '\u{10000}' => drop(write!(out, "\\u{:04x}", c as u32)),
            c => drop(write!(out, "\\U{:08x}", c as u32)),
        }
    }
    out.push(quote);
}

/// Rust escapes the same classes of characters for debugging as Python does, but also combining
/// marks that begin a text.
fn is_printable(c: char) -> bool {
    let mut behind_a_letter = [0; 5];
    behind_a_letter[0] = b'a';
    let length = 1 + c.encode_utf8(&mut behind_a_letter[1..]).len();
    let text = std::str::from_utf8(&behind_a_letter[..length]).expect("made of characters");
    text.escape_debug().nth(1) == Some(c)
}
