//! Series whose labels are names that clients choose, within limits. Pure.
//!
//! | what | limit | beyond it |
//! |---|---|---|
//! | series of a metric | [`SERIES_MAX`] | one series whose names are all [`OTHER`]; each use is counted |
//! | characters of a name | [`NAME_CHARS_MAX`] | the name is truncated |
//! | names of one [`Role`] | [`SERIES_MAX`] | a new one becomes [`OTHER`] |

use std::collections::HashMap;
use std::fmt::{self, Write};

use foldhash::fast::RandomState;

use crate::span::TraceId;

/// Maximum number of series of one metric. Prometheus needs several KiB of memory for each.
pub(super) const SERIES_MAX: usize = 1_000;
/// Maximum number of characters of a name: the longest names of models have some fifty.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// Maximum number of labels of a metric.
pub(super) const LABELS_MAX: usize = 7;
/// Replaces the names of series beyond the limit.
pub(super) const OTHER: &str = "__other__";
const OTHER_NAME: Name = Name(1);
const OVERFLOW: &str = "spanferry_metrics_series_overflow";

/// A metric: its full name without `_total`, one sentence of help, and its labels in the order of [`Labels`].
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) shape: Shape,
}

/// The type and unit of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Count,
    /// Counted in billionths.
    Dollars,
    Seconds,
    Tokens,
    Spans,
}

/// A name by its number. The default is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Name(pub(super) u16);

/// The values of a metric's labels, 16 bits each; unused ones are empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Labels(u128);

const NANOS: u64 = 1_000_000_000;
const NAME_BITS: u32 = u16::BITS;

impl Labels {
    pub(super) fn of(names: &[Name]) -> Self {
        Self(names.iter().rev().fold(0, |all, name| all << NAME_BITS | u128::from(name.0)))
    }

    fn names(self) -> impl Iterator<Item = Name> {
        let bytes = self.0.to_le_bytes();
        let name =
            move |place: usize| bytes.as_chunks().0.get(place).copied().map(u16::from_le_bytes);
        (0..LABELS_MAX).filter_map(name).map(Name)
    }
}

/// The role of a name. Each has its own limit, so that many invented names of one leave room for the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent.
    Agent,
    /// A tool.
    Tool,
    /// The requested model.
    RequestModel,
    /// The model that answered.
    ResponseModel,
    /// The provider of a model.
    Provider,
    /// A workflow.
    Workflow,
    /// A guardrail.
    Guardrail,
    /// A type of error.
    Error,
}

const ROLES: usize = Role::Error as usize + 1;

#[derive(Debug)]
struct Names {
    numbers: HashMap<Box<str>, Name, RandomState>,
    texts: Vec<Box<str>>,
    /// The number of fixed words, which come first.
    own: usize,
    /// Number of names of each role.
    of_role: [usize; ROLES],
    /// The last name of each role.
    recent: [Name; ROLES],
}

#[derive(Debug)]
enum Series {
    Count(u64),
    Histogram(Box<Histogram>),
}

/// Maximum number of buckets of a histogram, including the one without an upper bound.
const BUCKETS_MAX: usize = 18;

#[derive(Debug, Default)]
struct Histogram {
    sum: f64,
    counts: [u64; BUCKETS_MAX],
    /// The last value in each bucket, and its trace.
    examples: [Option<(TraceId, f64)>; BUCKETS_MAX],
}

/// All series of some metrics.
#[derive(Debug)]
pub(super) struct Table {
    metrics: &'static [Metric],
    names: Names,
    families: Vec<Family>,
}

/// The series of one metric.
#[derive(Debug)]
struct Family {
    series: HashMap<Labels, Series, RandomState>,
    overflows: u64,
    /// The upper bounds of its buckets, except the last.
    bounds: Vec<f64>,
}

impl Table {
    /// Creates an empty table. The words become the first names, in order; the first two are no name and [`OTHER`].
    pub(super) fn new(metrics: &'static [Metric], words: &[&str]) -> Self {
        let mut names = Names {
            numbers: HashMap::default(),
            texts: Vec::new(),
            own: words.len(),
            of_role: [0; ROLES],
            recent: [Name::default(); ROLES],
        };
        for word in words {
            names.add(word);
        }
        Self { metrics, names, families: metrics.iter().map(Family::new).collect() }
    }

    /// Returns the number of a name.
    pub(super) fn name(&mut self, role: Role, text: &str) -> Name {
        self.names.of(role, cut(text))
    }

    /// Adds to a counter.
    pub(super) fn add(&mut self, metric: usize, labels: Labels, more: u64) {
        if let Some((Series::Count(count), _)) = self.series(metric, labels) {
            *count = count.saturating_add(more);
        }
    }

    /// Adds a value of a trace to a histogram.
    pub(super) fn observe(&mut self, metric: usize, labels: Labels, value: f64, trace: TraceId) {
        let Some((Series::Histogram(histogram), bounds)) = self.series(metric, labels) else {
            return;
        };
        let bucket = bounds.iter().position(|bound| value <= *bound).unwrap_or(bounds.len());
        histogram.sum += value;
        let place = histogram.counts.get_mut(bucket).zip(histogram.examples.get_mut(bucket));
        if let Some((count, example)) = place {
            *count += 1;
            *example = Some((trace, value));
        }
    }

    fn series(&mut self, metric: usize, mut labels: Labels) -> Option<(&mut Series, &[f64])> {
        let (family, shape) = (self.families.get_mut(metric)?, self.metrics.get(metric)?.shape);
        if family.series.len() >= SERIES_MAX && !family.series.contains_key(&labels) {
            let is_made_up = |name: Name| usize::from(name.0) >= self.names.own;
            let known = labels.names().map(|name| if is_made_up(name) { OTHER_NAME } else { name });
            labels = Labels::of(&known.collect::<Vec<_>>());
        }
        family.overflows += u64::from(labels.names().any(|name| name == OTHER_NAME));
        let series = family.series.entry(labels).or_insert_with(|| Series::new(shape));
        Some((series, &family.bounds))
    }

    /// Writes all series as `OpenMetrics` text. The client library is not used, because it only takes exemplars one by one as they occur,
    /// which costs more than everything else.
    pub(super) fn write(&self, page: &mut String, with_exemplars: bool) -> fmt::Result {
        for (metric, family) in self.metrics.iter().zip(&self.families) {
            let Metric { name, help, labels, shape } = metric;
            let kind = match shape {
                Shape::Count | Shape::Dollars => "counter",
                _ => "histogram",
            };
            writeln!(page, "# HELP {name} {help}.\n# TYPE {name} {kind}")?;
            for (values, series) in &family.series {
                let labels = self.names.labels(labels, *values)?;
                match series {
                    Series::Count(nanos) if *shape == Shape::Dollars => {
                        let (dollars, rest) = (nanos / NANOS, nanos % NANOS);
                        writeln!(page, "{name}_total{{{labels}}} {dollars}.{rest:09}")?;
                    }
                    Series::Count(count) => writeln!(page, "{name}_total{{{labels}}} {count}")?,
                    Series::Histogram(histogram) => {
                        histogram.write(page, name, &labels, &family.bounds, with_exemplars)?;
                    }
                }
            }
        }
        let help = "Values recorded as __other__ because the metric has its maximum of series.";
        writeln!(page, "# HELP {OVERFLOW} {help}\n# TYPE {OVERFLOW} counter")?;
        for (metric, family) in self.metrics.iter().zip(&self.families) {
            let (name, overflows) = (metric.name, family.overflows);
            writeln!(page, "{OVERFLOW}_total{{metric=\"{name}\"}} {overflows}")?;
        }
        Ok(())
    }
}

impl Family {
    fn new(metric: &Metric) -> Self {
        let (first, factor, count) = match metric.shape {
            Shape::Count | Shape::Dollars => (0.0, 0.0, 0),
            // OpenTelemetry's buckets, up to 82 s, and three more, because an agent run takes minutes.
            Shape::Seconds => (0.01, 2.0, 17),
            Shape::Tokens => (1.0, 4.0, 14),
            Shape::Spans => (1.0, 2.0, 13),
        };
        let next = |bound: &f64| Some(bound * factor);
        let bounds = std::iter::successors(Some(first), next).take(count).collect();
        // A series without labels exists from the start, so that its first value counts as an increase.
        let first = (Labels::default(), Series::new(metric.shape));
        let series = Some(first).filter(|_| metric.labels.is_empty()).into_iter().collect();
        Self { series, overflows: 0, bounds }
    }
}

impl Names {
    fn of(&mut self, role: Role, text: &str) -> Name {
        let Some(recent) = self.recent.get_mut(role as usize) else { return OTHER_NAME };
        // Spans of one request usually have the same name.
        if self.texts.get(usize::from(recent.0)).is_some_and(|known| **known == *text) {
            return *recent;
        }
        if let Some(known) = self.numbers.get(text) {
            *recent = *known;
            return *known;
        }
        match self.of_role.get_mut(role as usize) {
            Some(count) if *count < SERIES_MAX => {
                *count += 1;
                self.add(text)
            }
            _ => OTHER_NAME,
        }
    }

    fn add(&mut self, text: &str) -> Name {
        let name = Name(u16::try_from(self.texts.len()).unwrap_or(OTHER_NAME.0));
        self.texts.push(text.into());
        self.numbers.insert(text.into(), name);
        name
    }

    /// Formats labels for the page, without empty ones.
    fn labels(&self, labels: &[&str], values: Labels) -> Result<String, fmt::Error> {
        let mut written = String::new();
        for (label, value) in labels.iter().zip(values.names()) {
            let value = self.texts.get(usize::from(value.0)).map(|text| &**text);
            let Some(value) = value.filter(|value| !value.is_empty()) else { continue };
            let comma = if written.is_empty() { "" } else { "," };
            write!(written, "{comma}{label}=\"")?;
            for letter in value.chars() {
                match letter {
                    '\n' => written.push_str("\\n"),
                    '"' | '\\' => written.extend(['\\', letter]),
                    letter => written.push(letter),
                }
            }
            written.push('"');
        }
        Ok(written)
    }
}

impl Series {
    fn new(shape: Shape) -> Self {
        match shape {
            Shape::Count | Shape::Dollars => Self::Count(0),
            _ => Self::Histogram(Box::default()),
        }
    }
}

impl Histogram {
    fn write(
        &self,
        page: &mut String,
        name: &str,
        labels: &str,
        bounds: &[f64],
        with_exemplars: bool,
    ) -> fmt::Result {
        let (sum, count) = (self.sum, self.counts.iter().sum::<u64>());
        writeln!(page, "{name}_sum{{{labels}}} {sum:?}\n{name}_count{{{labels}}} {count}")?;
        let mut below = 0;
        let comma = if labels.is_empty() { "" } else { "," };
        let values = self.counts.iter().zip(&self.examples);
        for (place, (count, example)) in values.enumerate().take(bounds.len() + 1) {
            below += count;
            let le = bounds.get(place).map_or("+Inf".to_owned(), |bound| format!("{bound:?}"));
            write!(page, "{name}_bucket{{le=\"{le}\"{comma}{labels}}} {below}")?;
            match example.filter(|_| with_exemplars) {
                Some((trace, value)) => writeln!(page, " # {{trace_id=\"{trace}\"}} {value:?}")?,
                None => page.push('\n'),
            }
        }
        Ok(())
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= NAME_CHARS_MAX {
        return text;
    }
    let end = text.char_indices().nth(NAME_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or(text)
}
