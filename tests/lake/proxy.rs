//! A network with every kind of failure in front of a store. Everything that is signed passes unchanged, including the client's host.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};

use super::senders::Random;

pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    store: u16,
    client: Client<HttpConnector, Full<Bytes>>,
    random: Mutex<Random>,
    behaves: AtomicBool,
    faults: AtomicU64,
}

/// The error of a request that gets no answer.
#[derive(Debug, thiserror::Error)]
#[error("cut")]
struct Cut;

impl Proxy {
    pub(crate) async fn start(store: u16, seed: u32) -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            store,
            client: Client::builder(TokioExecutor::new()).build_http(),
            random: Mutex::new(Random::new(u64::from(seed) + 77)),
            behaves: AtomicBool::new(false),
            faults: AtomicU64::new(0),
        });
        let serving = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let shared = Arc::clone(&serving);
                tokio::spawn(async move {
                    let service = service_fn(|request| answer(Arc::clone(&shared), request));
                    let connection = hyper::server::conn::http1::Builder::new();
                    connection.serve_connection(TokioIo::new(stream), service).await.ok();
                });
            }
        });
        Self { port, shared }
    }

    /// Ends the faults: from now on every request is forwarded.
    pub(crate) fn behave(&self) {
        self.shared.behaves.store(true, Ordering::SeqCst);
    }

    pub(crate) fn faults(&self) -> u64 {
        self.shared.faults.load(Ordering::SeqCst)
    }
}

async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Cut> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
    let (fate, wait) = {
        let mut random = shared.random.lock().unwrap();
        (random.below(10), random.duration_below(Duration::from_millis(700)))
    };
    let fate = if shared.behaves.load(Ordering::SeqCst) { 9 } else { fate };
    shared.faults.fetch_add(u64::from(fate < 5), Ordering::SeqCst);
    let forward = {
        let shared = Arc::clone(&shared);
        async move {
            let mut request = Request::from_parts(head, Full::new(body));
            let path = request.uri().path_and_query().unwrap().clone();
            let uri: Uri = format!("http://127.0.0.1:{}{path}", shared.store).parse().unwrap();
            *request.uri_mut() = uri;
            let response = shared.client.request(request).await.map_err(|_| Cut)?;
            let (head, body) = response.into_parts();
            let body = body.collect().await.map_err(|_| Cut)?.to_bytes();
            Ok(Response::from_parts(head, Full::new(body)))
        }
    };
    match fate {
        0 => {
            let body = "<Error><Code>SlowDown</Code></Error>";
            Ok(Response::builder().status(503).body(Full::from(body)).unwrap())
        }
        // Forwarded, without an answer.
        1 => forward.await.and(Err(Cut)),
        // Forwarded after the client's connection is cut.
        2 => {
            tokio::spawn(async move {
                tokio::time::sleep(wait).await;
                forward.await.ok();
            });
            Err(Cut)
        }
        // Forwarded late, perhaps after the client's timeout.
        3 => {
            tokio::time::sleep(wait).await;
            forward.await
        }
        // Not forwarded, no answer.
        4 => Err(Cut),
        _ => forward.await,
    }
}
