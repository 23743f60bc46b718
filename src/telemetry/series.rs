//! Series whose labels are names that clients make up, within bounds. Pure.
//!
//! | what | bound | beyond it |
//! |---|---|---|
//! | series of a metric | [`SERIES_MAX`] | one whose names are all [`OTHER`]; each time is counted |
//! | characters of a name | [`NAME_CHARS_MAX`] | the rest is cut off |
//! | names of one [`Role`] | [`SERIES_MAX`] | a new one is [`OTHER`] |

use std::collections::HashMap;
use std::fmt;

use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeMetric as _, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::histogram::exponential_buckets;

use crate::span::TraceId;

/// Series of one metric. Prometheus keeps some KiB of memory for each, whoever made them up.
pub(super) const SERIES_MAX: usize = 1_000;
/// Characters of a name: the longest names of models have some fifty.
pub(super) const NAME_CHARS_MAX: usize = 64;
/// The most labels that a metric has.
pub(super) const LABELS_MAX: usize = 7;
/// Stands for the names of series beyond the bound.
pub(super) const OTHER: &str = "__other__";
const OTHER_NAME: Name = Name(1);
const OVERFLOW: &str = "spanferry_metrics_series_overflow";

/// A metric: its whole name without `_total`, one sentence, and its labels in the order of [`Labels`].
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) labels: &'static [&'static str],
    pub(super) shape: Shape,
}

/// What a metric is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Count,
    Seconds,
    Tokens,
    Spans,
}

/// A name by its number. The default is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Name(pub(super) u16);

/// The values of a metric's labels; what is left over is empty.
pub(super) type Labels = [Name; LABELS_MAX];

/// What a name is of. Many that are made up for one leave room for those of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// An agent.
    Agent,
    /// A tool.
    Tool,
    /// A model.
    Model,
    /// Who serves a model.
    Provider,
    /// A workflow.
    Workflow,
    /// A guardrail.
    Guardrail,
    /// A kind of error.
    Error,
}

const ROLES: usize = Role::Error as usize + 1;

#[derive(Debug)]
struct Names {
    numbers: HashMap<Box<str>, Name>,
    texts: Vec<Box<str>>,
    /// How many of the first are our own words, which are few.
    own: usize,
    /// How many there are of each role.
    of_role: [usize; ROLES],
}

#[derive(Debug)]
enum Series {
    Count(u64),
    Histogram(HistogramWithExemplars<Example>),
}

/// The trace that is shown as an example of a bucket.
#[derive(Debug, Clone, Copy)]
struct Example(TraceId);

/// All series of some metrics.
#[derive(Debug)]
pub(super) struct Table {
    metrics: &'static [Metric],
    names: Names,
    series: Vec<HashMap<Labels, Series>>,
    overflows: Vec<u64>,
}

impl Table {
    /// None yet. The words become the first names, in order; the first two are no name and [`OTHER`].
    pub(super) fn new(metrics: &'static [Metric], words: &[&str]) -> Self {
        let mut names = Names {
            numbers: HashMap::new(),
            texts: Vec::new(),
            own: words.len(),
            of_role: [0; ROLES],
        };
        for word in words {
            names.add(word);
        }
        let series = metrics.iter().map(|_| HashMap::new()).collect();
        Self { metrics, names, series, overflows: vec![0; metrics.len()] }
    }

    /// The number of a name.
    pub(super) fn name(&mut self, role: Role, text: &str) -> Name {
        let (text, names) = (cut(text), &mut self.names);
        if let Some(known) = names.numbers.get(text) {
            return *known;
        }
        match names.of_role.get_mut(role as usize) {
            Some(count) if *count < SERIES_MAX => {
                *count += 1;
                names.add(text)
            }
            _ => OTHER_NAME,
        }
    }

    /// Adds one to a counter.
    pub(super) fn count(&mut self, metric: usize, labels: Labels) {
        if let Some(Series::Count(count)) = self.series(metric, labels) {
            *count += 1;
        }
    }

    /// Adds a value of a trace to a histogram.
    pub(super) fn observe(&mut self, metric: usize, labels: Labels, value: f64, trace: TraceId) {
        if let Some(Series::Histogram(histogram)) = self.series(metric, labels) {
            histogram.observe(value, Some(Example(trace)), None);
        }
    }

    fn series(&mut self, metric: usize, mut labels: Labels) -> Option<&mut Series> {
        let (all, shape) = (self.series.get_mut(metric)?, self.metrics.get(metric)?.shape);
        if all.len() >= SERIES_MAX && !all.contains_key(&labels) {
            let is_made_up = |name: &&mut Name| usize::from(name.0) >= self.names.own;
            labels.iter_mut().filter(is_made_up).for_each(|name| *name = OTHER_NAME);
        }
        if labels.contains(&OTHER_NAME) {
            *self.overflows.get_mut(metric)? += 1;
        }
        Some(all.entry(labels).or_insert_with(|| Series::new(shape)))
    }

    /// Writes all of them.
    pub(super) fn encode(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        for (metric, all) in self.metrics.iter().zip(&self.series) {
            let kind = match metric.shape {
                Shape::Count => MetricType::Counter,
                _ => MetricType::Histogram,
            };
            let mut family = encoder.encode_descriptor(metric.name, metric.help, None, kind)?;
            for (values, series) in all {
                let labels = metric.labels.iter().zip(values);
                let text = |name: Name| self.names.texts.get(usize::from(name.0));
                let labels = labels.filter_map(|(label, name)| Some((*label, &**text(*name)?)));
                let labels: Vec<_> = labels.filter(|(_, value)| !value.is_empty()).collect();
                series.encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Values of series beyond those that a metric may have, counted as __other__";
        let mut family = encoder.encode_descriptor(OVERFLOW, help, None, MetricType::Counter)?;
        for (metric, overflows) in self.metrics.iter().zip(&self.overflows) {
            let labels = [("metric", metric.name)];
            ConstCounter::new(*overflows).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Names {
    fn add(&mut self, text: &str) -> Name {
        let name = Name(u16::try_from(self.texts.len()).unwrap_or(OTHER_NAME.0));
        self.texts.push(text.into());
        self.numbers.insert(text.into(), name);
        name
    }
}

impl Series {
    fn new(shape: Shape) -> Self {
        let buckets = match shape {
            Shape::Count => return Self::Count(0),
            // Those of OpenTelemetry, up to 82 s, and three more: a run of an agent takes minutes.
            Shape::Seconds => exponential_buckets(0.01, 2.0, 17),
            Shape::Tokens => exponential_buckets(1.0, 4.0, 14),
            Shape::Spans => exponential_buckets(1.0, 2.0, 13),
        };
        Self::Histogram(HistogramWithExemplars::new(buckets))
    }

    fn encode(&self, encoder: MetricEncoder<'_>) -> fmt::Result {
        match self {
            Self::Count(count) => ConstCounter::new(*count).encode(encoder),
            Self::Histogram(histogram) => histogram.encode(encoder),
        }
    }
}

impl EncodeLabelSet for Example {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        [("trace_id", self.0.to_string())].encode(encoder)
    }
}

fn cut(text: &str) -> &str {
    if text.len() <= NAME_CHARS_MAX {
        return text;
    }
    let end = text.char_indices().nth(NAME_CHARS_MAX).map_or(text.len(), |(end, _)| end);
    text.get(..end).unwrap_or(text)
}
