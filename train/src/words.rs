//! Numbers as people read them.

/// Bytes of a GiB.
pub const GIB: f64 = (1u64 << 30) as f64;

/// `1,234,567`.
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 row`, `2 rows`.
pub fn counted(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// `70.1 GiB`, `12.3 MiB`.
pub fn size(bytes: f64) -> String {
    match bytes {
        bytes if bytes >= 0.0995 * GIB => format!("{:.1} GiB", bytes / GIB),
        bytes => format!("{:.1} MiB", bytes / GIB * 1024.0),
    }
}

/// `13.6 minutes`, `2.4 hours`, `3.1 days`.
pub fn duration(seconds: f64) -> String {
    match seconds {
        seconds if seconds < 9.95 => format!("{seconds:.1} seconds"),
        seconds if seconds < 90.0 => format!("{seconds:.0} seconds"),
        seconds if seconds < 5400.0 => format!("{:.1} minutes", seconds / 60.0),
        seconds if seconds < 172_800.0 => format!("{:.1} hours", seconds / 3600.0),
        seconds => format!("{:.1} days", seconds / 86_400.0),
    }
}
