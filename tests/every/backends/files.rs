//! Files in every format, and standard output.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::future::BoxFuture;
use serde_json::Value;

use super::{Backend, otlp};
use crate::expected::Expected;
use crate::seen::{Seen, Shown, Words};

struct File {
    name: &'static str,
    table: &'static str,
    path: PathBuf,
    words: fn() -> Words,
    read: fn(&[Value], &Expected) -> Vec<Seen>,
}

pub(super) fn all(dir: &Path) -> Vec<Box<dyn Backend>> {
    let file = |name, table, path: &str, words, read| -> Box<dyn Backend> {
        Box::new(File { name, table, path: dir.join(path), words, read })
    };
    vec![
        file("lines", "type = \"file\"\npath = \"lines.jsonl\"", "lines.jsonl", Words::own, lines),
        file(
            "zipped",
            "type = \"file\"\npath = \"zipped.jsonl.gz\"\ncompression = \"gzip\"",
            "zipped.jsonl.gz",
            Words::own,
            lines,
        ),
        file("stdout", "type = \"stdout\"\nformat = \"json\"", "stdout", Words::own, lines),
        file(
            "items",
            "type = \"file\"\nformat = \"openai\"\npath = \"items.jsonl\"",
            "items.jsonl",
            || Words { tokens_of_tasks: Shown::No, ..Words::own() },
            items,
        ),
        file(
            "otlp_file",
            "type = \"file\"\nformat = \"otlp-json\"\npath = \"otlp.jsonl\"",
            "otlp.jsonl",
            // A file gets spans as they come, without the context of their trace.
            || Words {
                // Only what the client sent is known there.
                tokens_of_tasks: Shown::No,
                user: Shown::No,
                tags: Shown::No,
                ..otlp::openinference_words()
            },
            |requests, _| otlp::read(requests),
        ),
    ]
}

impl Backend for File {
    fn name(&self) -> &'static str {
        self.name
    }

    fn table(&self) -> String {
        self.table.to_owned()
    }

    fn words(&self) -> Words {
        (self.words)()
    }

    fn read<'a>(&'a self, expected: &'a Expected) -> BoxFuture<'a, Vec<Seen>> {
        Box::pin(async move {
            let mut text = String::new();
            let bytes = fs::read(&self.path).unwrap_or_default();
            if self.path.extension().is_some_and(|extension| extension == "gz") {
                // The last member may be incomplete.
                std::io::Read::read_to_string(
                    &mut flate2::read::MultiGzDecoder::new(&*bytes),
                    &mut text,
                )
                .ok();
            } else {
                text = String::from_utf8(bytes).unwrap();
            }
            let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
            let lines = whole.lines().map(|line| {
                let mut reader = serde_json::Deserializer::from_str(line);
                reader.disable_recursion_limit();
                serde::Deserialize::deserialize(&mut reader)
                    .unwrap_or_else(|error| panic!("{}: {error}: {line}", self.name))
            });
            (self.read)(&lines.collect::<Vec<_>>(), expected)
        })
    }
}

/// Reads the columns of `src/sinks/jsonl`.
fn lines(lines: &[Value], _: &Expected) -> Vec<Seen> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let spans = lines.iter().filter(|line| line["record"] == "span");
    let seen = spans.map(|line| Seen {
        id: (text(&line["trace_id"]).unwrap(), text(&line["span_id"]).unwrap()),
        parent: text(&line["parent_span_id"]),
        name: text(&line["name"]).unwrap(),
        kind: text(&line["kind"]),
        model: text(&line["request_model"]).or(text(&line["response_model"])),
        input_tokens: line["input_tokens"].as_u64(),
        output_tokens: line["output_tokens"].as_u64(),
        error: text(&line["error_message"]),
        start_us: line["start_time_unix_nano"].as_i64().unwrap() / 1000,
        session: text(&line["session_id"]),
        user: text(&line["user_id"]),
        tags: line["tags"].as_array().into_iter().flatten().filter_map(text).collect(),
    });
    seen.collect()
}

/// Reads the items as sent, with trace objects; their equality implies everything else.
fn items(items: &[Value], expected: &Expected) -> Vec<Seen> {
    let mut seen = Vec::new();
    for item in items {
        let id = item["id"].as_str().unwrap();
        assert_eq!(Some(item), expected.items.get(id), "an item was changed on its way");
        seen.extend(expected.as_seen(item));
    }
    seen
}
