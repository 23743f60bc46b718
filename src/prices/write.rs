//! Writes a table as [`read`](super::read) reads it: the shape of genai-prices, with its date, and nothing that is not asked of it. Pure.

use serde_json::{Map, Value, json};

use super::money::{Rate, Rates, dollars};
use super::table::{Clause, Model, Provider, Table, When};
use crate::support::rfc3339::write_date;

impl Table {
    /// The table as JSON text, with a provider a line.
    pub fn to_json(&self) -> String {
        let providers = self.providers.iter().map(|it| provider(it).to_string());
        let providers = providers.collect::<Vec<_>>().join(",\n");
        format!("{{\"date\":{},\"providers\":[\n{providers}\n]}}\n", json!(self.date))
    }
}

fn provider(provider: &Provider) -> Value {
    let mut found = Map::from_iter([("id".to_owned(), json!(provider.id))]);
    for (name, names) in
        [("model_match", &provider.model_match), ("provider_match", &provider.provider_match)]
    {
        if let Some(names) = names {
            found.insert(name.to_owned(), clause(names));
        }
    }
    if !provider.fallback.is_empty() {
        found.insert("fallback_model_providers".to_owned(), json!(provider.fallback));
    }
    let models: Vec<_> = provider.models.iter().map(model).collect();
    found.insert("models".to_owned(), models.into());
    found.into()
}

fn model(model: &Model) -> Value {
    let prices = match &model.prices[..] {
        [(When::Always, only)] => rates(only),
        several => several.iter().map(|(when, priced)| dated(*when, priced)).collect(),
    };
    json!({ "id": model.id, "match": clause(&model.names), "prices": prices })
}

fn dated(when: When, priced: &Rates) -> Value {
    let date = |day| {
        let mut text = Vec::new();
        write_date(&mut text, day);
        String::from_utf8(text).unwrap_or_default()
    };
    let time = |second: u64| {
        let (minute, second) = (second / 60, second % 60);
        format!("{:02}:{:02}:{second:02}", minute / 60, minute % 60)
    };
    let constraint = match when {
        When::Always => return json!({ "prices": rates(priced) }),
        When::From(day) => json!({ "start_date": date(day) }),
        When::Daily(start, end) => json!({ "start_time": time(start), "end_time": time(end) }),
    };
    json!({ "constraint": constraint, "prices": rates(priced) })
}

fn rates(rates: &Rates) -> Value {
    // What is written so is a number.
    let number = |price| serde_json::from_str::<Value>(&dollars(price)).unwrap_or_default();
    let written = |Rate { base, tiers }: &Rate| {
        if tiers.is_empty() {
            return number(*base);
        }
        let tier =
            |(start, price): &(u64, u128)| json!({ "start": start, "price": number(*price) });
        json!({ "base": number(*base), "tiers": tiers.iter().map(tier).collect::<Vec<_>>() })
    };
    let rates = rates.by_key().map(|(key, rate)| (key.to_owned(), written(rate)));
    Value::Object(rates.collect())
}

fn clause(names: &Clause) -> Value {
    match names {
        Clause::Equals(text) => json!({ "equals": text }),
        Clause::StartsWith(text) => json!({ "starts_with": text }),
        Clause::EndsWith(text) => json!({ "ends_with": text }),
        Clause::Contains(text) => json!({ "contains": text }),
        Clause::Pattern { text, .. } => json!({ "regex": text }),
        Clause::Any(several) => json!({ "or": several.iter().map(clause).collect::<Vec<_>>() }),
        Clause::All(several) => json!({ "and": several.iter().map(clause).collect::<Vec<_>>() }),
    }
}
