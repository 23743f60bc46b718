//! Which path leads where, and in which protocol the answer is given.

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

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// The Agents SDK's ingest.
    Ingest,
    Export(Signal),
    Rpc(Signal),
    Health,
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
            Self::Ingest | Self::Export(_) => "application/x-protobuf or application/json",
            Self::Rpc(_) | Self::Health | Self::Nowhere => {
                "application/grpc or application/grpc+proto over HTTP/2; without gRPC, send \
                 application/x-protobuf or application/json to /v1/traces"
            }
        }
    }
}

/// The paths of the specifications. The Agents SDK adds its path to whatever base it is given.
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

/// Paths that clients build by mistake (an endpoint for traces alone that has the path already) or for other products (Langfuse).
const ALIASES: &[(&str, Place)] = &[
    ("/v1/traces/v1/traces", Place::Export(Signal::Traces)),
    ("/v1/v1/traces", Place::Export(Signal::Traces)),
    ("/api/public/otel/v1/traces", Place::Export(Signal::Traces)),
    ("/v1/metrics/v1/metrics", Place::Export(Signal::Metrics)),
    ("/v1/v1/metrics", Place::Export(Signal::Metrics)),
    ("/v1/logs/v1/logs", Place::Export(Signal::Logs)),
    ("/v1/v1/logs", Place::Export(Signal::Logs)),
];

/// Where a path leads, also below the base path; with or without the paths that clients build by mistake or for other products.
pub(super) fn find(path: &str, options: &ReceiverOptions) -> Place {
    let path = with_single_slashes(path);
    let path = path.strip_prefix(&*options.base_path).unwrap_or(&path);
    let in_table = |table: &[(&str, Place)], path: &str| {
        table.iter().find(|(known, _)| *known == path).map(|(_, place)| *place)
    };
    // Whoever wants the paths of the specifications alone gets no slash behind them either.
    let in_others = || {
        let bare = path.strip_suffix('/').unwrap_or(path);
        let found = in_table(ALIASES, bare).or_else(|| in_table(PATHS, bare));
        found.filter(|_| options.path_aliases)
    };
    in_table(PATHS, path).or_else(in_others).unwrap_or(Place::Nowhere)
}

/// The path with one slash in the place of several: clients join a base that ends with one and a path that begins with one.
fn with_single_slashes(path: &str) -> Cow<'_, str> {
    let mut single = Cow::Borrowed(path);
    while single.contains("//") {
        single = single.replace("//", "/").into();
    }
    single
}

/// What a client at a path that leads nowhere should be set to.
pub(super) fn directions(head: &Parts, options: &ReceiverOptions) -> Refusal {
    let host = header_text(&head.headers, HOST);
    let host = head.uri.authority().map(Authority::as_str).or(host);
    // Our own address stands where the request does not say by which one it came.
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

/// Whether a text can be shown as a host and a port: it comes from the client, and the answer may end up in a log or on a page.
fn is_address(text: &str) -> bool {
    let is_of_address = |byte: u8| {
        byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b':' | b'[' | b']')
    };
    (1..=ADDRESS_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_of_address)
}

/// A DNS name has 253 bytes at most (RFC 1035), and a port adds six.
const ADDRESS_BYTES_MAX: usize = 259;

/// The first is the specification's; some clients send the second.
const MEDIA_TYPES: [Media; 3] = [
    ("application/x-protobuf", Encoding::Protobuf),
    ("application/protobuf", Encoding::Protobuf),
    JSON,
];

/// What is gRPC with messages in protobuf. Other names that begin so are other protocols (gRPC-Web) or other messages (JSON):
/// <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>, <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md>.
const GRPC_MEDIA: [&str; 2] = ["application/grpc", "application/grpc+proto"];

/// The media type of OTLP that a text means.
pub(super) fn media_of(text: &[u8]) -> Option<Media> {
    MEDIA_TYPES.into_iter().find(|(known, _)| is_media(text, known))
}

fn is_media(text: &[u8], known: &str) -> bool {
    // Parameters (`; charset=utf-8`) do not matter.
    let bare = text.split(|byte| *byte == b';').next().unwrap_or_default();
    bare.trim_ascii().eq_ignore_ascii_case(known.as_bytes())
}

/// What requests of a receiver in a wire format are called in metrics.
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

/// How a request speaks, and how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    OpenAi,
    /// OTLP over HTTP, in this media type if it is known.
    Otlp(Option<Media>),
    Grpc,
}

impl Protocol {
    /// One of each that metrics tell apart.
    pub(super) const ALL: [Self; 4] =
        [Self::OpenAi, Self::Otlp(Some(JSON)), Self::Otlp(Some(MEDIA_TYPES[0])), Self::Grpc];

    pub(super) fn of(place: Place, head: &Parts) -> Self {
        let media = head.headers.get(CONTENT_TYPE).map_or(&b""[..], |value| value.as_bytes());
        let is_grpc = GRPC_MEDIA.into_iter().any(|known| is_media(media, known));
        // Over HTTP/1.1 the trailers would be lost, and with them whether the call went well.
        let is_grpc = is_grpc && Version::HTTP_2 <= head.version;
        match place {
            Place::Ingest => Self::OpenAi,
            // At a path of gRPC's too: who does not speak it would take its errors, which are HTTP's 200, for success.
            _ if is_grpc => Self::Grpc,
            _ => Self::Otlp(media_of(media)),
        }
    }

    /// Which receiver takes it, and its wire format.
    pub(super) fn form(self) -> (Receiver, Encoding) {
        match self {
            Self::OpenAi => (Receiver::OpenAi, Encoding::Json),
            Self::Grpc => (Receiver::OtlpGrpc, Encoding::Protobuf),
            Self::Otlp(media) => (Receiver::OtlpHttp, media.unwrap_or(JSON).1),
        }
    }

    /// Whether a refusal ends the connection instead of being answered: nobody would read it, or the nearest status (408) would
    /// make clients drop what they can still send.
    pub(super) fn hangs_up(self, refusal: &Refusal) -> bool {
        match refusal {
            Refusal::Gone => true,
            Refusal::Slow => self != Self::Grpc,
            _ => false,
        }
    }

    /// The answer, and its code for the figures: the HTTP status, or gRPC's.
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
