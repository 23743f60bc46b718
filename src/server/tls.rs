//! TLS of a listener: its certificate, the accepted client authorities, and reloading when their files change.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustls::server::WebPkiClientVerifier;
use rustls::{CipherSuite, ServerConfig};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use super::certificate;
use crate::support::lock::lock;
use crate::support::pem;
use crate::support::problem::{Mistake, Mistakes};
use crate::support::secret::Secret;

/// How often the files are read. A broken file is logged at the second reading, because a pair may be half written at the first.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Appears in PEM text, but in no path.
const PEM_MARK: &str = "-----BEGIN";
/// Amount to read from a connection at a time. By default rustls reads 4 KiB, but a request with agent spans has some hundred KiB.
const READ_BYTES: usize = 32 << 10;
/// Protocols offered by ALPN, the preferred one first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// AES with 128-bit keys is safe, and costs a quarter less than with 256 bits.
const PREFERRED: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
];

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TlsOptions {
    /// The certificate and its chain: the path of a PEM file, or its content with `${file:/path}`. A changed file takes effect for new
    /// connections within three seconds.
    #[schemars(example = "/etc/spanferry/tls/tls.crt")]
    pub cert: String,
    /// The certificate's private key, given in the same way.
    #[schemars(example = "/etc/spanferry/tls/tls.key")]
    pub key: Secret,
    /// Certificate authorities whose clients are accepted, given in the same way. The common name of a client's certificate, or its first
    /// alternative name, is its tenant, unless a token says another.
    #[serde(default)]
    #[schemars(example = "/etc/spanferry/tls/clients.crt")]
    pub client_ca: Option<String>,
    /// Whether every client needs a certificate (`required`, the default), or may do without (`optional`). With tokens, `required` asks for
    /// both, `optional` for either.
    #[serde(default)]
    #[schemars(example = ClientAuth::Optional)]
    pub client_auth: Option<ClientAuth>,
}

/// Whether every client needs a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientAuth {
    /// A handshake without one fails.
    Required,
    /// One that is shown must be good.
    Optional,
}

/// The current contents of the files in the options.
#[derive(Clone, PartialEq, Eq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl TlsOptions {
    /// Returns the mistakes in the options, without reading files.
    pub fn mistakes(&self) -> Vec<Mistake> {
        let mut found = Mistakes::default();
        let is_unnamed = self.cert.trim().is_empty() || self.key.reveal().trim().is_empty();
        let hint = "give each the path of a PEM file";
        found.note(is_unnamed, "tls", "tls needs a cert and a key", hint);
        let is_unchecked = self.client_auth.is_some() && self.client_ca.is_none();
        let what = "tls.client_auth needs an authority to check certificates against";
        found.note(is_unchecked, "tls", what, "set tls.client_ca, or remove both");
        found.0
    }

    /// Returns whether every client needs a certificate.
    pub fn is_mutual(&self) -> bool {
        self.client_ca.is_some() && self.client_auth != Some(ClientAuth::Optional)
    }

    /// Checks that the files result in a usable server configuration; errors name the option.
    pub fn check_files(&self) -> Result<(), String> {
        self.read().and_then(|contents| self.configure(&contents)).map(drop)
    }

    fn read(&self) -> Result<Contents, String> {
        let client_ca = self.client_ca.as_deref().map(|source| read("client_ca", source));
        Ok(Contents {
            cert: read("cert", &self.cert)?,
            key: read("key", self.key.reveal())?,
            client_ca: client_ca.transpose()?,
        })
    }

    fn configure(&self, contents: &Contents) -> Result<ServerConfig, String> {
        let mut provider = rustls::crypto::ring::default_provider();
        provider.cipher_suites.sort_by_key(|suite| !PREFERRED.contains(&suite.suite()));
        let provider = Arc::new(provider);
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = match &contents.client_ca {
            None => builder.with_no_client_auth(),
            Some(authorities) => {
                let roots = pem::roots(authorities).map_err(|why| unusable("client_ca", &why))?;
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                let verifier =
                    if self.is_mutual() { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|why| unusable("client_ca", &why))?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let chain = pem::certificates(&contents.cert).map_err(|why| unusable("cert", &why))?;
        let key = pem::key(&contents.key).map_err(|why| unusable("key", &why))?;
        let mut config =
            builder.with_single_cert(chain, key).map_err(|why| unusable("cert and key", &why))?;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        config.ignore_client_order = true;
        Ok(config)
    }
}

fn unusable(option: &str, why: &dyn fmt::Display) -> String {
    format!("tls.{option} cannot be used: {why}")
}

/// Reads the file or text of an option. Errors contain neither the path nor the contents: either may be a key.
fn read(option: &str, source: &str) -> Result<Vec<u8>, String> {
    if source.contains(PEM_MARK) {
        return Ok(source.as_bytes().to_vec());
    }
    fs::read(Path::new(source.trim())).map_err(|error| unusable(option, &error))
}

// === While it serves ===

/// TLS of a running listener. Clones share it; dropping the last one ends the reloading.
#[derive(Clone)]
pub struct Tls {
    current: Arc<Current>,
    _watch: Arc<AbortOnDropHandle<()>>,
}

struct Current {
    /// The section of the configuration: `receivers` or `admin`.
    section: &'static str,
    options: TlsOptions,
    state: Mutex<State>,
}

struct State {
    config: Arc<ServerConfig>,
    /// The contents read last, or why they could not be read.
    seen: Result<Contents, String>,
    /// Whether the last contents are in use, or were reported as unusable.
    is_settled: bool,
    /// Why the current contents cannot be used, while an older certificate is in use.
    problem: Option<String>,
}

/// Why a TLS handshake failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("plain HTTP arrived on a TLS port")]
    Plain,
    #[error("the handshake did not finish")]
    Slow,
    #[error("{0}")]
    Failed(#[from] io::Error),
}

impl Tls {
    /// Reads the files, and reloads them when they change. Needs a runtime.
    pub fn open(section: &'static str, options: &TlsOptions) -> Result<Self, String> {
        let named = |why| format!("{section}.{why}");
        let contents = options.read().map_err(named)?;
        let config = options.configure(&contents).map_err(named)?.into();
        let state = State { config, seen: Ok(contents), is_settled: true, problem: None };
        let current = Current { section, options: options.clone(), state: state.into() };
        let current = Arc::new(current);
        let watch = tokio::spawn(watch(Arc::clone(&current)));
        Ok(Self { current, _watch: Arc::new(AbortOnDropHandle::new(watch)) })
    }

    /// Returns the problem with the current files, as a sentence; an older certificate is then in use.
    pub fn problem(&self) -> Option<String> {
        lock(&self.current.state).problem.clone()
    }

    /// Performs the handshake. Returns the name in the client's certificate.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<BufReader<TcpStream>>, Option<Arc<str>>)> {
        let config = Arc::clone(&lock(&self.current.state).config);
        let stream = BufReader::with_capacity(READ_BYTES, stream);
        let stream = TlsAcceptor::from(config).accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = shown.map(|shown| certificate::name(shown).into());
        Ok((stream, name))
    }
}

async fn watch(current: Arc<Current>) {
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    looks.tick().await;
    loop {
        looks.tick().await;
        let current = Arc::clone(&current);
        // A file may be on a network file system.
        tokio::task::spawn_blocking(move || current.look()).await.ok();
    }
}

impl Current {
    /// Checks whether the files have changed, and uses their new contents.
    fn look(&self) {
        let read = self.options.read();
        let state = lock(&self.state);
        let is_seen_again = read == state.seen;
        if is_seen_again && state.is_settled {
            return;
        }
        drop(state);
        let contents = read.as_ref().map_err(Clone::clone);
        let configured = contents.and_then(|contents| self.options.configure(contents));
        let mut state = lock(&self.state);
        state.seen = read;
        state.is_settled = configured.is_ok() || is_seen_again;
        match configured {
            Ok(config) => {
                state.config = Arc::new(config);
                state.problem = None;
                info!(section = self.section, "new connections use the changed certificate");
            }
            Err(why) if is_seen_again => {
                let problem =
                    format!("{}.{why}; the previous certificate is still in use", self.section);
                warn!("{problem}; clients are served until it expires: fix the files");
                state.problem = Some(problem);
            }
            Err(_) => {}
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tls").finish_non_exhaustive()
    }
}
