//! Spanferry receives AI-agent traces and delivers them durably to backends and files.

/// Spans are allocated on one thread and freed on another. With the C library's allocator, an agent's span costs a sixth more CPU time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub mod support;
pub mod span;
pub mod telemetry;
pub mod journal;
pub mod normalize;
pub mod prices;
pub mod rules;
pub mod server;
pub mod sinks;
pub mod feed;
pub mod index;
pub mod receivers;
pub mod pipeline;
pub mod operate;
pub mod config;
pub mod admin;
pub mod daemon;
pub mod cli;
