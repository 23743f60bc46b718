//! Counts what requests of other signals hold, without building anything from it.

use std::fmt;

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};

use super::Signal;
use crate::normalize::{Encoding, Malformed};

/// One step on the way from a request to its items: the numbers of the fields that lead on, and their names in JSON.
type Step = (&'static [u32], &'static [&'static str]);

/// The way to the items, by `opentelemetry/proto/{metrics,logs,profiles}`: resource, scope, then the items; for metrics gauge, sum,
/// histogram, exponential histogram and summary with their data points.
fn way(signal: Signal) -> &'static [Step] {
    match signal {
        Signal::Traces | Signal::Logs => &[
            (&[1], &["resourceLogs", "resource_logs"]),
            (&[2], &["scopeLogs", "scope_logs"]),
            (&[2], &["logRecords", "log_records"]),
        ],
        Signal::Profiles => &[
            (&[1], &["resourceProfiles", "resource_profiles"]),
            (&[2], &["scopeProfiles", "scope_profiles"]),
            (&[2], &["profiles", "profile"]),
        ],
        Signal::Metrics => &[
            (&[1], &["resourceMetrics", "resource_metrics"]),
            (&[2], &["scopeMetrics", "scope_metrics"]),
            (&[2], &["metrics", "metric"]),
            (&[5, 7, 9, 10, 11], METRICS),
            (&[1], &["dataPoints", "data_points"]),
        ],
    }
}

const METRICS: &[&str] = &[
    "gauge",
    "Gauge",
    "sum",
    "Sum",
    "histogram",
    "Histogram",
    "exponentialHistogram",
    "exponential_histogram",
    "summary",
    "Summary",
];

/// How many items a request holds.
pub(in crate::receivers) fn items(
    signal: Signal,
    encoding: Encoding,
    body: &[u8],
) -> Result<u64, Malformed> {
    match encoding {
        Encoding::Protobuf => count_protobuf(body, way(signal)).ok_or(Malformed::Syntax {
            expected: "an OTLP protobuf message",
            problem: "its fields cannot be walked".to_owned(),
        }),
        Encoding::Json => count_json(body, way(signal)).map_err(|error| Malformed::Syntax {
            expected: "OTLP in JSON",
            // The parser's own text may quote the body.
            problem: format!(
                "it cannot be read at line {} column {}",
                error.line(),
                error.column()
            ),
        }),
    }
}

/// Counts the messages at the end of the way; `None` where the wire format is broken.
fn count_protobuf(message: &[u8], way: &[Step]) -> Option<u64> {
    let Some(((fields, _), below)) = way.split_first() else { return Some(1) };
    let mut rest = message;
    let mut count = 0;
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if wire_type == WireType::LengthDelimited && fields.contains(&number) {
            let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
            let (inner, after) = rest.split_at_checked(length)?;
            count += count_protobuf(inner, below)?;
            rest = after;
        } else {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
        }
    }
    Some(count)
}

fn count_json(body: &[u8], way: &'static [Step]) -> serde_json::Result<u64> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    let count = Items(way).deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(count)
}

/// A JSON value from which this way leads on, or a list of such; of which only the number of items is remembered.
#[derive(Clone, Copy)]
struct Items(&'static [Step]);

impl<'de> DeserializeSeed<'de> for Items {
    type Value = u64;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<u64, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Items {
    type Value = u64;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object or an array")
    }

    fn visit_unit<E>(self) -> Result<u64, E> {
        Ok(0)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<u64, A::Error> {
        let mut count = 0;
        if self.0.is_empty() {
            while elements.next_element::<IgnoredAny>()?.is_some() {
                count += 1;
            }
            return Ok(count);
        }
        while let Some(items) = elements.next_element_seed(self)? {
            count += items;
        }
        Ok(count)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<u64, A::Error> {
        let Some(((_, names), below)) = self.0.split_first() else {
            return Err(A::Error::custom("items are a list"));
        };
        let mut count = 0;
        while let Some(name) = members.next_key::<String>()? {
            if names.contains(&&*name) {
                count += members.next_value_seed(Items(below))?;
            } else {
                members.next_value::<IgnoredAny>()?;
            }
        }
        Ok(count)
    }
}
