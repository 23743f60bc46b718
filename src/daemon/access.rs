//! Encryption of connections, and access to admin.

use crate::admin::Policy;
use crate::config::Config;
use crate::server::{Tls, TlsOptions};

/// TLS from the certificates of a configuration; `None` for unencrypted connections.
#[derive(Debug, Clone, Default)]
pub(super) struct Encryption {
    /// TLS of the receivers.
    pub(super) receivers: Option<Tls>,
    /// TLS of admin.
    pub(super) admin: Option<Tls>,
}

impl Encryption {
    /// Reads the certificates. Blocks on the disk.
    pub(super) fn open(config: &Config) -> anyhow::Result<Self> {
        let open = |section, options: Option<&TlsOptions>| {
            let tls = options.map(|options| Tls::open(section, options)).transpose();
            tls.map_err(anyhow::Error::msg)
        };
        let (receivers, admin) = (config.receivers.tls.as_ref(), config.admin.tls.as_ref());
        Ok(Self { receivers: open("receivers", receivers)?, admin: open("admin", admin)? })
    }
}

/// Returns the access policy of admin. A Unix socket has no client certificates.
pub(super) fn policy(config: &Config, tls: Option<Tls>) -> Policy {
    let admin = &config.admin;
    let has_authority = admin.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let mut policy = Policy::new(&admin.tokens);
    policy.knows_certificates = admin.listen.socket().is_some() && has_authority;
    policy.is_exposed = admin.listen.is_exposed();
    policy.read_without_token = admin.read_without_token;
    policy.tls = tls;
    policy
}
