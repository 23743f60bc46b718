//! Leaf modules that several folders need and that know nothing about spans.

pub mod address;
pub mod backoff;
pub mod base64;
pub mod by_touch;
pub mod byte_size;
pub mod clock;
pub mod moment;
pub mod compress;
pub mod duration;
pub mod find;
pub mod json;
pub mod kafka;
pub mod keyring;
pub mod lock;
pub mod number;
pub mod options;
pub mod pem;
pub mod pool;
pub mod problem;
pub mod process;
pub mod forwarding;
pub mod recent;
pub mod rfc3339;
pub mod secret;
pub mod seldom;
pub mod sha256;
pub mod stop;
pub mod table;
pub mod terminal;
pub mod verifier;
pub mod written;

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{authority, golden, memory, planted};
