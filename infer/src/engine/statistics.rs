//! What an engine did, in numbers.

use std::fmt;
use std::time::Instant;

use model::Segment;

use super::Settings;
use super::blocks::Blocks;
use super::request::Completion;

/// Counts and times since the engine was made.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    settings: Option<Settings>,
    /// Requests taken in.
    pub requests: u64,
    /// Ids of their prompts.
    pub prompts: u64,
    /// Ids of the finished requests' completions, forced ones included.
    pub written: u64,
    /// Ids that were drawn, each for one request.
    pub sampled: u64,
    /// Passes of the model.
    pub passes: u64,
    /// Ids computed in runs of several: prompts, forced continuations.
    pub prefilled: u64,
    /// Ids computed one by one.
    pub decoded: u64,
    /// Of all computed ids, those that had been before, and were evicted or taken back.
    pub recomputed: u64,
    /// Ids that were not computed, since another request with the same ids before them was there;
    /// summed over requests.
    pub shared: u64,
    /// Slots that took part, summed over all passes.
    pub busy: u64,
    /// The same over the passes before which work waited, and the number of these.
    pub busy_under_load: (u64, u64),
    /// The most blocks in use after a pass.
    pub peak_blocks: usize,
    /// Times that a branch lost a block, whose ids have to be computed again.
    pub evictions: u64,
    /// Seconds of the passes without and with prefill, by the clock.
    pub seconds: [f64; 2],
    /// The same of CPU time over all threads; 0 where the system does not tell.
    pub cpu_seconds: [f64; 2],
}

impl Statistics {
    pub(super) fn new(settings: &Settings) -> Self {
        Statistics { settings: Some(*settings), ..Statistics::default() }
    }

    pub(super) fn submitted(&mut self, requests: u64, prompts: u64) {
        self.requests += requests;
        self.prompts += prompts;
    }

    pub(super) fn finished(&mut self, done: &[(usize, Completion)]) {
        let ids = done.iter().map(|(_, completion)| completion.outcome.ids.len() as u64);
        self.written += ids.sum::<u64>();
    }

    pub(super) fn pass(&mut self, segments: &[Segment], none_waits: bool, blocks: &Blocks) {
        self.passes += 1;
        for segment in segments {
            match segment.ids.len() as u64 {
                1 => self.decoded += 1,
                many => self.prefilled += many,
            }
        }
        let busy = segments.len() as u64;
        self.busy += busy;
        if !none_waits {
            self.busy_under_load.0 += busy;
            self.busy_under_load.1 += 1;
        }
        self.peak_blocks = self.peak_blocks.max(blocks.count() - blocks.free());
    }

    /// A branch of so many `members` has computed `rows` ids, of which `new` for the first time.
    pub(super) fn computed(&mut self, new: usize, rows: usize, members: usize) {
        self.recomputed += (rows - new) as u64;
        self.shared += (new * (members - 1)) as u64;
    }

    /// The share of slots that took part in a pass, on average: over all passes, and over those
    /// before which work waited.
    pub fn occupancy(&self) -> (f64, f64) {
        let slots = self.settings.map_or(1, |settings| settings.slots) as f64;
        let share = |busy: u64, passes: u64| busy as f64 / (slots * passes.max(1) as f64);
        let (busy, passes) = self.busy_under_load;
        (share(self.busy, self.passes), if passes == 0 { 1.0 } else { share(busy, passes) })
    }
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Statistics { decoded, recomputed, shared, .. } = self;
        let [decoding, mixed] = self.seconds;
        let [decoding_cpu, mixed_cpu] = self.cpu_seconds;
        let all = (decoding + mixed).max(1e-9);
        let (occupancy, under_load) = self.occupancy();
        let Settings { slots, blocks, block_len, prefill_chunk } =
            self.settings.expect("an engine made it");
        writeln!(
            f,
            "{} requests: {} tokens of prompts, {} tokens written",
            self.requests, self.prompts, self.written
        )?;
        writeln!(
            f,
            "computed: {} tokens in runs (at most {prefill_chunk} a pass), {decoded} one by one; \
             {recomputed} of them again, and {shared} not, since requests share them",
            self.prefilled
        )?;
        writeln!(
            f,
            "speed: {:.1} tokens decoded a second; {all:.2} s in {} passes, {mixed:.2} s of it in \
             passes with prompts",
            *decoded as f64 / all,
            self.passes
        )?;
        writeln!(
            f,
            "CPU time: {decoding_cpu:.2} s in passes that only write, {mixed_cpu:.2} s in the others"
        )?;
        writeln!(
            f,
            "slots: {slots}, {:.1}% busy; {:.1}% while requests waited",
            100.0 * occupancy,
            100.0 * under_load
        )?;
        write!(
            f,
            "cache: {blocks} blocks of {block_len} tokens, at most {} in use; {} evictions",
            self.peak_blocks, self.evictions
        )
    }
}

/// Times one step.
pub(super) struct Clock {
    started: Instant,
    cpu: f64,
}

impl Clock {
    pub fn start() -> Self {
        Clock { started: Instant::now(), cpu: cpu_seconds() }
    }

    pub fn stop(self, statistics: &mut Statistics, rows: &[usize]) {
        let kind = usize::from(rows.iter().any(|&rows| rows > 1));
        statistics.seconds[kind] += self.started.elapsed().as_secs_f64();
        statistics.cpu_seconds[kind] += cpu_seconds() - self.cpu;
    }
}

/// CPU time of all threads of this process since its start; 0 where the system does not tell.
fn cpu_seconds() -> f64 {
    const TICKS_A_SECOND: f64 = 100.0; // Linux's interface to programs, whatever its kernel's clock
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field, the program's name, may hold anything, but it ends with the last `)`.
    let fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>()
        / TICKS_A_SECOND
}
