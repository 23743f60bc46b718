//! A JSON object that is written member by member. Pure.

use super::write_str;

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Begins one.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Goes on with one that is open, and that others close.
    pub fn within(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Begins a member; its value is to be appended to what this returns. No value ends with the brace that tells the first.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        write_str(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// Ends it.
    pub fn close(self) {
        self.out.push(b'}');
    }
}
