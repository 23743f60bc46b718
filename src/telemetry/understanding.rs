//! Unrecognized data in spans: counted, and logged now and then with an example. An example is a name (of an attribute, an operation, a
//! scope or a receiver), never a value, and a name that might be someone's text is hidden too.
//!
//! The counts are indicators, not exact: spans are counted when a sink first reads them, and again when a lane that is behind reads them
//! from the journal.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::mem::take;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::counters::{Counters, Figure};
use crate::span::{Convention, Span};
use crate::support::lock::lock;

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

/// Delay of the first message about something new.
const LOOK_EVERY: Duration = Duration::from_mins(1);
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
            "Spans with times before 2000 or after 2100, kept as sent",
        ),
        label: Some(("receiver", NAME_MARKS)),
        is_wrong: true,
        text: "times before 2000 or after 2100 are kept as sent, and backends may hide such spans; \
               have the client send nanoseconds since 1970",
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
    met: Arc<Mutex<[Met; LACKS.len()]>>,
}

/// The occurrences of one kind.
#[derive(Debug, Default)]
struct Met {
    /// The words that have their own series.
    words: BTreeSet<String>,
    /// Number of spans since the last message.
    spans: u64,
    /// The name from the first of them.
    example: String,
    said: Option<Instant>,
}

/// A message for the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    lack: usize,
    /// Number of spans since the last message.
    spans: u64,
    example: String,
}

impl LogLine {
    /// Logs the message.
    pub fn log(&self) {
        let Self { lack, spans, example } = self;
        match LACKS.get(*lack) {
            Some(Lack { is_wrong: true, text, .. }) => warn!(spans, example, "{text}"),
            Some(Lack { text, .. }) => info!(spans, example, "{text}"),
            None => {}
        }
    }
}

impl Understanding {
    pub(super) fn new(counters: Counters) -> Self {
        for lack in LACKS.iter().filter(|lack| lack.label.is_none()) {
            counters.add(lack.figure, &[], 0);
        }
        Self { counters, met: Arc::default() }
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
            name.iter().for_each(|name| self.count(number, name, 1));
        }
    }

    /// Counts spans with implausible times.
    pub fn odd_times(&self, receiver: &str, spans: u64) {
        self.count(TIMES, receiver, spans);
    }

    fn count(&self, number: usize, name: &str, spans: u64) {
        let mut all = lock(&self.met);
        let (Some(lack), Some(met)) = (LACKS.get(number), all.get_mut(number)) else { return };
        let label = lack.label.map(|(label, marks)| (label, met.labelled(name, marks)));
        self.counters.add(lack.figure, label.as_slice(), spans);
        if met.spans == 0 {
            let example = shown(name, NAME_BYTES_MAX, NAME_MARKS).unwrap_or(HIDDEN);
            example.clone_into(&mut met.example);
        }
        met.spans += spans;
    }

    /// Returns the current counts: one number per kind, or one for each value of its label.
    pub fn figures(&self) -> Map<String, Value> {
        let figure = |lack: &Lack| match lack.label {
            None => json!(self.counters.sum(lack.figure)),
            Some(_) => json!(self.counters.by_label(lack.figure)),
        };
        LACKS.iter().map(|lack| (lack.key.to_owned(), figure(lack))).collect()
    }

    /// Logs what is new, for ever: each kind soon after its first occurrence, and at most once an hour.
    pub async fn tell(self, mut say: impl FnMut(&LogLine)) {
        loop {
            sleep(LOOK_EVERY).await;
            self.due(Instant::now()).iter().for_each(&mut say);
        }
    }

    /// Returns the messages that are due, and marks them as logged.
    fn due(&self, now: Instant) -> Vec<LogLine> {
        let mut due = Vec::new();
        for (lack, met) in lock(&self.met).iter_mut().enumerate() {
            let is_time = met.said.is_none_or(|said| SAY_EVERY <= now.duration_since(said));
            if is_time && 0 < met.spans {
                met.said = Some(now);
                let (spans, example) = (take(&mut met.spans), take(&mut met.example));
                due.push(LogLine { lack, spans, example });
            }
        }
        due
    }
}

impl Met {
    /// Returns the label for a word: the word itself, as long as there are few different ones.
    fn labelled(&mut self, word: &str, marks: &[u8]) -> Cow<'static, str> {
        let Some(word) = shown(word, OPERATION_BYTES_MAX, marks) else { return OTHER.into() };
        if !self.words.contains(word) {
            if OPERATIONS_MAX <= self.words.len() {
                return OTHER.into();
            }
            self.words.insert(word.to_owned());
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
        let metrics = Metrics::default();
        let hostile = [
            "My card is 4111 1111",
            "{\"secret\":1}",
            "naïve",
            "line\nbreak",
            "a\"} 1",
            "",
            &"w".repeat(NAME_BYTES_MAX + 1),
        ];
        for word in hostile {
            noted(metrics.understanding(), Some(word), Some(word));
            let plain = span(word, Facts::default());
            metrics.understanding().note(&plain, None);
            let due = metrics.understanding().due(Instant::now() + SAY_EVERY);
            assert!(due.iter().all(|said| said.example == HIDDEN), "{due:?}");
            // Each word is the first of its hour.
            *lock(&metrics.understanding().met) = Default::default();
        }
        let words = metrics.understanding().figures()["unknown_operations"].clone();
        assert_eq!(words, serde_json::json!({ OTHER: hostile.len() }));
        let page = page(&metrics);
        for word in hostile.into_iter().filter(|word| !word.is_empty()) {
            assert!(!page.contains(word), "{page}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_new_is_said_after_a_minute_and_then_once_an_hour() {
        let understanding = Metrics::default().understanding().clone();
        let heard: Arc<Mutex<Vec<LogLine>>> = Arc::default();
        let ears = Arc::clone(&heard);
        tokio::spawn(
            understanding.clone().tell(move |said| ears.lock().unwrap().push(said.clone())),
        );
        let wait = async |minutes| sleep(Duration::from_mins(minutes) + LOOK_EVERY / 2).await;
        let heard = || take(&mut *heard.lock().unwrap());
        let said = |spans, example: &str| {
            vec![LogLine { lack: UNCOUNTED, spans, example: example.to_owned() }]
        };
        wait(3).await;
        assert_eq!(heard(), []);
        noted(&understanding, Some("ai.usage.odd"), None);
        noted(&understanding, Some("ai.usage.other"), None);
        wait(1).await;
        assert_eq!(heard(), said(2, "ai.usage.odd"));
        noted(&understanding, Some("gen_ai.usage.odd"), None);
        wait(30).await;
        noted(&understanding, Some("ai.usage.odd"), None);
        assert_eq!(heard(), [], "it was said less than an hour ago");
        wait(30).await;
        assert_eq!(heard(), said(2, "gen_ai.usage.odd"));
        wait(200).await;
        assert_eq!(heard(), [], "there is nothing new");
    }

    #[test]
    fn every_line_says_how_many_an_example_what_it_means_and_what_to_do() {
        let log = Log::default();
        let written = Arc::clone(&log.0);
        let lines =
            tracing_subscriber::fmt().with_writer(Mutex::new(log)).with_ansi(false).finish();
        tracing::subscriber::with_default(lines, || {
            for lack in 0..LACKS.len() {
                LogLine { lack, spans: 7, example: "acme.in".to_owned() }.log();
            }
        });
        let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), LACKS.len(), "{text}");
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
    #[derive(Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

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
