//! REBASE: a tree of steps that grows where a scorer sees promise, with a fixed number of answers.
//!
//! The rule is that of s1's `eval/rebase/inference_scaling/rebase.py` (after Y. Wu et al.,
//! Inference scaling laws, 2024). At each depth the finished nodes take a place each, and the open
//! ones share the rest by a softmax of their scores; as many children as a node has places are
//! sampled from it, one step each, and scored. Who scores is open: s1 asks a process reward model
//! of 34B parameters.
//!
//! Differs from s1: a path's tokens are all its steps' (there, a node forgets its parents'); equal
//! scores share equally (there, rounding in 32 bits may give one of them a place more).

use std::iter;
use std::sync::Arc;

use anyhow::{Result, ensure};

use crate::budget::Ending;
use crate::engine::{Generate, Request};

/// Says how promising the beginnings of solutions are.
pub trait Score {
    /// A number for each path, which is the texts of its steps from the first on. More is better.
    fn score(&mut self, paths: &[Vec<&str>]) -> Result<Vec<f64>>;
}

/// How the tree grows.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Places for nodes at each depth: as many answers come out at most. s1: 16.
    pub width: usize,
    /// Of the softmax over scores. s1: 0.2.
    pub temperature: f64,
    /// Steps of a path at most. s1: 50.
    pub depth: usize,
    /// A path with so many ids of steps grows no more.
    pub max_tokens: usize,
    /// A step with this text in it finishes its path.
    pub answer: String,
    /// Ids between two steps, such as the delimiter at which the first of them stopped.
    pub between: Vec<i64>,
}

/// A step, and with its ancestors the path to it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// The node whose step comes before; none before a first step.
    pub parent: Option<usize>,
    /// Steps of the path.
    pub depth: usize,
    /// What is sampled behind the path: the prompt and all steps.
    ids: Arc<[i64]>,
    /// Ids of the path's steps.
    pub tokens: usize,
    /// The step's text.
    pub text: String,
    /// What the scorer says of the path.
    pub score: f64,
    /// Whether the path has an answer.
    pub answered: bool,
    /// Whether it can grow no more.
    pub finished: bool,
}

/// Grows a tree from the prompt of `step`, a request for a single step: its spec says where a step
/// ends, its seed decides the draws. The nodes come out in the order in which they were sampled.
pub fn search(
    step: &Request,
    rules: &Rules,
    generate: &mut dyn Generate,
    scorer: &mut dyn Score,
) -> Result<Vec<Node>> {
    ensure!(rules.width > 0, "REBASE with a width of 0 would sample nothing");
    ensure!(rules.temperature > 0.0, "REBASE with a softmax temperature of 0 has no shares");
    let mut nodes: Vec<Node> = Vec::new();
    let mut places = rules.width;
    // The root, and after it the nodes of the last depth.
    let mut level: Vec<Option<usize>> = vec![None];
    for depth in 1..=rules.depth {
        let (finished, open): (Vec<_>, Vec<_>) =
            level.into_iter().partition(|at| at.is_some_and(|n| nodes[n].finished));
        places = places.saturating_sub(finished.len());
        let scores: Vec<f64> = open.iter().map(|at| at.map_or(1.0, |n| nodes[n].score)).collect();
        let shares = shares(&scores, rules.temperature, places);
        let parents: Vec<_> =
            shares.iter().flat_map(|&(at, count)| iter::repeat_n(open[at], count)).collect();
        if parents.is_empty() {
            break;
        }
        let first = nodes.len();
        let children = grow(step, rules, &nodes, &parents, generate)?;
        nodes.extend(children.into_iter().map(|child| Node { depth, ..child }));
        let paths: Vec<Vec<&str>> = (first..nodes.len())
            .map(|n| path(&nodes, n).iter().map(|&n| nodes[n].text.as_str()).collect())
            .collect();
        let scores = scorer.score(&paths)?;
        ensure!(
            scores.len() == paths.len() && scores.iter().all(|score| score.is_finite()),
            "{}: the scorer must give a finite number for each of {} paths",
            step.name,
            paths.len()
        );
        nodes[first..].iter_mut().zip(scores).for_each(|(node, score)| node.score = score);
        level = (first..nodes.len()).map(Some).collect();
    }
    Ok(nodes)
}

/// Samples a step behind each of the `parents`, which are nodes or the root; none is scored yet.
fn grow(
    step: &Request,
    rules: &Rules,
    nodes: &[Node],
    parents: &[Option<usize>],
    generate: &mut dyn Generate,
) -> Result<Vec<Node>> {
    let request = |(n, parent): (usize, &Option<usize>)| {
        let number = (nodes.len() + n).to_string();
        Request {
            name: format!("{}, node {number}", step.name),
            prompt: parent.map_or(&step.prompt, |n| &nodes[n].ids).clone(),
            seed: record::seed::rng(step.seed, &["rebase", &number]).next_u64(),
            ..step.clone()
        }
    };
    let requests: Vec<Request> = parents.iter().enumerate().map(request).collect();
    let mut children: Vec<Option<Node>> = requests.iter().map(|_| None).collect();
    generate.generate(&requests, &mut |n, completion| {
        let (outcome, text) = (completion.outcome, completion.text);
        let tokens = parents[n].map_or(0, |parent| nodes[parent].tokens) + outcome.ids.len();
        let answered = text.contains(&rules.answer);
        let full = tokens >= rules.max_tokens || outcome.ending == Ending::Context;
        children[n] = Some(Node {
            parent: parents[n],
            depth: 0,
            ids: [&requests[n].prompt, &outcome.ids[..], &rules.between].concat().into(),
            tokens,
            text,
            score: 0.0,
            answered,
            finished: answered || full,
        });
        Ok(())
    })?;
    Ok(children.into_iter().map(|child| child.expect("each is answered once")).collect())
}

/// The steps to a node, the first of them first.
pub fn path(nodes: &[Node], last: usize) -> Vec<usize> {
    let mut path: Vec<usize> = iter::successors(Some(last), |&n| nodes[n].parent).collect();
    path.reverse();
    path
}

/// Which of the scored nodes have how many of the `places`, by descending score, the later of
/// equals first. With w = exp(score / temperature) the first has ceil(places w / sum of w), then
/// the next of what is left in the same way.
pub fn shares(scores: &[f64], temperature: f64, places: usize) -> Vec<(usize, usize)> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(b.cmp(&a)));
    let highest = order.first().map_or(0.0, |&n| scores[n]);
    // Less the highest, which changes no share, weights are at most 1, and equals add up exactly.
    let weight = |n: usize| ((scores[n] - highest) / temperature).exp();
    let mut left = places;
    let mut shares = Vec::new();
    for (rank, &n) in order.iter().enumerate() {
        let sum: f64 = order[rank..].iter().rev().map(|&n| weight(n)).sum();
        let share = match sum > 0.0 {
            true => (left as f64 * weight(n) / sum).ceil() as usize,
            false => left,
        };
        shares.push((n, share.min(left)));
        left -= share.min(left);
    }
    shares
}
