//! Interprets responses of stores and of credential services. Error codes come from Amazon's "Error responses" of S3 (which Google's XML
//! API and others also use), Microsoft's "Blob service error codes", STS, and OAuth 2.0 (RFC 6749, 5.2).

use std::time::Duration;
use std::{error, iter};

use ::object_store::Error;
use hyper::Method;
use hyper::header::IF_MATCH;

use crate::sinks::Pace;
use crate::sinks::http::classify::{StatusClass, classify, describe, retry_after};
use crate::sinks::http::{Request, RequestError, Response};

/// The meaning of an error response. It is the source of the crate's own errors, which otherwise contain only text.
#[derive(Debug, thiserror::Error)]
#[error("{}", .0.reason().unwrap_or_default())]
pub(super) struct Said(Pace);

/// The pace for a reason, and the wait that the store asks for.
type Paced = fn(Option<Duration>, String) -> Pace;

const SLOW: Paced = |after, reason| Pace::Slow { after, reason };
const AGAIN: Paced = |after, reason| Pace::Down { after, reason };
const HOLD: Paced = |_, reason| Pace::Hold { reason };

const RIGHTS: &str = "the credentials lack permissions: they must read, write and list objects (S3: s3:PutObject, s3:GetObject and s3:ListBucket, and kms:GenerateDataKey for a KMS key; Google: roles/storage.objectUser; Azure: Storage Blob Data Contributor)";
const REGION: &str = "the bucket is in another region: set `region`";
const CHECK: &str = "check `url`, `endpoint` and the credentials";
const NO_ROLE: &str = "neither the options, the environment nor this machine provide credentials: set them (profiles in ~/.aws are not read), or assign a role";

/// Codes that are more specific than their status, and advice for the operator.
#[rustfmt::skip]
const CODES: &[(Paced, &str, &str)] = &[
    (HOLD, RIGHTS, "AccessDenied AuthorizationFailure AuthorizationPermissionMismatch InsufficientAccountPermissions UnauthorizedBlobOverwrite"),
    (HOLD, "the account does not allow this request: check its state with the store",
        "AccountIsDisabled AccountProblem AllAccessDisabled UserProjectMissing AuthorizationSourceIPMismatch KeyBasedAuthenticationNotPermitted"),
    (HOLD, "the store rejects the credentials: check the options, or where the credentials come from",
        "InvalidAccessKeyId InvalidToken SignatureDoesNotMatch AuthenticationFailed AuthenticationRequired XAdminUserNotFound \
         NoAuthenticationInformation InvalidAuthenticationInfo InvalidIdentityToken ExpiredTokenException ExpiredToken \
         invalid_client invalid_grant unauthorized_client IDPRejectedClaim"),
    (HOLD, "the bucket does not exist: create it, or correct `url`", "NoSuchBucket ContainerNotFound ContainerDisabled"),
    (HOLD, REGION, "AuthorizationHeaderMalformed PermanentRedirect IllegalLocationConstraintException"),
    (HOLD, "this machine's clock differs from the store's: set it", "RequestTimeTooSkewed"),
    (HOLD, "the object exceeds the store's limit: lower `object.bytes_max`", "EntityTooLarge RequestBodyTooLarge"),
    (SLOW, "the store throttles requests", "SlowDown TooManyRequests ServerBusy"),
    (SLOW, "the store is unavailable", "ServiceUnavailable"),
    (AGAIN, "another request for the same object is in progress", "ConditionalRequestConflict OperationAborted ContainerBeingDeleted"),
    (AGAIN, "the upload did not finish in time", "RequestTimeout OperationTimedOut"),
    (AGAIN, "the store failed", "InternalError"),
];

/// The path at which Amazon's machines issue a token for such requests.
const ROLE_TOKEN: &str = "/latest/api/token";
/// Path prefixes of requests for a role's credentials on Amazon's, Google's and Microsoft's machines.
const ROLES: &[&str] = &[
    ROLE_TOKEN,
    "/latest/meta-data/iam/",
    "/computeMetadata/v1/instance/service-accounts/",
    "/metadata/identity/oauth2/token",
];

/// Returns a success, or an error that the crate interprets itself (an object exists or not), unchanged; otherwise, the error's meaning.
pub(super) fn read(
    request: &Request,
    answer: Result<Response, RequestError>,
) -> Result<Response, Said> {
    let host = request.uri.host().unwrap_or_default();
    match answer {
        Err(failure) => {
            let mut pace = failure.report().pace;
            if let Pace::Down { reason, .. } | Pace::Hold { reason } = &mut pace {
                let advice = if is_for_role(request) { NO_ROLE } else { "" };
                *reason = join(&[host, reason.as_str(), advice]);
            }
            Err(Said(pace))
        }
        Ok(response) if response.status.is_success() => Ok(response),
        Ok(response) => match refused(request, host, &response) {
            None => Ok(response),
            Some(pace) => Err(Said(pace)),
        },
    }
}

/// Returns the pace that follows from an error.
pub(super) fn pace(error: &Error) -> Pace {
    let whole: &(dyn error::Error + 'static) = error;
    let mut causes = iter::successors(Some(whole), |cause| cause.source());
    match (causes.find_map(|cause| cause.downcast_ref()), error) {
        (Some(Said(pace)), _) => pace.clone(),
        // An unreadable response was cut off, so the request is repeated.
        (None, Error::Generic { .. }) => Pace::down(shortened(error)),
        (None, _) => Pace::hold(shortened(error)),
    }
}

/// Returns the crate's message, which names the object and the address.
fn shortened(error: &Error) -> String {
    error.to_string().chars().take(300).collect()
}

fn is_for_role(request: &Request) -> bool {
    ROLES.iter().any(|start| request.uri.path().starts_with(start))
}

fn join(parts: &[&str]) -> String {
    let said = parts.iter().copied().filter(|part| !part.is_empty());
    said.collect::<Vec<_>>().join(": ")
}

fn refused(request: &Request, host: &str, response: &Response) -> Option<Pace> {
    let (method, body) = (&request.method, String::from_utf8_lossy(&response.body));
    let header = |name| response.headers.get(name).and_then(|value| value.to_str().ok());
    // A response to HEAD has no body.
    let code = header("x-ms-error-code").or_else(|| between(&body, "<Code>", "</Code>"));
    let code = code.or_else(|| between(&body, "\"error\":\"", "\"")).unwrap_or_default();
    let known = CODES.iter().find(|(.., codes)| codes.split(' ').any(|known| known == code));
    let status = response.status.as_u16();
    let (usual, advice) = match classify(response.status, &response.headers) {
        StatusClass::Throttled { .. } => (SLOW, ""),
        StatusClass::Retry { .. } | StatusClass::Fault => (AGAIN, ""),
        // An invalid request would be invalid again.
        _ => (HOLD, CHECK),
    };
    let is_answer = match status {
        304 | 409 | 412 => true,
        404 => request.headers.contains_key(IF_MATCH),
        // Another way to the role may exist (`AWS_IMDSV1_FALLBACK`).
        403 => request.uri.path() == ROLE_TOKEN,
        _ => false,
    };
    let (paced, advice) = match known {
        None if is_answer => return None,
        _ if is_for_role(request) => (usual, NO_ROLE),
        Some((paced, advice, _)) => (*paced, *advice),
        None if status == 403 => (HOLD, RIGHTS),
        None if response.status.is_redirection() || (status == 400 && *method == Method::HEAD) => {
            (HOLD, REGION)
        }
        None => (usual, advice),
    };
    let region = header("x-amz-bucket-region").or_else(|| between(&body, "<Region>", "</Region>"));
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '-';
    let region = region.filter(|region| region.len() < 64 && region.chars().all(is_name));
    let region = region.filter(|_| advice == REGION);
    let region = region.map(|region| format!(" = \"{region}\"")).unwrap_or_default();
    let shown_code = if known.is_some() { format!(" {code}") } else { String::new() };
    let said = format!("{}{shown_code}", describe(response.status, &response.headers));
    let reason = join(&[host, method.as_str(), &said, &format!("{advice}{region}")]);
    Some(paced(retry_after(&response.headers), reason))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

#[cfg(test)]
mod tests {
    use ::object_store::client::{HttpError, HttpErrorKind};
    use bytes::Bytes;
    use hyper::{HeaderMap, StatusCode};

    use super::*;

    fn request(method: &Method, path: &str) -> Request {
        let uri = format!("https://s3.example.com{path}?X=hush").parse().unwrap();
        Request { method: method.clone(), uri, headers: HeaderMap::new(), body: Bytes::new() }
    }

    fn paced(method: &Method, status: u16, body: &'static str) -> Pace {
        paced_of(&request(method, "/bucket/key"), status, body)
    }

    fn paced_of(request: &Request, status: u16, body: &'static str) -> Pace {
        let mut headers = HeaderMap::new();
        headers.insert("x-amz-bucket-region", "eu-west-1".parse().unwrap());
        headers.insert("retry-after", "7".parse().unwrap());
        if let Some(code) = body.strip_prefix("x-ms-error-code: ") {
            headers.insert("x-ms-error-code", code.parse().unwrap());
        }
        let response = Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from_static(body.as_bytes()),
            is_cut: false,
            trailers: HeaderMap::new(),
        };
        pace_of(request, Ok(response))
    }

    /// Returns the pace after the error has passed through the crate.
    fn pace_of(request: &Request, answer: Result<Response, RequestError>) -> Pace {
        let said = HttpError::new(HttpErrorKind::Unknown, read(request, answer).unwrap_err());
        pace(&Error::Generic { store: "S3", source: Box::new(said) })
    }

    #[test]
    fn every_answer_says_what_to_do() {
        let (put, head, post) = (Method::PUT, Method::HEAD, Method::POST);
        for (method, status, body, kind, what) in [
            (&put, 403, "<Error><Code>AccessDenied</Code></Error>", "hold", "s3:ListBucket"),
            (&put, 403, "<Code>SignatureDoesNotMatch</Code>", "hold", "rejects the credentials"),
            (&put, 404, "<Code>NoSuchBucket</Code>", "hold", "does not exist"),
            (&put, 301, "<Code>PermanentRedirect</Code>", "hold", "`region` = \"eu-west-1\""),
            (&put, 403, "<Code>RequestTimeTooSkewed</Code>", "hold", "clock"),
            (&put, 503, "<Code>SlowDown</Code>", "slow", "throttles"),
            (&put, 503, "not XML", "slow", "HTTP 503"),
            (&put, 409, "<Code>ConditionalRequestConflict</Code>", "down", "in progress"),
            (&put, 400, "<Code>RequestTimeout</Code>", "down", "in time"),
            (&put, 500, "<Code>InternalError</Code>", "down", "failed"),
            (&put, 502, "", "down", "HTTP 502"),
            (&put, 405, "<Code>hush</Code>", "hold", "check `url`"),
            (&head, 403, "", "hold", "s3:GetObject"),
            (&head, 404, "x-ms-error-code: ContainerNotFound", "hold", "does not exist"),
            (&head, 403, "x-ms-error-code: AuthorizationPermissionMismatch", "hold", "Blob Data"),
            (&put, 503, "x-ms-error-code: ServerBusy", "slow", "throttles"),
            (&put, 500, "<Code>OperationTimedOut</Code>", "down", "in time"),
            (&put, 403, "<Code>AccountIsDisabled</Code>", "hold", "does not allow"),
            (
                &post,
                400,
                "{\"error\":\"invalid_grant\"}",
                "hold",
                "where the credentials come from",
            ),
            (
                &post,
                400,
                "<Code>InvalidIdentityToken</Code>",
                "hold",
                "where the credentials come from",
            ),
            (&head, 400, "", "hold", "`region` = \"eu-west-1\""),
        ] {
            let pace = paced(method, status, body);
            let reason = pace.reason().unwrap();
            assert!(reason.contains(what) && !reason.contains("hush"), "{status} {body}: {reason}");
            let found = match &pace {
                Pace::Hold { .. } => "hold",
                Pace::Slow { .. } => "slow",
                Pace::Down { .. } => "down",
                Pace::Go | Pace::Checkpoint => "go",
            };
            assert_eq!(found, kind, "{status} {body}");
        }
        let Pace::Slow { after, .. } = paced(&put, 503, "") else { panic!() };
        assert_eq!(after, Some(Duration::from_secs(7)));
    }

    #[test]
    fn without_an_answer_the_failure_counts() {
        let request = request(&Method::PUT, "/");
        let trust = pace_of(&request, Err(RequestError::Trust("unknown issuer".to_owned())));
        assert!(
            matches!(trust, Pace::Hold { reason } if reason.contains("s3.example.com: no trust"))
        );
        let broken = pace_of(&request, Err(RequestError::Broken("reset".to_owned())));
        assert!(matches!(broken, Pace::Down { .. }));
        let unread = pace(&Error::Generic { store: "S3", source: "x".into() });
        assert!(matches!(unread, Pace::Down { .. }), "an answer nobody could read");
    }

    #[test]
    fn where_nobody_has_credentials_it_is_said_where_they_were_looked_for() {
        for path in ["/latest/api/token", "/computeMetadata/v1/instance/service-accounts/x/token"] {
            let request = request(&Method::PUT, path);
            let refused = pace_of(&request, Err(RequestError::Connect("refused".to_owned())));
            for pace in [refused, paced_of(&request, 404, "")] {
                let reason = pace.reason().unwrap();
                assert!(reason.contains("~/.aws are not read"), "{reason}");
            }
        }
    }
}
