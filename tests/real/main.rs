//! Sinks and receivers against a real OpenTelemetry Collector, which `../servers/collector.rs` makes.
//!
//! Behind the OTLP sink: every captured trace request goes through the Collector over gRPC, HTTP protobuf and HTTP JSON, and what it wrote
//! to its file is compared with the decoded goldens: every span once, with all its attributes, resource and scope. Its ways to say "too
//! large" (gRPC code 8, HTTP 400) must be understood.
//!
//! In front of the daemon: the same requests go into the Collector's own OTLP receiver and through its gRPC and HTTP exporters, gzip and
//! zstd, into a file. Then a sink is down until the journal is full: the daemon answers 503 and `UNAVAILABLE`, the Collector tries again,
//! and once the sink is back every span is there once, in the file and behind the sink that was down.
//!
//! Behind `/metrics`: a real Prometheus scrapes a daemon that takes the captured requests. Every query of the dashboards in
//! `config/dashboards/` has an answer, every alert of `config/prometheus-alerts.yml` fires when it should and not else.
//!
//! Over TLS: `openssl s_client` and `curl`, with and without certificates, in each version of TLS and HTTP.
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

/// No test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
