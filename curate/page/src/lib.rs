//! Self-contained HTML pages with tables and SVG charts: one file, readable without a network. And
//! columns for terminals, under the same rule: what strangers wrote is shown and never acts.
//!
//! Everything that becomes text or an attribute is escaped on its way into [`Html`]; there is no
//! other way in, so a page may show what models and strangers wrote. It deliberately has no
//! JavaScript, no outside fonts or images, and no templates; it knows no files and never a clock:
//! the same calls give the same bytes.
//!
//! Modules in reading order: [`html`] (escaping), [`document`] (the page around the content),
//! [`table`], then the charts: [`chart`] (what they share), [`bars`], [`histogram`], [`lines`]; and
//! [`terminal`].

pub mod html;

pub mod document;

pub mod table;

pub mod chart;

pub mod bars;
pub mod histogram;
pub mod lines;

pub mod terminal;
