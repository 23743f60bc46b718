//! Failures of requests without an answer.

use std::error::Error;
use std::io;
use std::time::Duration;

use crate::sinks::Report;

/// Why a request got no answer. Reasons name addresses and system errors, never what was sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The backend cannot be reached: its name has no address, nothing listens there, or the connection cannot be secured.
    #[error("no connection: {0}")]
    Connect(String),
    /// The backend's certificate is not trusted, or it does not trust the client's.
    #[error("no trust: {0}")]
    Trust(String),
    /// The answer was not complete in time. The backend may have accepted the request.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The connection broke. The backend may have accepted the request.
    #[error("the connection broke: {0}")]
    Broken(String),
}

impl RequestError {
    /// Returns the report for the lane: a certificate is a matter of configuration, and everything else may pass.
    pub fn report(&self) -> Report {
        match self {
            Self::Trust(_) => Report::hold(self.to_string()),
            _ => Report::down(None, self.to_string()),
        }
    }

    /// Classifies the chain of causes that the client library returns.
    pub(super) fn of(error: &hyper_util::client::legacy::Error) -> Self {
        let mut cause: Option<&(dyn Error + 'static)> = Some(error);
        let mut last = error.to_string();
        while let Some(current) = cause {
            if let Some(problem) = current.downcast_ref::<rustls::Error>() {
                return Self::of_tls(problem);
            }
            // The resolver's error has no public type.
            if current.to_string() == "dns error" {
                return Self::Connect("the name cannot be resolved".to_owned());
            }
            last = current.to_string();
            cause = match current.downcast_ref::<io::Error>() {
                // An `io::Error` does not return its inner error as `source`.
                Some(wrapped) => wrapped.get_ref().map(|inner| inner as &(dyn Error + 'static)),
                None => current.source(),
            };
        }
        if error.is_connect() { Self::Connect(last) } else { Self::Broken(last) }
    }

    fn of_tls(problem: &rustls::Error) -> Self {
        match problem {
            rustls::Error::InvalidCertificate(_)
            | rustls::Error::NoCertificatesPresented
            | rustls::Error::InvalidCertRevocationList(_)
            | rustls::Error::AlertReceived(
                rustls::AlertDescription::BadCertificate
                | rustls::AlertDescription::UnknownCA
                | rustls::AlertDescription::CertificateRequired
                | rustls::AlertDescription::CertificateUnknown
                | rustls::AlertDescription::CertificateExpired
                | rustls::AlertDescription::CertificateRevoked
                | rustls::AlertDescription::AccessDenied,
            ) => Self::Trust(problem.to_string()),
            other => Self::Connect(other.to_string()),
        }
    }
}
