//! One item of the ingest format: what is read of it on arrival.

use std::borrow::Cow;

use super::mend::NESTING_MAX;
use crate::normalize::raw::unescape;
use crate::support::json::scan::{Broken, Quoted, Scanner};

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
        let members = if is_object {
            Some(read_members(scanner, text)?)
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
        })
    }
}

fn read_members<'a>(scanner: &mut Scanner<'_>, text: &'a str) -> Result<Members<'a>, Broken> {
    let mut members = Members::default();
    scanner.expect(b'{', "an object")?;
    if scanner.eat(b'}') {
        return Ok(members);
    }
    loop {
        let name = scanner.key()?;
        let name = inside(text, name);
        match &*name {
            "object" => members.object = string(scanner, text)?,
            "id" => members.id = string(scanner, text)?,
            "trace_id" => members.trace_id = string(scanner, text)?,
            "parent_id" => members.parent_id = string(scanner, text)?,
            "started_at" => members.started_at = string(scanner, text)?,
            "ended_at" => members.ended_at = string(scanner, text)?,
            "workflow_name" => members.workflow_name = string(scanner, text)?,
            "group_id" => members.group_id = string(scanner, text)?,
            "metadata" => members.metadata = object(scanner, text)?,
            _ => scanner.skip_value()?,
        }
        if !scanner.eat(b',') {
            scanner.expect(b'}', "a comma or }")?;
            return Ok(members);
        }
    }
}

fn inside(text: &str, quoted: Quoted) -> Cow<'_, str> {
    let inside = text.get(quoted.start..quoted.end).unwrap_or_default();
    if quoted.escaped { unescape(inside) } else { Cow::Borrowed(inside) }
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
