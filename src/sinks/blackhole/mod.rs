//! `type = "blackhole"`: takes everything and keeps nothing. For measuring, and for trying a configuration.

use super::{Delivery, Outcome, Pending, Sink};

/// Takes everything and keeps nothing.
#[derive(Debug, Default)]
pub struct Blackhole;

impl Sink for Blackhole {
    fn deliver<'a>(&'a self, _delivery: &'a Delivery) -> Pending<'a, Outcome> {
        Box::pin(async { Outcome::Delivered })
    }
}
