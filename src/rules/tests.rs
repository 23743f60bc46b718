//! Rules, applied.
