//! Prices: what a model call cost, where its client does not say it.
//!
//! The table is that of the package genai-prices, with a date, built into the binary (`tools/prices.py` makes it anew); `[prices]` can
//! bring another one and prices of one's own. Nothing is fetched. Whoever wants costs asks [`Prices::tokens_of`] in the place of
//! [`tokens_of`]: a sink that writes them, a rule that asks for `cost`; the metrics of agents ask [`Prices::cost_of`]. Nobody else
//! pays for it.
//!
//! * **A cost that the client sent stays**, whatever the table says; `cost_source` is `sdk` then, else `override` or `table:DATE`.
//! * **Nothing is guessed.** A provider that the table does not have, a model that its provider does not have, and counts that contradict
//!   each other have no cost. Models without a price are counted by name (`spanferry_spans_unpriced_total`).
//! * **What repeats others has no cost** but the one that its client says: only tokens that count are priced.
//! * **The price is that of the day** on which the span began, so a replay finds what held then; the last, where a span says no time.
//! * **Once.** A span is priced when it is first asked, and every sink has the same sum. Costs are whole billionths of a dollar
//!   (`money.rs`), so that the sum of a trace is that of its spans.

mod money;
mod options;
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use flate2::read::GzDecoder;
use foldhash::fast::RandomState;

pub use options::{Override, PriceOptions};
pub use table::{Model, Provider, Table};

use crate::span::{Facts, Priced, Span, Text, Tokens, TraceContext, Usage, said_of, tokens_of};
use crate::support::rfc3339::NS_PER_SECOND;
use money::Rates;
use table::{Dated, When};

static BUILT_IN: LazyLock<Table> = LazyLock::new(|| {
    let mut text = String::new();
    // What the binary brings was read by a test.
    GzDecoder::new(&include_bytes!("table.json.gz")[..]).read_to_string(&mut text).ok();
    Table::read(&text, "").unwrap_or_default()
});

/// Names that are looked up in the table once. More than any app uses; a client that makes names up has them forgotten.
const FOUND_MAX: usize = 4096;
/// A longer name is no model's.
const NAME_BYTES_MAX: usize = 256;
/// The source of a price that is the user's own.
const OVERRIDE: &str = "override";

/// The prices in force. Without any (`Default`) nothing has a cost but what clients say.
#[derive(Default)]
pub struct Prices {
    is_on: bool,
    /// By the model's name in lowercase.
    overrides: BTreeMap<String, Found>,
    /// The table in the place of the one that is built in.
    table: Option<Table>,
    /// What names were found to be: by model, then by provider.
    found: RwLock<HashMap<Box<str>, ByProvider, RandomState>>,
}

type ByProvider = Vec<(Box<str>, Option<Found>)>;

/// What a model costs, and whose price that is.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    prices: Dated,
    source: Text,
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
        let overrides = options.overrides.iter().filter_map(|(model, own)| {
            let prices = Arc::new([(When::Always, own.rates()?)]);
            Some((model.to_lowercase(), Found { prices, source: Text::from_static(OVERRIDE) }))
        });
        let overrides = overrides.collect();
        Self { is_on: options.enabled, overrides, table, ..Self::default() }
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
        let usage = self.unpaid(span)?;
        span.priced(|| {
            let (found, at) = self.found(span)?;
            Some(Priced { cost: found.rates_at(at)?.cost_of(usage)?, source: found.source })
        })
    }

    /// The model that no price is known of, where that is why nobody knows what a span cost.
    pub fn lacks<'a>(&self, span: &'a Span) -> Option<&'a str> {
        self.unpaid(span)?;
        let is_unknown = self.of(span).is_none() && self.found(span).is_none();
        models(span.brief_facts()).next().filter(|_| is_unknown).map(|name| &**name)
    }

    /// The tokens that a span speaks of, unless the client says what they cost.
    fn unpaid<'a>(&self, span: &'a Span) -> Option<&'a Usage> {
        let facts = span.brief_facts();
        let is_asked = self.is_on && !facts.cost.is_said();
        is_asked.then(|| said_of(facts)).filter(|usage| !usage.is_empty())
    }

    /// What a span cost, its own or the tokens that it says of others: what the client says, or else the prices.
    pub fn cost_of(&self, span: &Span) -> Option<f64> {
        self.of(span).map_or(&span.brief_facts().cost, |priced| &priced.cost).total
    }

    /// What the model of a span costs, and its time in seconds since 1970, for which there is a price.
    fn found(&self, span: &Span) -> Option<(Found, u64)> {
        let facts = span.brief_facts();
        let mut all = models(facts).filter_map(|name| self.find(facts.provider.as_deref(), name));
        // The first, but a price of one's own goes before the table.
        let found = if self.overrides.is_empty() {
            all.next()?
        } else {
            all.rev().max_by_key(|found| *found.source == *OVERRIDE)?
        };
        // What says no time costs what it costs last.
        let at_ns = [span.start_ns, span.end_ns].into_iter().find(|at| *at != 0);
        let at = at_ns.unwrap_or(u64::MAX) / NS_PER_SECOND;
        found.rates_at(at).is_some().then_some((found, at))
    }

    fn table(&self) -> &Table {
        self.table.as_ref().unwrap_or(&*BUILT_IN)
    }

    /// What a model of a provider is found to be; what was looked up before is remembered.
    fn find(&self, provider: Option<&str>, model: &str) -> Option<Found> {
        let of = provider.unwrap_or_default();
        if model.len().max(of.len()) > NAME_BYTES_MAX {
            return None;
        }
        // A panic under the lock leaves at most a name that is looked up again.
        let known = self.found.read().unwrap_or_else(PoisonError::into_inner);
        let of_model = known.get(model).into_iter().flatten();
        if let Some((_, found)) = of_model.clone().find(|(known, _)| **known == *of) {
            return found.clone();
        }
        drop(known);
        let found = self.look_up(provider, model);
        let mut all = self.found.write().unwrap_or_else(PoisonError::into_inner);
        if all.values().map(Vec::len).sum::<usize>() >= FOUND_MAX {
            all.clear();
        }
        all.entry(model.into()).or_default().push((of.into(), found.clone()));
        found
    }

    fn look_up(&self, provider: Option<&str>, model: &str) -> Option<Found> {
        let of_table = || {
            let (_, model) = self.table().find(provider.filter(|it| !it.is_empty()), model)?;
            Some(Found { prices: Arc::clone(&model.prices), source: self.table().source.clone() })
        };
        self.overrides.get(&model.to_lowercase()).cloned().or_else(of_table)
    }

    /// What a model costs at a time, for people.
    pub fn quote(
        &self,
        provider: Option<&str>,
        model: &str,
        unix_second: u64,
    ) -> Option<Quote<'_>> {
        let found = self.look_up(provider, model)?;
        let prices = found.rates_at(unix_second)?.in_words();
        let source = found.source.to_string();
        let model = if source == OVERRIDE { None } else { self.table().find(provider, model) };
        Some(Quote { source, model, prices })
    }
}

impl Found {
    /// What holds at a time, in seconds since 1970; `None` where spans do not count what is paid for.
    fn rates_at(&self, unix_second: u64) -> Option<&Rates> {
        let holds = |(when, _): &&(When, Rates)| when.holds_at(unix_second);
        let price = self.prices.iter().rfind(holds).or(self.prices.first());
        price.map(|(_, rates)| rates).filter(|rates| !rates.is_empty())
    }
}

/// The names that a span has for its model. What answered is what was paid for; an alias that a gateway has for it is asked for only
/// where it is no model's name.
fn models(facts: &Facts) -> impl DoubleEndedIterator<Item = &Text> {
    let names = [&facts.response_model, &facts.request_model];
    names.into_iter().flatten().filter(|name| !name.is_empty())
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
