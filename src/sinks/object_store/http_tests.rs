//! Tests of the sink's HTTP requests to each kind of store, with a server that implements no store.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::response::{IntoResponse as _, Response};
use hyper::{HeaderMap, Method};

use super::tests::place;
use super::*;

/// A request's method, path and headers.
type Asked = (Method, String, HeaderMap);

/// Stores the headers of one object, and records the requests.
#[derive(Default)]
struct Shared {
    asked: Mutex<Vec<Asked>>,
    /// A fixed status for puts, instead of a store's own.
    puts: Option<(u16, &'static str)>,
    stored: Mutex<Option<HeaderMap>>,
    status_of_conflicts: u16,
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    lock(&shared.asked).push((head.method.clone(), head.uri.to_string(), head.headers.clone()));
    let mut headers = HeaderMap::new();
    headers.insert("etag", "\"1\"".parse().unwrap());
    headers.insert("last-modified", "Sat, 21 Nov 2026 05:15:09 GMT".parse().unwrap());
    let mut stored = lock(&shared.stored);
    match (&head.method, shared.puts) {
        (&Method::PUT, Some((status, body))) => {
            (hyper::StatusCode::from_u16(status).unwrap(), headers, body).into_response()
        }
        (&Method::PUT, None) if stored.is_some() => {
            hyper::StatusCode::from_u16(shared.status_of_conflicts).unwrap().into_response()
        }
        (&Method::PUT, None) => {
            *stored = Some(head.headers);
            (hyper::StatusCode::CREATED, headers).into_response()
        }
        (&Method::HEAD, _) => {
            let is_kept = |name: &str| name.contains("-meta-");
            let kept = stored.iter().flatten().filter(|(name, _)| is_kept(name.as_str()));
            headers.extend(kept.map(|(name, value)| (name.clone(), value.clone())));
            headers.insert("content-length", "3".parse().unwrap());
            (headers, "abc").into_response()
        }
        // An empty list, for Amazon and Google and for Microsoft.
        (&Method::GET, _) if head.uri.query().unwrap_or_default().contains("comp=list") => {
            "<EnumerationResults><Blobs></Blobs><NextMarker/></EnumerationResults>".into_response()
        }
        (&Method::GET, _) => {
            "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>".into_response()
        }
        _ => hyper::StatusCode::ACCEPTED.into_response(),
    }
}

async fn serve(shared: Shared) -> (String, Arc<Shared>) {
    let shared = Arc::new(shared);
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&shared));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (address, shared)
}

fn options(text: &str) -> Options {
    let options: Options = toml::from_str(text).unwrap();
    assert_eq!(options.check(), [], "{text}");
    options
}

const S3: &str = "url = \"s3://bucket/a\"\naccess_key_id = \"id\"\nsecret_access_key = \"hush\"\n";
const GOOGLE: &str = "url = \"gs://bucket/a\"\nservice_account_key = '''{\"disable_oauth\": true, \"client_email\": \"\", \"private_key\": \"hush\", \"private_key_id\": \"\"}'''\n";
const AZURE: &str = "url = \"az://bucket/a\"\naccount = \"acc\"\naccount_key = \"aHVzaA==\"\n";
const AZURE_SAS: &str =
    "url = \"az://bucket/a\"\naccount = \"acc\"\nsas_token = \"sv=1&sig=hush\"\n";

#[tokio::test]
async fn each_kind_of_store_is_asked_in_its_own_words_for_a_put_under_a_condition() {
    let sse = format!("{S3}sse = \"aws:kms\"\nkms_key = \"arn:of:key\"\n");
    for (text, conflict, at, expected) in [
        (
            sse.as_str(),
            412,
            "/bucket/a/x",
            [
                ("if-none-match", "*"),
                ("x-amz-server-side-encryption", "aws:kms"),
                ("x-amz-server-side-encryption-aws-kms-key-id", "arn:of:key"),
            ]
            .as_slice(),
        ),
        (GOOGLE, 412, "/bucket/a%2Fx", &[("x-goog-if-generation-match", "0")]),
        (AZURE, 409, "/acc/bucket/a/x", &[("if-none-match", "*"), ("x-ms-blob-type", "BlockBlob")]),
        (AZURE_SAS, 409, "/acc/bucket/a/x?sv=1&sig=hush", &[("if-none-match", "*")]),
    ] {
        let (address, shared) =
            serve(Shared { status_of_conflicts: conflict, ..Shared::default() }).await;
        let folder = if text.contains("az://") { "/acc" } else { "" };
        let options = options(&format!("{text}endpoint = \"{address}{folder}\"\n"));
        let store = connect::store(&options).unwrap();
        let facts = ObjectNote {
            place: base64::text(&place("1")),
            sha256: "abc".to_owned(),
            rows: 3,
            format: "jsonl/1".to_owned(),
        };
        let path = Path::from("a/x");
        assert_eq!(store.create(&path, &Bytes::from_static(b"abc"), &facts).await, Ok(true));
        assert_eq!(store.create(&path, &Bytes::from_static(b"abd"), &facts).await, Ok(false));
        assert_eq!(store.facts_of(&path).await, Ok(facts), "{text}");
        let (_, uri, headers) = lock(&shared.asked)[0].clone();
        assert_eq!(uri, at);
        let found: BTreeMap<_, _> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        for (name, value) in expected {
            assert_eq!(found.get(name), Some(value), "{text}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_doctor_asks_each_kind_of_store_whether_it_may_write_and_leaves_nothing() {
    for text in [S3, GOOGLE, AZURE, AZURE_SAS] {
        for (puts, said) in [
            ((412, ""), Ok("can be listed and conditionally written")),
            ((403, "<Code>AccessDenied</Code>"), Err("lack permissions")),
            ((200, ""), Err("ignores conditional puts")),
        ] {
            let (address, shared) = serve(Shared { puts: Some(puts), ..Shared::default() }).await;
            let options = options(&format!("{text}endpoint = \"{address}\"\n"));
            let found = options.probe().unwrap().await;
            match (&found, said) {
                (Ok(found), Ok(said)) | (Err(found), Err(said)) => {
                    assert!(found.contains(said) && !found.contains("hush"), "{found}");
                }
                _ => panic!("{text}{puts:?}: {found:?}"),
            }
            let asked = lock(&shared.asked).clone();
            let is_conditional = |headers: &HeaderMap| {
                headers.contains_key("if-match")
                    || headers.contains_key("x-goog-if-generation-match")
            };
            let mut wrote = asked.iter().filter(|(method, ..)| method == Method::PUT);
            assert!(wrote.all(|(.., headers)| is_conditional(headers)));
            // Amazon's and Microsoft's objects are removed in bulk.
            let is_removed = asked
                .iter()
                .any(|(method, ..)| *method == Method::DELETE || *method == Method::POST);
            assert_eq!(is_removed, puts.0 == 200, "{asked:?}");
        }
    }
}

#[tokio::test]
async fn what_is_wrong_with_credentials_is_said_without_them() {
    let (address, _shared) = serve(Shared { puts: Some((400, "hush")), ..Shared::default() }).await;
    for text in [S3, GOOGLE, AZURE, AZURE_SAS] {
        let options = options(&format!("{text}endpoint = \"{address}\"\n"));
        let said = options.probe().unwrap().await.unwrap_err();
        assert!(!said.contains("hush") && said.contains("400"), "{said}");
    }
    for (text, advice) in [
        ("url = \"gs://b\"\nservice_account_key = '{\"hush\": 1}'", "GOOGLE_..."),
        ("url = \"az://b\"\naccount_key = 'hush'", "AZURE_..."),
    ] {
        let Err(said) = connect::store(&options(text)) else { panic!("{text}") };
        assert!(said.0.contains(advice) && !said.0.contains("hush"), "{}", said.0);
    }
}

#[test]
fn an_address_decides_which_options_there_are() {
    let wrong = |text: &str| {
        let options: Options = toml::from_str(text).unwrap();
        options.check().iter().map(|mistake| mistake.option).collect::<Vec<_>>()
    };
    for url in ["s3://b", "s3://b/p", "gs://b/p", "az://c/p", "file:///var/lake"] {
        assert_eq!(wrong(&format!("url = \"{url}\"")), [""; 0], "{url}");
    }
    for url in
        ["b", "ftp://b", "s3:///p", "gs://", "az://c/../p", "file://lake", "file:///", "s3://b?x"]
    {
        assert_eq!(wrong(&format!("url = \"{url}\"")), ["url"], "{url}");
    }
    for (text, expected) in [
        ("url = \"gs://b\"\nregion = \"x\"\nsse = \"AES256\"", ["region", "sse"].as_slice()),
        (
            "url = \"az://b\"\naccess_key_id = \"x\"\nsecret_access_key = \"y\"",
            &["access_key_id", "secret_access_key"],
        ),
        (
            "url = \"s3://b\"\naccount = \"x\"\nservice_account_key = \"{}\"",
            &["service_account_key", "account"],
        ),
        (
            "url = \"file:///x\"\nendpoint = \"http://y\"\npath_style = true",
            &["path_style", "endpoint"],
        ),
        ("url = \"s3://b\"\naccess_key_id = \"x\"\nkms_key = \"k\"", &["access_key_id", "kms_key"]),
        ("url = \"gs://b\"\nservice_account_key = \"/etc/key.json\"", &["service_account_key"]),
        ("url = \"az://b\"\naccount_key = \"x\"\nsas_token = \"y\"", &["sas_token"]),
    ] {
        assert_eq!(wrong(text), expected, "{text}");
    }
}
