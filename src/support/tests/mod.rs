//! Helpers for tests of several folders.

pub(crate) mod authority;
pub(crate) mod golden;
pub(crate) mod memory;
pub(crate) mod planted;
