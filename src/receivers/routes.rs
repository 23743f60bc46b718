//! Routes: the place of each path, and the protocol of the answer.

use std::borrow::Cow;

use axum::response::Response;
use hyper::Version;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::request::Parts;
use hyper::http::uri::Authority;

use super::options::ReceiverOptions;
use super::refusal::Refusal;
use super::reply::{self, JSON, Media, Taken};
use super::signal::Signal;
use crate::normalize::Encoding;
use crate::server::{Peer, header_text};
use crate::span::Receiver;
use crate::telemetry::Label;

/// The place to which a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The ingest endpoint of the Agents SDK.
    Ingest,
    Export(Signal),
    Rpc(Signal),
    Health,
    Nowhere,
}

impl Place {
    /// Describes what its POST accepts.
    pub(super) fn takes(self) -> &'static str {
        match self {
            Self::Ingest => "the Agents SDK's traces as {\"data\": [...]}",
            Self::Export(_) => "an OTLP export request in protobuf or JSON",
            Self::Rpc(_) | Self::Health | Self::Nowhere => "a gRPC request",
        }
    }

    /// Describes the media types that it accepts.
    pub(super) fn media_types(self) -> &'static str {
        match self {
            Self::Ingest | Self::Export(_) => "application/x-protobuf or application/json",
            Self::Rpc(_) | Self::Health | Self::Nowhere => {
                "application/grpc or application/grpc+proto over HTTP/2; without gRPC, send \
                 application/x-protobuf or application/json to /v1/traces"
            }
        }
    }
}

/// The paths in the specifications. The Agents SDK sends to whatever its app writes, with a slash at the end or without.
#[rustfmt::skip]
const PATHS: &[(&str, Place)] = &[
    ("/v1/traces/ingest", Place::Ingest),
    ("/v1/traces/ingest/", Place::Ingest),
    ("/v1/traces", Place::Export(Signal::Traces)),
    ("/v1/metrics", Place::Export(Signal::Metrics)),
    ("/v1/logs", Place::Export(Signal::Logs)),
    ("/v1development/profiles", Place::Export(Signal::Profiles)),
    ("/opentelemetry.proto.collector.trace.v1.TraceService/Export", Place::Rpc(Signal::Traces)),
    ("/opentelemetry.proto.collector.metrics.v1.MetricsService/Export", Place::Rpc(Signal::Metrics)),
    ("/opentelemetry.proto.collector.logs.v1.LogsService/Export", Place::Rpc(Signal::Logs)),
    ("/opentelemetry.proto.collector.profiles.v1development.ProfilesService/Export", Place::Rpc(Signal::Profiles)),
    ("/grpc.health.v1.Health/Check", Place::Health),
];

/// Paths that clients build by mistake (an endpoint for traces that already has the path) or for other products (Langfuse).
const ALIASES: &[(&str, Place)] = &[
    ("/v1/traces/v1/traces", Place::Export(Signal::Traces)),
    ("/v1/v1/traces", Place::Export(Signal::Traces)),
    ("/api/public/otel/v1/traces", Place::Export(Signal::Traces)),
    ("/v1/metrics/v1/metrics", Place::Export(Signal::Metrics)),
    ("/v1/v1/metrics", Place::Export(Signal::Metrics)),
    ("/v1/logs/v1/logs", Place::Export(Signal::Logs)),
    ("/v1/v1/logs", Place::Export(Signal::Logs)),
];

/// Finds the place of a path, which may be below the base path; the options say whether aliases are served.
pub(super) fn find(path: &str, options: &ReceiverOptions) -> Place {
    let path = with_single_slashes(path);
    let path = path.strip_prefix(&*options.base_path).unwrap_or(&path);
    let in_table = |table: &[(&str, Place)], path: &str| {
        table.iter().find(|(known, _)| *known == path).map(|(_, place)| *place)
    };
    // Without aliases, trailing slashes are not accepted either.
    let in_others = || {
        let bare = path.strip_suffix('/').unwrap_or(path);
        let found = in_table(ALIASES, bare).or_else(|| in_table(PATHS, bare));
        found.filter(|_| options.path_aliases)
    };
    in_table(PATHS, path).or_else(in_others).unwrap_or(Place::Nowhere)
}

/// Replaces repeated slashes by one: clients join a base that ends with a slash and a path that begins with one.
fn with_single_slashes(path: &str) -> Cow<'_, str> {
    let mut single = Cow::Borrowed(path);
    while single.contains("//") {
        single = single.replace("//", "/").into();
    }
    single
}

/// Tells a client at an unknown path how it should be configured.
pub(super) fn directions(head: &Parts, options: &ReceiverOptions) -> Refusal {
    let host = header_text(&head.headers, HOST);
    let host = head.uri.authority().map(Authority::as_str).or(host);
    // The listener's address is used if the request does not show its own.
    let own = options.http.to_string();
    let host = host.filter(|host| is_address(host)).unwrap_or(&own);
    let scheme = head.extensions.get().map_or("http", Peer::scheme);
    let base = format!("{scheme}://{host}{}", options.base_path);
    Refusal::NotFound(format!(
        "nothing is served at this path: OTLP goes to POST {}/v1/traces, so set \
         OTEL_EXPORTER_OTLP_ENDPOINT={base} or \
         OTEL_EXPORTER_OTLP_TRACES_ENDPOINT={base}/v1/traces; the Agents SDK's traces go to \
         POST {}/v1/traces/ingest, so set its exporter's endpoint to {base}/v1/traces/ingest",
        options.base_path, options.base_path
    ))
}

/// Returns whether a text can be shown as host and port: it comes from the client, and the answer may end up in a log or on a page.
fn is_address(text: &str) -> bool {
    let is_of_address = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_address)
}

/// A DNS name has at most 253 bytes (RFC 1035), and a port adds six.
const ADDRESS_BYTES_MAX: usize = 259;

/// The first one is the specification's; some clients send the second.
const MEDIA_TYPES: [Media; 3] = [
    ("application/x-protobuf", Encoding::Protobuf),
    ("application/protobuf", Encoding::Protobuf),
    JSON,
];

/// Media types of gRPC with protobuf messages. Other names with this prefix are other protocols (gRPC-Web) or other messages (JSON):
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>.
const GRPC_MEDIA: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// Parses an OTLP media type.
pub(super) fn media_of(text: &[u8]) -> Option<Media> {
    MEDIA_TYPES.into_iter().find(|(known, _)| is_media(text, known))
}

fn is_media(text: &[u8], known: &str) -> bool {
    // Parameters (`; charset=utf-8`) do not matter.
    let bare = text.split(|byte| *byte == b';').next().unwrap_or_default();
    bare.trim_ascii().eq_ignore_ascii_case(known.as_bytes())
}

/// Returns the metric labels of a receiver and wire format.
pub(super) fn labels(receiver: Receiver, encoding: Encoding) -> [Label; 3] {
    let transport = match receiver {
        Receiver::OtlpGrpc => "grpc",
        Receiver::Kafka => "kafka",
        Receiver::OpenAi | Receiver::OtlpHttp => "http",
    };
    let format = match encoding {
        Encoding::Protobuf => "protobuf",
        Encoding::Json => "json",
    };
    let receiver = receiver.as_str().into();
    [("receiver", receiver), ("transport", transport.into()), ("format", format.into())]
}

/// The protocol of a request and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    OpenAi,
    /// OTLP over HTTP, with its media type if known.
    Otlp(Option<Media>),
    Grpc,
}

impl Protocol {
    /// One of each kind that metrics distinguish.
    pub(super) const ALL: [Self; 4] =
        [Self::OpenAi, Self::Otlp(Some(JSON)), Self::Otlp(Some(MEDIA_TYPES[0])), Self::Grpc];

    pub(super) fn of(place: Place, head: &Parts) -> Self {
        let media = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let is_grpc = GRPC_MEDIA.into_iter().any(|known| is_media(media, known));
        // Over HTTP/1.1 the trailers would be lost, and with them the call's status.
        let is_grpc = is_grpc && Version::HTTP_2 <= head.version;
        match place {
            Place::Ingest => Self::OpenAi,
            // This applies to gRPC paths too: a client that does not speak gRPC would take its errors, which have HTTP status 200, for
            // success.
            _ if is_grpc => Self::Grpc,
            _ => Self::Otlp(media_of(media)),
        }
    }

    /// Returns the receiver and the wire format.
    pub(super) fn form(self) -> (Receiver, Encoding) {
        match self {
            Self::OpenAi => (Receiver::OpenAi, Encoding::Json),
            Self::Grpc => (Receiver::OtlpGrpc, Encoding::Protobuf),
            Self::Otlp(media) => (Receiver::OtlpHttp, media.unwrap_or(JSON).1),
        }
    }

    /// Returns whether a refusal closes the connection without an answer: no client would read it, or the nearest status (408) would make
    /// clients drop data that they could still send.
    pub(super) fn hangs_up(self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Gone => true,
            Refusal::Slow => self != Self::Grpc,
            _ => false,
        }
    }

    /// Returns the answer, and its code for metrics: the HTTP status or the gRPC code.
    pub(super) fn reply(self, outcome: &Result<Taken, Refusal>) -> (Response, u16) {
        let response = match self {
            Self::OpenAi => reply::openai(outcome),
            Self::Otlp(media) => reply::otlp(media.unwrap_or(JSON), outcome),
            Self::Grpc => return reply::grpc(outcome),
        };
        let code = response.status().as_u16();
        (response, code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(path: &str, base_path: &str, path_aliases: bool) -> Place {
        let base_path = base_path.to_owned();
        find(path, &ReceiverOptions { path_aliases, base_path, ..ReceiverOptions::default() })
    }

    #[test]
    fn aliases_can_be_switched_off_and_the_paths_of_the_specification_cannot() {
        let (strict, lenient) = (|path| at(path, "", false), |path| at(path, "", true));
        for path in ["/v1/traces", "/v1/traces/ingest", "/v1/traces/ingest/", "/v1/logs"] {
            assert_eq!(strict(path), lenient(path), "{path}");
            assert_ne!(strict(path), Place::Nowhere, "{path}");
        }
        for path in ["/v1/traces/", "/v1/logs/", "/v1/v1/traces", "/api/public/otel/v1/traces/"] {
            assert_eq!(strict(path), Place::Nowhere, "{path}");
            assert_ne!(lenient(path), Place::Nowhere, "{path}");
        }
        for path in
            ["/", "", "/v1", "/v2/traces", "/v1/trace", "/v1/tracesx", "/v1/traces/ingest/x"]
        {
            assert_eq!(lenient(path), Place::Nowhere, "{path}");
        }
    }

    #[test]
    fn several_slashes_in_a_path_count_as_one() {
        let lenient = |path| at(path, "", true);
        for (path, single) in [
            ("//v1/traces", "/v1/traces"),
            ("/v1//traces//", "/v1/traces"),
            ("///v1///traces///ingest///", "/v1/traces/ingest"),
            ("//v1/traces//v1/traces", "/v1/traces"),
            ("/api/public/otel//v1/traces", "/v1/traces"),
            ("//opentelemetry.proto.collector.trace.v1.TraceService//Export", PATHS[6].0),
        ] {
            assert_eq!(lenient(path), lenient(single), "{path}");
            assert_ne!(lenient(path), Place::Nowhere, "{path}");
        }
        assert_eq!(at("//v1//traces", "", false), Place::Export(Signal::Traces));
        assert_eq!(lenient("//"), Place::Nowhere);
    }

    #[test]
    fn an_address_is_shown_only_where_it_can_be_one() {
        let told = |host: &str| {
            let request = hyper::Request::post("/otel").header("host", host).body(()).unwrap();
            directions(&request.into_parts().0, &ReceiverOptions::default()).to_string()
        };
        for host in ["collector:4318", "[::1]:4317", "a-b.example.com"] {
            assert!(told(host).contains(&format!("ENDPOINT=http://{host} or")), "{host}");
        }
        for host in ["", "a b", "<script>", "user@host", "a/../b", &"a".repeat(300)] {
            assert!(told(host).contains("ENDPOINT=http://127.0.0.1:4318 or"), "{host}");
        }
    }
    #[test]
    fn every_path_is_served_below_the_base_path_too() {
        for (path, _) in PATHS {
            let below = format!("/otel/a{path}");
            assert_eq!(at(&below, "/otel/a", false), at(path, "", false), "{below}");
            assert_eq!(at(path, "/otel/a", false), at(path, "", false), "{path}");
            assert_eq!(at(&below, "", true), Place::Nowhere, "{below}");
        }
        assert_eq!(at("//otel//v1/traces/", "/otel", true), Place::Export(Signal::Traces));
        for path in ["/otel", "/otelv1/traces", "/otel/otel/v1/traces", "/v1/traces/otel"] {
            assert_eq!(at(path, "/otel", true), Place::Nowhere, "{path}");
        }
    }

    #[test]
    fn directions_lead_to_where_the_request_came_from() {
        let mut request = hyper::Request::post("/x").header("host", "a.example").body(()).unwrap();
        request.extensions_mut().insert(Peer { is_encrypted: true, ..Peer::default() });
        let options =
            ReceiverOptions { base_path: "/otel".to_owned(), ..ReceiverOptions::default() };
        let told = directions(&request.into_parts().0, &options).to_string();
        assert!(told.contains("ENDPOINT=https://a.example/otel or"), "{told}");
        assert!(told.contains("POST /otel/v1/traces/ingest"), "{told}");
    }
}
