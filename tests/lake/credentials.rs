//! The sources of credentials for S3: `spanferry doctor` with an environment, against a server that plays STS, a machine's metadata service
//! and the store.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::extract::{Request, State};

const GIVEN: &str = "2999-01-01T00:00:00Z";

type Asked = Arc<Mutex<Vec<String>>>;

/// Answers as each of the three, and records which server was asked for what, with which credentials.
fn answer(asked: &Asked, request: &Request) -> (u16, String) {
    let header = |name: &str| {
        let value = request.headers().get(name).map(|value| value.to_str().unwrap());
        value.unwrap_or_default().to_owned()
    };
    let signed = header("authorization");
    let key =
        signed.split_once("Credential=").map_or("", |(_, key)| key.split('/').next().unwrap());
    let token = header("x-amz-security-token");
    let (method, uri) = (request.method().as_str(), request.uri());
    asked.lock().unwrap().push(format!("{method} {uri} {key} {token}"));
    match (method, uri.path()) {
        ("POST", "/") => (
            200,
            format!(
                "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
             <SessionToken>sts-token</SessionToken><SecretAccessKey>hush</SecretAccessKey><AccessKeyId>STS</AccessKeyId>\
             <Expiration>{GIVEN}</Expiration></Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            ),
        ),
        ("PUT", "/latest/api/token") => (200, "session".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/") => (200, "role".to_owned()),
        ("GET", "/latest/meta-data/iam/security-credentials/role") => (
            200,
            format!(
                r#"{{"AccessKeyId":"IMDS","SecretAccessKey":"hush","Token":"imds-token","Expiration":"{GIVEN}"}}"#
            ),
        ),
        ("GET", _) => (
            200,
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".to_owned(),
        ),
        _ => (412, String::new()),
    }
}

async fn answered(State(asked): State<Asked>, request: Request) -> axum::response::Response {
    let (status, body) = answer(&asked, &request);
    axum::response::Response::builder().status(status).body(body.into()).unwrap()
}

struct World {
    dir: tempfile::TempDir,
    address: String,
    asked: Asked,
}

impl World {
    async fn new() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let asked = Asked::default();
        let router = axum::Router::new().fallback(answered).with_state(Arc::clone(&asked));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { dir: tempfile::tempdir().unwrap(), address, asked }
    }

    /// Returns a doctor's output for a sink with these options in this environment, and the requests to the servers.
    async fn doctor(&self, options: &str, environment: &[(&str, &str)]) -> (String, Vec<String>) {
        let file = self.dir.path().join("spanferry.toml");
        let ports = "[receivers]\nhttp = '127.0.0.1:0'\ngrpc = '127.0.0.1:0'\n[admin]\nlisten = '127.0.0.1:0'\n";
        let sink = format!(
            "[sinks.lake]\ntype = 'object_store'\nurl = 's3://bucket/a'\nendpoint = '{}'\n{options}\n",
            self.address
        );
        std::fs::write(&file, format!("{ports}{sink}")).unwrap();
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_spanferry")));
        command.current_dir(self.dir.path()).arg("doctor");
        command.env_clear().envs(environment.iter().copied()).env("HOME", self.dir.path());
        let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(!said.contains("hush"), "{said}");
        (said, std::mem::take(&mut *self.asked.lock().unwrap()))
    }
}

const WELL: &str = "objects can be listed and conditionally written";

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_with_a_web_identity_gets_its_credentials_from_sts() {
    let world = World::new().await;
    let file = world.dir.path().join("token");
    std::fs::write(&file, "the-identity").unwrap();
    let environment = [
        ("AWS_WEB_IDENTITY_TOKEN_FILE", file.to_str().unwrap()),
        ("AWS_ROLE_ARN", "arn:of:role"),
        ("AWS_ENDPOINT_URL_STS", world.address.as_str()),
    ];
    let (said, asked) = world.doctor("", &environment).await;
    assert!(said.contains(WELL), "{said}");
    assert!(asked[0].contains("WebIdentityToken=the-identity"), "{asked:?}");
    assert!(
        asked.len() > 2 && asked[1..].iter().all(|one| one.ends_with(" STS sts-token")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_with_a_role_gets_its_credentials_from_its_metadata() {
    let world = World::new().await;
    let (said, asked) = world.doctor("", &[("AWS_METADATA_ENDPOINT", &world.address)]).await;
    assert!(said.contains(WELL), "{said}");
    let store: Vec<_> = asked.iter().filter(|one| one.contains("/bucket")).collect();
    assert!(
        store.len() > 1 && store.iter().all(|one| one.ends_with(" IMDS imds-token")),
        "{asked:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_among_the_options_goes_without_the_token_of_the_environment() {
    let world = World::new().await;
    let (said, asked) = world
        .doctor(
            "access_key_id = 'OPTION'\nsecret_access_key = 'hush'",
            &[
                ("AWS_ACCESS_KEY_ID", "ENV"),
                ("AWS_SECRET_ACCESS_KEY", "hush"),
                ("AWS_SESSION_TOKEN", "env-token"),
            ],
        )
        .await;
    assert!(said.contains(WELL), "{said}");
    assert!(!asked.is_empty() && asked.iter().all(|one| one.ends_with(" OPTION ")), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_profile_only_is_told_that_it_is_not_read() {
    let world = World::new().await;
    let profile = world.dir.path().join("credentials");
    std::fs::write(&profile, "[default]\naws_access_key_id = P\naws_secret_access_key = hush\n")
        .unwrap();
    let nobody = format!("http://{}", super::process::free_port());
    let environment = [
        ("AWS_SHARED_CREDENTIALS_FILE", profile.to_str().unwrap()),
        ("AWS_METADATA_ENDPOINT", nobody.as_str()),
    ];
    let (said, asked) = world.doctor("", &environment).await;
    assert!(said.contains("~/.aws are not read") && asked.is_empty(), "{said}");
}
