//! Tests of spans whose parents were dropped by rules, and of costs.

use std::sync::Arc;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value;
use prost::Message as _;
use toml::de::DeTable;

use super::encode::encode;
use super::fields;
use super::options::{Settings, parse};
use super::trace::KnownFacts;
use crate::feed::decisions::cut_tests::each_cut;
use crate::prices::Prices;
use crate::sinks::samples;
use crate::span::{Cost, Detail, Facts, Item, Kind, Text, Usage};

fn settings() -> Settings {
    let text =
        "base_url = \"http://127.0.0.1:3000\"\npublic_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"";
    parse(DeTable::parse(text).unwrap()).unwrap()
}

#[test]
fn no_parent_is_told_that_rules_dropped_in_another_request() {
    let settings = settings();
    each_cut(|cut| {
        for body in encode(&cut.delivery(), &settings, &KnownFacts::default()) {
            let request = ExportTraceServiceRequest::decode(&*body.message).unwrap();
            let scopes = request.resource_spans.iter().flat_map(|each| &each.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                cut.check_parent_id(&span.parent_span_id);
            }
        }
    });
}

/// Returns the cost that Langfuse receives for a call.
fn sent_cost(settings: &Settings, cost: Cost) -> Option<String> {
    let facts = Facts {
        kind: Kind::Generation,
        request_model: Some(Text::from_static("gpt-4o")),
        usage: Usage { input: Some(1000), output: Some(1), ..Usage::default() },
        cost,
        ..Facts::default()
    };
    let span = samples::otlp_span(1, &Arc::default(), Detail::default(), facts);
    let delivery = samples::delivery(0, vec![Item::Span(span)]);
    let body = encode(&delivery, settings, &KnownFacts::default()).remove(0);
    let request = ExportTraceServiceRequest::decode(&*body.message).unwrap();
    let attributes = &request.resource_spans[0].scope_spans[0].spans[0].attributes;
    let found = attributes.iter().find(|attribute| attribute.key == fields::COST)?;
    let Some(any_value::Value::StringValue(text)) = found.value.clone()?.value else { panic!() };
    Some(text)
}

#[test]
fn a_cost_by_our_prices_is_sent_where_that_is_asked_and_one_that_the_client_says_always() {
    let prices = "overrides.gpt-4o = { input = 2.5, output = 10 }";
    let prices = Arc::new(Prices::new(&toml::from_str(prices).unwrap(), None));
    let asked = Settings { prices, ..settings() };
    let ours = r#"{"input":0.0025,"output":1e-5,"total":0.00251}"#;
    assert_eq!(sent_cost(&asked, Cost::default()), Some(ours.to_owned()));
    assert_eq!(sent_cost(&settings(), Cost::default()), None);
    let said = Cost { total: Some(0.25), ..Cost::default() };
    for settings in [asked, settings()] {
        assert_eq!(sent_cost(&settings, said), Some(r#"{"total":0.25}"#.to_owned()));
    }
}
