//! A table of prices in the format of genai-prices (version 2, full or slim), and the lookup of a model by that package's rules. Pure.

use std::sync::Arc;

use jiff::civil::{Date, Time, date};
use regex::{Regex, RegexBuilder};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::money::Rates;
use crate::span::Text;
use crate::support::rfc3339::SECONDS_PER_DAY;

/// Maximum size of a compiled pattern, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// Prices by provider and model.
#[derive(Debug, Default, Deserialize)]
pub struct Table {
    /// Its date: `2026-11-29`.
    #[serde(default)]
    pub date: String,
    /// The value of [`Priced::source`](crate::span::Priced::source) for its prices.
    #[serde(skip)]
    pub(super) source: Text,
    /// Providers, in the order in which they are tried.
    pub providers: Vec<Provider>,
}

/// A provider of models.
#[derive(Debug, Deserialize)]
pub struct Provider {
    /// Its name in the table.
    pub id: String,
    /// Names of models that belong to this provider if no provider is named.
    model_match: Option<Clause>,
    /// Other names of the provider.
    #[serde(rename = "provider_match")]
    names: Option<Clause>,
    /// Providers whose models it serves in addition to its own.
    #[serde(default, rename = "fallback_model_providers")]
    fallback: Option<Vec<String>>,
    /// Its models, in the order in which they are tried.
    pub models: Vec<Model>,
}

/// A model, and its prices over time.
#[derive(Debug, Deserialize)]
pub struct Model {
    /// Its name in the table.
    pub id: String,
    #[serde(rename = "match")]
    names: Clause,
    #[serde(deserialize_with = "dated")]
    pub(super) prices: Dated,
}

/// The prices of a model and when they apply: the last that applies takes precedence; if none does, the first is used.
pub(super) type Dated = Arc<[(When, Rates)]>;

/// When a price applies, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(super) enum When {
    #[default]
    Always,
    /// From a second on, counted from 1970-01-01.
    From(u64),
    /// Every day, between two seconds of it; the first may be the later one.
    Daily(u64, u64),
}

/// A condition on a name. All texts are lowercase, as are the names that they are compared with.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Clause {
    Equals(#[serde(deserialize_with = "lowercase")] String),
    StartsWith(#[serde(deserialize_with = "lowercase")] String),
    EndsWith(#[serde(deserialize_with = "lowercase")] String),
    Contains(#[serde(deserialize_with = "lowercase")] String),
    Regex(Pattern),
    Or(Vec<Self>),
    And(Vec<Self>),
}

/// A name must match the first, and must not match the second.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct Pattern(Regex, Option<Regex>);

/// Providers' names elsewhere (OpenTelemetry, LiteLLM) that the table does not have, by prefix.
const ALIASES: &[(&str, &str)] =
    &[("azure", "azure"), ("gcp.", "google"), ("x_ai", "x-ai"), ("fireworks", "fireworks")];

impl Table {
    /// Reads a table, or returns why a text is invalid. `date` applies if the table has none.
    pub fn read(text: &str, date: &str) -> Result<Self, String> {
        let read = if text.trim_start().starts_with('[') {
            serde_json::from_str(text).map(|providers| Self { providers, ..Self::default() })
        } else {
            serde_json::from_str(text)
        };
        let mut table: Self = read.map_err(|error| error.to_string())?;
        if table.models() == 0 {
            return Err("it has no models".to_owned());
        }
        if table.date.is_empty() {
            date.clone_into(&mut table.date);
        }
        table.source = Text::from(format!("table:{}", table.date));
        Ok(table)
    }

    /// Returns the number of models.
    pub fn models(&self) -> usize {
        self.providers.iter().map(|provider| provider.models.len()).sum()
    }

    /// Finds the provider and the model of a name.
    pub(super) fn find(&self, provider: Option<&str>, model: &str) -> Option<(&Provider, &Model)> {
        let model = model.to_lowercase();
        // Google's names are paths (`publishers/google/models/gemini-2.5-flash`). Only Bedrock has a dot after a model's vendor.
        let model = model.rsplit_once("google/models/").map_or(&*model, |(_, name)| name);
        let model = model.strip_prefix("models/").unwrap_or(model);
        let bedrock = ["anthropic.claude", "amazon.nova", "meta.llama"];
        let is_bedrock = || bedrock.iter().any(|name| model.contains(name));
        // LiteLLM puts the provider before the model: `anthropic/claude-sonnet-4-5`.
        let by_prefix = || {
            let (provider, model) = model.split_once('/')?;
            self.model_of(self.provider(provider)?, model)
        };
        if let Some(name) = provider.or_else(|| is_bedrock().then_some("aws")) {
            let provider = self.provider(name)?;
            let is_same = |(found, _): &(&Provider, &Model)| found.id == provider.id;
            return self.model_of(provider, model).or_else(|| by_prefix().filter(is_same));
        }
        let is_of = |of: &&Provider| of.model_match.as_ref().is_some_and(|all| all.holds(model));
        let by_model = self.providers.iter().find(is_of);
        let by_model = by_model.and_then(|provider| self.model_of(provider, model));
        by_model.or_else(by_prefix).or_else(|| self.same_everywhere(model))
    }

    /// Finds the model with exactly this name, if all of its providers charge the same, so that the provider does not matter.
    fn same_everywhere(&self, name: &str) -> Option<(&Provider, &Model)> {
        let mut serving = self.providers.iter().filter_map(|provider| {
            Some((provider, provider.models.iter().find(|model| model.id == name)?))
        });
        let (provider, model) = serving.next()?;
        serving.all(|(_, other)| other.prices == model.prices).then_some((provider, model))
    }

    fn provider(&self, name: &str) -> Option<&Provider> {
        let name = name.trim().to_ascii_lowercase();
        let by_id = |id: &str| self.providers.iter().find(|provider| provider.id == id);
        let by_alias = || by_id(ALIASES.iter().find(|(start, _)| name.starts_with(start))?.1);
        let is_called = |all: &Clause| all.holds(&name);
        let is_it = |provider: &&Provider| provider.names.as_ref().is_some_and(is_called);
        by_id(&name).or_else(by_alias).or_else(|| self.providers.iter().find(is_it))
    }

    /// Finds a model of a provider, or of those whose models it serves. A date without hyphens is also tried with them.
    fn model_of<'t>(
        &'t self,
        provider: &'t Provider,
        model: &str,
    ) -> Option<(&'t Provider, &'t Model)> {
        let of_name = |name: &str| {
            let fallback = provider.fallback.iter().flatten();
            let fallback = fallback.filter_map(|id| self.providers.iter().find(|it| it.id == *id));
            std::iter::once(provider).chain(fallback).find_map(|provider| {
                let mut models = provider.models.iter();
                Some((provider, models.find(|model| model.names.holds(name))?))
            })
        };
        of_name(model).or_else(|| of_name(&with_hyphens(model)?))
    }
}

/// Adds hyphens to the date in a name: `gpt-5-20251211` becomes `gpt-5-2025-12-11`.
fn with_hyphens(model: &str) -> Option<String> {
    let date = model.match_indices("-20").find_map(|(at, _)| {
        let day: Date = model.get(at + 1..at + 9)?.parse().ok()?;
        matches!(model.as_bytes().get(at + 9), None | Some(b'-' | b':')).then_some((at, day))
    });
    let (at, day) = date?;
    Some(format!("{}-{day}{}", model.get(..at)?, model.get(at + 9..)?))
}

/// Reads the prices of a model: one, or several with the times when they apply.
fn dated<'de, D: Deserializer<'de>>(from: D) -> Result<Dated, D::Error> {
    #[derive(Deserialize)]
    struct One {
        constraint: Option<When>,
        prices: Rates,
    }
    let read = match Value::deserialize(from)? {
        several @ Value::Array(_) => serde_json::from_value::<Vec<One>>(several),
        one => serde_json::from_value(one).map(|prices| vec![One { constraint: None, prices }]),
    };
    let several = read.map_err(D::Error::custom)?.into_iter();
    Ok(several.map(|one| (one.constraint.unwrap_or_default(), one.prices)).collect())
}

impl TryFrom<Map<String, Value>> for When {
    type Error = String;

    fn try_from(constraint: Map<String, Value>) -> Result<Self, String> {
        let text = |name| constraint.get(name).and_then(Value::as_str);
        let from = || {
            let day: Date = text("start_date")?.parse().ok()?;
            u64::try_from(day.duration_since(date(1970, 1, 1)).as_secs()).ok()
        };
        let second = |name| {
            // Times are in UTC, with or without a suffix.
            let time = text(name)?.trim_end_matches('Z').trim_end_matches("+00:00");
            let time: Time = time.parse().ok()?;
            u64::try_from(time.duration_since(Time::midnight()).as_secs()).ok()
        };
        let daily = || Some(Self::Daily(second("start_time")?, second("end_time")?));
        let when = from().map(Self::From).or_else(daily);
        when.ok_or_else(|| format!("no time that a price holds: {}", Value::Object(constraint)))
    }
}

impl When {
    pub(super) fn holds_at(self, unix_second: u64) -> bool {
        let second = unix_second % SECONDS_PER_DAY;
        match self {
            Self::Always => true,
            Self::From(start) => start <= unix_second,
            Self::Daily(start, end) if end < start => start <= second || second < end,
            Self::Daily(start, end) => (start..end).contains(&second),
        }
    }
}

fn lowercase<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    String::deserialize(from).map(|text| text.to_lowercase())
}

impl TryFrom<String> for Pattern {
    type Error = regex::Error;

    fn try_from(text: String) -> Result<Self, regex::Error> {
        let compiled = |text: &str| {
            // Names are ASCII, and a class with the digits of all scripts is a hundred times as large.
            let text = text.replace("\\d", "[0-9]");
            RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build()
        };
        // A pattern that begins with a negative look-ahead becomes two: the first must not match, and the rest must.
        let parts = |rest: &str, end: usize| {
            let (not, rest) = (rest.get(..end)?, rest.get(end + 1..)?);
            Some(Self(
                compiled(&format!("^{rest}")).ok()?,
                Some(compiled(&format!("^(?:{not})")).ok()?),
            ))
        };
        let split = text
            .strip_prefix("^(?!")
            .and_then(|rest| rest.match_indices(')').find_map(|(end, _)| parts(rest, end)));
        split.map_or_else(|| Ok(Self(compiled(&text)?, None)), Ok)
    }
}

impl Clause {
    fn holds(&self, name: &str) -> bool {
        match self {
            Self::Equals(text) => name == text,
            Self::StartsWith(text) => name.starts_with(text),
            Self::EndsWith(text) => name.ends_with(text),
            Self::Contains(text) => name.contains(text),
            Self::Regex(Pattern(is, not)) => {
                is.is_match(name) && !not.as_ref().is_some_and(|not| not.is_match(name))
            }
            Self::Or(several) => several.iter().any(|clause| clause.holds(name)),
            Self::And(several) => several.iter().all(|clause| clause.holds(name)),
        }
    }
}
