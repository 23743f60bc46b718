//! scaffold
mod reasoning;
mod sanitize;
mod shrink;
mod usage;
#[cfg(test)]
mod tests;
