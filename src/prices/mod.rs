//! Prices: what a model call cost, where its client does not say it.
//!
//! The table is that of the package genai-prices, with a date, built into the binary (`tools/prices.py` makes it anew); `[prices]` can
//! bring another one and prices of one's own. Nothing is fetched. Whoever wants costs asks [`Prices::tokens_of`] in the place of
//! [`tokens_of`]: a sink that writes them, a rule that asks for `cost`. Nobody else pays for it.
//!
//! * **A cost that the client sent stays**, whatever the table says; `cost_source` is `sdk` then, else `override` or `table:DATE`.
//! * **Nothing is guessed.** A provider that the table does not have, a model that its provider does not have, and counts that contradict
//!   each other have no cost. Models without a price are counted by name (`spanferry_spans_unpriced_total`).
//! * **What repeats others has no cost** but the one that its client says: only tokens that count are priced.
//! * **The price is that of the day** on which the span began, so a replay finds what held then.
//! * **Once.** A span is priced when it is first asked, and every sink has the same sum. Costs are whole billionths of a dollar
//!   ([`money`]), so that the sum of a trace is that of its spans.

mod money;
mod options;
mod read;
mod table;
mod write;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};

use flate2::read::GzDecoder;

pub use options::{Override, PriceOptions};
pub use read::{NoTable, read};
pub use table::{Model, Provider, Table};

use crate::span::{Facts, Priced, Span, Text, Tokens, TraceContext, Usage, tokens_of};
use crate::support::rfc3339::NS_PER_SECOND;
use crate::telemetry::Understanding;
use money::{Nanos, Rates};

static BUILT_IN: LazyLock<Arc<Table>> = LazyLock::new(|| {
    let mut text = Vec::new();
    // What the binary brings was read by a test.
    GzDecoder::new(&include_bytes!("table.json.gz")[..]).read_to_end(&mut text).ok();
    Arc::new(read(&text, "").unwrap_or_default())
});

/// Names that are looked up in the table once. More than any app uses; a client that makes names up has them forgotten.
const FOUND_MAX: usize = 4096;
/// A longer name is no model's.
const NAME_BYTES_MAX: usize = 256;

/// The prices in force. Without any (`Default`) nothing has a cost but what clients say.
#[derive(Default)]
pub struct Prices {
    is_on: bool,
    /// By the model's name in lowercase.
    overrides: BTreeMap<String, Rates>,
    /// The table in the place of the one that is built in.
    table: Option<Arc<Table>>,
    /// What names were found to be: by model, then by provider.
    found: RwLock<HashMap<Box<str>, Vec<(Box<str>, Found)>>>,
    understanding: OnceLock<Understanding>,
}

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// One of the user's.
    Override,
    /// One of the table: the places of provider and model.
    Model(usize, usize),
    Nothing,
}

/// What a model costs at a time.
#[derive(Debug)]
pub struct Quote<'p> {
    /// `override`, or `table:DATE`.
    pub source: String,
    /// Who serves it and what it is called there; `None` for an override.
    pub model: Option<(&'p Provider, &'p Model)>,
    /// Each price by its name in the table, in words.
    pub prices: Vec<(&'static str, String)>,
}

impl Prices {
    /// The prices that options come to, with the table of their file where they name one.
    pub fn new(options: &PriceOptions, table: Option<Table>) -> Self {
        Self {
            is_on: options.enabled,
            overrides: options.rates(),
            table: table.map(Arc::new),
            ..Self::default()
        }
    }

    /// Has models without a price counted there. The first that is named stays.
    pub fn report_to(&self, understanding: &Understanding) {
        self.understanding.get_or_init(|| understanding.clone());
    }

    /// [`tokens_of`], with what the tokens cost where the client does not say it.
    pub fn tokens_of<'a>(&self, context: Option<&TraceContext>, span: &'a Span) -> Tokens<'a> {
        let tokens = tokens_of(context, span);
        if !tokens.counts || tokens.own.is_empty() || tokens.cost_source.is_some() {
            return tokens;
        }
        match self.of(span) {
            Some(priced) => tokens.priced(priced),
            None => tokens,
        }
    }

    /// What the tokens that a span speaks of cost, its own or those of others; `None` where no price is known or the client says a cost.
    pub fn of<'a>(&self, span: &'a Span) -> Option<&'a Priced> {
        let facts = span.facts();
        if !self.is_on || facts.cost.is_said() {
            return None;
        }
        let usage = if facts.usage.is_empty() { &facts.aggregate_usage } else { &facts.usage };
        if usage.is_empty() {
            return None;
        }
        let at_ns = if span.start_ns == 0 { span.end_ns } else { span.start_ns };
        span.priced(|| self.price(facts, usage, at_ns))
    }

    fn price(&self, facts: &Facts, usage: &Usage, at_ns: u64) -> Option<Priced> {
        // What answered is what was paid for; an alias that a gateway has for it is asked for only where it is no model's name.
        let names = [&facts.response_model, &facts.request_model];
        let names = || names.into_iter().flatten().filter(|name| !name.is_empty());
        let provider = facts.provider.as_deref();
        let mut found = names().map(|name| (name, self.find(provider, name)));
        let found = found.find(|(_, found)| *found != Found::Nothing);
        let priced = found.and_then(|(name, found)| self.rates(name, found, at_ns / NS_PER_SECOND));
        let Some((rates, source)) = priced else {
            if let (Some(understanding), Some(name)) = (self.understanding.get(), names().next()) {
                understanding.unpriced(name);
            }
            return None;
        };
        let Nanos { input, output, total } = rates.cost_of(usage)?;
        Some(Priced { cost: money::cost(input, output, total), source })
    }

    /// What a name that was found costs at a time, and whose price that is.
    fn rates(&self, name: &str, found: Found, unix_second: u64) -> Option<(&Rates, Text)> {
        if found == Found::Override {
            let rates = self.overrides.get(&name.to_ascii_lowercase())?;
            return Some((rates, Text::from_static("override")));
        }
        let (_, model) = self.model(found)?;
        Some((model.rates_at(unix_second)?, self.table().source.clone()))
    }

    fn table(&self) -> &Table {
        self.table.as_ref().unwrap_or(&*BUILT_IN)
    }

    fn model(&self, found: Found) -> Option<(&Provider, &Model)> {
        let Found::Model(provider, model) = found else { return None };
        let provider = self.table().providers.get(provider)?;
        Some((provider, provider.models.get(model)?))
    }

    /// What a model of a provider is found to be; what was looked up before is remembered.
    fn find(&self, provider: Option<&str>, model: &str) -> Found {
        let provider = provider.unwrap_or_default();
        if NAME_BYTES_MAX < model.len() || NAME_BYTES_MAX < provider.len() {
            return Found::Nothing;
        }
        let known = |known: &HashMap<Box<str>, Vec<(Box<str>, Found)>>| {
            let of_model = known.get(model)?.iter();
            of_model.clone().find(|(of, _)| **of == *provider).map(|(_, found)| *found)
        };
        // A panic under the lock leaves at most a name that is looked up again.
        if let Some(found) = known(&self.found.read().unwrap_or_else(PoisonError::into_inner)) {
            return found;
        }
        let found = self.look_up(provider, model);
        let mut all = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if FOUND_MAX <= all.values().map(Vec::len).sum() {
            all.clear();
        }
        all.entry(model.into()).or_default().push((provider.into(), found));
        found
    }

    fn look_up(&self, provider: &str, model: &str) -> Found {
        if self.overrides.contains_key(&model.to_ascii_lowercase()) {
            return Found::Override;
        }
        let provider = Some(provider).filter(|provider| !provider.is_empty());
        let found = self.table().find(provider, model);
        found.map_or(Found::Nothing, |(provider, model)| Found::Model(provider, model))
    }

    /// What a model costs at a time, for people.
    pub fn quote(
        &self,
        provider: Option<&str>,
        model: &str,
        unix_second: u64,
    ) -> Option<Quote<'_>> {
        let found = self.find(provider, model);
        let (rates, source) = self.rates(model, found, unix_second)?;
        let (model, source) = (self.model(found), source.to_string());
        Some(Quote { source, model, prices: rates.in_words() })
    }
}

impl fmt::Debug for Prices {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let own = self.overrides.keys().collect::<Vec<_>>();
        let table = self.table.as_ref().map(|table| &table.date);
        let mut out = out.debug_struct("Prices");
        out.field("is_on", &self.is_on).field("overrides", &own).field("table", &table);
        out.finish_non_exhaustive()
    }
}
