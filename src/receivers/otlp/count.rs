//! Counts what requests of other signals hold, without building anything from it.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use super::Signal;
use crate::normalize::{Encoding, Malformed};

/// How many items a request holds.
pub(super) fn items(signal: Signal, encoding: Encoding, body: &Bytes) -> Result<u64, Malformed> {
    match encoding {
        Encoding::Protobuf => count_protobuf(body, path(signal)).ok_or(Malformed::Syntax {
            expected: "an OTLP protobuf message",
            problem: "its fields cannot be walked".to_owned(),
        }),
        Encoding::Json => count_json(signal, body).map_err(|error| Malformed::Syntax {
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

/// The field numbers that lead from a request to its items; where there are several of one level, any of them.
/// By `opentelemetry/proto/{metrics,logs,profiles}`: resource, scope, then the items, and for metrics gauge, sum, histogram,
/// exponential histogram and summary with their data points.
fn path(signal: Signal) -> &'static [&'static [u32]] {
    match signal {
        Signal::Metrics => &[&[1], &[2], &[2], &[5, 7, 9, 10, 11], &[1]],
        Signal::Traces | Signal::Logs | Signal::Profiles => &[&[1], &[2], &[2]],
    }
}

/// Counts the messages at the end of a path of fields; `None` where the wire format is broken.
fn count_protobuf(message: &[u8], path: &[&[u32]]) -> Option<u64> {
    let Some((fields, below)) = path.split_first() else { return Some(1) };
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

fn count_json(signal: Signal, body: &[u8]) -> serde_json::Result<u64> {
    Ok(match signal {
        Signal::Metrics => serde_json::from_slice::<MetricsRequest>(body)?.resources.count(),
        Signal::Traces | Signal::Logs => {
            serde_json::from_slice::<LogsRequest>(body)?.resources.count()
        }
        Signal::Profiles => serde_json::from_slice::<ProfilesRequest>(body)?.resources.count(),
    })
}

/// Something that holds items.
trait Count {
    fn count(&self) -> u64;
}

/// A JSON array, of which only the number of items below it is remembered.
struct Sum<T>(u64, PhantomData<T>);

impl<T> Default for Sum<T> {
    fn default() -> Self {
        Self(0, PhantomData)
    }
}

impl<T> Count for Sum<T> {
    fn count(&self) -> u64 {
        self.0
    }
}

impl Count for IgnoredAny {
    fn count(&self) -> u64 {
        1
    }
}

impl<'de, T: Deserialize<'de> + Count> Deserialize<'de> for Sum<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(SumVisitor(PhantomData))
    }
}

struct SumVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de> + Count> Visitor<'de> for SumVisitor<T> {
    type Value = Sum<T>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_unit<E>(self) -> Result<Sum<T>, E> {
        Ok(Sum::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Sum<T>, A::Error> {
        let mut sum = 0;
        while let Some(element) = elements.next_element::<T>()? {
            sum += element.count();
        }
        Ok(Sum(sum, PhantomData))
    }
}

/// Declares an object of which only the items below one or more of its members are counted.
macro_rules! counted {
    ($name:ident { $($field:ident: $inner:ty = $camel:literal | $snake:literal),+ }) => {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $name {
            $(#[serde(rename = $camel, alias = $snake)] $field: $inner,)+
        }

        impl Count for $name {
            fn count(&self) -> u64 {
                0 $(+ self.$field.count())+
            }
        }
    };
}

impl<T: Count> Count for Option<T> {
    fn count(&self) -> u64 {
        self.as_ref().map_or(0, Count::count)
    }
}

counted!(LogsRequest { resources: Sum<ResourceLogs> = "resourceLogs" | "resource_logs" });
counted!(ResourceLogs { scopes: Sum<ScopeLogs> = "scopeLogs" | "scope_logs" });
counted!(ScopeLogs { records: Sum<IgnoredAny> = "logRecords" | "log_records" });
counted!(ProfilesRequest { resources: Sum<ResourceProfiles> = "resourceProfiles" | "resource_profiles" });
counted!(ResourceProfiles { scopes: Sum<ScopeProfiles> = "scopeProfiles" | "scope_profiles" });
counted!(ScopeProfiles { profiles: Sum<IgnoredAny> = "profiles" | "profile" });
counted!(MetricsRequest { resources: Sum<ResourceMetrics> = "resourceMetrics" | "resource_metrics" });
counted!(ResourceMetrics { scopes: Sum<ScopeMetrics> = "scopeMetrics" | "scope_metrics" });
counted!(ScopeMetrics { metrics: Sum<Metric> = "metrics" | "metric" });
counted!(Metric {
    gauge: Option<Points> = "gauge" | "Gauge",
    sum: Option<Points> = "sum" | "Sum",
    histogram: Option<Points> = "histogram" | "Histogram",
    exponential: Option<Points> = "exponentialHistogram" | "exponential_histogram",
    summary: Option<Points> = "summary" | "Summary"
});
counted!(Points { points: Sum<IgnoredAny> = "dataPoints" | "data_points" });
