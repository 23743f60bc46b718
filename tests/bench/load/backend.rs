//! A stub backend for sinks that send over HTTP. It accepts everything and answers as fast as it can, so that only Spanferry's cost is
//! measured.

use std::fmt::Write as _;
use std::io::Read as _;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};

/// Starts a stub for a sink of this kind, and returns the options that send to it; empty for kinds that send nothing over HTTP.
pub(crate) fn options(kind: &str) -> std::io::Result<String> {
    let options = match kind {
        "otlp" => "endpoint = \"{}\"\ncompression = \"gzip\"",
        "langfuse" => "base_url = \"{}\"\npublic_key = \"pk-lf-load\"\nsecret_key = \"sk-lf-load\"",
        // Compressed as it would be for another machine.
        "elasticsearch" => "endpoints = [\"{}\"]\ncompression = \"gzip\"",
        // Items without a key, including spans from OTLP, are sent with this one.
        "openai" => {
            "endpoint = \"{}/v1/traces/ingest\"\napi_key = \"sk-load\"\nforward_otlp = true"
        }
        "object_store" => {
            "url = \"s3://lake/load\"\nendpoint = \"{}\"\naccess_key_id = \"load\"\nsecret_access_key = \"load\"\nobject = { age = \"1s\" }"
        }
        _ => return Ok(String::new()),
    };
    Ok(options.replace("{}", &format!("http://{}", serve()?)))
}

/// Serves on a separate thread until the process ends.
fn serve() -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("it is a socket");
            let router = Router::new().fallback(answer).layer(DefaultBodyLimit::disable());
            axum::serve(listener, router).await.expect("it serves for ever");
        });
    });
    Ok(address)
}

async fn answer(uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let text = match uri.path() {
        "/v1/traces/ingest" => return StatusCode::NO_CONTENT.into_response(),
        "/" => r#"{"version":{"number":"8.19.9","build_flavor":"default"},"tagline":"You Know, for Search"}"#.to_owned(),
        "/_bulk" => bulk_answer(&headers, &body),
        _ => "{}".to_owned(),
    };
    ([(CONTENT_TYPE, "application/json"), PRODUCT, (ETAG, "\"1\"")], text).into_response()
}

const PRODUCT: (axum::http::HeaderName, &str) =
    (axum::http::HeaderName::from_static("x-elastic-product"), "Elasticsearch");

/// Answers that every operation succeeded.
fn bulk_answer(headers: &HeaderMap, body: &Bytes) -> String {
    let mut text = String::new();
    if headers.contains_key(CONTENT_ENCODING) {
        flate2::read::GzDecoder::new(&**body).read_to_string(&mut text).expect("it is gzip");
    } else {
        text = String::from_utf8(body.to_vec()).expect("it is JSON");
    }
    let mut answer = r#"{"errors":false,"items":["#.to_owned();
    let mut lines = text.lines();
    let mut comma = "";
    while let Some(line) = lines.next() {
        let operation = line.split('"').nth(1).unwrap_or_default();
        if operation != "delete" {
            lines.next();
        }
        write!(
            answer,
            r#"{comma}{{"{operation}":{{"status":201,"_seq_no":1,"_primary_term":1}}}}"#
        )
        .expect("memory takes it");
        comma = ",";
    }
    answer.push_str("]}");
    answer
}
