//! Even work for every rank: which examples of a global batch each group of ranks packs together.
//!
//! `share(lengths, config, groups, budget_tokens)[group][round]` holds places in the batch: what
//! that group packs into its micro-batch of that round. A group is the ranks that share one packed
//! micro-batch (`sequence_parallel`); all groups have as many rounds, some perhaps empty, because
//! every layer's gather is a meeting of all ranks. Pure arithmetic on lengths: every rank reckons
//! the same shares without asking the others, and the sums of gradients do not depend on them.

use model::Config;

/// Rewrites of a first assignment, for each example of the batch, before it counts as final.
const IMPROVEMENTS_PER_EXAMPLE: usize = 4;

/// Floating-point operations of one segment's forward pass; training without recomputation needs
/// three times as many. Two for each weight of a matrix and token, and causal attention inside the
/// segment: `2 x layers x heads x head_dim x length^2`.
///
/// The head is counted over all tokens, although it runs only where a token is trained: prompts
/// are a few percent of a reasoning trace, and this is how model FLOPs are counted elsewhere.
pub fn flops(config: &Config, length: usize) -> f64 {
    let length = length as f64;
    2.0 * matmul_parameters(config) * length + attention_flops(config, length)
}

/// Weights that every token is multiplied with, the head included.
pub fn matmul_parameters(config: &Config) -> f64 {
    let h = config.hidden_size;
    let kv = config.num_key_value_heads * config.head_dim();
    let layer = h * (h + 2 * kv) + h * h + 3 * h * config.intermediate_size;
    (config.num_hidden_layers * layer + config.vocab_size * h) as f64
}

/// Scores and their product with the values in all layers, of the pairs that causality leaves.
fn attention_flops(config: &Config, length: f64) -> f64 {
    2.0 * (config.num_hidden_layers * config.hidden_size) as f64 * length * length
}

/// Spreads one global batch over `groups` and packs each group's examples into micro-batches of at
/// most `budget_tokens`; an example longer than that stands alone in its micro-batch. As few
/// rounds as the packing finds; every example exactly once; a function of its arguments alone.
///
/// A round lasts as long as its busiest group, so what is kept small is the sum over rounds of the
/// most work that any group has in it: longest first, each to where that sum grows least, then
/// moves and swaps as long as they lower it.
pub fn share(
    lengths: &[usize],
    config: &Config,
    groups: usize,
    budget_tokens: usize,
) -> Vec<Vec<Vec<usize>>> {
    assert!(groups > 0 && budget_tokens > 0, "nothing to share among, or with");
    // An example above the budget fills its micro-batch.
    let total: usize = lengths.iter().map(|&length| length.min(budget_tokens)).sum();
    let least = total.div_ceil(groups.saturating_mul(budget_tokens)).max(1);
    let work: Vec<f64> = lengths.iter().map(|&length| flops(config, length)).collect();
    let mut cells = (least..)
        .find_map(|rounds| Cells::place(lengths, &work, groups, rounds, budget_tokens))
        .expect("with as many rounds as examples each stands alone");
    for _ in 0..IMPROVEMENTS_PER_EXAMPLE * lengths.len() {
        if !cells.improve() {
            break;
        }
    }
    cells.assignment()
}

/// A published set of examples whose lengths are modelled: the texts are not in this project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Spread {
    /// s1K: Gemini's traces.
    #[value(name = "s1K")]
    S1K,
    /// s1K-1.1: DeepSeek-R1's traces.
    #[value(name = "s1.1")]
    S11,
}

/// Share of the examples, and the tokens that this share is at most long; straight in between.
type Quantiles = [(f64, f64)];

/// Whole examples of s1K. Published are: 26% up to 4,096 (arXiv 2501.19393, table 8), the longest
/// with 9,109 (simplescaling/s1, issue 115), traces of 0.4K to 8.1K, 90% of them under 6.6K (the
/// histogram of the paper's repository) and 4.7 M tokens together (table 6). All are met, question,
/// frame and answer taken as 800 tokens on average and 1,000 beside the longest traces, so that the
/// mean is 5,500. The bends at 5%, 50% and 75% are set for that mean; nothing says where they are.
const S1K: &Quantiles = &[
    (0.0, 700.0),
    (0.05, 2000.0),
    (0.26, 4096.0),
    (0.5, 6050.0),
    (0.75, 7050.0),
    (0.9, 7600.0),
    (1.0, 9109.0),
];

/// Whole examples of s1K-1.1. Published are the traces' (the histogram of simplescaling/s1): median
/// 9.2K, 90% under 15.9K, 95% under 16.9K, 7 of 1,000 above 20K, the longest 26K, mean 9.3K. All
/// are met with a shortest of 0.9K. Question, frame and answer are taken as s1K's 800 tokens; of
/// these nothing is published, nor how many whole examples a block of 20,000 cuts.
const S11: &Quantiles = &[
    (0.0, 1700.0),
    (0.5, 10_000.0),
    (0.9, 16_700.0),
    (0.95, 17_700.0),
    (0.993, 20_800.0),
    (1.0, 26_800.0),
];

impl Spread {
    /// That of a dataset, by its name.
    pub fn of(table: &str) -> Self {
        if table.contains("1.1") { Self::S11 } else { Self::S1K }
    }

    /// As people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::S1K => "s1K",
            Self::S11 => "s1K-1.1",
        }
    }

    /// The length that a share of the examples is at most long.
    pub fn quantile(self, share: f64) -> f64 {
        let table = if self == Self::S1K { S1K } else { S11 };
        let mut pairs = table.windows(2).map(|pair| (pair[0], pair[1]));
        let (low, high) = pairs.rfind(|(low, _)| low.0 <= share).expect("shares begin at 0");
        low.1 + (high.1 - low.1) * (share - low.0) / (high.0 - low.0)
    }
}

/// `examples` lengths evenly through the quantiles of `spread`, ascending, the longest as long as
/// the longest that is published; scaled to the mean `mean`, if that is given.
pub fn modelled_lengths(spread: Spread, mean: Option<usize>, examples: usize) -> Vec<usize> {
    let share = |place: usize| match place + 1 == examples {
        true => 1.0,
        false => (place as f64 + 0.5) / examples as f64,
    };
    let lengths: Vec<f64> = (0..examples).map(|place| spread.quantile(share(place))).collect();
    let found = lengths.iter().sum::<f64>() / examples as f64;
    let scale = mean.map_or(1.0, |mean| mean as f64 / found);
    lengths.iter().map(|length| ((length * scale).round() as usize).max(1)).collect()
}

/// Examples in cells, one for each group and round: cell = round x groups + group.
struct Cells<'a> {
    groups: usize,
    rounds: usize,
    budget: usize,
    lengths: &'a [usize],
    work: &'a [f64],
    /// The cell of each example.
    at: Vec<usize>,
    /// Work, tokens and examples in each cell.
    load: Vec<f64>,
    tokens: Vec<usize>,
    held: Vec<usize>,
}

impl<'a> Cells<'a> {
    /// Places the examples, the one with most work first; none if some example fits nowhere.
    fn place(
        lengths: &'a [usize],
        work: &'a [f64],
        groups: usize,
        rounds: usize,
        budget: usize,
    ) -> Option<Self> {
        let (at, cells) = (vec![usize::MAX; lengths.len()], groups * rounds);
        let (load, tokens, held) = (vec![0.0; cells], vec![0; cells], vec![0; cells]);
        let mut placed = Self { groups, rounds, budget, lengths, work, at, load, tokens, held };
        let mut longest_first: Vec<usize> = (0..lengths.len()).collect();
        longest_first.sort_by_key(|&example| std::cmp::Reverse(lengths[example]));
        for example in longest_first {
            let fitting = (0..cells).filter(|&cell| placed.fits(cell, example, None));
            let grown = |cell: usize| placed.load[cell] + work[example];
            let (.., cell) = fitting
                .map(|cell| (placed.growth(&[(cell, grown(cell))]), placed.load[cell], cell))
                .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)))?;
            placed.put(example, cell);
        }
        Some(placed)
    }

    /// Whether the budget allows `example` in `cell`, after `leaving` has left it.
    fn fits(&self, cell: usize, example: usize, leaving: Option<usize>) -> bool {
        let left = leaving.map_or(0, |leaving| self.lengths[leaving]);
        let others = self.held[cell] - usize::from(leaving.is_some());
        others == 0 || self.tokens[cell] - left + self.lengths[example] <= self.budget
    }

    fn put(&mut self, example: usize, cell: usize) {
        self.at[example] = cell;
        self.load[cell] += self.work[example];
        self.tokens[cell] += self.lengths[example];
        self.held[cell] += 1;
    }

    fn take(&mut self, example: usize) {
        let cell = self.at[example];
        self.held[cell] -= 1;
        self.tokens[cell] -= self.lengths[example];
        self.load[cell] -= self.work[example];
    }

    /// The most work of any group in `round`, were the loads of some cells as `changed` says.
    fn peak(&self, round: usize, changed: &[(usize, f64)]) -> f64 {
        let load = |cell: usize| {
            let new = changed.iter().find(|(changed, _)| *changed == cell);
            new.map_or(self.load[cell], |(_, load)| *load)
        };
        let cells = round * self.groups..(round + 1) * self.groups;
        cells.map(load).fold(0.0, f64::max)
    }

    /// By how much the sum of the rounds' peaks would grow.
    fn growth(&self, changed: &[(usize, f64)]) -> f64 {
        let mut rounds: Vec<usize> = changed.iter().map(|(cell, _)| cell / self.groups).collect();
        rounds.dedup();
        rounds.iter().map(|&round| self.peak(round, changed) - self.peak(round, &[])).sum()
    }

    /// Makes the one move or swap out of a round's busiest cell that lowers the sum most; false if
    /// none does.
    fn improve(&mut self) -> bool {
        let mut best = (-1e-6 * self.load.iter().copied().fold(0.0, f64::max), None);
        for example in 0..self.at.len() {
            let cell = self.at[example];
            if self.load[cell] < self.peak(cell / self.groups, &[]) {
                continue;
            }
            let mut consider = |growth: f64, change| {
                if growth < best.0 {
                    best = (growth, Some(change));
                }
            };
            let work = self.work[example];
            for other in (0..self.load.len()).filter(|&other| other != cell) {
                if self.fits(other, example, None) {
                    let moved = [(cell, self.load[cell] - work), (other, self.load[other] + work)];
                    consider(self.growth(&moved), (example, other, None));
                }
            }
            for partner in (0..self.at.len()).filter(|&partner| self.at[partner] != cell) {
                let (other, more) = (self.at[partner], work - self.work[partner]);
                if self.fits(other, example, Some(partner))
                    && self.fits(cell, partner, Some(example))
                {
                    let swapped =
                        [(cell, self.load[cell] - more), (other, self.load[other] + more)];
                    consider(self.growth(&swapped), (example, other, Some(partner)));
                }
            }
        }
        let Some((example, other, partner)) = best.1 else { return false };
        let cell = self.at[example];
        self.take(example);
        if let Some(partner) = partner {
            self.take(partner);
            self.put(partner, cell);
        }
        self.put(example, other);
        true
    }

    /// `[group][round]`, without rounds in which nobody has work.
    fn assignment(&self) -> Vec<Vec<Vec<usize>>> {
        let held = |cell: usize| -> Vec<usize> {
            (0..self.at.len()).filter(|&example| self.at[example] == cell).collect()
        };
        let busy = |round: &usize| self.peak(*round, &[]) > 0.0;
        let rounds: Vec<usize> = (0..self.rounds).filter(busy).collect();
        let of = |group| rounds.iter().map(|round| held(round * self.groups + group)).collect();
        (0..self.groups).map(of).collect()
    }
}
