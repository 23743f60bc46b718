//! A writer for JSON objects, member by member. Pure.

use super::write_str;

/// An object that is being written.
#[derive(Debug)]
pub struct Object<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Object<'a> {
    /// Begins an object.
    pub fn open(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out }
    }

    /// Continues an object that other code opened and will close.
    pub fn within(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Begins a member; the caller appends its value to the returned buffer. No value ends with `{`, so that byte marks the first member.
    pub fn member(&mut self, name: &str) -> &mut Vec<u8> {
        if self.out.last() != Some(&b'{') {
            self.out.push(b',');
        }
        write_str(self.out, name);
        self.out.push(b':');
        self.out
    }

    /// Ends the object.
    pub fn close(self) {
        self.out.push(b'}');
    }
}
