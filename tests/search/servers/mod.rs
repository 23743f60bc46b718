//! Real search servers, each started from Maven packages on a port of its own on loopback, and ended with the test that uses it.

mod client;
mod install;
mod node;

use std::collections::BTreeMap;
use std::env;
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use install::Installed;
pub(crate) use node::Node;

/// Which servers the tests run on: `all`, or names from [`SERVERS`] with commas. Without it, the one that starts fastest.
const CHOICE: &str = "SPANFERRY_SEARCH_SERVERS";
/// When this is set, a server that cannot be had fails the tests instead of being skipped.
const REQUIRED: &str = "SPANFERRY_SEARCH_REQUIRED";

/// A kind of server and how old it is: what differs in its packages, settings and answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Product {
    Elasticsearch,
    OpenSearch,
}

/// A server that the tests can run on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Server {
    /// As [`CHOICE`] names it.
    pub(crate) name: &'static str,
    pub(crate) product: Product,
    pub(crate) major: u32,
    version: &'static str,
    /// The Java versions that it was seen to run on: the lowest and the highest.
    java: (u32, u32),
    /// The version of log4j-core that goes with it, which OpenSearch's packages leave to whoever starts them.
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

/// The servers to run on that can be had here. What was chosen and cannot be had is said, with the reason.
pub(crate) fn available() -> Vec<Arc<Installed>> {
    chosen().into_iter().filter_map(installed).collect()
}

fn chosen() -> Vec<&'static Server> {
    let choice = env::var(CHOICE).unwrap_or_else(|_| SERVERS[0].name.to_owned());
    if choice == "all" {
        return SERVERS.iter().collect();
    }
    let find = |name: &str| SERVERS.iter().find(|server| server.name == name);
    let names = choice.split(',').map(str::trim);
    names.map(|name| find(name).unwrap_or_else(|| panic!("{CHOICE}: no server {name:?}"))).collect()
}

/// Installed once for all tests, and tried once: what cannot be had now will not be had a second later.
fn installed(server: &'static Server) -> Option<Arc<Installed>> {
    static KNOWN: Mutex<BTreeMap<&Server, Result<Arc<Installed>, String>>> =
        Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let found = known.entry(server).or_insert_with(|| install::install(server).map(Arc::new));
    match found {
        Ok(installed) => Some(Arc::clone(installed)),
        Err(reason) if env::var_os(REQUIRED).is_some() => panic!("no {}: {reason}", server.name),
        Err(reason) => {
            println!("skipped: no {} {}: {reason}", server.name, server.version);
            None
        }
    }
}
