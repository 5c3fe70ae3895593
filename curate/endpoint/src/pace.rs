//! Limits: calls and tokens a minute, pauses that the server asks for, and money.

use std::time::{Duration, Instant};

use anyhow::{Error, anyhow};

use crate::settings::Settings;

/// When the next call may start.
pub(crate) struct Pace {
    requests: Limit,
    tokens: Limit,
    paused_until: Instant,
}

impl Pace {
    pub fn new(settings: &Settings, now: Instant) -> Self {
        let limit = |per_minute: Option<f64>| Limit {
            seconds_each: per_minute.map_or(0.0, |limit| 60.0 / limit),
            free_at: now,
        };
        Pace {
            requests: limit(settings.requests_per_minute),
            tokens: limit(settings.tokens_per_minute),
            paused_until: now,
        }
    }

    pub fn free_at(&self) -> Instant {
        self.requests.free_at.max(self.tokens.free_at).max(self.paused_until)
    }

    /// Takes one call that may use so many tokens.
    pub fn take(&mut self, tokens: u64, now: Instant) {
        self.requests.take(1, now);
        self.tokens.take(tokens, now);
    }

    /// Puts the tokens that a call used in the place of those that it took.
    pub fn settle(&mut self, taken: u64, used: u64) {
        let tokens = &mut self.tokens;
        tokens.free_at += tokens.time_of(used.saturating_sub(taken));
        let earlier = tokens.time_of(taken.saturating_sub(used));
        // Before the clock's beginning is before now all the same.
        tokens.free_at = tokens.free_at.checked_sub(earlier).unwrap_or(self.requests.free_at);
    }

    pub fn pause_until(&mut self, until: Instant) {
        self.paused_until = self.paused_until.max(until);
    }
}

/// A limit as evenly spaced calls: whatever starts pushes the next start back by its share of a
/// minute. Unused time is not saved up, so no minute sees more than the limit and one call.
struct Limit {
    seconds_each: f64,
    free_at: Instant,
}

impl Limit {
    fn time_of(&self, amount: u64) -> Duration {
        // At most a year: a limit may be tiny beside one call's tokens.
        Duration::from_secs_f64((self.seconds_each * amount as f64).min(31e6))
    }

    fn take(&mut self, amount: u64, now: Instant) {
        self.free_at = self.free_at.max(now) + self.time_of(amount);
    }
}

/// Money: what was spent, what the calls on their way may still cost, and the most there is.
pub(crate) struct Budget {
    pub spent: f64,
    reserved: f64,
    most: Option<f64>,
}

impl Budget {
    pub fn new(spent: f64, most: Option<f64>) -> Self {
        Budget { spent, reserved: 0.0, most }
    }

    /// Whether a call that may cost so much fits in.
    pub fn fits(&self, worst: f64) -> bool {
        self.most.is_none_or(|most| self.spent + self.reserved + worst <= most)
    }

    pub fn reserve(&mut self, worst: f64) {
        self.reserved += worst;
    }

    pub fn settle(&mut self, worst: f64, cost: f64) {
        self.reserved -= worst;
        self.spent += cost;
    }

    /// The end of the money, as an error.
    pub fn used_up(&self, worst: f64) -> Error {
        anyhow!(
            "max_cost is {}, {:.6} of it is spent, and the next call may cost {worst:.6}: raise \
             max_cost to go on; nothing that was paid is paid again",
            self.most.unwrap_or_default(),
            self.spent
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Calls that start as soon as they may, each using `used` of `taken` tokens at once: when, in
    /// seconds.
    fn starts(settings: &Settings, taken: u64, used: u64, calls: usize) -> Vec<f64> {
        let begin = Instant::now();
        let mut pace = Pace::new(settings, begin);
        let start = |_| {
            let now = pace.free_at();
            pace.take(taken, now);
            pace.settle(taken, used);
            (now - begin).as_secs_f64()
        };
        (0..calls).map(start).collect()
    }

    #[track_caller]
    fn check(limits: (Option<f64>, Option<f64>), tokens: (u64, u64), expected: [f64; 4]) {
        let settings = Settings {
            requests_per_minute: limits.0,
            tokens_per_minute: limits.1,
            ..Settings::new("http://localhost/v1", "m")
        };
        let found = starts(&settings, tokens.0, tokens.1, 4);
        let close =
            found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 1e-6);
        assert!(close, "{limits:?}, {tokens:?}: {found:?}, not {expected:?}");
    }

    #[test]
    fn calls_are_spread() {
        check((None, None), (1000, 10), [0.0; 4]);
        check((Some(60.0), None), (1000, 10), [0.0, 1.0, 2.0, 3.0]);
        check((None, Some(6000.0)), (300, 300), [0.0, 3.0, 6.0, 9.0]);
        // What was not used is given back; what was used beyond that is taken.
        check((None, Some(6000.0)), (300, 100), [0.0, 1.0, 2.0, 3.0]);
        check((None, Some(6000.0)), (300, 400), [0.0, 4.0, 8.0, 12.0]);
        check((Some(30.0), Some(6000.0)), (300, 100), [0.0, 2.0, 4.0, 6.0]);
        check((Some(30.0), Some(6000.0)), (300, 300), [0.0, 3.0, 6.0, 9.0]);
    }

    #[test]
    fn idle_time_is_not_saved_up() {
        let settings = Settings {
            requests_per_minute: Some(60.0),
            ..Settings::new("http://localhost/v1", "m")
        };
        let begin = Instant::now();
        let mut pace = Pace::new(&settings, begin);
        let late = begin + Duration::from_secs(100);
        pace.take(1, late);
        assert_eq!(pace.free_at(), late + Duration::from_secs(1));
        pace.pause_until(late + Duration::from_secs(9));
        assert_eq!(pace.free_at(), late + Duration::from_secs(9));
    }
}
