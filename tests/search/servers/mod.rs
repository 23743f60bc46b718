//! Real search servers, each started from Maven packages on its own port on loopback, and stopped with the test that uses it.

mod client;
mod install;
mod node;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use install::Installed;
pub(crate) use node::Node;

use crate::opt_in;

/// The product, which determines packages, settings and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Product {
    Elasticsearch,
    OpenSearch,
}

/// A server on which the tests can run.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Server {
    /// Its name for opting in.
    pub(crate) name: &'static str,
    pub(crate) product: Product,
    pub(crate) major: u32,
    version: &'static str,
    /// The lowest and the highest Java version on which it was seen to run.
    java: (u32, u32),
    /// The matching version of log4j-core, which OpenSearch's packages do not include.
    log4j: &'static str,
}

/// Every server, the one that starts fastest first.
const SERVERS: &[Server] = &[
    Server {
        name: "opensearch-2",
        product: Product::OpenSearch,
        major: 2,
        version: "2.19.5",
        java: (17, 25),
        log4j: "2.25.3",
    },
    Server {
        name: "opensearch-3",
        product: Product::OpenSearch,
        major: 3,
        version: "3.8.0",
        java: (21, 25),
        log4j: "2.25.5",
    },
    Server {
        name: "elasticsearch-7",
        product: Product::Elasticsearch,
        major: 7,
        version: "7.17.28",
        java: (17, 17),
        log4j: "",
    },
    Server {
        name: "elasticsearch-8",
        product: Product::Elasticsearch,
        major: 8,
        version: "8.19.9",
        java: (17, 25),
        log4j: "",
    },
    Server {
        name: "elasticsearch-9",
        product: Product::Elasticsearch,
        major: 9,
        version: "9.4.3",
        java: (25, 25),
        log4j: "",
    },
];

/// Returns the servers that were opted in (`opt_in.rs`).
pub(crate) fn available() -> Vec<Arc<Installed>> {
    SERVERS.iter().filter(|server| opt_in::wants(server.name)).map(installed).collect()
}

/// Installs a server once for all tests. A failed installation is not tried again.
fn installed(server: &'static Server) -> Arc<Installed> {
    static KNOWN: Mutex<BTreeMap<&Server, Result<Arc<Installed>, String>>> =
        Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.entry(server).or_insert_with(|| install::install(server).map(Arc::new));
    let found = found.clone();
    drop(known);
    found.unwrap_or_else(|reason| panic!("no {} {}: {reason}", server.name, server.version))
}
