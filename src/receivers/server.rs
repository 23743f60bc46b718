//! Accepts connections: HTTP/1.1 and HTTP/2 with prior knowledge on the same port.

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::support::stop::Stop;

/// Serves until `stop` is turned, then finishes the requests in flight.
pub async fn serve(listener: TcpListener, routes: Router, stop: Stop) {
    let builder = auto::Builder::new(TokioExecutor::new());
    let graceful = GracefulShutdown::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            () = stop.stopped() => break,
        };
        stream.set_nodelay(true).ok();
        let service = TowerToHyperService::new(routes.clone());
        let connection =
            graceful.watch(builder.serve_connection(TokioIo::new(stream), service).into_owned());
        tokio::spawn(async move { connection.await.ok() });
    }
    graceful.shutdown().await;
}
