//! JSON lines: one span or trace object per line, in flat columns that pandas, DuckDB and SQLite read directly.
//!
//! `file` and `object_store` write them with `format = "jsonl"`, and `stdout` with `format = "json"`. `columns.md` is their schema.
#![doc = include_str!("columns.md")]

pub(super) mod columns;
mod encode;
#[cfg(test)]
mod tests;

pub use columns::{join_attributes_but, write_attributes};
pub use encode::Lines;

/// The version of the schema that `columns.md` describes.
pub const SCHEMA_VERSION: u64 = 2;
