//! Prices: the cost of a model call whose client does not report it.
//!
//! The table is that of the package genai-prices, with a date, built into the binary (`tools/prices.py` regenerates it); `[prices]` can
//! replace it and add the user's own prices. Nothing is downloaded. Sinks that write costs and rules that test `cost` call
//! [`Prices::tokens_of`] instead of [`tokens_of`], and agent metrics [`Prices::cost_of`]; other code has no overhead.
//!
//! * **A reported cost takes precedence** over the table; `cost_source` is then `sdk`, otherwise `override` or `table:DATE`.
//! * **Nothing is guessed.** An unknown provider, an unknown model of a provider, and contradictory counts have no cost. Models without a
//!   price are counted by name (`spanferry_spans_unpriced_total`).
//! * **Repeated tokens have no computed cost**, only one that the client reports: only tokens that count are priced.
//! * **The price is that of the day** on which the span began, so a replay finds the same price; a span without a time gets the latest.
//! * **Once.** A span is priced on first use, and every sink gets the same sum. Costs are whole billionths of a dollar (`money.rs`), so the
//!   sum of a trace is that of its spans.

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
    // A test has read the built-in table.
    GzDecoder::new(&include_bytes!("table.json.gz")[..]).read_to_string(&mut text).ok();
    Table::read(&text, "").unwrap_or_default()
});

/// Maximum number of cached lookups. It exceeds what any app uses; if a client invents names, the cache is cleared.
const FOUND_MAX: usize = 4096;
/// No model has a longer name.
const NAME_BYTES_MAX: usize = 256;
/// The source of a user's own price.
const OVERRIDE: &str = "override";

/// The effective prices. Without any (`Default`), only costs that clients report exist.
#[derive(Default)]
pub struct Prices {
    is_on: bool,
    /// By the model's name in lowercase.
    overrides: BTreeMap<String, PricedModel>,
    /// The table that replaces the built-in one.
    table: Option<Table>,
    /// Cached lookups: by model, then by provider.
    found: RwLock<HashMap<Box<str>, ByProvider, RandomState>>,
}

type ByProvider = Vec<(Box<str>, Option<PricedModel>)>;

/// The prices of a model, and their source.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PricedModel {
    prices: Dated,
    source: Text,
}

/// The prices of a model at a time.
#[derive(Debug)]
pub struct Quote<'p> {
    /// `override`, or `table:DATE`.
    pub source: String,
    /// The provider and the model in the table; `None` for an override.
    pub model: Option<(&'p Provider, &'p Model)>,
    /// Each price by its name in the table, formatted for people.
    pub prices: Vec<(&'static str, String)>,
}

impl Prices {
    /// Creates the prices for these options, with the table of their file if they name one.
    pub fn new(options: &PriceOptions, table: Option<Table>) -> Self {
        let overrides = options.overrides.iter().filter_map(|(model, own)| {
            let prices = Arc::new([(When::Always, own.rates()?)]);
            Some((
                model.to_lowercase(),
                PricedModel { prices, source: Text::from_static(OVERRIDE) },
            ))
        });
        let overrides = overrides.collect();
        Self { is_on: options.enabled, overrides, table, ..Self::default() }
    }

    /// Like [`tokens_of`], but adds the cost of the tokens if the client does not report it.
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

    /// Returns the cost of the tokens that a span reports, its own or others'; `None` without a known price, or if the client reports a
    /// cost.
    pub fn of<'a>(&self, span: &'a Span) -> Option<&'a Priced> {
        let usage = self.unpaid(span)?;
        span.priced(|| {
            let (found, at) = self.found(span)?;
            Some(Priced { cost: found.rates_at(at)?.cost_of(usage)?, source: found.source })
        })
    }

    /// Returns the model without a known price, if that is why the cost of a span is unknown.
    pub fn lacks<'a>(&self, span: &'a Span) -> Option<&'a str> {
        self.unpaid(span)?;
        let is_unknown = self.of(span).is_none() && self.found(span).is_none();
        models(span.brief_facts()).next().filter(|_| is_unknown).map(|name| &**name)
    }

    /// Returns the tokens that a span reports, unless the client reports their cost.
    fn unpaid<'a>(&self, span: &'a Span) -> Option<&'a Usage> {
        let facts = span.brief_facts();
        let is_asked = self.is_on && !facts.cost.is_said();
        is_asked.then(|| said_of(facts)).filter(|usage| !usage.is_empty())
    }

    /// Returns the cost of a span, its own or that of the tokens that it reports for others: as reported, otherwise by the prices.
    pub fn cost_of(&self, span: &Span) -> Option<f64> {
        self.of(span).map_or(&span.brief_facts().cost, |priced| &priced.cost).total
    }

    /// Returns the prices of a span's model, and its time in seconds since 1970, if there is a price for that.
    fn found(&self, span: &Span) -> Option<(PricedModel, u64)> {
        let facts = span.brief_facts();
        let mut all = models(facts).filter_map(|name| self.find(facts.provider.as_deref(), name));
        // The first one found, but the user's own price takes precedence over the table.
        let found = if self.overrides.is_empty() {
            all.next()?
        } else {
            all.rev().max_by_key(|found| *found.source == *OVERRIDE)?
        };
        // A span without a time gets the latest price.
        let at_ns = [span.start_ns, span.end_ns].into_iter().find(|at| *at != 0);
        let at = at_ns.unwrap_or(u64::MAX) / NS_PER_SECOND;
        found.rates_at(at).is_some().then_some((found, at))
    }

    fn table(&self) -> &Table {
        self.table.as_ref().unwrap_or(&*BUILT_IN)
    }

    /// Finds a model of a provider; lookups are cached.
    fn find(&self, provider: Option<&str>, model: &str) -> Option<PricedModel> {
        let of = provider.unwrap_or_default();
        if model.len().max(of.len()) > NAME_BYTES_MAX {
            return None;
        }
        // A panic under the lock only means that a name is looked up again.
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

    fn look_up(&self, provider: Option<&str>, model: &str) -> Option<PricedModel> {
        let of_table = || {
            let (_, model) = self.table().find(provider.filter(|it| !it.is_empty()), model)?;
            Some(PricedModel {
                prices: Arc::clone(&model.prices),
                source: self.table().source.clone(),
            })
        };
        self.overrides.get(&model.to_lowercase()).cloned().or_else(of_table)
    }

    /// Returns the prices of a model at a time, formatted for people.
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

impl PricedModel {
    /// Returns the prices at a time, in seconds since 1970; `None` if spans do not count what is charged for.
    fn rates_at(&self, unix_second: u64) -> Option<&Rates> {
        let holds = |(when, _): &&(When, Rates)| when.holds_at(unix_second);
        let price = self.prices.iter().rfind(holds).or(self.prices.first());
        price.map(|(_, rates)| rates).filter(|rates| !rates.is_empty())
    }
}

/// Returns a span's names for its model. The model that answered was paid for. The requested one, which may be a gateway's alias, is used
/// only if the first is not a known model.
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
