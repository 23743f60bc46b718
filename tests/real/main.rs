//! Sinks against the real servers that they are made for. `tests/README.md` says how each is built, and how it is skipped.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files"
)]

#[path = "../fixtures/mod.rs"]
mod fixtures;

mod otlp_collector;
