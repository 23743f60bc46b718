//! Creates the store that the options describe, on the client of all HTTP sinks.

use std::sync::Arc;
use std::time::Duration;

use ::object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, AwsCredential};
use ::object_store::azure::MicrosoftAzureBuilder;
use ::object_store::client::{
    ClientOptions as Unused, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpResponseBody, HttpService,
};
use ::object_store::gcp::GoogleCloudStorageBuilder;
use ::object_store::{ObjectStore, RetryConfig, StaticCredentialProvider};
use async_trait::async_trait;
use http_body_util::BodyExt as _;
use serde_json::json;

use super::answer;
use super::folder::Folder;
use super::options::{FILE, Options};
use super::store::Store;
use crate::sinks::BuildError;
use crate::sinks::http::{Address, Client, ClientOptions, Request};
use crate::support::secret::Secret;

/// Creates the store; does not connect. Credentials that are not configured come from the environment, or from the machine's or pod's role.
pub(super) fn store(options: &Options) -> Result<Store, BuildError> {
    let scheme = options.scheme().ok_or_else(|| BuildError("`url` names no store".to_owned()))?;
    if scheme == FILE {
        return Ok(Store::Folder(Folder(options.place().1.into())));
    }
    // Objects are read in ranges.
    let response_bytes_max = ClientOptions::default().response_bytes_max;
    let client = Client::new(&ClientOptions { response_bytes_max, ..options.connection.client() })?;
    let client = match scheme {
        "gs" => google(options, Kit(client)),
        "az" => azure(options, Kit(client)),
        _ => s3(options, Kit(client)),
    };
    client.map(Store::Http).map_err(|error| BuildError(format!("{error}; {CREDENTIALS}")))
}

const CREDENTIALS: &str =
    "check the credential options, and the variables AWS_..., GOOGLE_... or AZURE_...";

/// Disables the crate's retries, because the lane retries.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, ..RetryConfig::default() }
}

type Built = ::object_store::Result<Arc<dyn ObjectStore>>;

fn s3(options: &Options, kit: Kit) -> Built {
    let bucket = options.place().0;
    let builder = AmazonS3Builder::from_env();
    let has_endpoint = options.endpoint.is_some()
        || builder.get_config_value(&AmazonS3ConfigKey::Endpoint).is_some();
    let is_path_style = options.path_style.unwrap_or(has_endpoint);
    let mut builder = builder
        .with_bucket_name(bucket)
        .with_retry(no_retries())
        // The SHA-256 would be computed on a thread of the runtime. TLS protects the data in transit.
        .with_unsigned_payload(true)
        .with_virtual_hosted_style_request(!is_path_style)
        .with_http_connector(kit);
    if let Some((scheme, rest)) = options.endpoint.as_ref().and_then(base) {
        let bucket = if is_path_style { String::new() } else { format!("{bucket}.") };
        builder = builder.with_endpoint(format!("{scheme}://{bucket}{rest}"));
    }
    if let (Some(id), Some(key)) = (&options.access_key_id, &options.secret_access_key) {
        // A token from the environment belongs to a key from the environment.
        let token = options.session_token.as_ref().map(|token| token.reveal().to_owned());
        let credential =
            AwsCredential { key_id: id.clone(), secret_key: key.reveal().to_owned(), token };
        let credential = Arc::new(StaticCredentialProvider::new(credential));
        builder = builder.with_credentials(credential);
    }
    let encryption = json!(options.sse);
    for (key, value) in [
        ("region", options.region.as_deref()),
        ("server_side_encryption", encryption.as_str()),
        ("sse_kms_key_id", options.kms_key.as_deref()),
    ] {
        if let Some(value) = value {
            builder = builder.with_config(key.parse()?, value);
        }
    }
    Ok(Arc::new(builder.build()?))
}

fn google(options: &Options, kit: Kit) -> Built {
    let mut builder = match &options.service_account_key {
        // In addition to a key from the environment, it would be an error.
        Some(key) => GoogleCloudStorageBuilder::new().with_service_account_key(key.reveal()),
        None => GoogleCloudStorageBuilder::from_env(),
    };
    if let Some((scheme, rest)) = options.endpoint.as_ref().and_then(base) {
        builder = builder.with_base_url(&format!("{scheme}://{rest}"));
    }
    builder = builder.with_bucket_name(options.place().0).with_retry(no_retries());
    Ok(Arc::new(builder.with_http_connector(kit).build()?))
}

fn azure(options: &Options, kit: Kit) -> Built {
    let mut builder = MicrosoftAzureBuilder::from_env()
        .with_container_name(options.place().0)
        .with_retry(no_retries())
        .with_http_connector(kit);
    if let Some((scheme, rest)) = options.endpoint.as_ref().and_then(base) {
        builder = builder.with_endpoint(format!("{scheme}://{rest}"));
    }
    let secret = |secret: &Option<Secret>| secret.as_ref().map(|it| it.reveal().to_owned());
    for (key, value, is_credential) in [
        ("account_name", options.account.clone(), false),
        ("access_key", secret(&options.account_key), true),
        ("sas_token", secret(&options.sas_token), true),
    ] {
        let Some(value) = value else { continue };
        builder = builder.with_config(key.parse()?, value);
        if is_credential {
            // Takes precedence over other credentials in the environment.
            builder = builder.with_credential_type(key);
        }
    }
    Ok(Arc::new(builder.build()?))
}

/// Returns an endpoint's scheme, and its host with the path.
fn base(endpoint: &Address) -> Option<(&str, String)> {
    let uri = endpoint.uri()?;
    let path = uri.path().trim_end_matches('/');
    Some((uri.scheme_str()?, format!("{}{path}", uri.authority()?)))
}

/// Adapts the client to the crate.
#[derive(Debug, Clone)]
struct Kit(Client);

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
        let answer = self.0.send(&request).await;
        // Only the lane retries.
        let response = answer::read(&request, answer)
            .map_err(|said| HttpError::new(HttpErrorKind::Unknown, said))?;
        let (mut head, ()) = hyper::Response::new(()).into_parts();
        (head.status, head.headers) = (response.status, response.headers);
        Ok(HttpResponse::from_parts(head, HttpResponseBody::from(response.body)))
    }
}
