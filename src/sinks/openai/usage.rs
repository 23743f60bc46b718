//! Converts `usage` to the one shape that OpenAI knows: input and output tokens, and everything else under `details`.

use std::borrow::Cow;

use super::edit::{Change, Origin};
use crate::support::json::object::Object;
use crate::support::json::raw::Raw;

/// Returns the change of a generation's usage.
pub(super) fn usage(sent: Raw<'_>, origin: Origin) -> Change {
    if !sent.is_object() {
        return Change::Keep;
    }
    let sent = sent.object();
    let count = |name| sent.get(name).filter(|value| is_finite(*value));
    let (Some(input), Some(output)) = (count("input_tokens"), count("output_tokens")) else {
        return Change::Remove;
    };
    let mut details: Vec<(Cow<'_, str>, Raw<'_>)> = Vec::new();
    let mut is_as_wanted = true;
    for (_, value) in sent.members.iter().filter(|(name, _)| name == "details") {
        details = value.members().collect();
        is_as_wanted &= !details.is_empty();
    }
    for (name, value) in &sent.members {
        if ["input_tokens", "output_tokens", "details"].contains(&&**name) {
            continue;
        }
        is_as_wanted = false;
        if value.set().is_none() && origin.is_python() {
            continue;
        }
        match details.iter_mut().find(|(known, _)| known == name) {
            Some((_, old)) => *old = *value,
            None => details.push((name.clone(), *value)),
        }
    }
    if is_as_wanted {
        return Change::Keep;
    }
    let mut out = Vec::new();
    let mut usage = Object::open(&mut out);
    usage.member("input_tokens").extend_from_slice(input.text().as_bytes());
    usage.member("output_tokens").extend_from_slice(output.text().as_bytes());
    if !details.is_empty() {
        let mut more = Object::open(usage.member("details"));
        for (name, value) in details {
            more.member(&name).extend_from_slice(value.text().as_bytes());
        }
        more.close();
    }
    usage.close();
    Change::Replace(out)
}

/// Returns whether a number fits in a double, as both SDKs require.
fn is_finite(value: Raw<'_>) -> bool {
    let begins_like_one =
        value.text().starts_with(|first: char| first == '-' || first.is_ascii_digit());
    begins_like_one && value.text().parse::<f64>().is_ok_and(f64::is_finite)
}
