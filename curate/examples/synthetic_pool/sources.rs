//! The published shape: 16 sources with their sizes and trace lengths, 51 domains with theirs.
//!
//! Sizes and mean lengths: arXiv 2501.19393 v3, Table 7; domains of s1K: its Table 6. How hard and
//! how often solved is set so that each stage drops about what it drops in s1.

use Field::{Mathematics, Other, Science};

/// One of s1's sources.
pub struct Source {
    /// Its `source_type`s, each equally frequent.
    pub source_types: &'static [&'static str],
    pub cot_type: &'static str,
    /// Rows in the published pool.
    pub rows: u64,
    /// Mean length of its traces in tokens.
    pub tokens: u64,
    /// Mean length of its questions in words.
    pub words: u64,
    pub field: Field,
    /// In 100: how many a 7B or a 32B model solves.
    pub easy: u64,
    /// In 100: how many the teacher solves.
    pub correct: u64,
    /// Whether the source has solutions; without one there are no grades.
    pub solutions: bool,
}

/// Which domains a source's questions fall into.
#[derive(Clone, Copy)]
pub enum Field {
    Mathematics,
    Science,
    Other,
}

const MATH: Source = Source {
    source_types: &[
        "qfq/openaimath/Algebra",
        "qfq/openaimath/Precalculus",
        "qfq/openaimath/Geometry",
        "qfq/openaimath/Number Theory",
        "qfq/openaimath/Intermediate Algebra",
        "qfq/openaimath/Counting & Probability",
        "qfq/openaimath/Prealgebra",
    ],
    cot_type: "math",
    rows: 11_999,
    tokens: 2_900,
    words: 32,
    field: Mathematics,
    easy: 80,
    correct: 85,
    solutions: true,
};

/// In the order of collection.
pub const SOURCES: [Source; 16] = [
    MATH,
    Source {
        source_types: &[
            "GAIR/OlympicArena/Math",
            "GAIR/OlympicArena/Physics",
            "GAIR/OlympicArena/Chemistry",
            "GAIR/OlympicArena/Biology",
            "GAIR/OlympicArena/Astronomy",
        ],
        cot_type: "science",
        field: Science,
        words: 70,
        ..of(4_250, 3_200, 50, 55)
    },
    Source {
        source_types: &["TIGER-Lab/TheoremQA/float", "TIGER-Lab/TheoremQA/bool"],
        words: 35,
        ..of(747, 2_100, 60, 65)
    },
    Source {
        source_types: &["AI-MO/NuminaMath-CoT/aops_forum", "AI-MO/NuminaMath-CoT/olympiads"],
        words: 55,
        ..of(30_660, 4_100, 42, 50)
    },
    Source { source_types: &["KbsdJames/Omni-MATH"], words: 45, ..of(4_238, 4_400, 35, 45) },
    Source {
        source_types: &["OpenDFM/SciEval/chemistry/filling/reagent selection"],
        cot_type: "science",
        field: Science,
        words: 60,
        ..of(227, 700, 60, 55)
    },
    Source {
        source_types: &[
            "Hothan/OlympiadBench/Open-ended/Physics",
            "Hothan/OlympiadBench/Theorem proof/Math",
        ],
        field: Science,
        words: 62,
        ..of(896, 3_900, 45, 50)
    },
    Source {
        source_types: &["daman1209arora/jeebench/chem", "daman1209arora/jeebench/phy"],
        cot_type: "science",
        field: Science,
        words: 74,
        ..of(515, 2_900, 45, 60)
    },
    Source {
        source_types: &["baber/agieval/aqua_rat", "baber/agieval/lsat_lr", "baber/agieval/sat_en"],
        cot_type: "english",
        field: Other,
        words: 210,
        ..of(2_385, 1_200, 75, 80)
    },
    Source { source_types: &["qfq/stats_qual"], words: 120, ..of(182, 4_000, 30, 40) },
    Source {
        source_types: &["Idavidrein/gpqa"],
        cot_type: "science",
        field: Science,
        words: 110,
        ..of(348, 2_900, 45, 57)
    },
    Source {
        source_types: &["0xharib/xword1"],
        cot_type: "crossword",
        field: Other,
        words: 20,
        ..of(999, 700, 30, 30)
    },
    Source {
        source_types: &["codegenning/usacobench_formatted"],
        cot_type: "coding",
        field: Other,
        words: 400,
        solutions: false,
        ..of(519, 3_600, 0, 0)
    },
    Source { source_types: &["qfq/quant"], words: 90, ..of(23, 4_100, 30, 50) },
    Source {
        source_types: &["LiveCodeBench/release_v3"],
        cot_type: "coding",
        field: Other,
        words: 250,
        solutions: false,
        ..of(151, 3_500, 0, 0)
    },
    Source { source_types: &["qq8933/AIME_1983_2024"], words: 58, ..of(890, 4_700, 40, 56) },
];

/// A source like MATH but for these numbers.
const fn of(rows: u64, tokens: u64, easy: u64, correct: u64) -> Source {
    Source { rows, tokens, easy, correct, ..MATH }
}

/// Rows of each source in a pool of `rows`.
///
/// A pool larger than the published one grows in all sources but the three that the selection
/// takes at once (MATH, GPQA, AIME): ten times their rows would be more than the 1,000 it selects.
pub fn sizes(rows: u64) -> [u64; 16] {
    let published: u64 = SOURCES.iter().map(|source| source.rows).sum();
    let seeded = |source: &Source| {
        let starts = |name| source.source_types[0].starts_with(name);
        starts("qfq/openaimath") || starts("Idavidrein/gpqa") || starts("qq8933/AIME")
    };
    let fixed = |source: &Source| rows > published && seeded(source);
    let kept: u64 = SOURCES.iter().filter(|&source| fixed(source)).map(|source| source.rows).sum();
    let (mut sizes, mut before, mut reached) = ([0; 16], 0, 0);
    for (size, source) in sizes.iter_mut().zip(&SOURCES) {
        if fixed(source) {
            *size = source.rows;
            continue;
        }
        // Rounding the running sum, not each size, ends at exactly `rows`.
        before += source.rows;
        let end = before * (rows - kept) / (published - kept);
        *size = end - reached;
        reached = end;
    }
    sizes
}

/// A domain's title, and its share of the questions of each field.
pub struct Domain {
    pub title: &'static str,
    mathematics: u64,
    science: u64,
    other: u64,
}

impl Domain {
    /// Its share of the questions of `field`.
    pub fn share(&self, field: Field) -> u64 {
        match field {
            Mathematics => self.mathematics,
            Science => self.science,
            Other => self.other,
        }
    }
}

const fn mathematics(title: &'static str, share: u64) -> Domain {
    Domain { title, mathematics: 10 * share, science: share, other: 1 }
}

const fn science(title: &'static str, share: u64) -> Domain {
    Domain { title, mathematics: 1, science: 10 * share, other: share }
}

const fn other(title: &'static str, share: u64) -> Domain {
    Domain { title, mathematics: share, science: share, other: 10 * share }
}

/// The shares are the domains' sizes in s1K; of the 28 not named there, 242 in all, falling.
pub const DOMAINS: [Domain; 51] = [
    mathematics("Geometry", 109),
    mathematics("Number theory", 98),
    mathematics("Combinatorics", 75),
    mathematics("Real functions", 43),
    science("Biology and other natural sciences", 41),
    mathematics("Functions of a complex variable", 32),
    science("Quantum theory", 32),
    mathematics("Field theory and polynomials", 28),
    mathematics("Calculus of variations and optimal control; optimization", 28),
    mathematics("Difference and functional equations", 24),
    science("Optics, electromagnetic theory", 23),
    mathematics("Group theory and generalizations", 22),
    mathematics("Linear and multilinear algebra; matrix theory", 22),
    mathematics("Probability theory and stochastic processes", 20),
    mathematics("General algebraic systems", 19),
    science("Mechanics of particles and systems", 19),
    science("Classical thermodynamics, heat transfer", 19),
    mathematics("Ordinary differential equations", 18),
    other("Computer science", 18),
    mathematics("Numerical analysis", 18),
    mathematics("Measure and integration", 17),
    mathematics("Order, lattices, ordered algebraic structures", 17),
    science("Astronomy and astrophysics", 16),
    mathematics("Convex and discrete geometry", 16),
    mathematics("Sequences, series, summability", 15),
    other("Mathematics education", 15),
    other("Game theory, economics, social and behavioral sciences", 14),
    mathematics("Mathematical logic and foundations", 14),
    science("Statistical mechanics, structure of matter", 13),
    other("Information and communication, circuits", 12),
    science("Fluid mechanics", 11),
    mathematics(
        "Special functions (33-XX deals with the properties of functions as functions)",
        10,
    ),
    mathematics("Statistics", 10),
    science("Mechanics of deformable solids", 9),
    other("Operations research, mathematical programming", 9),
    science("Relativity and gravitational theory", 8),
    mathematics("Partial differential equations", 8),
    mathematics("Associative rings and algebras", 8),
    mathematics("Topological groups, Lie groups", 7),
    mathematics("Dynamical systems and ergodic theory", 7),
    mathematics("General topology", 7),
    science("Geophysics", 6),
    mathematics("Commutative algebra", 6),
    mathematics("Algebraic geometry", 5),
    mathematics("Harmonic analysis on Euclidean spaces", 5),
    mathematics("Functional analysis", 5),
    mathematics("Differential geometry", 5),
    mathematics("Manifolds and cell complexes", 5),
    mathematics("Integral equations", 4),
    other("Systems theory; control", 4),
    mathematics("Approximations and expansions", 4),
];
