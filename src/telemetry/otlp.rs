//! Converts the page of `/metrics` to an OTLP request: each family of its text becomes a metric, so both always agree. Pure.
//!
//! Names are those of the page without `_total`, which Prometheus readers of OTLP add again. Sums and histograms count from the start of
//! the process. Exemplars are left out.

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{
    AnyValue, InstrumentationScope, KeyValue, any_value::Value,
};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint,
    ResourceMetrics, ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;
const NAME: &str = env!("CARGO_PKG_NAME");
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Units of the page, and their names in OTLP.
const UNITS: [(&str, &str); 2] = [("seconds", "s"), ("bytes", "By")];

/// Converts a whole page, as metrics of this instance, given when the process started and when the page was rendered, in nanoseconds since
/// 1970.
pub fn request(page: &str, between: (u64, u64), instance: &str) -> ExportMetricsServiceRequest {
    let mut metrics: Vec<Metric> = Vec::new();
    for line in page.lines() {
        match line.strip_prefix("# ") {
            Some(said) => describe(&mut metrics, said),
            None => {
                if let (Some(metric), Some(sample)) = (metrics.last_mut(), Sample::read(line)) {
                    sample.add_to(metric, between);
                }
            }
        }
    }
    let resource =
        [("service.name", NAME), ("service.version", VERSION), ("service.instance.id", instance)];
    let resource = resource.map(|(key, value)| attribute(key, value.to_owned())).into();
    let scope = InstrumentationScope {
        name: NAME.to_owned(),
        version: VERSION.to_owned(),
        ..InstrumentationScope::default()
    };
    metrics.retain(|metric| metric.data.is_some());
    let scope_metrics = vec![ScopeMetrics { scope: Some(scope), metrics, ..Default::default() }];
    let resource = Some(Resource { attributes: resource, ..Resource::default() });
    let all = ResourceMetrics { resource, scope_metrics, ..ResourceMetrics::default() };
    ExportMetricsServiceRequest { resource_metrics: vec![all] }
}

/// Begins a metric, or adds metadata to the last one: `TYPE name counter`.
fn describe(metrics: &mut Vec<Metric>, said: &str) {
    let mut words = said.splitn(3, ' ');
    let (Some(what), Some(name), text) =
        (words.next(), words.next(), words.next().unwrap_or_default())
    else {
        return;
    };
    if metrics.last().is_none_or(|metric| metric.name != name) {
        metrics.push(Metric { name: name.to_owned(), ..Metric::default() });
    }
    let Some(metric) = metrics.last_mut() else { return };
    match what {
        "HELP" => text.clone_into(&mut metric.description),
        "UNIT" => {
            let unit = UNITS.iter().find(|(known, _)| *known == text);
            unit.map_or(text, |(_, unit)| unit).clone_into(&mut metric.unit);
        }
        _ => metric.data = data(text),
    }
}

fn data(kind: &str) -> Option<Data> {
    let sum = |is_monotonic| {
        Data::Sum(Sum { aggregation_temporality: CUMULATIVE, is_monotonic, ..Sum::default() })
    };
    Some(match kind {
        "counter" => sum(true),
        // A constant is not a gauge there.
        "info" => sum(false),
        "histogram" => Data::Histogram(Histogram {
            aggregation_temporality: CUMULATIVE,
            ..Histogram::default()
        }),
        "gauge" => Data::Gauge(Gauge::default()),
        _ => return None,
    })
}

/// A line of the page: `name{label="value"} 1`.
struct Sample<'p> {
    name: &'p str,
    labels: Vec<KeyValue>,
    /// The upper bound of a bucket.
    bound: Option<String>,
    value: &'p str,
}

impl<'p> Sample<'p> {
    fn read(line: &'p str) -> Option<Self> {
        let (name, mut rest) = line.split_at(line.find(['{', ' '])?);
        let (mut labels, mut bound) = (Vec::new(), None);
        rest = rest.strip_prefix('{').unwrap_or(rest);
        while let Some((label, after)) =
            rest.split_once("=\"").filter(|_| !rest.starts_with(['}', ' ']))
        {
            let (value, after) = unquoted(after)?;
            match label.trim_start_matches(',') {
                "le" => bound = Some(value),
                label => labels.push(attribute(label, value)),
            }
            rest = after;
        }
        // An exemplar may follow.
        let value = rest.trim_start_matches(['}', ' ']).split(' ').next()?;
        Some(Self { name, labels, bound, value })
    }

    fn add_to(self, metric: &mut Metric, (start, now): (u64, u64)) {
        match &mut metric.data {
            Some(Data::Histogram(Histogram { data_points, .. })) => {
                let is_new = data_points.last().is_none_or(|last| last.attributes != self.labels);
                if is_new {
                    data_points.push(HistogramDataPoint {
                        attributes: self.labels.clone(),
                        start_time_unix_nano: start,
                        time_unix_nano: now,
                        ..HistogramDataPoint::default()
                    });
                }
                if let Some(point) = data_points.last_mut() {
                    self.add_to_histogram(point);
                }
            }
            Some(Data::Sum(Sum { data_points, .. })) => data_points.extend(self.point(start, now)),
            Some(Data::Gauge(Gauge { data_points })) => data_points.extend(self.point(0, now)),
            _ => {}
        }
    }

    fn point(self, start: u64, now: u64) -> Option<NumberDataPoint> {
        let whole = self.value.parse().map(Number::AsInt);
        let value = whole.or_else(|_| self.value.parse().map(Number::AsDouble)).ok()?;
        Some(NumberDataPoint {
            attributes: self.labels,
            start_time_unix_nano: start,
            time_unix_nano: now,
            value: Some(value),
            ..NumberDataPoint::default()
        })
    }

    fn add_to_histogram(self, point: &mut HistogramDataPoint) {
        if self.name.ends_with("_sum") {
            point.sum = self.value.parse().ok();
        } else if let (Some(bound), Ok(below)) = (&self.bound, self.value.parse::<u64>()) {
            // The page counts everything up to each bound, OTLP the values between two.
            let before: u64 = point.bucket_counts.iter().sum();
            point.bucket_counts.push(below.saturating_sub(before));
            point.explicit_bounds.extend(bound.parse::<f64>().ok().filter(|it| it.is_finite()));
            point.count = below;
        }
    }
}

/// Returns a text up to its closing quote, and the rest after that.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let (mut value, mut letters) = (String::new(), text.char_indices());
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return Some((value, text.get(at + 1..)?)),
            '\\' => match letters.next()?.1 {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            letter => value.push(letter),
        }
    }
    None
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_family_becomes_a_metric_with_the_same_values() {
        let page = "# HELP a Requests.\n# TYPE a counter\na_total{from=\"x\\\"\\\\\\n{}, =\\\"y\",to=\"\"} 3\na_total 0.000000005\n\
                    # HELP b_seconds Waits.\n# TYPE b_seconds histogram\n# UNIT b_seconds seconds\n\
                    b_seconds_sum{k=\"1\"} 4.5\nb_seconds_count{k=\"1\"} 4\nb_seconds_bucket{le=\"0.5\",k=\"1\"} 1 # {trace_id=\"ab\"} 0.4\n\
                    b_seconds_bucket{le=\"2.0\",k=\"1\"} 1\nb_seconds_bucket{le=\"+Inf\",k=\"1\"} 4\n\
                    b_seconds_sum{k=\"2\"} 0.0\nb_seconds_count{k=\"2\"} 0\nb_seconds_bucket{le=\"0.5\",k=\"2\"} 0\nb_seconds_bucket{le=\"+Inf\",k=\"2\"} 0\n\
                    # HELP c Up.\n# TYPE c gauge\nc -1.5\n# HELP d Build.\n# TYPE d info\nd_info{version=\"1\"} 1\n# EOF\n";
        let request = request(page, (5, 9), "me");
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let names: Vec<_> = metrics.iter().map(|it| (it.name.as_str(), it.unit.as_str())).collect();
        assert_eq!(names, [("a", ""), ("b_seconds", "s"), ("c", ""), ("d", "")]);
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!() };
        assert!(sum.is_monotonic && sum.aggregation_temporality == CUMULATIVE);
        let hostile =
            [attribute("from", "x\"\\\n{}, =\"y".to_owned()), attribute("to", String::new())];
        let points: Vec<_> = sum
            .data_points
            .iter()
            .map(|it| (it.value, it.start_time_unix_nano, it.time_unix_nano))
            .collect();
        assert_eq!(sum.data_points[0].attributes, hostile);
        assert_eq!(points, [(Some(Number::AsInt(3)), 5, 9), (Some(Number::AsDouble(5e-9)), 5, 9)]);
        let Some(Data::Histogram(histogram)) = &metrics[1].data else { panic!() };
        let [one, other] = &histogram.data_points[..] else { panic!() };
        assert_eq!(
            (&one.explicit_bounds[..], &one.bucket_counts[..]),
            (&[0.5, 2.0][..], &[1, 0, 3][..])
        );
        assert_eq!(
            (one.sum, one.count, other.count, other.bucket_counts.len()),
            (Some(4.5), 4, 0, 2)
        );
        let Some(Data::Gauge(gauge)) = &metrics[2].data else { panic!() };
        assert_eq!(gauge.data_points[0].value, Some(Number::AsDouble(-1.5)));
        let Some(Data::Sum(info)) = &metrics[3].data else { panic!() };
        assert!(!info.is_monotonic);
    }
}
