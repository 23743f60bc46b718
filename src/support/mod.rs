//! Leaf parts that several folders need and that know nothing of spans.

pub mod backoff;
pub mod clock;
pub mod problem;
pub mod process;
pub mod stop;
