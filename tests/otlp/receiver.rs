//! A receiver of OTLP in this process, over HTTP and gRPC, that answers according to a script.

use std::collections::VecDeque;
use std::io::Read as _;
use std::sync::{Arc, Mutex};

use axum::body::Bytes as AxumBytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response as HttpAnswer};
use bytes::Bytes;
use flate2::read::GzDecoder;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost::Message as _;
use tokio::net::TcpListener;
use tonic::codec::CompressionEncoding;
use tonic::{Code, Request, Response, Status};

/// What the receiver does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Accepts it.
    Take,
    /// Accepts it, and reports this number of rejected spans.
    TakeBut(i64),
    /// Answers with this status, over HTTP or over gRPC.
    Fail(u16, Code),
    /// Receives it, and never answers.
    Hang,
}

/// A received request.
#[derive(Debug, Clone)]
pub(crate) struct Got {
    /// Its headers or metadata.
    pub(crate) headers: Vec<(String, String)>,
    /// The message as bytes; `None` over gRPC, where the library decodes.
    pub(crate) message: Option<Bytes>,
    /// The request; empty if it came as JSON.
    pub(crate) request: ExportTraceServiceRequest,
}

/// More than a sink sends in one request.
const MESSAGE_BYTES_MAX: usize = 8 << 20;

/// A receiver; clones share its requests and its script.
#[derive(Clone, Default)]
pub(crate) struct Receiver {
    script: Arc<Mutex<VecDeque<Step>>>,
    got: Arc<Mutex<Vec<Got>>>,
}

impl Receiver {
    /// Sets the answers to the next requests; all others are accepted.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.script.lock().unwrap().extend(steps);
    }

    /// Returns the accepted requests.
    pub(crate) fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    /// Returns the number of accepted spans.
    pub(crate) fn spans(&self) -> usize {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|got| &got.request.resource_spans);
        resources.flat_map(|resource| &resource.scope_spans).map(|scope| scope.spans.len()).sum()
    }

    fn next(&self) -> Step {
        self.script.lock().unwrap().pop_front().unwrap_or(Step::Take)
    }

    /// Listens for OTLP over HTTP; returns its base address.
    pub(crate) async fn http(&self) -> String {
        self.serve_http(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Serves the same on a socket that already listens.
    pub(crate) fn serve_http(&self, listener: TcpListener) -> String {
        let address = listener.local_addr().unwrap();
        let app = axum::Router::new()
            .route("/v1/traces", axum::routing::post(take_http))
            .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        format!("http://{address}")
    }

    /// Listens for OTLP over gRPC; returns its address.
    pub(crate) async fn grpc(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = TraceServiceServer::new(self.clone())
            .accept_compressed(CompressionEncoding::Gzip)
            .accept_compressed(CompressionEncoding::Zstd)
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming)
                .await
        });
        format!("http://{address}")
    }
}

async fn take_http(
    State(receiver): State<Receiver>,
    headers: HeaderMap,
    body: AxumBytes,
) -> HttpAnswer {
    let step = receiver.next();
    if let Step::Fail(status, _) = step {
        return (StatusCode::from_u16(status).unwrap(), "as the script says").into_response();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = match header("content-encoding") {
        Some("gzip") => {
            let mut out = Vec::new();
            GzDecoder::new(&*body).read_to_end(&mut out).unwrap();
            out
        }
        Some("zstd") => zstd::decode_all(&*body).unwrap(),
        _ => body.to_vec(),
    };
    let is_json = header("content-type") == Some("application/json");
    // JSON is kept as bytes for the test.
    let request = if is_json {
        ExportTraceServiceRequest::default()
    } else {
        ExportTraceServiceRequest::decode(&*message).unwrap()
    };
    let pair = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
        (name.to_string(), value.to_str().unwrap().to_owned())
    };
    let headers = headers.iter().map(pair).collect();
    receiver.got.lock().unwrap().push(Got { headers, message: Some(message.into()), request });
    let answer = answer(&step).await;
    if is_json {
        ([("content-type", "application/json")], serde_json::to_vec(&answer).unwrap())
            .into_response()
    } else {
        ([("content-type", "application/x-protobuf")], answer.encode_to_vec()).into_response()
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let step = self.next();
        if let Step::Fail(_, code) = step {
            return Err(Status::new(code, "as the script says"));
        }
        let metadata = request.metadata().clone().into_headers();
        let pair = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| {
            (name.to_string(), value.to_str().unwrap().to_owned())
        };
        let headers = metadata.iter().map(pair).collect();
        let request = request.into_inner();
        self.got.lock().unwrap().push(Got { headers, message: None, request });
        Ok(Response::new(answer(&step).await))
    }
}

async fn answer(step: &Step) -> ExportTraceServiceResponse {
    let partial_success = match step {
        Step::Hang => std::future::pending().await,
        Step::TakeBut(rejected_spans) => Some(ExportTracePartialSuccess {
            rejected_spans: *rejected_spans,
            error_message: "as the script says".to_owned(),
        }),
        // As the Collector does.
        _ => Some(ExportTracePartialSuccess::default()),
    };
    ExportTraceServiceResponse { partial_success }
}
