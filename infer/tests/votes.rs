//! Votes, coverage and pass@k by hand, and the tree search with a scripted model and scorer.

mod support;

use anyhow::Result;
use infer::budget::{Ending, Outcome};
use infer::engine::{Completion, Generate, Request};
use infer::rebase::{Rules, Score, path, search, shares};
use infer::votes::{AtK, Vote, at, at_powers_of_two, majority, pass_at};
use support::request;

/// Right answers begin with `r`; `-` is none.
fn votes(answers: &'static str) -> Vec<Vote<'static>> {
    let vote = |answer: &'static str| Vote {
        answer: (answer != "-").then_some(answer),
        correct: answer.starts_with('r'),
    };
    answers.split(' ').map(vote).collect()
}

#[track_caller]
fn check_votes(answers: &'static str, cov: bool, maj: bool) {
    let votes = votes(answers);
    assert_eq!(at(&votes), AtK { k: votes.len(), cov, maj }, "{answers}");
}

#[test]
fn the_most_frequent_answer_wins() {
    check_votes("r", true, true);
    check_votes("a", false, false);
    check_votes("a r", true, false); // of equals the first seen
    check_votes("r a", true, true);
    check_votes("a r r", true, true);
    check_votes("a b r r b", true, false); // b comes before r
    check_votes("a r b b r", true, true);
    check_votes("r1 r2 a a", true, false); // texts are counted, not what they mean
    check_votes("- - - r a", true, true);
    check_votes("- -", false, false);
    let powers = at_powers_of_two(&votes("a r r r a a a"));
    let expected = [(2, true, false), (4, true, true)];
    assert_eq!(powers, expected.map(|(k, cov, maj)| AtK { k, cov, maj }));
    assert_eq!(at_powers_of_two(&votes("r")), []);
    let weighted = [(Some("a"), 0.5), (Some("b"), 0.2), (None, 9.0), (Some("b"), 0.4)];
    assert_eq!(majority(&weighted), Some(1));
    assert_eq!(majority(&[]), None);
}

/// Expected values: 1 - C(n - c, k) / C(n, k) in Python's exact fractions.
#[test]
fn pass_at_k_is_unbiased() {
    for (k, correct, n, expected) in [
        (1, 3, 10, 0.3),
        (5, 3, 10, 11.0 / 12.0),
        (8, 3, 10, 1.0),
        (2, 1, 4, 0.5),
        (1, 0, 5, 0.0),
        (5, 5, 5, 1.0),
        (16, 20, 64, 840476729.0 / 841194270.0),
    ] {
        let pass = pass_at(k, correct, n);
        assert!((pass - expected).abs() < 1e-12, "pass@{k} of {correct} in {n}: {pass}");
    }
}

/// The original's `select_softmax`, run with PyTorch at its temperature of 0.2.
#[test]
fn places_are_shared_as_in_the_original() {
    type Row<'a> = (&'a [f64], usize, &'a [(usize, usize)]);
    let rows: [Row; 7] = [
        (&[1.0], 16, &[(0, 16)]),
        (&[0.9, 0.1, 0.5], 16, &[(0, 14), (2, 2), (1, 0)]),
        // PyTorch's 32 bits make 6 and 5 of the last ten places, by rounding alone.
        (&[0.5, 0.5, 0.5], 16, &[(2, 6), (1, 5), (0, 5)]),
        (&[0.2, 0.8, 0.8, 0.35], 7, &[(2, 4), (1, 3), (3, 0), (0, 0)]),
        (&[0.9, 0.85, 0.1, 0.05, 0.6], 8, &[(0, 4), (1, 4), (4, 0), (2, 0), (3, 0)]),
        (&[0.3, 0.31], 1, &[(1, 1), (0, 0)]),
        (&[0.7, 0.65, 0.6, 0.55, 0.5, 0.45], 4, &[(0, 2), (1, 1), (2, 1), (3, 0), (4, 0), (5, 0)]),
    ];
    for (scores, places, expected) in rows {
        assert_eq!(shares(scores, 0.2, places), expected, "{scores:?}");
    }
    assert_eq!(shares(&[], 0.2, 4), []);
    assert_eq!(shares(&[900.0, -900.0], 0.2, 3), [(0, 3), (1, 0)]);
}

/// Steps of one id, which is how many steps came before and which child of its parent it is; the
/// answer is the third step of paths that began with 10, and never comes elsewhere.
struct Scripted(Vec<usize>);

impl Generate for Scripted {
    fn generate(
        &mut self,
        requests: &[Request],
        each: &mut dyn FnMut(usize, Completion) -> Result<()>,
    ) -> Result<()> {
        self.0.push(requests.len());
        // In the reverse order: whoever finishes first is handed over first.
        for (n, request) in requests.iter().enumerate().rev() {
            let steps: Vec<i64> = request.prompt[1..].chunks(2).map(|step| step[0]).collect();
            let before = requests[..n].iter().filter(|one| one.prompt == request.prompt).count();
            let id = 10 * (steps.len() as i64 + 1) + before as i64;
            let text = if steps.len() == 2 && steps[0] == 10 { "answer" } else { "step" };
            let outcome = Outcome {
                ids: vec![id],
                thinking: 0..0,
                answer: 0..1,
                thinking_ending: None,
                ending: Ending::Stop,
                tries: 1,
                forced: vec![],
            };
            let text = format!("{text} {id}");
            each(n, Completion { outcome, text, logprobs: vec![], prompt_logprobs: vec![] })?;
        }
        Ok(())
    }

    fn summary(&self) -> String {
        String::new()
    }
}

/// First children are worth more, and more so with every step.
struct Table;

impl Score for Table {
    fn score(&mut self, paths: &[Vec<&str>]) -> Result<Vec<f64>> {
        let last = |path: &Vec<&str>| path.last().unwrap().rsplit(' ').next().unwrap().parse();
        Ok(paths.iter().map(|path| 0.1 * (10 - last(path).unwrap_or(0) % 10) as f64).collect())
    }
}

#[test]
fn a_tree_grows_where_the_scores_are() {
    let step = request(&support::simple_spec(), &[1]);
    let rules = Rules {
        width: 4,
        temperature: 0.2,
        depth: 5,
        max_tokens: 4,
        answer: "answer".into(),
        between: vec![99],
    };
    let mut model = Scripted(vec![]);
    let nodes = search(&step, &rules, &mut model, &mut Table).unwrap();
    // Four first steps with scores 1.0, 0.9, 0.8, 0.7: weights 1, 0.607, 0.368, 0.223 of 2.198, so
    // ceil(4 / 2.198) = 2, then ceil(2 * 0.607 / 1.198) = 2 places. Of their children, with scores
    // 1.0 (twice, the later first) and 0.9 (twice): weights 1, 1, 0.607, 0.607 of 3.213, so 2, 1
    // (2 * 1 / 2.213), 1 (1 * 0.607 / 1.213), 0 places. Only the children of 10 answer: one or two
    // places fewer, and so on.
    assert_eq!(model.0[..3], [4, 4, 4]);
    let texts = |n: usize| path(&nodes, n).iter().map(|&n| nodes[n].text.clone()).collect();
    let all: Vec<Vec<String>> = (0..nodes.len()).map(texts).collect();
    let second: Vec<Vec<String>> = all[4..8].to_vec();
    assert_eq!(
        second,
        [
            ["step 10", "step 20"],
            ["step 10", "step 21"],
            ["step 11", "step 20"],
            ["step 11", "step 21"]
        ]
    );
    let third: Vec<&str> = all[8..12].iter().map(|path| path[2].as_str()).collect();
    assert_eq!(third, ["step 30", "step 31", "answer 30", "step 30"]);
    // The three open ones, scores 0.9 and twice 1.0, share the three places that are left: the
    // later of the best ceil(3 / 2.607) = 2, the other ceil(1 / 1.607) = 1.
    let fourth: Vec<_> = all[12..].iter().map(|path| path[3].as_str()).collect();
    assert_eq!(fourth, ["step 40", "step 41", "step 40"]);
    // Four ids are the most, and at the fifth depth nothing is open.
    assert_eq!(model.0, [4, 4, 4, 3]);
    assert!(nodes[12..].iter().all(|node| node.finished && !node.answered && node.tokens == 4));
    assert_eq!(nodes.iter().filter(|node| node.answered).count(), 1);
}

#[test]
fn a_scorer_that_does_not_score_is_told_apart() {
    struct Nothing;
    impl Score for Nothing {
        fn score(&mut self, _: &[Vec<&str>]) -> Result<Vec<f64>> {
            Ok(vec![f64::NAN])
        }
    }
    let rules = Rules {
        width: 1,
        temperature: 0.2,
        depth: 2,
        max_tokens: 9,
        answer: "answer".into(),
        between: vec![],
    };
    let step = request(&support::simple_spec(), &[1]);
    let error = search(&step, &rules, &mut Scripted(vec![]), &mut Nothing).unwrap_err();
    assert!(format!("{error:#}").contains("finite number for each of 1 paths"), "{error:#}");
}
