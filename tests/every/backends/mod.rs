//! The backends: one module each, one row in [`all`].

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

/// A backend.
pub(crate) trait Backend {
    /// Returns the name of its sink and of its row.
    fn name(&self) -> &'static str;

    /// Returns its sink's table, as TOML without the header.
    fn table(&self) -> String;

    /// Returns how it shows spans.
    fn words(&self) -> Words;

    /// Returns what it holds now.
    fn read<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Vec<Seen>>;

    /// Checks what the backend computed from the spans (its lists, sums and counts), and returns it as text.
    fn own_figures<'a>(&'a self, _expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async { None })
    }
}

/// Starts every available backend. `dir` is the daemon's directory.
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

/// Returns only the simplest of them.
pub(crate) fn lines(dir: &Path) -> Box<dyn Backend> {
    files::all(dir).swap_remove(0)
}
