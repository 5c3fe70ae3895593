//! The stages of `curate` over its public entry points, as tables of cases.

mod collect;
mod contamination;
mod demo_data;
mod domain;
mod faces;
mod featurise;
mod funnel;
mod miniature;
mod near_duplicates;
mod pipelines;
mod quality;
mod run;
mod select;
mod selection;
mod shape;
mod shared;
mod synthetic_pool;
mod tokens;
