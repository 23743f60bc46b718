//! Custom checks of server certificates. The signatures in the handshake are always checked: they prove that the server has the key.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

/// The certificates that a server presents.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// The server's own certificate.
    pub end_entity: &'a CertificateDer<'a>,
    /// The chain to its authority.
    pub intermediates: &'a [CertificateDer<'a>],
    /// The name that the client connected to.
    pub server_name: &'a ServerName<'a>,
    /// The OCSP response of its authority.
    pub ocsp_response: &'a [u8],
    /// The current time.
    pub now: UnixTime,
}

type Check = dyn Fn(Shown<'_>) -> Result<ServerCertVerified, Error> + Send + Sync;

/// Accepts the certificates that a custom check accepts.
pub struct Verifier {
    provider: Arc<CryptoProvider>,
    check: Box<Check>,
}

impl Verifier {
    /// Creates a verifier that checks signatures with this provider.
    pub fn new(
        provider: Arc<CryptoProvider>,
        check: impl Fn(Shown<'_>) -> Result<ServerCertVerified, Error> + Send + Sync + 'static,
    ) -> Self {
        Self { provider, check: Box::new(check) }
    }
}

impl fmt::Debug for Verifier {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Verifier")
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        (self.check)(Shown { end_entity, intermediates, server_name, ocsp_response, now })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
