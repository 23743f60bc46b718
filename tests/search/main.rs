//! Search servers, real ones: the dashboards' queries and the Elasticsearch sink against Elasticsearch 7.17, 8 and 9 and OpenSearch 2
//! and 3. `tests/README.md` says how they are had, and how they are skipped.
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
#[path = "../process/mod.rs"]
mod process;

mod dashboards;
mod mappings;
mod servers;
mod sink;
