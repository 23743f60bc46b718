//! A real Jaeger behind `preset = "jaeger"`, read back through its query APIs.

use futures_util::future::BoxFuture;

use super::{Backend, otlp};
use crate::expected::Expected;
use crate::seen::{Seen, Words};
use crate::servers::jaeger::{self, Jaeger};

pub(super) async fn start() -> Option<Box<dyn Backend>> {
    let program = jaeger::program()?;
    Some(Box::new(Jaeger::start(&program).await))
}

impl Backend for Jaeger {
    fn name(&self) -> &'static str {
        "jaeger"
    }

    fn table(&self) -> String {
        format!(
            "type = \"otlp\"\npreset = \"jaeger\"\nendpoint = \"http://127.0.0.1:{}\"",
            self.http
        )
    }

    fn words(&self) -> Words {
        otlp::genai_words()
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async { otlp::read_kind(&self.spans().await, "gen_ai.operation.name") })
    }

    fn own_figures<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            // Jaeger groups by service, and the Agents SDK does not name one.
            assert_eq!(self.services().await, ["openai-agents"]);
            let traces = self.traces().await;
            let all = || traces.iter().flat_map(|trace| trace["spans"].as_array().unwrap());
            let with = |key: &str, value: serde_json::Value| {
                let has = |span: &&serde_json::Value| {
                    let mut tags = span["tags"].as_array().unwrap().iter();
                    tags.any(|tag| tag["key"] == key && tag["value"] == value)
                };
                all().filter(has).count()
            };
            let failed = expected.spans.values().filter(|span| span.error.is_some()).count();
            assert_eq!(with("error", true.into()), failed);
            let tools = expected.spans.values().filter(|span| span.kind == "tool").count();
            assert_eq!(with("gen_ai.operation.name", "execute_tool".into()), tools);
            let ids = expected.distinct_traces();
            assert_eq!(traces.len(), ids);
            Some(format!(
                "its search lists service `openai-agents`, {ids} traces, {} spans, {failed} of them with its error mark",
                all().count()
            ))
        })
    }
}
