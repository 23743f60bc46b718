//! The `spanferry` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    spanferry::cli::run()
}
