//! Not a suite: the selection of real servers and SDKs for the tests. One variable names them; what it names must then be available.
#![allow(dead_code, reason = "each suite that includes this file uses a part of it")]

use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::{Mutex, PoisonError};

/// `1` for what is installed within a minute, `all`, or names from [`NAMES`] with commas. If unset, tests need only this repository.
const VARIABLE: &str = "SPANFERRY_REAL";

/// The possible names, and whether `1` includes them.
const NAMES: &[(&str, bool)] = &[
    ("sdk", true),
    ("console", true),
    ("collector", true),
    ("openssl", true),
    ("kafka", true),
    ("prometheus", true),
    ("warehouse", true),
    ("versitygw", true),
    ("azurite", true),
    ("opensearch-2", true),
    ("opensearch-3", false),
    ("elasticsearch-7", false),
    ("elasticsearch-8", false),
    ("elasticsearch-9", false),
    ("moto", false),
    ("jaeger", false),
    ("phoenix", false),
];

/// What was not opted in, and what cannot run on this machine.
static UNWANTED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
static SKIPPED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Returns whether a test runs with this. If not, the suite reports it at its end.
pub(crate) fn wants(name: &str) -> bool {
    let choice = std::env::var(VARIABLE).unwrap_or_default();
    let is_wanted = chosen(&choice).unwrap_or_else(|error| panic!("{error}")).contains(&name);
    if !is_wanted {
        UNWANTED.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }
    is_wanted
}

/// Returns the names that a value of the variable selects.
pub(crate) fn chosen(choice: &str) -> Result<Vec<&'static str>, String> {
    let names = NAMES.iter().filter(|(_, is_quick)| *is_quick || choice == "all");
    match choice {
        "" | "0" => Ok(Vec::new()),
        "1" | "all" => Ok(names.map(|(name, _)| *name).collect()),
        list => list
            .split(',')
            .map(|name| {
                let found = NAMES.iter().find(|(known, _)| *known == name.trim());
                found.map(|(known, _)| *known).ok_or_else(|| {
                    let known: Vec<_> = NAMES.iter().map(|(known, _)| *known).collect();
                    format!("{VARIABLE}: unknown name {name:?}; there are {}", known.join(", "))
                })
            })
            .collect(),
    }
}

/// Records what cannot run on this machine.
pub(crate) fn skip(what: &str) {
    SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).insert(what.to_owned());
}

/// Prints what was skipped. Each suite calls it in the alphabetically last test, because the test runner starts tests in that order. It
/// bypasses the runner, which captures the output of tests.
pub(crate) fn say_what_was_skipped() {
    let mut all = SKIPPED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let unwanted = UNWANTED.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let names = unwanted.into_iter().collect::<Vec<_>>().join(", ");
    if !names.is_empty() {
        all.insert(format!("{names} ({VARIABLE}=all or names opt in)"));
    }
    let all: Vec<_> = all.into_iter().collect();
    let line = if all.is_empty() { "nothing".to_owned() } else { all.join("; ") };
    std::io::stdout().write_all(format!("\nskipped: {line}\n").as_bytes()).unwrap();
}
