//! What is written of parents that rules dropped.

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use toml::de::DeTable;

use super::encode::{Known, encode};
use super::options::parse;
use crate::feed::decisions::cut_tests::each_cut;

#[test]
fn no_parent_is_told_that_rules_dropped_in_another_request() {
    let text =
        "base_url = \"http://127.0.0.1:3000\"\npublic_key = \"pk-lf-1\"\nsecret_key = \"sk-lf-1\"";
    let settings = parse(DeTable::parse(text).unwrap()).unwrap();
    each_cut(|cut| {
        for body in encode(&cut.delivery(), &settings, &Known::default()) {
            let request = ExportTraceServiceRequest::decode(&*body.message).unwrap();
            let scopes = request.resource_spans.iter().flat_map(|each| &each.scope_spans);
            for span in scopes.flat_map(|scope| &scope.spans) {
                cut.check_parent_id(&span.parent_span_id);
            }
        }
    });
}
