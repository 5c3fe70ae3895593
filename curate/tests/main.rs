//! The stages of `curate` over its public entry points, as tables of cases.

mod contamination;
mod demo_data;
mod domain;
mod faces;
mod featurise;
mod funnel;
mod pipelines;
mod quality;
mod run;
mod select;
mod selection;
mod shape;
mod shared;
mod tokens;
