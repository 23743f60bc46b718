//! How attributes stand in lines, and in other outputs that are read as lines are.

use crate::span::Attribute;
use crate::span::plain::{self, Numbers, Repeated, Style};

const STYLE: Style = Style { numbers: Numbers::Finite, repeated: Repeated::Last };

/// Appends attributes as one object.
pub fn write_attributes(out: &mut Vec<u8>, attributes: &[Attribute]) {
    write_attributes_but(out, attributes, |_| false);
}

/// Appends attributes as one object, without those for which `skip` says true.
pub fn write_attributes_but<'a>(
    out: &mut Vec<u8>,
    attributes: &'a [Attribute],
    skip: impl FnMut(&'a Attribute) -> bool,
) {
    plain::write_attributes_but(out, attributes, STYLE, skip);
}
