//! Secrets of every kind, in every place of both formats, through every input.

#[path = "../../src/support/tests/planted.rs"]
#[allow(dead_code, reason = "a part of it is used here")]
mod data;

use std::collections::BTreeSet;
use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use memchr::memmem;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use serde_json::json;

use data::{IN_CONTEXT, PLANTED, agents_sdk_everywhere, otlp_everywhere};

/// An input for one format: the path, the media type and compression, and the encoder.
type Receiver = (&'static str, &'static str, &'static str, fn(&str, usize) -> Vec<u8>);

const INGEST: &str = "/v1/traces/ingest";
const JSON: &str = "application/json";
const GRPC: &str = "application/grpc";
const RPC: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

const DOORS: [Receiver; 5] = [
    (INGEST, JSON, "", agents_sdk),
    (INGEST, JSON, "", agents_sdk_behind_escapes),
    ("/v1/traces", JSON, "gzip", |secret, id| {
        gzip(&serde_json::to_vec(&otlp(secret, id)).unwrap())
    }),
    ("/v1/traces", "application/x-protobuf", "", |secret, id| otlp(secret, id).encode_to_vec()),
    (RPC, GRPC, "", framed),
];

/// For each secret, over all inputs: number of accepted items, of spans among them, and of invalid items.
pub(crate) const ITEMS: usize = 2 * 5 + 3;
pub(crate) const SPANS: usize = 2 * 4 + 3;
pub(crate) const BROKEN: usize = DOORS.len();
pub(crate) const SECRETS: usize = PLANTED.len() + IN_CONTEXT.len();

/// Returns a rule that redacts all of them, with additional options.
pub(crate) fn rule(more: &str) -> String {
    let names = PLANTED.map(|(name, _)| name).into_iter().chain(IN_CONTEXT.map(|(name, ..)| name));
    let names: BTreeSet<_> = names.map(|name| format!("'{name}'")).collect();
    let names = names.into_iter().collect::<Vec<_>>().join(", ");
    format!("[[rules]]\nname = 'secrets'\nredact = {{ patterns = [{names}] }}\n{more}\n")
}

/// Returns the secrets contained in these bytes.
pub(crate) fn found_in(bytes: &[u8]) -> Vec<&'static str> {
    let secrets = PLANTED.map(|(_, secret)| secret).into_iter();
    let secrets = secrets.chain(IN_CONTEXT.map(|(_, _, secret)| secret));
    let has = |secret: &&str| memmem::find(bytes, secret.as_bytes()).is_some();
    secrets.filter(has).collect()
}

/// Sends each secret through each input.
pub(crate) async fn send_all(http: SocketAddr, grpc: SocketAddr) {
    let client = || Client::builder(TokioExecutor::new());
    let (plain, http2) = (client().build_http(), client().http2_only(true).build_http());
    let secrets = PLANTED.map(|(_, secret)| secret).into_iter();
    let secrets = secrets.chain(IN_CONTEXT.map(|(_, told, _)| told)).zip(1..);
    for (secret, number) in secrets {
        for ((path, media, coding, body), door) in DOORS.into_iter().zip(1..) {
            let (client, address) = if media == GRPC { (&http2, grpc) } else { (&plain, http) };
            let mut request = Request::post(format!("http://{address}{path}"));
            request = request.header("content-type", media).header("te", "trailers");
            if !coding.is_empty() {
                request = request.header("content-encoding", coding);
            }
            let body = Full::<Bytes>::from(body(secret, 100 * number + door));
            let answer = client.request(request.body(body).unwrap()).await.unwrap();
            assert!(answer.status().is_success(), "{secret} through {path}: {answer:?}");
            let collected = answer.into_body().collect().await.unwrap();
            let is_good =
                collected.trailers().is_none_or(|trailers| trailers["grpc-status"] == "0");
            assert!(is_good, "{secret} through {path}: {:?}", collected.trailers());
        }
    }
}

fn agents_sdk(secret: &str, id: usize) -> Vec<u8> {
    let mut items = agents_sdk_everywhere(secret);
    for (place, item) in items.iter_mut().enumerate() {
        let key = if item["object"] == "trace" { "id" } else { "trace_id" };
        item[key] = json!(format!("trace_{id:032}"));
        if key == "trace_id" {
            item["id"] = json!(format!("span_{id:020}{place:04}"));
        }
    }
    items.push(json!({ "object": "something else", "id": id, "note": secret }));
    json!({ "data": items, "beside": secret }).to_string().into()
}

fn agents_sdk_behind_escapes(secret: &str, id: usize) -> Vec<u8> {
    let hidden = json!(secret).to_string().replace('-', r"\u002d").replace('@', r"\u0040");
    let body = String::from_utf8(agents_sdk("HIDDEN", id)).unwrap();
    body.replace("HIDDEN", hidden.trim_matches('"')).into()
}

/// Builds a span with the secret in every place, and an invalid one.
fn otlp(secret: &str, id: usize) -> ExportTraceServiceRequest {
    let mut request = otlp_everywhere(secret);
    let spans = &mut request.resource_spans[0].scope_spans[0].spans;
    spans[0].trace_id = (id as u128).to_be_bytes().into();
    spans[0].span_id = (id as u64).to_be_bytes().into();
    let mut broken = spans[0].clone();
    broken.trace_id = vec![1; 3];
    spans.push(broken);
    request
}

fn framed(secret: &str, id: usize) -> Vec<u8> {
    let message = otlp(secret, id).encode_to_vec();
    let length = u32::try_from(message.len()).unwrap();
    [&[0], &length.to_be_bytes()[..], &message].concat()
}

fn gzip(body: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(body).unwrap();
    encoder.finish().unwrap()
}
