//! The amount of code. Small is a feature: the ceilings may only come down.

use std::io::Write as _;

use super::{Source, sources};

/// Lines of `src` without its tests.
const LINES_MAX: usize = 65_974;
/// Those without comments and blank lines.
const CODE_MAX: usize = 50_805;

fn is_code(line: &str) -> bool {
    let line = line.trim_start();
    !line.is_empty() && !line.starts_with("//")
}

#[test]
fn the_tree_is_no_larger_than_it_may_be() {
    let sources = sources();
    let production: Vec<_> =
        sources.iter().filter(|source| !source.is_test()).map(Source::production).collect();
    let lines = production.iter().map(|text| text.lines().count()).sum::<usize>();
    let code = production.iter().flat_map(|text| text.lines()).filter(|line| is_code(line)).count();
    let said =
        format!("\nproduction lines: {lines} of {LINES_MAX}, of code: {code} of {CODE_MAX}\n");
    // Bypasses the test runner, which captures the output of tests.
    std::io::stdout().write_all(said.as_bytes()).unwrap();
    assert!(lines <= LINES_MAX, "{lines} production lines; {LINES_MAX} are allowed");
    assert!(code <= CODE_MAX, "{code} lines of production code; {CODE_MAX} are allowed");
}
