//! The store that options name, over the client of all HTTP sinks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::object_store::aws::AmazonS3Builder;
use ::object_store::client::{
    ClientOptions as Unused, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use ::object_store::{ObjectStore, RetryConfig};
use async_trait::async_trait;
use http_body_util::BodyExt as _;

use super::answer::Answers;
use super::options::{Options, Sse};
use crate::sinks::BuildError;
use crate::sinks::http::{Client, ClientOptions, Request};
use crate::support::secret::Secret;

/// Connects to nobody. Credentials that are not among the options are those of the environment, or of the machine or pod it runs on.
pub(super) fn store(
    options: &Options,
    answers: &Arc<Answers>,
) -> Result<Arc<dyn ObjectStore>, BuildError> {
    let client = Client::new(&ClientOptions {
        timeout: options.timeout.0,
        connect_timeout: options.connect_timeout.0,
        tls: options.tls.clone(),
        ..ClientOptions::default()
    })?;
    let (bucket, _) = options.place();
    // The lane tries again.
    let no_retries =
        RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_retry(no_retries)
        // Its SHA-256 would be made on a thread of the runtime. TLS protects what is on its way.
        .with_unsigned_payload(true)
        .with_http_connector(Kit { client, answers: Arc::clone(answers) });
    let is_path_style = options.path_style.unwrap_or(options.endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!is_path_style);
    if let Some(address) = options.endpoint.as_ref().and_then(|endpoint| endpoint.uri()) {
        let (scheme, host) = (address.scheme_str().unwrap_or("https"), address.authority());
        let host = host.map(ToString::to_string).unwrap_or_default();
        let host = if is_path_style { host } else { format!("{bucket}.{host}") };
        builder =
            builder.with_endpoint(format!("{scheme}://{host}")).with_allow_http(scheme == "http");
    }
    for (key, value) in [
        ("region", options.region.as_deref()),
        ("access_key_id", options.access_key_id.as_deref()),
        ("secret_access_key", options.secret_access_key.as_ref().map(Secret::reveal)),
        ("token", options.session_token.as_ref().map(Secret::reveal)),
        ("server_side_encryption", options.sse.map(Sse::header)),
        ("sse_kms_key_id", options.kms_key.as_deref()),
    ] {
        if let (Ok(key), Some(value)) = (key.parse(), value) {
            builder = builder.with_config(key, value);
        }
    }
    let store = builder.build().map_err(|error| BuildError(error.to_string()))?;
    Ok(Arc::new(store))
}

/// The client as the crate wants it.
#[derive(Clone)]
struct Kit {
    client: Client,
    answers: Arc<Answers>,
}

impl fmt::Debug for Kit {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(out)
    }
}

impl HttpConnector for Kit {
    fn connect(&self, _: &Unused) -> ::object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Kit {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let request = Request { method: head.method, uri: head.uri, headers: head.headers, body };
        let answer = self.client.send(&request).await;
        self.answers.note(&request, &answer);
        // Nothing but the lane tries again.
        let response = answer.map_err(|failure| HttpError::new(HttpErrorKind::Unknown, failure))?;
        let (mut head, ()) = hyper::Response::new(()).into_parts();
        (head.status, head.headers) = (response.status, response.headers);
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(response.body)))
    }
}
