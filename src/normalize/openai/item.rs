//! Parses one item of the ingest format: the members needed on arrival, and offsets that speed up later reads.

use std::borrow::Cow;

use super::facts::label;
use super::repair::NESTING_MAX;
use crate::normalize::raw::{Raw, inside};
use crate::span::ValueOffsets;
use crate::support::json::scan::{Broken, Scanner};

/// An item's text, and what was parsed of it.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The item as sent.
    pub text: &'a str,
    /// Its members; `None` if it is not an object.
    pub members: Option<Members<'a>>,
    /// Whether it must be repaired first.
    pub flawed: bool,
    /// Whether it nests more deeply than is accepted.
    pub too_deep: bool,
    /// The offsets of its long values.
    pub value_offsets: ValueOffsets,
}

/// The members needed on arrival. If a name repeats, the last value counts.
#[derive(Debug, Default)]
pub(super) struct Members<'a> {
    pub object: Option<Cow<'a, str>>,
    pub id: Option<Cow<'a, str>>,
    pub trace_id: Option<Cow<'a, str>>,
    pub parent_id: Option<Cow<'a, str>>,
    pub started_at: Option<Cow<'a, str>>,
    pub ended_at: Option<Cow<'a, str>>,
    pub workflow_name: Option<Cow<'a, str>>,
    pub group_id: Option<Cow<'a, str>>,
    /// An object.
    pub metadata: Option<Raw<'a>>,
}

impl<'a> Item<'a> {
    /// Reads the next value as an item.
    pub(super) fn read(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Self, Broken> {
        (scanner.flawed, scanner.deepest) = (false, 0);
        let is_object = scanner.peek() == Some(b'{');
        let start = scanner.at;
        let mut value_offsets = ValueOffsets::default();
        let members = if is_object {
            Some(read_members(scanner, text, &mut value_offsets)?)
        } else {
            scanner.skip_value()?;
            None
        };
        Ok(Self {
            text: text.get(start..scanner.at).unwrap_or_default(),
            members,
            flawed: scanner.flawed,
            // The item itself is one level.
            too_deep: NESTING_MAX <= scanner.deepest,
            value_offsets,
        })
    }
}

fn read_members<'a>(
    scanner: &mut Scanner<'_>,
    text: &'a str,
    value_offsets: &mut ValueOffsets,
) -> Result<Members<'a>, Broken> {
    let mut members = Members::default();
    let item_start = scanner.at;
    scanner.each_member(|scanner, name| {
        match &*inside(text, name) {
            "object" => members.object = string(scanner, text)?,
            "id" => members.id = string(scanner, text)?,
            "trace_id" => members.trace_id = string(scanner, text)?,
            "parent_id" => members.parent_id = string(scanner, text)?,
            "started_at" => members.started_at = string(scanner, text)?,
            "ended_at" => members.ended_at = string(scanner, text)?,
            "workflow_name" => members.workflow_name = value(scanner, text)?.and_then(label),
            "group_id" => members.group_id = value(scanner, text)?.and_then(label),
            "metadata" => members.metadata = value(scanner, text)?.filter(|it| it.is_object()),
            SPAN_DATA => find_landmarks(scanner, item_start, value_offsets)?,
            _ => scanner.skip_value()?,
        }
        Ok::<_, Broken>(())
    })?;
    Ok(members)
}

/// The member that holds the span's type and its data.
const SPAN_DATA: &str = "span_data";

/// The length in bytes from which skipping a value by its offset pays.
const LONG_BYTES: usize = 256;
/// The number of offsets that are kept: usually one value is the input and one the output.
const LONG_MEMBERS_MAX: usize = 2;

/// Skips a span's data and records its offsets and those of its long members.
fn find_landmarks(
    scanner: &mut Scanner<'_>,
    item_start: usize,
    value_offsets: &mut ValueOffsets,
) -> Result<(), Broken> {
    if scanner.peek() != Some(b'{') {
        return scanner.skip_value();
    }
    let (data, deepest) = (scanner.at, std::mem::take(&mut scanner.deepest));
    *value_offsets = ValueOffsets::default();
    let mut kept = 0;
    scanner.each_member(|scanner, _| {
        scanner.peek();
        let member = scanner.at;
        scanner.skip_value()?;
        if LONG_BYTES <= scanner.at - member && kept < LONG_MEMBERS_MAX {
            value_offsets.add(member - item_start..scanner.at - item_start);
            kept += 1;
        }
        Ok::<_, Broken>(())
    })?;
    value_offsets.add(data - item_start..scanner.at - item_start);
    // The data itself is one level.
    scanner.deepest = deepest.max(scanner.deepest + 1);
    Ok(())
}

fn string<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Option<Cow<'a, str>>, Broken> {
    if scanner.peek() == Some(b'"') {
        return Ok(Some(inside(text, scanner.string()?)));
    }
    scanner.skip_value()?;
    Ok(None)
}

fn value<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Option<Raw<'a>>, Broken> {
    scanner.peek();
    let start = scanner.at;
    scanner.skip_value()?;
    Ok(text.get(start..scanner.at).map(Raw::trusted))
}
