//! Encryption of connections, and access to admin.

use crate::admin::Policy;
use crate::config::Config;
use crate::server::{Tls, TlsOptions};

/// TLS of the receivers, and of admin; `None` for unencrypted connections.
pub(super) type Encryption = [Option<Tls>; 2];

/// Reads the certificates of a configuration. Blocks on the disk.
pub(super) fn encryption(config: &Config) -> anyhow::Result<Encryption> {
    let open = |section, options: &Option<TlsOptions>| {
        let tls = options.as_ref().map(|options| Tls::open(section, options)).transpose();
        tls.map_err(anyhow::Error::msg)
    };
    Ok([open("receivers", &config.receivers.tls)?, open("admin", &config.admin.tls)?])
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
