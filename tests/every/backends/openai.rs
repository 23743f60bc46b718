//! OpenAI: the ingest of `tests/openai`, which refuses what the real one is known to refuse.

use std::collections::BTreeSet;

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::Backend;
use crate::backend::OpenAiBackend;
use crate::captured;
use crate::expected::Expected;
use crate::seen::{Seen, Shown, Words};

struct OpenAi {
    endpoint: String,
    backend: OpenAiBackend,
}

pub(super) async fn start() -> Box<dyn Backend> {
    let backend = OpenAiBackend::default();
    Box::new(OpenAi { endpoint: backend.listen().await, backend })
}

impl OpenAi {
    fn items(&self) -> Vec<Value> {
        self.backend.items().iter().map(|item| captured::parse(item).unwrap()).collect()
    }
}

impl Backend for OpenAi {
    fn name(&self) -> &'static str {
        "openai"
    }

    fn table(&self) -> String {
        format!("type = \"openai\"\nendpoint = {:?}", self.endpoint)
    }

    fn words(&self) -> Words {
        // It accepts usage only on generations, knows responses by their ids, and has no tags.
        Words {
            name: |span| match &*span.data_type {
                "response" => "chat",
                _ => &span.name,
            },
            model_of: |span| match &*span.data_type {
                "response" => Shown::No,
                _ => Shown::Yes,
            },
            tags: Shown::No,
            tokens_of_tasks: Shown::No,
            ..Words::own()
        }
    }

    fn read<'a>(&'a self, _: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async {
            let items = self.items();
            let arrived = Expected::of_items(&items);
            let seen = items.iter().filter_map(|item| arrived.as_seen(item));
            seen.map(|span| Seen { tags: Vec::new(), ..span }).collect()
        })
    }

    fn own_figures<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Option<String>> {
        Box::pin(async {
            let got = self.backend.got();
            let distinct = |header: &str| {
                got.iter().filter_map(|got| got.headers.get(header)).collect::<BTreeSet<_>>().len()
            };
            let items = self.items();
            assert_eq!(items.len(), expected.items.len());
            Some(format!(
                "{} items in {} requests, with {} keys and {} organizations; {} requests it refused were mended",
                items.len(),
                got.len(),
                distinct("authorization"),
                distinct("openai-organization"),
                self.backend.refused().len()
            ))
        })
    }
}
