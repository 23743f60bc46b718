//! Langfuse: the fake of `tests/langfuse`, which accepts and maps what the real one accepts and maps.

use futures_util::future::BoxFuture;

use super::Backend;
use crate::expected::{Expected, Span};
use crate::langfuse::Fake;
use crate::mapping::Row;
use crate::seen::{Seen, Shown, Words};

pub(super) async fn start() -> Box<dyn Backend> {
    Box::new(Fake::start().await)
}

impl Backend for Fake {
    fn name(&self) -> &'static str {
        "langfuse"
    }

    fn table(&self) -> String {
        format!("type = \"langfuse\"\n{}", self.options())
    }

    fn words(&self) -> Words {
        let kind = |span: &Span| {
            Some(match (span.kind, span.sdk_type.as_deref()) {
                ("agent", _) => "agent",
                ("generation" | "speech" | "transcription", _) => "generation",
                ("tool", _) => "tool",
                ("guardrail", _) => "guardrail",
                ("chain", Some(_)) => "chain",
                _ => "span",
            })
        };
        Words {
            name: |span| &span.plain_name,
            kind,
            // Zeros are sent to keep Langfuse from counting tokens itself.
            zero: Shown::No,
            tick_us: 1000,
            ..Words::own()
        }
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async { self.rows().iter().map(seen).collect() })
    }

    fn own_figures<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            assert_eq!(self.lost(), Vec::<String>::new());
            let rows = self.rows();
            let named = rows.iter().filter(|row| row.trace_name.is_some()).count();
            let priced = rows.iter().filter(|row| !row.cost.is_empty()).count();
            let invented = rows.iter().filter(|row| row.is_invented).count();
            Some(format!(
                "{named} observations name their trace, {priced} have a price; the tokens of {invented} it counted itself"
            ))
        })
    }
}

fn seen(row: &Row) -> Seen {
    let said = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
    // Its buckets exclude each other. Tokens that it counted itself were not sent.
    let is_said = !row.usage.is_empty() && !row.is_invented;
    let tokens = |side: &str| {
        let buckets = row.usage.iter().filter(|(bucket, _)| bucket.starts_with(side));
        is_said.then(|| buckets.map(|(_, count)| count).sum())
    };
    Seen {
        id: (row.trace.clone(), row.id.clone()),
        parent: said(&row.parent),
        name: row.name.clone(),
        kind: said(&row.kind),
        model: row.model.clone(),
        input_tokens: tokens("input"),
        output_tokens: tokens("output"),
        error: (row.level == "ERROR").then(|| row.status_message.clone()),
        start_us: 1000 * row.start_ms.cast_signed(),
        session: row.session.clone(),
        user: row.user.clone(),
        tags: row.tags.clone(),
    }
}
