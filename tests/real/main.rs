//! Sinks and receivers against a real OpenTelemetry Collector, built by `../servers/collector.rs`.
//!
//! The Collector as the backend of the OTLP sink: every captured trace request goes through it over gRPC, HTTP protobuf and HTTP JSON, and
//! the file that it writes is compared with the decoded goldens: every span once, with all its attributes, resource and scope. The sink
//! must recognize its answers for "too large" (gRPC code 8, HTTP 400).
//!
//! The Collector as the client of the daemon: the same requests go into its own OTLP receiver and through its gRPC and HTTP exporters, gzip
//! and zstd, into a file. Then a sink is down until the journal is full: the daemon answers 503 and `UNAVAILABLE`, the Collector retries,
//! and once the sink has recovered every span is there once, in the file and at the backend of the sink that was down.
//!
//! Prometheus as the client of `/metrics`: it scrapes a daemon that receives the captured requests. Every query of the dashboards in
//! `config/dashboards/` has an answer, and every alert of `config/prometheus-alerts.yml` fires when it should and only then.
//!
//! TLS: `openssl s_client` and `curl`, with and without certificates, in each version of TLS and HTTP.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, and read files and the environment"
)]

#[path = "../../src/support/tests/authority.rs"]
mod authority;
#[path = "../bench/load/bodies.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod bodies;
#[path = "../fixtures/mod.rs"]
mod fixtures;
#[path = "../opt_in.rs"]
mod opt_in;
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
mod prometheus;
mod tls_clients;

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
