//! A real Phoenix behind `preset = "phoenix"`, read back through its REST API and through the queries of its pages.

use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;

use super::{Backend, otlp};
use crate::expected::Expected;
use crate::seen::{Seen, Words};
use crate::servers::phoenix::{self, Phoenix};

const PROJECT: &str = "support";

pub(super) async fn start() -> Option<Box<dyn Backend>> {
    let program = phoenix::program()?;
    Some(Box::new(Phoenix::start(&program).await))
}

impl Backend for Phoenix {
    fn name(&self) -> &'static str {
        "phoenix"
    }

    fn table(&self) -> String {
        format!(
            "type = \"otlp\"\npreset = \"phoenix\"\nendpoint = \"http://127.0.0.1:{}\"\nproject = {PROJECT:?}",
            self.http
        )
    }

    fn words(&self) -> Words {
        otlp::openinference_words()
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async { self.spans(PROJECT).await.iter().map(seen).collect() })
    }

    fn own_figures<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            let fields =
                "recordCount traceCount sessionCount tokenCountPrompt tokenCountCompletion";
            let shown = self.project(PROJECT, fields).await;
            #[expect(clippy::cast_precision_loss, reason = "some thousands")]
            let wanted = [
                ("traceCount", expected.distinct_traces() as f64),
                ("sessionCount", expected.distinct(|span| span.session.as_ref()).len() as f64),
                ("tokenCountPrompt", expected.sum(|span| span.input_tokens) as f64),
                ("tokenCountCompletion", expected.sum(|span| span.output_tokens) as f64),
            ];
            for (field, wanted) in wanted {
                assert_eq!(shown[field].as_f64(), Some(wanted), "{field}: {shown}");
            }
            Some(format!("its project page says {shown}"))
        })
    }
}

fn seen(span: &Value) -> Seen {
    let text = |value: &Value| Some(value.as_str()?.to_owned()).filter(|text| !text.is_empty());
    let attributes = &span["attributes"];
    let start: Timestamp = text(&span["start_time"]).unwrap().parse().unwrap();
    let failed = span["status_code"] == "ERROR";
    Seen {
        id: (
            text(&span["context"]["trace_id"]).unwrap(),
            text(&span["context"]["span_id"]).unwrap(),
        ),
        parent: text(&span["parent_id"]),
        name: text(&span["name"]).unwrap(),
        kind: text(&span["span_kind"]),
        model: text(&attributes["llm.model_name"]),
        input_tokens: attributes["llm.token_count.prompt"].as_u64(),
        output_tokens: attributes["llm.token_count.completion"].as_u64(),
        error: failed.then(|| text(&span["status_message"]).unwrap_or_default()),
        start_us: start.as_microsecond(),
        session: text(&attributes["session.id"]),
        user: text(&attributes["user.id"]),
        tags: attributes["tag.tags"].as_array().into_iter().flatten().filter_map(text).collect(),
    }
}
