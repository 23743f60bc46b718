//! The processes that a request's data passed through, to detect forwarding loops.
//!
//! Every request that a daemon sends lists them in [`SENDER_HEADER`], as `hops=2 0123456789abcdef 89abcdef01234567`: the maximum number of
//! daemons on the data's path, including the sender, and their names. A daemon that finds its own name there refuses the data, however many
//! others are in between. Data from many origins is sent together, so there can be more names than fit. Then some are left out, and the
//! count ends the loop at [`HOPS_MAX`]. Names change at each start, so data in flight while a daemon of a loop restarts goes round once
//! more.

use std::fmt::Write as _;
use std::sync::LazyLock;

use super::process;

/// Header that lists the processes that a request's data passed through.
pub const SENDER_HEADER: &str = "spanferry-sender";

/// Maximum length of a chain of daemons. Real chains have two or three: one next to the app, a gateway, one at a vendor's.
pub const HOPS_MAX: u32 = 12;
/// Maximum number of names in the header: as many as a chain without a loop can have. With them, the header has 211 bytes.
const NAMES_MAX: usize = HOPS_MAX as usize;
/// Characters of a name.
const NAME_CHARS: usize = 16;

/// The path of data so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForwardingPath {
    count: u32,
    names: Vec<String>,
}

impl ForwardingPath {
    /// Reads a header. An invalid header counts as none: the data then comes from a client.
    pub fn read(header: &str) -> Self {
        let mut words = header.split_ascii_whitespace();
        let count = words.next().and_then(|word| word.strip_prefix("hops="));
        let Some(count) = count.and_then(|count| count.parse().ok()) else {
            return Self::default();
        };
        let is_name = |word: &&str| {
            word.len() == NAME_CHARS && word.bytes().all(|byte| byte.is_ascii_hexdigit())
        };
        let names = words.filter(is_name).take(NAMES_MAX).map(str::to_owned).collect();
        Self { count, names }
    }

    /// Adds the path of other data that is sent together with this.
    pub fn join(&mut self, other: &Self) {
        self.count = self.count.max(other.count);
        for name in &other.names {
            if self.names.len() < NAMES_MAX - 1 && !self.names.contains(name) {
                self.names.push(name.clone());
            }
        }
    }

    /// Returns the header of a request that this process sends.
    pub fn header(&self) -> String {
        let mut header = format!("hops={} {}", self.count.saturating_add(1), process::sender());
        for name in self.names.iter().take(NAMES_MAX - 1) {
            // Writing to memory cannot fail.
            write!(header, " {name}").ok();
        }
        header
    }

    /// Returns whether this process must refuse the data, because it sent it before or too many daemons did.
    pub fn is_circle(&self) -> bool {
        HOPS_MAX < self.count || self.names.iter().any(|name| name == process::sender())
    }

    /// Returns whether the data comes directly from a client.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Returns the header for data that comes directly from clients.
pub fn first_header() -> &'static str {
    static HEADER: LazyLock<String> = LazyLock::new(|| ForwardingPath::default().header());
    &HEADER
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(number: usize) -> String {
        format!("{number:016x}")
    }

    #[test]
    fn a_process_finds_itself_behind_others() {
        let sent = ForwardingPath::read(first_header());
        assert!(sent.is_circle());
        let other = ForwardingPath::read(&format!("hops=1 {}", named(7)));
        assert!(!other.is_circle() && !other.is_empty());
        let sent_on = ForwardingPath::read(&other.header());
        assert_eq!(
            sent_on,
            ForwardingPath { count: 2, names: vec![process::sender().to_owned(), named(7)] }
        );
        for client in ["", "curl", "0123456789abcdef", "hops=x", "hops= 1"] {
            assert_eq!(ForwardingPath::read(client), ForwardingPath::default(), "{client}");
        }
    }

    #[test]
    fn the_count_ends_what_the_names_do_not() {
        let other = |count: u32| ForwardingPath::read(&format!("hops={count} {}", named(1)));
        assert!(!other(HOPS_MAX).is_circle());
        assert!(other(HOPS_MAX + 1).is_circle());
        assert!(other(u32::MAX).header().starts_with("hops=4294967295 "));
    }

    #[test]
    fn data_of_many_origins_goes_together_in_a_header_of_bounded_length() {
        let mut joined = ForwardingPath::default();
        for number in 0..1000 {
            joined.join(&ForwardingPath { count: 1, names: vec![named(number)] });
        }
        joined.join(&ForwardingPath { count: 3, names: vec![named(0)] });
        let header = joined.header();
        assert!(header.starts_with(&format!("hops=4 {}", process::sender())), "{header}");
        assert_eq!(header.split(' ').count(), 1 + NAMES_MAX);
        assert!(header.len() < 256, "it is kept with the record");
        let long = format!("hops=1 {}", vec![named(5); 100].join(" "));
        assert_eq!(ForwardingPath::read(&long).names.len(), NAMES_MAX);
    }
}
