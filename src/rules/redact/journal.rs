//! Applies the rules with `before_journal` to a request before it is written to disk: removes matches and dropped items. Pure.
//!
//! A request without a match is kept byte for byte and costs one search. Otherwise, the body is rewritten from its items, each under its
//! own resource and scope; anything else in the body is lost. Nothing may slip through here: an item that cannot be rewritten loses all its
//! texts, and undecodable data is masked byte for byte, or discarded if that may not be enough.

use std::sync::Arc;

use bytes::Bytes;

use super::fields::Fields as Texts;
use super::otlp::{each_part, holds_match};
use super::search::Search;
use super::text::{Action, edited};
use super::{Redaction, Rewrite, Shared, text_of};
use crate::normalize::{Coding, Decoded, Encoding, Envelope, Limits, Malformed, Refused, decode};
use crate::prices::Prices;
use crate::rules::{self, Effect, Left, Rule, Ruled, Rules};
use crate::span::otlp::protobuf;
use crate::span::{Item, ONLY_SINK_HEADER, Receiver, Source, sdk_requests};
use crate::support::find::place_of;
use crate::support::forwarding::SENDER_HEADER;

/// Rewritten items may together take this many half bodies; later ones lose all their texts. Labels are mostly shorter than what they
/// replace.
const GROWTH_HALVES: usize = 3;
const GROWTH_BYTES: usize = 4 << 10;
/// Memory for rewriting, per byte of the body: the items, and the new body.
pub const MEMORY_RATIO: usize = GROWTH_HALVES;
/// Memory for rewriting the smallest body.
pub const MEMORY_BYTES: usize = 2 * GROWTH_BYTES;

/// Tells the client that neither a rule nor removing all texts leaves a readable item.
const NOT_REDACTED: &str = "an item could not be redacted, so it cannot be kept";
/// Replaces an undecodable item that may contain a match.
const NOTHING_LEFT: &str = "\"[redacted]\"";

/// The rules with `before_journal`. An item on which one fails loses all its texts.
#[derive(Debug)]
pub struct BeforeJournal(Rules);

impl BeforeJournal {
    /// Selects the rules with `before_journal`; `None` if there are none.
    pub fn of(rules: &[Arc<Rule>], prices: &Arc<Prices>) -> Option<Self> {
        let rules = rules.iter().filter(|rule| rule.before_journal).cloned();
        let mut rules = Rules::compile(None, rules).with_prices(Arc::clone(prices));
        let blank = Redaction { fields: Texts::all(), search: Search::all(), action: Action::Drop };
        rules.on_failure = Some(Rewrite::Redact(Box::new(blank)));
        (!rules.is_empty()).then_some(Self(rules))
    }

    /// Applies the rules to a request, given as its body and its decoded items. Returns the body to keep, the decoded items, and the number
    /// of dropped items. `sent` is the body as it was sent, `body` the decompressed one.
    pub fn clean(
        &self,
        envelope: &mut Envelope,
        sent: Bytes,
        body: &Bytes,
        mut decoded: Decoded,
        limits: &Limits,
    ) -> Result<(Bytes, Decoded, usize), Malformed> {
        if self.clean_headers(&mut envelope.source) {
            // The scope of Agents SDK items comes from a header.
            decoded = decode(envelope, body, limits)?;
        }
        let may_hold = self.0.redactions().any(|rule| rule.search.marks(body).any());
        if !may_hold && self.0.all.iter().all(|rule| redaction(rule).is_some()) {
            return Ok((sent, decoded, 0));
        }
        let Decoded { batch, refused, .. } = decoded;
        let room = body.len() / 2 * GROWTH_HALVES + GROWTH_BYTES;
        let mut shared = Shared { room: Some(room), ..Shared::default() };
        let left = batch.items.iter().map(|item| self.clean_item(&batch.source, item, &mut shared));
        let left: Vec<_> = left.collect::<Result<_, _>>()?;
        let kept: Vec<Refused> =
            refused.iter().map(|refused| self.clean_refused(refused, &mut shared)).collect();
        let is_changed = !left.iter().all(Left::is_as_before)
            || kept != refused
            || may_hold && self.holds_outside(envelope.encoding, body);
        if !is_changed {
            return Ok((sent, Decoded { batch, refused, ..decoded }, 0));
        }
        // Spans below dropped ones in other requests are unknown here, and no sink will know them.
        let Ruled { batch: left, .. } =
            self.0.made_of(&batch, batch.source.clone(), left, (None, None), &mut shared);
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
        // They are not in the new body, so they have no place relative to its items.
        let aside = again.refused.into_iter().chain(kept);
        let refused = aside.map(|refused| Refused { index: u32::MAX, ..refused }).collect();
        Ok((body, Decoded { batch: again.batch, refused, ..decoded }, dropped))
    }

    /// Applies the rules to a body that is not a valid request. Nothing is known about its contents, so a compressed body is discarded.
    pub fn clean_unread(&self, encoding: Encoding, is_compressed: bool, body: Bytes) -> Bytes {
        self.0.redactions().fold(body, |body, rule| match rule.refused(&body, encoding) {
            _ if is_compressed => Bytes::new(),
            Some(kept) => kept.into(),
            None => body,
        })
    }

    /// Applies the rules to the headers of a quarantined request.
    pub fn clean_headers(&self, source: &mut Source) -> bool {
        self.0.clean_headers(source)
    }

    /// Returns whether a body contains a match outside of its items. Rules for some fields or some items do not apply there.
    fn holds_outside(&self, encoding: Encoding, body: &[u8]) -> bool {
        let for_all = self.0.all.iter().filter(|rule| rule.condition.is_none());
        let mut for_all = for_all.filter_map(|rule| redaction(rule));
        for_all.any(|rule| rule.fields.are_all && rule.refused(body, encoding).is_some())
    }

    /// Applies the rules to an item. An error refuses the request.
    fn clean_item(
        &self,
        source: &Source,
        item: &Item,
        shared: &mut Shared,
    ) -> Result<Left, Malformed> {
        let mut is_item = true;
        let count = self.0.all.len();
        let left = self.0.judge((source, item, None), count, shared, &mut |_, effect| {
            is_item &= effect != Effect::Failed;
        });
        if let (Some(room), Some(item)) = (&mut shared.room, &left.changed) {
            *room = room.saturating_sub(item.wire().len());
        }
        if is_item { Ok(left) } else { Err(Malformed::Shape(NOT_REDACTED.to_owned())) }
    }

    /// Applies the rules to an undecodable item, about whose contents nothing is known.
    fn clean_refused(&self, refused: &Refused, shared: &mut Shared) -> Refused {
        let mut kept = refused.clone();
        for rule in &self.0.all {
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

    /// Redacts the headers that are kept with each item. Spanferry's own headers stay: the path of the data and the sink it is for.
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
    /// Removes matches from undecodable data; `None` if there are none. JSON is searched token by token. In a protobuf message, stars
    /// replace a match. All other data is discarded if it may contain one.
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
            && let Ok(edits) = self.json_edits(json, &self.search.marks(wire), 0, |_| true)
        {
            return edited(wire, edits);
        }
        let mut kept = wire.to_vec();
        let is_whole = each_part(wire, 0, &mut |part| {
            let place = place_of(part, wire).unwrap_or_default();
            self.put_stars(&mut kept, place);
        });
        // Truncated data is not a valid message, so its texts cannot be told apart.
        let is_unclear = encoding == Encoding::Json || !is_whole;
        if holds_match(self, &kept) || is_unclear && self.search.marks(wire).any() {
            return Some(nothing());
        }
        (kept != wire).then_some(kept)
    }
}
