//! Reads a table: the data of genai-prices (version 2, whole or slim), the same with a date as it is built in, or LiteLLM's list. Pure.

use std::collections::BTreeMap;

use jiff::civil::{Date, Time};
use serde_json::{Map, Value};

use super::money::{Rate, Rates, price, price_of_one};
use super::table::{Clause, Model, Provider, Table, When, canonical};
use crate::span::Text;

/// Why a text is no table of prices.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NoTable(pub String);

/// Clauses in clauses.
const DEPTH_MAX: usize = 8;
/// A pattern compiles to no more than this, in bytes.
const PATTERN_BYTES_MAX: usize = 64 << 10;

/// Reads a table. `date` is its own where it does not say one.
pub fn read(text: &[u8], date: &str) -> Result<Table, NoTable> {
    let value: Value =
        serde_json::from_slice(text).map_err(|error| NoTable(format!("it is no JSON: {error}")))?;
    let said = value.get("date").and_then(Value::as_str);
    let providers = match &value {
        Value::Array(providers) => providers_of(providers)?,
        Value::Object(table) => match table.get("providers").and_then(Value::as_array) {
            Some(providers) => providers_of(providers)?,
            None => of_litellm(table)?,
        },
        _ => return Err(neither()),
    };
    let date = said.unwrap_or(date).to_owned();
    Ok(Table { source: Text::from(format!("table:{date}")), date, providers })
}

fn neither() -> NoTable {
    NoTable(
        "it is neither the data of genai-prices (version 2) nor LiteLLM's list of models"
            .to_owned(),
    )
}

// === genai-prices ===

fn providers_of(providers: &[Value]) -> Result<Vec<Provider>, NoTable> {
    if providers.is_empty() || providers.iter().any(|provider| provider.get("models").is_none()) {
        return Err(neither());
    }
    providers.iter().map(provider_of).collect()
}

fn provider_of(provider: &Value) -> Result<Provider, NoTable> {
    let id = text(provider, "id").ok_or_else(neither)?;
    let clause = |name| provider.get(name).filter(|clause| !clause.is_null());
    let clause = |name| clause(name).map(|value| clause_of(value, DEPTH_MAX)).transpose();
    let in_it = |problem: NoTable| NoTable(format!("provider `{id}`: {problem}"));
    let models = list(provider, "models").iter().map(|model| {
        let name = text(model, "id").ok_or_else(neither)?;
        model_of(name, model).map_err(|problem| NoTable(format!("model `{name}`: {problem}")))
    });
    let fallback = list(provider, "fallback_model_providers").iter().filter_map(Value::as_str);
    Ok(Provider {
        id: id.to_owned(),
        model_match: clause("model_match").map_err(in_it)?,
        provider_match: clause("provider_match").map_err(in_it)?,
        fallback: fallback.map(str::to_owned).collect(),
        models: models.collect::<Result<_, _>>().map_err(in_it)?,
    })
}

fn model_of(id: &str, model: &Value) -> Result<Model, NoTable> {
    let names = clause_of(model.get("match").unwrap_or(&Value::Null), DEPTH_MAX)?;
    let prices = match model.get("prices") {
        Some(Value::Array(several)) => several
            .iter()
            .map(|price| Ok((when(price.get("constraint"))?, rates(price.get("prices"))?)))
            .collect::<Result<_, NoTable>>()?,
        prices => vec![(When::Always, rates(prices)?)],
    };
    Ok(Model { id: id.to_owned(), names, prices })
}

fn when(constraint: Option<&Value>) -> Result<When, NoTable> {
    let Some(constraint) = constraint.filter(|constraint| !constraint.is_null()) else {
        return Ok(When::Always);
    };
    let wrong = || NoTable(format!("no time that a price holds: {constraint}"));
    if let Some(date) = text(constraint, "start_date") {
        let date: Date = date.parse().map_err(|_| wrong())?;
        let days = date.since(Date::constant(1970, 1, 1)).map_err(|_| wrong())?.get_days();
        return Ok(When::From(u64::try_from(days).map_err(|_| wrong())?));
    }
    let second = |name| {
        // Times are in UTC, with or without saying so.
        let time = text(constraint, name)?.trim_end_matches('Z').trim_end_matches("+00:00");
        let time: Time = time.parse().ok()?;
        let (hour, minute, second) = (time.hour(), time.minute(), time.second());
        u64::try_from(i64::from(hour) * 3600 + i64::from(minute) * 60 + i64::from(second)).ok()
    };
    let times = second("start_time").zip(second("end_time"));
    times.map(|(start, end)| When::Daily(start, end)).ok_or_else(wrong)
}

fn rates(prices: Option<&Value>) -> Result<Rates, NoTable> {
    let mut rates = Rates::default();
    for (key, value) in prices.and_then(Value::as_object).into_iter().flatten() {
        let wrong = || NoTable(format!("`{key}` is no price: {value}"));
        let number = |value: &Value| price(&value.as_number()?.to_string());
        let tier = |tier: &Value| Some((tier.get("start")?.as_u64()?, number(tier.get("price")?)?));
        let rate = match value {
            Value::Null => continue,
            Value::Object(tiered) => {
                let base = tiered.get("base").and_then(number).ok_or_else(wrong)?;
                let tiers = list(value, "tiers").iter().map(tier).collect::<Option<Vec<_>>>();
                let mut tiers = tiers.ok_or_else(wrong)?;
                tiers.sort_by_key(|(start, _)| *start);
                Rate { base, tiers }
            }
            plain => Rate { base: number(plain).ok_or_else(wrong)?, tiers: Vec::new() },
        };
        rates.set(key, rate);
    }
    Ok(rates)
}

fn clause_of(value: &Value, depth: usize) -> Result<Clause, NoTable> {
    let wrong = || NoTable(format!("no way to match a name: {value}"));
    let (word, value) =
        value.as_object().and_then(|clause| clause.iter().next()).ok_or_else(wrong)?;
    let text = || value.as_str().map(str::to_lowercase).ok_or_else(wrong);
    let several = || {
        let clauses = value.as_array().filter(|_| depth != 0).ok_or_else(wrong)?;
        clauses
            .iter()
            .map(|clause| clause_of(clause, depth - 1))
            .collect::<Result<Vec<_>, NoTable>>()
    };
    Ok(match word.as_str() {
        "equals" => Clause::Equals(text()?),
        "starts_with" => Clause::StartsWith(text()?),
        "ends_with" => Clause::EndsWith(text()?),
        "contains" => Clause::Contains(text()?),
        "regex" => pattern(value.as_str().ok_or_else(wrong)?).ok_or_else(wrong)?,
        "or" => Clause::Any(several()?),
        "and" => Clause::All(several()?),
        _ => return Err(wrong()),
    })
}

/// A pattern. One that begins with what must not follow is two: that one must not match, and the rest must.
fn pattern(text: &str) -> Option<Clause> {
    let compiled = |text: &str| {
        // Names are ASCII, and digits of all scripts are a hundred times as large.
        let text = text.replace("\\d", "[0-9]");
        regex::RegexBuilder::new(&text).size_limit(PATTERN_BYTES_MAX).build().ok()
    };
    let Some(rest) = text.strip_prefix("^(?!") else {
        return Some(Clause::Pattern {
            text: text.to_owned(),
            pattern: compiled(text)?,
            but: None,
        });
    };
    let mut depth = 1_usize;
    let end = rest.char_indices().find_map(|(at, character)| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => (),
        }
        (depth == 0).then_some(at)
    })?;
    let but = compiled(&format!("^(?:{})", rest.get(..end)?))?;
    let pattern = compiled(&format!("^{}", rest.get(end + 1..)?))?;
    Some(Clause::Pattern { text: text.to_owned(), pattern, but: Some(but) })
}

fn text<'v>(value: &'v Value, name: &str) -> Option<&'v str> {
    value.get(name).and_then(Value::as_str)
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

// === LiteLLM ===

/// LiteLLM's names of prices of one token, and ours. Above a number of input tokens they have `_above_200k_tokens` behind them.
const LITELLM: &[(&str, &str)] = &[
    ("input_cost_per_token", "input_mtok"),
    ("output_cost_per_token", "output_mtok"),
    ("cache_read_input_token_cost", "cache_read_mtok"),
    ("cache_creation_input_token_cost", "cache_write_mtok"),
    ("cache_creation_input_token_cost_above_1hr", "cache_write_1h_mtok"),
    ("input_cost_per_audio_token", "input_audio_mtok"),
    ("output_cost_per_audio_token", "output_audio_mtok"),
    ("output_cost_per_reasoning_token", "output_reasoning_mtok"),
];

fn of_litellm(table: &Map<String, Value>) -> Result<Vec<Provider>, NoTable> {
    let mut models: BTreeMap<String, (Vec<Clause>, Vec<Model>)> = BTreeMap::new();
    for (name, entry) in table {
        let Some(provider) = text(entry, "litellm_provider").filter(|_| name != "sample_spec")
        else {
            continue;
        };
        let in_it = |problem: NoTable| NoTable(format!("model `{name}`: {problem}"));
        let rates = litellm_rates(entry).map_err(in_it)?;
        let (own, of_provider) = models.entry(canonical(provider)).or_default();
        let prefixed = name.split_once('/').filter(|(prefix, _)| provider.starts_with(prefix));
        let id = prefixed.map_or(name.as_str(), |(_, id)| id);
        if prefixed.is_none() {
            own.push(Clause::Equals(name.to_lowercase()));
        }
        let names = Clause::Equals(id.to_lowercase());
        of_provider.push(Model { id: id.to_owned(), names, prices: vec![(When::Always, rates)] });
    }
    if models.is_empty() {
        return Err(neither());
    }
    let provider = |(id, (own, models))| Provider {
        id,
        model_match: Some(Clause::Any(own)),
        provider_match: None,
        fallback: Vec::new(),
        models,
    };
    Ok(models.into_iter().map(provider).collect())
}

fn litellm_rates(entry: &Value) -> Result<Rates, NoTable> {
    let mut rates = Rates::default();
    for (theirs, ours) in LITELLM {
        let mut found = None;
        let mut tiers = Vec::new();
        for (key, value) in entry.as_object().into_iter().flatten() {
            let Some(rest) = key.strip_prefix(theirs).filter(|_| !value.is_null()) else {
                continue;
            };
            let start = rest.strip_prefix("_above_").and_then(|rest| rest.strip_suffix("k_tokens"));
            let start = start.and_then(|start| start.parse::<u64>().ok());
            if !rest.is_empty() && start.is_none() {
                continue;
            }
            let price = value.as_number().and_then(|number| price_of_one(&number.to_string()));
            let price = price.ok_or_else(|| NoTable(format!("`{key}` is no price: {value}")))?;
            match start {
                Some(start) => tiers.push((start.saturating_mul(1000), price)),
                None => found = Some(price),
            }
        }
        tiers.sort_unstable();
        if let Some(base) = found {
            rates.set(ours, Rate { base, tiers });
        }
    }
    Ok(rates)
}
