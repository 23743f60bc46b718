//! What a store's answers mean. The codes are those of Amazon's "Error responses" of S3, which others use too.

use std::sync::Mutex;

use ::object_store::Error;
use hyper::{HeaderMap, Method};

use crate::sinks::Pace;
use crate::sinks::http::classify::{StatusClass, classify, describe};
use crate::sinks::http::{Failure, Request, Response};
use crate::support::lock::lock;

/// The last answer that was none of success. The crate's own errors have texts only.
#[derive(Default)]
pub(super) struct Answers(Mutex<Option<Pace>>);

/// What to do.
#[derive(Clone, Copy)]
enum Means {
    Slow,
    Again,
    Hold,
}

const CREDENTIALS: &str = "the store does not take the credentials: check `access_key_id`, `secret_access_key` and `session_token`, or where they come from";
const RIGHTS: &str = "the credentials may not do this: they need s3:PutObject, s3:GetObject and s3:ListBucket, and kms:GenerateDataKey for a KMS key";
const REGION: &str = "the bucket is in another region: set `region`";

/// Codes that say more than their status, and what an operator can do.
const CODES: &[(&str, Means, &str)] = &[
    ("AccessDenied", Means::Hold, RIGHTS),
    ("AccountProblem", Means::Hold, RIGHTS),
    ("AllAccessDisabled", Means::Hold, RIGHTS),
    ("InvalidAccessKeyId", Means::Hold, CREDENTIALS),
    ("XAdminUserNotFound", Means::Hold, CREDENTIALS),
    ("SignatureDoesNotMatch", Means::Hold, CREDENTIALS),
    ("InvalidToken", Means::Hold, CREDENTIALS),
    ("ExpiredToken", Means::Hold, CREDENTIALS),
    ("NoSuchBucket", Means::Hold, "there is no such bucket: make it, or correct `url`"),
    ("PermanentRedirect", Means::Hold, REGION),
    ("AuthorizationHeaderMalformed", Means::Hold, REGION),
    ("IllegalLocationConstraintException", Means::Hold, REGION),
    (
        "RequestTimeTooSkewed",
        Means::Hold,
        "the clocks of this machine and the store differ: set this machine's",
    ),
    (
        "EntityTooLarge",
        Means::Hold,
        "the object is larger than the store takes: lower `object.bytes_max`",
    ),
    ("SlowDown", Means::Slow, "the store asks for fewer requests"),
    ("TooManyRequests", Means::Slow, "the store asks for fewer requests"),
    ("ServiceUnavailable", Means::Slow, "the store is not available"),
    ("ConditionalRequestConflict", Means::Again, "another request for the same name is under way"),
    ("OperationAborted", Means::Again, "another request for the same name is under way"),
    ("RequestTimeout", Means::Again, "the store did not get the whole object in time"),
    ("InternalError", Means::Again, "the store failed"),
];

impl Answers {
    /// Takes note of an answer.
    pub(super) fn note(&self, request: &Request, answer: &Result<Response, Failure>) {
        let host = request.uri.host().unwrap_or_default();
        *lock(&self.0) = match answer {
            Err(failure) => {
                let mut pace = failure.report().pace;
                if let Pace::Down { reason, .. } | Pace::Hold { reason } = &mut pace {
                    *reason = format!("{host}: {reason}");
                }
                Some(pace)
            }
            Ok(response) if response.status.is_success() => None,
            Ok(response) => Some(read(&request.method, host, response)),
        };
    }

    /// What an error means for what comes next.
    pub(super) fn pace(&self, error: &Error) -> Pace {
        let noted = lock(&self.0).take();
        noted.unwrap_or_else(|| match error {
            // An answer that nobody can read was cut, and is asked for again.
            Error::Generic { .. } => Pace::Down { after: None, reason: shortened(error) },
            _ => Pace::Hold { reason: shortened(error) },
        })
    }

    /// What an error means, in words.
    pub(super) fn why(&self, error: &Error) -> String {
        self.pace(error).reason().unwrap_or_default().to_owned()
    }
}

/// What the crate says, which names the object and the address.
fn shortened(error: &Error) -> String {
    error.to_string().chars().take(300).collect()
}

fn read(method: &Method, host: &str, response: &Response) -> Pace {
    let body = String::from_utf8_lossy(&response.body);
    let code = between(&body, "<Code>", "</Code>").unwrap_or_default();
    let status = describe(response.status, &response.headers);
    let known = CODES.iter().find(|(known, ..)| *known == code);
    let is_redirect = response.status.is_redirection();
    let (means, advice) = match (known, response.status.as_u16()) {
        (Some((_, means, advice)), _) => (*means, *advice),
        // An answer to HEAD has no body.
        (None, 403) => (Means::Hold, RIGHTS),
        (None, 301 | 307 | 400) if is_redirect || *method == Method::HEAD => (Means::Hold, REGION),
        (None, _) => match classify(response.status, &response.headers) {
            StatusClass::Throttled { .. } => (Means::Slow, ""),
            StatusClass::Taken | StatusClass::Retry { .. } | StatusClass::Fault => {
                (Means::Again, "")
            }
            _ => (Means::Hold, "check `url`, `endpoint` and the credentials"),
        },
    };
    let region = region_of(&response.headers, &body).filter(|_| advice == REGION);
    let region = region.map(|region| format!(" = \"{region}\"")).unwrap_or_default();
    let shown_code = if known.is_some() { code } else { "" };
    let parts = [status.as_str(), shown_code].into_iter().filter(|part| !part.is_empty());
    let said = parts.collect::<Vec<_>>().join(" ");
    let colon = if advice.is_empty() { "" } else { ": " };
    let reason = format!("{host}: {method}: {said}{colon}{advice}{region}");
    let after = match classify(response.status, &response.headers) {
        StatusClass::Retry { after } | StatusClass::Throttled { after } => after,
        _ => None,
    };
    match means {
        Means::Slow => Pace::Slow { after, reason },
        Means::Again => Pace::Down { after, reason },
        Means::Hold => Pace::Hold { reason },
    }
}

/// The bucket's region, where the store says it.
fn region_of(headers: &HeaderMap, body: &str) -> Option<String> {
    let header = headers.get("x-amz-bucket-region").and_then(|value| value.to_str().ok());
    let region = header.or_else(|| between(body, "<Region>", "</Region>"))?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    (region.len() < 64 && region.chars().all(is_name)).then(|| region.to_owned())
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}
