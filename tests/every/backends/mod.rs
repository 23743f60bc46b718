//! The places to send to: one module each, one row in [`all`].

mod files;
mod jaeger;
mod langfuse;
mod openai;
mod otlp;
mod phoenix;
mod search;

use std::path::Path;

use futures_util::future::BoxFuture;

use super::expected::Expected;
use super::seen::{Seen, Words};
pub(crate) use otlp::Here;

/// A place to send to.
pub(crate) trait Backend {
    /// What its sink is called, and its row.
    fn name(&self) -> &'static str;

    /// Its sink's table, as TOML without the header.
    fn table(&self) -> String;

    /// How it shows spans.
    fn words(&self) -> Words;

    /// What it holds now.
    fn read<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Vec<Seen>>;

    /// Holds what the place itself made of the spans (its lists, sums and counts) to what it must be, and returns it as text.
    fn own_figures<'a>(&'a self, _expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async { None })
    }
}

/// Every place that can be had, started. `dir` is the daemon's directory.
pub(crate) async fn all(dir: &Path) -> Vec<Box<dyn Backend>> {
    let mut all = files::all(dir);
    all.extend(otlp::all().await);
    all.push(langfuse::start().await);
    all.push(openai::start().await);
    all.extend(search::start().await);
    all.extend(jaeger::start().await);
    all.extend(phoenix::start().await);
    all
}

/// Only the plainest of them.
pub(crate) fn lines(dir: &Path) -> Box<dyn Backend> {
    files::all(dir).swap_remove(0)
}
