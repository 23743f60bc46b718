//! What tests of several folders need.

pub(crate) mod authority;
pub(crate) mod golden;
pub(crate) mod memory;
pub(crate) mod planted;
