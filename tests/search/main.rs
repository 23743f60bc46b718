//! Real search servers: the dashboards' queries and the Elasticsearch sink.
//!
//! Each server runs on its own ports on loopback, installed from Maven Central, and stops with its test:
//!
//! | name | version | JDK | download | start |
//! | --- | --- | --- | --- | --- |
//! | `opensearch-2` | OpenSearch 2.19.5, its jars | 17 to 25 | 51 MB | 3 s |
//! | `opensearch-3` | OpenSearch 3.8.0, its jars | 21 to 25 | 69 MB | 3 s |
//! | `elasticsearch-7` | Elasticsearch 7.17.28, Elastic's distribution for integration tests | 17 | 57 MB | 4 s |
//! | `elasticsearch-8` | Elasticsearch 8.19.9, the same | 17 to 25 | 98 MB | 6 s |
//! | `elasticsearch-9` | Elasticsearch 9.4.3, the same | 25 | 124 MB | 6 s |
//!
//! `mvn` downloads the packages the first time, into `target/real-servers/`. JDKs are looked up in `JAVA_HOME` and `/usr/lib/jvm`.
//! Elasticsearch does not run as root: started by root it runs as `nobody`, who must be able to enter this directory. If a test fails, the
//! logs of the server and the daemon are kept, and the test prints their location.
//!
//! * **dashboards**: the files in `config/dashboards/` are consistent (every line and every text in it is JSON, references resolve, every
//!   field is in the mapping that the sink installs on the server). Each panel's query is read from the file that users import, run on a
//!   few hundred documents with known answers, including edges of ranges and a document outside the time range, and compared.
//!   `dashboards/known.rs` has the answers.
//! * **sink/scenarios**: every captured request of the Agents SDKs goes through a real daemon. Every span is there once, with type, name,
//!   parent, nearest agent, tokens, error and times; every trace has the summary that its spans add up to; no parent is missing. The same
//!   run with SIGKILL, out of order and half of it twice gives the same documents, and so does importing a daemon's JSON lines through
//!   another daemon. The expected values are computed in `sink/truth.rs` without any of the daemon's code.
//! * **sink/reports**: programs and reports of `golden/programs` and `golden/reports`: kinds, names, tokens, session and user of each
//!   document, the traces' summaries, and token sums by agent, against their `expected.json`.
//! * **sink/faults**: induced on the server itself: the flood stage of a full disk, a read-only index, a read-only cluster, a closed
//!   index, a circuit breaker, a full write queue (parts of requests get 429), no auto-creation of indices, a user's mapping without
//!   space (fields limit, types in conflict) or tolerance (strict) for attributes, one that accepts no document in any form, and a limit
//!   on the size of requests. During a fault the daemon keeps accepting, its health is degraded, and at any moment
//!   accepted = delivered + pending + dead letters + filtered + dropped. Afterwards everything is there.
//! * **sink/crashes**: SIGKILL to the daemon at several moments, and to the server while the daemon is down; the daemon starts again first.
//!
//! Not proven here: authentication and TLS (these packages come without users), more than one node, ILM and ISM, AWS's and Elastic's hosted
//! forms, Quickwit. The dashboards are not rendered: their tools are in no package registry.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests may panic, print, and read files and the environment"
)]

#[path = "../fixtures/check.rs"]
mod check;
#[path = "../opt_in.rs"]
mod opt_in;
#[path = "../process/mod.rs"]
mod process;

mod dashboards;
mod mappings;
mod servers;
mod sink;

/// Not a test: it ends the suite's output. See `opt_in.rs`.
#[test]
fn zz_what_was_skipped_is_said() {
    opt_in::say_what_was_skipped();
}
