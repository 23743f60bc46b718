//! Which path leads where, and in which language the answer is given.

use hyper::Response;
use hyper::header::{CONTENT_TYPE, HeaderMap};

use super::failure::Failure;
use super::otlp::{Media, Signal};
use super::reply::Reply;
use super::{Taken, openai, otlp};
use crate::telemetry::Door;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The Agents SDK's ingest.
    Ingest,
    /// OTLP over HTTP.
    Export(Signal),
    /// OTLP over gRPC.
    Rpc(Signal),
    /// gRPC's health check.
    Health,
    /// Nothing.
    Nowhere,
}

impl Place {
    /// What its POST takes, in words.
    pub(super) fn takes(self) -> &'static str {
        match self {
            Self::Ingest => "the Agents SDK's traces as {\"data\": [...]}",
            Self::Export(_) => "an OTLP export request in protobuf or JSON",
            Self::Rpc(_) | Self::Health | Self::Nowhere => "a gRPC request",
        }
    }

    /// The media types it takes, in words.
    pub(super) fn media_types(self) -> &'static str {
        match self {
            Self::Rpc(_) | Self::Health => "application/grpc",
            Self::Ingest | Self::Export(_) | Self::Nowhere => {
                "application/x-protobuf or application/json"
            }
        }
    }
}

/// The table of paths.
#[derive(Debug)]
pub(super) struct Routes {
    aliases: Aliases,
}

#[derive(Debug, PartialEq, Eq)]
enum Aliases {
    Served,
    Unknown,
}

impl Routes {
    /// The table, with or without the paths that clients build by mistake or for other products.
    pub(super) fn new(path_aliases: bool) -> Self {
        Self { aliases: if path_aliases { Aliases::Served } else { Aliases::Unknown } }
    }

    /// Where a path leads.
    pub(super) fn find(&self, path: &str) -> Place {
        match path {
            "/v1/traces/ingest" | "/v1/traces/ingest/" => Place::Ingest,
            "/v1/traces" => Place::Export(Signal::Traces),
            "/v1/metrics" => Place::Export(Signal::Metrics),
            "/v1/logs" => Place::Export(Signal::Logs),
            "/v1development/profiles" => Place::Export(Signal::Profiles),
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export" => {
                Place::Rpc(Signal::Traces)
            }
            "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export" => {
                Place::Rpc(Signal::Metrics)
            }
            "/opentelemetry.proto.collector.logs.v1.LogsService/Export" => Place::Rpc(Signal::Logs),
            "/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export" => {
                Place::Rpc(Signal::Profiles)
            }
            "/grpc.health.v1.Health/Check" => Place::Health,
            other if self.aliases == Aliases::Served => alias(other),
            _ => Place::Nowhere,
        }
    }
}

/// Paths that clients build by mistake (an endpoint for traces alone that has no path, or has it already; a slash too many) or for
/// other products (Langfuse).
fn alias(path: &str) -> Place {
    match path {
        "/"
        | "/v1/traces/"
        | "/v1/traces/v1/traces"
        | "/v1/v1/traces"
        | "/api/public/otel/v1/traces"
        | "/api/public/otel/v1/traces/" => Place::Export(Signal::Traces),
        "/v1/metrics/" | "/v1/metrics/v1/metrics" | "/v1/v1/metrics" => {
            Place::Export(Signal::Metrics)
        }
        "/v1/logs/" | "/v1/logs/v1/logs" | "/v1/v1/logs" => Place::Export(Signal::Logs),
        "/v1development/profiles/" => Place::Export(Signal::Profiles),
        _ => Place::Nowhere,
    }
}

/// How a request speaks, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Language {
    /// OpenAI's JSON.
    OpenAi,
    /// OTLP over HTTP, in this media type.
    Otlp(Media),
    /// OTLP over HTTP in a media type that is none of its own; answered in JSON.
    Unknown,
    /// gRPC.
    Grpc,
}

impl Language {
    /// The language of a request.
    pub(super) fn of(place: Place, headers: &HeaderMap) -> Self {
        let media = headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        // Parameters (`; charset=utf-8`) do not matter.
        let media = media.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let is_grpc = media.get(..16).is_some_and(|start| start.eq_ignore_ascii_case(GRPC_MEDIA));
        match place {
            Place::Ingest => Self::OpenAi,
            // At a path of gRPC's too: who does not speak it would take its errors, which are HTTP's 200, for success.
            _ if is_grpc => Self::Grpc,
            _ => Media::of(media).map_or(Self::Unknown, Self::Otlp),
        }
    }

    /// The door in metrics.
    pub(super) fn door(self, place: Place) -> Door {
        match (place, self) {
            (Place::Ingest, _) | (_, Self::OpenAi) => openai::DOOR,
            (_, Self::Grpc) => otlp::GRPC_DOOR,
            (_, Self::Otlp(media)) => media.door(),
            (_, Self::Unknown) => Media::Json.door(),
        }
    }

    /// Whether a failure ends the connection instead of being answered: nobody would read it, or the nearest status (408) would
    /// make clients drop what they can still send.
    pub(super) fn hangs_up(self, failure: &Failure) -> bool {
        match failure {
            Failure::Gone => true,
            Failure::Slow => self != Self::Grpc,
            _ => false,
        }
    }

    /// The answer, and its code for the figures: the HTTP status, or gRPC's.
    pub(super) fn reply(self, outcome: &Result<Taken, Failure>) -> (Response<Reply>, u16) {
        let response = match self {
            Self::OpenAi => openai::reply(outcome),
            Self::Otlp(media) => otlp::reply::http(media, outcome),
            Self::Unknown => otlp::reply::http(Media::Json, outcome),
            Self::Grpc => return otlp::reply::grpc(outcome),
        };
        let code = response.status().as_u16();
        (response, code)
    }
}

const GRPC_MEDIA: &[u8; 16] = b"application/grpc";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_can_be_switched_off_and_the_paths_of_the_specification_cannot() {
        let strict = Routes::new(false);
        let lenient = Routes::new(true);
        for path in ["/v1/traces", "/v1/traces/ingest", "/v1/traces/ingest/", "/v1/logs"] {
            assert_eq!(strict.find(path), lenient.find(path), "{path}");
            assert_ne!(strict.find(path), Place::Nowhere, "{path}");
        }
        for path in ["/", "/v1/traces/", "/v1/v1/traces", "/api/public/otel/v1/traces"] {
            assert_eq!(strict.find(path), Place::Nowhere, "{path}");
            assert_ne!(lenient.find(path), Place::Nowhere, "{path}");
        }
        for path in ["/v2/traces", "/v1/trace", "/v1/tracesx", "/v1/traces/ingest/x"] {
            assert_eq!(lenient.find(path), Place::Nowhere, "{path}");
        }
    }
}
