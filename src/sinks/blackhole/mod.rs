//! `type = "blackhole"`: accepts everything and keeps nothing. For benchmarks, and for trying out a configuration.

use std::sync::Arc;

use serde::Deserialize;

use super::{BuildError, Delivery, Kind, Parts, Pending, Plan, Report, Sink, read_options};

/// The kind `blackhole`.
pub static KIND: Kind = Kind {
    name: "blackhole",
    summary: "accepts everything and keeps nothing; for measuring, and for trying out a configuration",
    example: "",
    schema: crate::support::options::schema_of::<Options>,
    parse: |table| Ok(Box::new(read_options(table, |_: &Options| Vec::new())?)),
};

/// There is nothing to choose.
#[derive(Debug, Clone, Copy, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Options {}

impl Plan for Options {
    fn build(&self, _parts: Parts) -> Result<Arc<dyn Sink>, BuildError> {
        Ok(Arc::new(Blackhole))
    }
}

/// Accepts everything and keeps nothing.
#[derive(Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Report> {
        Box::pin(async { Report::delivered() })
    }
}
