//! A table of prices, and how a model is found in it: the rules of genai-prices. Pure.

use regex::Regex;

use super::money::Rates;
use crate::span::Text;
use crate::support::rfc3339::SECONDS_PER_DAY;

/// Prices by provider and model.
#[derive(Debug, Default)]
pub struct Table {
    /// How new it is: `2026-11-29`.
    pub date: String,
    /// What [`Priced::source`](crate::span::Priced::source) says of its prices.
    pub(super) source: Text,
    /// Who serves models, in the order in which they are asked.
    pub providers: Vec<Provider>,
}

/// Who serves models.
#[derive(Debug)]
pub struct Provider {
    /// Its name in the table.
    pub id: String,
    /// Names of models that are this provider's where no provider is named.
    pub(super) model_match: Option<Clause>,
    /// Other names of it.
    pub(super) provider_match: Option<Clause>,
    /// Whose models it serves beside its own.
    pub(super) fallback: Vec<String>,
    /// Its models, in the order in which they are asked.
    pub models: Vec<Model>,
}

/// A model, and what it cost when.
#[derive(Debug)]
pub struct Model {
    /// Its name in the table.
    pub id: String,
    pub(super) names: Clause,
    /// The last that holds goes before the others; where none does, the first holds.
    pub(super) prices: Vec<(When, Rates)>,
}

/// When a price holds, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    Always,
    /// From a day on, counted from 1970-01-01.
    From(u64),
    /// Every day, between two seconds of it; the first may be the later one.
    Daily(u64, u64),
}

/// What a name must be. All are in lowercase, as the names are that are compared.
#[derive(Debug)]
pub(super) enum Clause {
    Equals(String),
    StartsWith(String),
    EndsWith(String),
    Contains(String),
    /// It has the pattern, and has not the other one.
    Pattern {
        text: String,
        pattern: Regex,
        but: Option<Regex>,
    },
    Any(Vec<Self>),
    All(Vec<Self>),
}

/// How providers are called elsewhere (OpenTelemetry, LiteLLM), by the beginning of that name.
const ALIASES: &[(&str, &str)] = &[
    ("azure", "azure"),
    ("aws", "aws"),
    ("bedrock", "aws"),
    ("gcp.", "google"),
    ("gemini", "google"),
    ("vertex_ai", "google"),
    ("x_ai", "x-ai"),
    ("xai", "x-ai"),
    ("mistral", "mistral"),
    ("cohere", "cohere"),
    ("together", "together"),
    ("fireworks", "fireworks"),
    ("text-completion-openai", "openai"),
];

/// The table's name of a provider, where it has one of its own.
pub(super) fn canonical(name: &str) -> String {
    let name = name.trim().to_ascii_lowercase();
    let alias = ALIASES.iter().find(|(beginning, _)| name.starts_with(beginning));
    alias.map_or(name, |(_, id)| (*id).to_owned())
}

impl Table {
    /// How many models there are.
    pub fn models(&self) -> usize {
        self.providers.iter().map(|provider| provider.models.len()).sum()
    }

    /// The places of the provider and the model that a name stands for.
    pub(super) fn find(&self, provider: Option<&str>, model: &str) -> Option<(usize, usize)> {
        let model = model.to_lowercase();
        if let Some(name) = provider {
            return self.model_of(self.provider(name)?, &model);
        }
        let is_of = |provider: &Provider| {
            provider.model_match.as_ref().is_some_and(|clause| clause.is_met_by(&model))
        };
        let by_model = self.providers.iter().position(is_of);
        // LiteLLM puts the provider before the model: `anthropic/claude-sonnet-4-5`.
        let by_prefix = || {
            let (provider, model) = model.split_once('/')?;
            self.model_of(self.provider(provider)?, model)
        };
        by_model.and_then(|provider| self.model_of(provider, &model)).or_else(by_prefix)
    }

    fn provider(&self, name: &str) -> Option<usize> {
        let name = name.trim().to_ascii_lowercase();
        let by_id = |id: &str| self.providers.iter().position(|provider| provider.id == id);
        by_id(&name).or_else(|| by_id(&canonical(&name))).or_else(|| {
            self.providers.iter().position(|provider| {
                provider.provider_match.as_ref().is_some_and(|clause| clause.is_met_by(&name))
            })
        })
    }

    /// The model of a provider, or of those whose models it serves. A date without hyphens is tried with them.
    fn model_of(&self, provider: usize, model: &str) -> Option<(usize, usize)> {
        let of_name =
            |model: &str| {
                let fallback =
                    self.providers.get(provider)?.fallback.iter().filter_map(|id| {
                        self.providers.iter().position(|provider| provider.id == *id)
                    });
                let mut places = std::iter::once(provider).chain(fallback);
                places.find_map(|place| {
                    let models = &self.providers.get(place)?.models;
                    Some((place, models.iter().position(|known| known.names.is_met_by(model))?))
                })
            };
        of_name(model).or_else(|| of_name(&dated(model)?))
    }
}

/// A name with hyphens in the date that it has: `gpt-5-20251211` is `gpt-5-2025-12-11`.
fn dated(model: &str) -> Option<String> {
    let date = model.match_indices('-').find_map(|(at, _)| {
        let digits = model.get(at + 1..at + 9)?;
        let ends = matches!(model.as_bytes().get(at + 9), None | Some(b'-' | b':'));
        let day: jiff::civil::Date = digits.parse().ok()?;
        (ends && digits.starts_with("20")).then_some((at, day))
    });
    let (at, day) = date?;
    Some(format!("{}-{day}{}", model.get(..at)?, model.get(at + 9..)?))
}

impl Model {
    /// What it costs at a time, in seconds since 1970; `None` where spans do not count what it is paid for.
    pub(super) fn rates_at(&self, unix_second: u64) -> Option<&Rates> {
        let holds = |(when, _): &&(When, Rates)| when.holds_at(unix_second);
        let price = self.prices.iter().rfind(holds).or(self.prices.first());
        price.map(|(_, rates)| rates).filter(|rates| !rates.is_empty())
    }
}

impl When {
    fn holds_at(self, unix_second: u64) -> bool {
        let second = unix_second % SECONDS_PER_DAY;
        match self {
            Self::Always => true,
            Self::From(day) => day <= unix_second / SECONDS_PER_DAY,
            Self::Daily(start, end) if end < start => start <= second || second < end,
            Self::Daily(start, end) => (start..end).contains(&second),
        }
    }
}

impl Clause {
    fn is_met_by(&self, name: &str) -> bool {
        match self {
            Self::Equals(text) => name == text,
            Self::StartsWith(text) => name.starts_with(text.as_str()),
            Self::EndsWith(text) => name.ends_with(text.as_str()),
            Self::Contains(text) => name.contains(text.as_str()),
            Self::Pattern { pattern, but, .. } => {
                pattern.is_match(name) && !but.as_ref().is_some_and(|but| but.is_match(name))
            }
            Self::Any(clauses) => clauses.iter().any(|clause| clause.is_met_by(name)),
            Self::All(clauses) => clauses.iter().all(|clause| clause.is_met_by(name)),
        }
    }
}
