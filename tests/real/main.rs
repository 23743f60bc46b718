//! Sinks against the real servers that they are made for. `tests/README.md` says how each is built, and how it is skipped.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

#[path = "../bench/load/bodies.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod bodies;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../process/mod.rs"]
mod process;
#[path = "../otlp/receiver.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod receiver;
#[path = "../servers/mod.rs"]
mod servers;

mod made_once;
mod otlp_collector;
mod otlp_sender;
