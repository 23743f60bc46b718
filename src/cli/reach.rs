//! Tests whether sinks' addresses are reachable, step by step: name, port, certificate.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Uri;
use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::server::certificate_end;
use crate::sinks::Plan;
use crate::sinks::http::TlsOptions;
use crate::support::rfc3339;

/// Time limit of each step.
const STEP_MAX: Duration = Duration::from_secs(5);
const NS_PER_DAY: u64 = rfc3339::SECONDS_PER_DAY * rfc3339::NS_PER_SECOND;
/// Warning period. Certificates are usually renewed a month before they expire.
const DAYS_LEFT: u64 = 14;

/// Advice for a failed step.
const NAME: &str = "is it spelled correctly, and known to this machine's DNS?";
const CONNECTION: &str = "is it running there, and does a firewall block it?";
const CERTIFICATE: &str =
    "is the address right? Set tls.ca_file for a private certificate authority";

/// A description and whether the certificate expires soon; or the failure and what to do about it.
pub(super) type Reached = Result<(String, bool), (String, &'static str)>;

/// Tests every address that a sink's options resolve to, without sending a request.
pub(super) async fn reach(plan: &dyn Plan, now_ns: u64) -> Vec<(String, Reached)> {
    let options = plan.expanded();
    let tls: Option<TlsOptions> = options.get("tls").and_then(|tls| tls.clone().try_into().ok());
    let tls = tls.unwrap_or_default();
    let texts = options.values().flat_map(|value| match value {
        toml::Value::Array(several) => several.iter().collect(),
        one => vec![one],
    });
    let texts = texts.filter_map(toml::Value::as_str).filter(|text| text.starts_with("http"));
    let uris = texts.filter_map(|text| text.split('?').next()?.parse::<Uri>().ok());
    let tried = uris.filter_map(|uri| {
        let (host, is_tls) = (uri.host()?.trim_matches(['[', ']']), uri.scheme_str()? == "https");
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        let (host, tls) = (host.to_owned(), is_tls.then(|| tls.clone()));
        Some(async move { (format!("{host}:{port}"), reached((&host, port), tls, now_ns).await) })
    });
    futures_util::future::join_all(tried).await
}

async fn reached((host, port): (&str, u16), tls: Option<TlsOptions>, now_ns: u64) -> Reached {
    let found = step(lookup_host((host, port))).await;
    let addresses: Vec<SocketAddr> =
        found.map_err(|why| (format!("the name cannot be resolved: {why}"), NAME))?.collect();
    let list: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
    let (list, began) = (list.join(", "), Instant::now());
    let stream = step(TcpStream::connect(&*addresses)).await;
    let stream =
        stream.map_err(|why| (format!("{list} accepts no connection: {why}"), CONNECTION))?;
    let mut said = format!("{list} accepts connections within {:.1?}", began.elapsed());
    let Some(tls) = tls else { return Ok((said, false)) };
    let failed = |why: String| (format!("{list} has no trusted certificate: {why}"), CERTIFICATE);
    let config = tls.config().map_err(|error| failed(error.to_string()))?;
    let name = ServerName::try_from(host.to_owned()).map_err(|error| failed(error.to_string()))?;
    let shaking = TlsConnector::from(Arc::new(config)).connect(name, stream);
    let shaken = step(shaking).await.map_err(failed)?;
    let certificate = shaken.get_ref().1.peer_certificates().and_then(<[_]>::first);
    let Some(end_ns) = certificate.and_then(|certificate| certificate_end(certificate)) else {
        return Ok((said, false));
    };
    let days = end_ns.saturating_sub(now_ns) / NS_PER_DAY;
    let end = rfc3339::text(end_ns);
    write!(said, "; its certificate is valid for {days} days, until {end}").ok();
    Ok((said, days < DAYS_LEFT))
}

async fn step<T>(done: impl Future<Output = io::Result<T>>) -> Result<T, String> {
    match timeout(STEP_MAX, done).await {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no answer within {STEP_MAX:?}")),
    }
}
