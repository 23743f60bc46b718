//! A request before it is written to disk, without what the rules with `before_journal` take out of it, and the items they drop. Pure.
//!
//! A request without a match is kept byte for byte, and costs one search. Of another one the record is written anew from its items, each
//! under the resource and scope that it came under; what a body holds beside items is then not kept. Here nothing may
//! slip through: an item that cannot be rewritten loses all its texts, and what could not be understood is masked byte for byte, or not
//! kept at all where that may not be enough.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;

use super::fields::Fields as Texts;
use super::otlp::{each_part, holds_match};
use super::search::Search;
use super::text::{Action, edited};
use super::{Redaction, Rewrite, Shared, text_of};
use crate::normalize::{Coding, Decoded, Encoding, Envelope, Limits, Malformed, Refused, decode};
use crate::prices::Prices;
use crate::rules::{self, Effect, Left, Placed, Rule, Ruled, Rules, Step, in_turn};
use crate::span::otlp::protobuf;
use crate::span::{Item, ONLY_SINK_HEADER, Receiver, Source, sdk_requests};
use crate::support::find::place_of;
use crate::support::hops::SENDER_HEADER;

/// Items that are rewritten may take this many half bodies together; those behind lose all their texts. Labels are mostly shorter than
/// what they stand for.
const GROWTH_HALVES: usize = 3;
const GROWTH_BYTES: usize = 4 << 10;
/// Memory that rewriting may take beside a body of one byte: the items, and the body they become.
pub const MEMORY_RATIO: usize = GROWTH_HALVES;
/// And for the smallest.
pub const MEMORY_BYTES: usize = 2 * GROWTH_BYTES;

/// For the client, where neither a rule nor taking all texts out leaves an item that can be read.
const NOT_REDACTED: &str = "an item could not be redacted, so it cannot be kept";
/// What stands for an item that could not be understood and may hold a match.
const NOTHING_LEFT: &str = "\"[redacted]\"";

/// The rules that hold before the journal.
#[derive(Debug)]
pub struct BeforeJournal {
    rules: Rules,
    /// For items on which a rule fails.
    blank: Rewrite,
}

impl BeforeJournal {
    /// Those of these rules that hold before the journal; `None` where none does.
    pub fn of(rules: &[Arc<Rule>], prices: &Arc<Prices>) -> Option<Self> {
        let rules = rules.iter().filter(|rule| rule.before_journal).cloned();
        let rules = Rules::compile(None, rules).with_prices(Arc::clone(prices));
        let blank = Redaction { fields: Texts::all(), search: Search::all(), action: Action::Drop };
        let blank = Rewrite::Redact(Box::new(blank));
        (!rules.is_empty()).then_some(Self { rules, blank })
    }

    /// The request, as its body and what was decoded of it, without what the rules take out. Returns the body to be kept, and how many
    /// items they dropped. `sent` is the body in its coding, `body` without.
    pub fn clean(
        &self,
        envelope: &mut Envelope,
        sent: Bytes,
        body: &Bytes,
        mut decoded: Decoded,
        limits: &Limits,
    ) -> Result<(Bytes, Decoded, usize), Malformed> {
        if self.clean_headers(&mut envelope.source) {
            // What the scope of Agents SDK items says comes from a header.
            decoded = decode(envelope, body, limits)?;
        }
        let may_hold = self.may_hold(envelope.encoding, body);
        if !may_hold && self.rules.all.iter().all(|rule| redaction(rule).is_some()) {
            return Ok((sent, decoded, 0));
        }
        let Decoded { batch, refused, warnings, odd_times } = decoded;
        let mut shared = Shared::default();
        let mut room = body.len() / 2 * GROWTH_HALVES + GROWTH_BYTES;
        let left = (batch.items.iter())
            .map(|item| self.clean_item(&batch.source, item, &mut room, &mut shared));
        let left: Vec<_> = left.collect::<Result<_, _>>()?;
        let kept: Vec<Refused> =
            refused.iter().map(|refused| self.clean_refused(refused, &mut shared)).collect();
        let is_changed = left.iter().any(|left| !matches!(left, Left::AsItWas))
            || kept != refused
            || may_hold && self.holds_outside(envelope.encoding, body);
        if !is_changed {
            let decoded = Decoded { batch, refused, warnings, odd_times };
            return Ok((sent, decoded, 0));
        }
        // What is below others in other requests is not known here, and no sink will know it.
        let Ruled { batch: left, .. } =
            self.rules.made_of(&batch, batch.source.clone(), left, (None, None), &mut shared);
        let dropped = batch.items.len() - left.items.len();
        drop(batch);
        let body = match envelope.source.receiver {
            Receiver::OpenAi => sdk_requests(left.items.iter().map(|item| item.wire().as_ref())),
            Receiver::OtlpHttp | Receiver::OtlpGrpc | Receiver::Kafka => {
                envelope.encoding = Encoding::Protobuf;
                let mut body = Vec::new();
                protobuf::write_request(&mut body, left.spans());
                Bytes::from(body)
            }
        };
        drop(left);
        (envelope.coding, envelope.body_bytes) = (Coding::Identity, body.len() as u64);
        let again = decode(envelope, &body, limits)?;
        // They are not in the new body, so they have no place before any other item of it.
        let aside = again.refused.into_iter().chain(kept);
        let refused = aside.map(|refused| Refused { index: u32::MAX, ..refused }).collect();
        Ok((body, Decoded { batch: again.batch, refused, warnings, odd_times }, dropped))
    }

    /// A body that is no request, without what the rules take out: whatever it holds may be anything, and nothing of one that is compressed
    /// is kept, since nobody knows what is in it.
    pub fn clean_unread(&self, encoding: Encoding, is_compressed: bool, body: Bytes) -> Bytes {
        self.rules.redactions().fold(body, |body, rule| match rule.refused(&body, encoding) {
            _ if is_compressed => Bytes::new(),
            Some(kept) => kept.into(),
            None => body,
        })
    }

    /// The headers of what is set aside as it came.
    pub fn clean_headers(&self, source: &mut Source) -> bool {
        self.rules.clean_headers(source)
    }

    /// Whether a body may hold what a rule is after.
    fn may_hold(&self, encoding: Encoding, body: &[u8]) -> bool {
        self.rules.redactions().any(|Redaction { search, .. }| {
            // In protobuf numbers show only text by text.
            let has_hidden = encoding == Encoding::Protobuf && search.is_after_numbers();
            has_hidden || search.may_match(body)
        })
    }

    /// Whether a body holds a match where no item is, or anywhere else that the items do not show. A rule for some fields or some items
    /// says nothing about what is none.
    fn holds_outside(&self, encoding: Encoding, body: &[u8]) -> bool {
        let mut for_all = self.rules.all.iter().filter(|rule| rule.condition.is_none());
        for_all.any(|rule| {
            let Some(rule) = redaction(rule).filter(|rule| rule.fields.are_all) else {
                return false;
            };
            match (encoding, str::from_utf8(body)) {
                _ if rule.search.is_all => true,
                (Encoding::Json, Ok(json)) => {
                    rule.json_edits(json, 0, |_| true).map_or(true, |edits| !edits.is_empty())
                }
                (Encoding::Json, Err(_)) => true,
                (Encoding::Protobuf, _) => holds_match(rule, body),
            }
        })
    }

    /// What the rules leave of an item. An error refuses the request.
    fn clean_item(
        &self,
        source: &Source,
        item: &Item,
        room: &mut usize,
        shared: &mut Shared,
    ) -> Result<Left, Malformed> {
        let (mut is_item, beside) = (true, self.rules.beside(source));
        let mut blank = |now: &Item, shared: &mut Shared| {
            let blank = self.blank.apply(now, shared);
            is_item &= blank.is_ok();
            blank.ok().flatten().map(|blank| Step::Becomes(Box::new(blank)))
        };
        let step = |rule: &Placed, now: &Item| {
            let step =
                AssertUnwindSafe(|| rule.matches(beside, now).then(|| rule.act(&[], now, shared)));
            match catch_unwind(step) {
                Ok(Some(Step::Becomes(next))) if next.wire().len() <= *room => {
                    Some(Step::Becomes(next))
                }
                // The rule failed, or texts grow: nothing of it is kept.
                Err(_) | Ok(Some(Step::Becomes(_) | Step::Is(Effect::Failed))) => {
                    blank(now, shared)
                }
                Ok(step) => step,
            }
        };
        let left = in_turn(self.rules.all.iter(), item, step, &mut |_, _| ());
        if let Left::Changed(item) = &left {
            *room = room.saturating_sub(item.wire().len());
        }
        if is_item { Ok(left) } else { Err(Malformed::Shape(NOT_REDACTED.to_owned())) }
    }

    /// An item that could not be understood, so whatever it holds may be anything.
    fn clean_refused(&self, refused: &Refused, shared: &mut Shared) -> Refused {
        let mut kept = refused.clone();
        for rule in &self.rules.all {
            let rules::Action::Rewrite(rewrite @ Rewrite::Redact(redaction)) = &rule.action else {
                continue;
            };
            let scope = kept.scope.as_ref().and_then(|scope| rewrite.scope(scope, shared));
            kept.scope = scope.or(kept.scope);
            if let Some(wire) = redaction.refused(&kept.wire, kept.encoding) {
                kept.wire = wire.into();
            }
        }
        kept
    }
}

fn redaction(rule: &Rule) -> Option<&Redaction> {
    match &rule.action {
        rules::Action::Rewrite(Rewrite::Redact(redaction)) => Some(redaction),
        _ => None,
    }
}

impl Rules {
    fn redactions(&self) -> impl Iterator<Item = &Redaction> {
        self.all.iter().filter_map(|rule| redaction(rule))
    }

    /// Kept headers are no texts of an item, but come with each. What we say in them ourselves stays: whose the request is, where it was.
    pub(in crate::rules) fn clean_headers(&self, source: &mut Source) -> bool {
        let mut is_changed = false;
        let is_theirs = |name: &str| name != SENDER_HEADER && name != ONLY_SINK_HEADER;
        for redaction in self.redactions().filter(|rule| rule.fields.are_all) {
            for (_, value) in source.headers.iter_mut().filter(|(name, _)| is_theirs(name)) {
                if let Some(cleaned) = redaction.value(b"", value.as_bytes()) {
                    *value = text_of(cleaned).to_string();
                    is_changed = true;
                }
            }
        }
        is_changed
    }
}

impl Redaction {
    /// What could not be understood, without matches; `None` where it has none. JSON is searched token by token. In a message a match
    /// becomes as many stars. Of anything else nothing is kept where it may hold one.
    fn refused(&self, wire: &[u8], encoding: Encoding) -> Option<Vec<u8>> {
        let nothing = || match encoding {
            Encoding::Json => NOTHING_LEFT.as_bytes().to_vec(),
            Encoding::Protobuf => Vec::new(),
        };
        if self.search.is_all {
            return Some(nothing());
        }
        if encoding == Encoding::Json
            && let Ok(json) = str::from_utf8(wire)
            && let Ok(edits) = self.json_edits(json, 0, |_| true)
        {
            return edited(wire, edits);
        }
        let mut kept = wire.to_vec();
        let is_whole = each_part(wire, 0, &mut |part| {
            let place = place_of(part, wire).unwrap_or_default();
            self.put_stars(&mut kept, place);
        });
        // What ends before its end is no message, and what is a text in it cannot be told.
        let is_unclear = encoding == Encoding::Json || !is_whole;
        if holds_match(self, &kept) || is_unclear && self.search.may_match(wire) {
            return Some(nothing());
        }
        (kept != wire).then_some(kept)
    }
}
