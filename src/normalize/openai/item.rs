//! One item of the ingest format: what is read of it on arrival, and how it is opened again later.

use std::borrow::Cow;

use super::mend::NESTING_MAX;
use crate::normalize::raw::inside;
use crate::span::Landmarks;
use crate::support::json::scan::{Broken, Scanner};

/// Where an item stands in its text, and what was read of it.
#[derive(Debug)]
pub(super) struct Item<'a> {
    /// The item as it is written.
    pub text: &'a str,
    /// Its members; `None` if it is no object.
    pub members: Option<Members<'a>>,
    /// Whether it is to be mended first.
    pub flawed: bool,
    /// Whether it nests deeper than is kept.
    pub too_deep: bool,
    /// Where its long values stand.
    pub landmarks: Landmarks,
}

/// The members that matter on arrival. Names may repeat, and the last one counts.
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
    /// An object, as it is written.
    pub metadata: Option<&'a str>,
}

impl<'a> Item<'a> {
    /// Passes the value that comes next and reads what matters of it.
    pub(super) fn read(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Self, Broken> {
        (scanner.flawed, scanner.deepest) = (false, 0);
        let is_object = scanner.peek() == Some(b'{');
        let start = scanner.at;
        let mut landmarks = Landmarks::default();
        let members = if is_object {
            Some(read_members(scanner, text, &mut landmarks)?)
        } else {
            scanner.skip_value()?;
            None
        };
        Ok(Self {
            text: text.get(start..scanner.at).unwrap_or_default(),
            members,
            flawed: scanner.flawed,
            // One level is the item itself.
            too_deep: NESTING_MAX <= scanner.deepest,
            landmarks,
        })
    }
}

fn read_members<'a>(
    scanner: &mut Scanner<'_>,
    text: &'a str,
    landmarks: &mut Landmarks,
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
            "workflow_name" => members.workflow_name = string(scanner, text)?,
            "group_id" => members.group_id = string(scanner, text)?,
            "metadata" => members.metadata = object(scanner, text)?,
            SPAN_DATA => find_landmarks(scanner, item_start, landmarks)?,
            _ => scanner.skip_value()?,
        }
        Ok::<_, Broken>(())
    })?;
    Ok(members)
}

/// The member that holds what kind of span it is and everything about that.
const SPAN_DATA: &str = "span_data";

/// Values of so many bytes are worth jumping over.
const LONG_BYTES: usize = 256;
/// So many of them are kept: mostly there is one for what went in and one for what came out.
const LONG_MEMBERS_MAX: usize = 2;

/// Passes a span's data, and keeps where it stands and where its long members stand.
fn find_landmarks(
    scanner: &mut Scanner<'_>,
    item_start: usize,
    landmarks: &mut Landmarks,
) -> Result<(), Broken> {
    if scanner.peek() != Some(b'{') {
        return scanner.skip_value();
    }
    let (data, deepest) = (scanner.at, std::mem::take(&mut scanner.deepest));
    *landmarks = Landmarks::default();
    let mut kept = 0;
    scanner.each_member(|scanner, _| {
        scanner.peek();
        let member = scanner.at;
        scanner.skip_value()?;
        if LONG_BYTES <= scanner.at - member && kept < LONG_MEMBERS_MAX {
            landmarks.add(member - item_start..scanner.at - item_start);
            kept += 1;
        }
        Ok::<_, Broken>(())
    })?;
    landmarks.add(data - item_start..scanner.at - item_start);
    // One level is the data itself.
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

fn object<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Option<&'a str>, Broken> {
    let is_object = scanner.peek() == Some(b'{');
    let start = scanner.at;
    scanner.skip_value()?;
    Ok(text.get(start..scanner.at).filter(|_| is_object))
}
