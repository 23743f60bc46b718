//! Unrecognized data in spans: counted, and logged at most once an hour with an example. An example is a name (of an attribute, an
//! operation, a scope or a receiver), never a value, and a name that might be someone's text is hidden too.
//!
//! The counts are indicators, not exact: spans are counted when a sink first reads them, and again when a lane that is behind reads them
//! from the journal.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tracing::{info, warn};

use super::counters::{Counters, Figure};
use crate::span::{Convention, Span};
use crate::support::lock::lock;
use crate::support::seldom::Seldom;

/// Maximum number of words for operations, and of models, with their own series; clients may invent any number.
const OPERATIONS_MAX: usize = 32;
/// Maximum length of such a word; OpenTelemetry's longest has 16 letters.
const OPERATION_BYTES_MAX: usize = 64;
/// Characters allowed in addition to letters and digits; a sentence would have blanks.
const OPERATION_MARKS: &[u8] = b"._:-";
/// Maximum length of a name that is shown as an example.
const NAME_BYTES_MAX: usize = 128;
/// Scopes are also named after packages and repositories: `@vercel/otel`.
const NAME_MARKS: &[u8] = b"._:-/@";
/// Counts words that have no series of their own.
const OTHER: &str = "__other__";
/// Replaces a name that is not shown.
const HIDDEN: &str = "(not shown)";

/// Minimum interval between messages about the same thing, because a client will not be fixed sooner.
const SAY_EVERY: Duration = Duration::from_hours(1);

/// A kind of unrecognized data.
#[derive(Debug)]
struct Lack {
    /// Its name in `/status`.
    key: &'static str,
    figure: Figure,
    /// The label by which it is split, and the characters allowed in values in addition to letters and digits.
    label: Option<(&'static str, &'static [u8])>,
    /// Whether it makes sums or times wrong.
    is_wrong: bool,
    /// The consequences for the data, and what to do.
    text: &'static str,
}

const UNCOUNTED: usize = 0;
const OPERATION: usize = 1;
const CONVENTION: usize = 2;
const TIMES: usize = 3;
const UNPRICED: usize = 4;

static LACKS: [Lack; 5] = [
    Lack {
        key: "uncounted_usage",
        figure: ("spans_uncounted_usage", "Spans with tokens or costs that could not be counted"),
        label: None,
        is_wrong: true,
        text: "tokens or costs could not be counted: they are kept as attributes and are in no sum; \
               map the attribute that has them with [attributes], or tell us of the client",
    },
    Lack {
        key: "unknown_operations",
        figure: ("spans_unknown_operation", "Spans with an unknown operation"),
        label: Some(("operation", OPERATION_MARKS)),
        is_wrong: false,
        text: "the operation is not known: it is kept as an attribute, and the kind of span is decided by what else there is; \
               map the word with `kind` in [attributes], or tell us of the client",
    },
    Lack {
        key: "without_convention",
        figure: ("spans_without_convention", "Spans of no known convention"),
        label: None,
        is_wrong: false,
        text: "no known convention: all attributes are kept, and none is read as a fact of agents; \
               if they should be, map them with [attributes], or tell us of the instrumentation",
    },
    Lack {
        key: "odd_times",
        figure: (
            "receiver_odd_time_spans",
            "Spans with times that are unreadable, before 2000 or after 2100, kept as sent",
        ),
        label: Some(("receiver", NAME_MARKS)),
        is_wrong: true,
        text: "times that are unreadable, before 2000 or after 2100 are kept as sent, and backends may hide such spans; \
               have the client send nanoseconds since 1970, and the Agents SDK times as RFC 3339",
    },
    Lack {
        key: "unpriced_models",
        figure: ("spans_unpriced", "Spans of models without a known price"),
        label: Some(("model", NAME_MARKS)),
        is_wrong: false,
        text: "no price is known of the model: its spans are kept without a cost; \
               name its price in [prices.overrides], or bring a newer table with `file` in [prices]",
    },
];

/// Counts unrecognized data. A handle: clones share it.
#[derive(Debug, Clone)]
pub struct Understanding {
    counters: Counters,
    met: Arc<[Met; LACKS.len()]>,
}

/// The occurrences of one kind.
#[derive(Debug)]
struct Met {
    /// The words that have their own series.
    words: Mutex<BTreeSet<String>>,
    messages: Seldom,
}

impl Lack {
    /// Logs so many spans, and the name from the last of them.
    fn log(&self, spans: u64, example: &str) {
        let text = self.text;
        if self.is_wrong {
            warn!(spans, example, "{text}");
        } else {
            info!(spans, example, "{text}");
        }
    }
}

impl Understanding {
    pub(super) fn new(counters: Counters) -> Self {
        for lack in LACKS.iter().filter(|lack| lack.label.is_none()) {
            counters.add(lack.figure, &[], 0);
        }
        let met = |_| Met { words: Mutex::default(), messages: Seldom::new(SAY_EVERY) };
        Self { counters, met: Arc::new(std::array::from_fn(met)) }
    }

    /// Counts unrecognized data of a span, and its model if that has no known price.
    pub fn note(&self, span: &Span, unpriced: Option<&str>) {
        let facts = span.brief_facts();
        let notes = facts.notes.as_ref();
        let is_generic = facts.convention == Convention::Generic;
        let found = [
            (UNCOUNTED, notes.and_then(|notes| notes.uncounted.as_deref())),
            (OPERATION, notes.and_then(|notes| notes.unknown_operation.as_deref())),
            (CONVENTION, is_generic.then_some(&*span.scope.name)),
            (UNPRICED, unpriced),
        ];
        for (number, name) in found {
            if let Some(name) = name {
                self.count(number, name, 1);
            }
        }
    }

    /// Counts spans with implausible times.
    pub fn odd_times(&self, receiver: &str, spans: u64) {
        self.count(TIMES, receiver, spans);
    }

    fn count(&self, number: usize, name: &str, spans: u64) {
        let (Some(lack), Some(met)) = (LACKS.get(number), self.met.get(number)) else { return };
        let label = lack.label.map(|(label, marks)| (label, met.labelled(name, marks)));
        self.counters.add(lack.figure, label.as_slice(), spans);
        if let Some(spans) = met.messages.note_all(spans) {
            lack.log(spans, shown(name, NAME_BYTES_MAX, NAME_MARKS).unwrap_or(HIDDEN));
        }
    }

    /// Returns the current counts: one number per kind, or one for each value of its label.
    pub fn figures(&self) -> Map<String, Value> {
        let figure = |lack: &Lack| match lack.label {
            None => json!(self.counters.sum(lack.figure)),
            Some(_) => json!(self.counters.by_label(lack.figure)),
        };
        LACKS.iter().map(|lack| (lack.key.to_owned(), figure(lack))).collect()
    }
}

impl Met {
    /// Returns the label for a word: the word itself, as long as there are few different ones.
    fn labelled(&self, word: &str, marks: &[u8]) -> Cow<'static, str> {
        let Some(word) = shown(word, OPERATION_BYTES_MAX, marks) else { return OTHER.into() };
        let mut words = lock(&self.words);
        if !words.contains(word) {
            if words.len() >= OPERATIONS_MAX {
                return OTHER.into();
            }
            words.insert(word.to_owned());
        }
        word.to_owned().into()
    }
}

/// Returns whether this may be a word for an operation or an error, not someone's text.
pub(super) fn is_plain_word(word: &str) -> bool {
    shown(word, OPERATION_BYTES_MAX, OPERATION_MARKS).is_some()
}

/// Returns a name if it can be shown: short, and only of letters, digits and these characters.
fn shown<'a>(name: &'a str, bytes_max: usize, marks: &[u8]) -> Option<&'a str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || marks.contains(&byte);
    let is_shown = !name.is_empty() && name.len() <= bytes_max && name.bytes().all(is_plain);
    is_shown.then_some(name)
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio::time::advance;
    use tracing::subscriber::DefaultGuard;

    use super::*;
    use crate::span::{Facts, Notes, Scope, SpanHeader, SpanId, Text, TraceId};
    use crate::telemetry::Metrics;

    fn span(scope: &str, facts: Facts) -> Span {
        let outline = SpanHeader {
            trace_id: TraceId::new([1; 16]).unwrap(),
            span_id: SpanId::new([1; 8]).unwrap(),
            parent_id: None,
            start_ns: 0,
            end_ns: 0,
            wire: bytes::Bytes::new(),
        };
        let scope = Scope { name: Text::from(scope.to_owned()), ..Scope::default() };
        Span::synthetic(outline, scope.into(), crate::span::Detail::default(), facts)
    }

    fn noted(understanding: &Understanding, uncounted: Option<&str>, operation: Option<&str>) {
        let text = |text: &str| Text::from(text.to_owned());
        let notes =
            Notes { uncounted: uncounted.map(text), unknown_operation: operation.map(text) };
        let convention = Convention::GenAi;
        let span = span("", Facts { notes: Some(notes.into()), convention, ..Facts::default() });
        understanding.note(&span, None);
    }

    fn page(metrics: &Metrics) -> String {
        let mut registry = Registry::with_prefix("spanferry");
        metrics.register(&mut registry);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn every_lack_is_counted_and_on_the_page() {
        let metrics = Metrics::default();
        let understanding = metrics.understanding();
        noted(understanding, Some("gen_ai.usage.input_tokens"), Some("orchestrate"));
        noted(understanding, None, Some("orchestrate"));
        let plain = span("acme", Facts::default());
        understanding.note(&plain, None);
        metrics.understanding().odd_times("otlp_http", 3);
        let page = page(&metrics);
        for line in [
            "spanferry_spans_uncounted_usage_total 1",
            "spanferry_spans_unknown_operation_total{operation=\"orchestrate\"} 2",
            "spanferry_spans_without_convention_total 1",
            "spanferry_receiver_odd_time_spans_total{receiver=\"otlp_http\"} 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}: {page}");
        }
    }

    #[test]
    fn a_client_cannot_make_up_figures_without_end() {
        let metrics = Metrics::default();
        for number in 0..100 {
            noted(metrics.understanding(), None, Some(&format!("word{number}")));
            noted(metrics.understanding(), None, Some("word0"));
        }
        let figures = metrics.understanding().figures();
        let words = &figures["unknown_operations"];
        assert_eq!(words.as_object().unwrap().len(), OPERATIONS_MAX + 1);
        assert_eq!(words["word0"], 101);
        assert_eq!(words[OTHER], 100 - OPERATIONS_MAX);
    }

    #[test]
    fn what_could_be_somebody_s_text_is_neither_in_figures_nor_in_lines() {
        let hostile = [
            "My card is 4111 1111",
            "{\"secret\":1}",
            "naïve",
            "line\nbreak",
            "a\"} 1",
            "",
            &"w".repeat(NAME_BYTES_MAX + 1),
        ];
        let log = Log::default();
        let _guard = log.begin();
        for word in hostile {
            let metrics = Metrics::default();
            noted(metrics.understanding(), Some(word), Some(word));
            metrics.understanding().note(&span(word, Facts::default()), None);
            let words = metrics.understanding().figures()["unknown_operations"].clone();
            assert_eq!(words, serde_json::json!({ OTHER: 1 }));
            let page = page(&metrics);
            assert!(word.is_empty() || !page.contains(word), "{page}");
        }
        let lines = log.lines();
        assert_eq!(lines.len(), 3 * hostile.len(), "{lines:?}");
        let hidden = format!("example=\"{HIDDEN}\"");
        assert!(lines.iter().all(|line| line.contains(&hidden)), "{lines:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_said_at_once_and_then_once_an_hour_with_how_often() {
        let log = Log::default();
        let _guard = log.begin();
        let metrics = Metrics::default();
        let note = |name| noted(metrics.understanding(), Some(name), None);
        note("ai.usage.odd");
        note("ai.usage.other");
        advance(Duration::from_mins(59)).await;
        note("ai.usage.odd");
        advance(Duration::from_mins(1)).await;
        note("gen_ai.usage.odd");
        note("ai.usage.odd");
        let lines = log.lines();
        let said: Vec<_> =
            lines.iter().filter_map(|line| Some(line.split_once("spans=")?.1)).collect();
        assert_eq!(said, ["1 example=\"ai.usage.odd\"", "3 example=\"gen_ai.usage.odd\""]);
    }

    #[test]
    fn every_line_says_how_many_an_example_what_it_means_and_what_to_do() {
        let log = Log::default();
        let _guard = log.begin();
        for lack in &LACKS {
            lack.log(7, "acme.in");
        }
        let lines = log.lines();
        assert_eq!(lines.len(), LACKS.len(), "{lines:?}");
        for (lack, line) in lines.into_iter().enumerate() {
            let level = match lack {
                UNCOUNTED | TIMES => "WARN",
                _ => "INFO",
            };
            let has = |part: &str| line.contains(part);
            assert!(has(level) && has("spans=7") && has("example=\"acme.in\""), "{line}");
            assert!(has("kept") && has("; "), "{line}");
        }
    }

    /// The log, as written.
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        /// Collects what this thread logs, until the result is dropped.
        fn begin(&self) -> DefaultGuard {
            let lines = tracing_subscriber::fmt().with_writer(Mutex::new(self.clone()));
            tracing::subscriber::set_default(lines.with_ansi(false).finish())
        }

        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
            text.lines().map(str::to_owned).collect()
        }
    }

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
