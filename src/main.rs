//! The `spanferry` binary.

fn main() -> anyhow::Result<()> {
    spanferry::cli::run()
}
