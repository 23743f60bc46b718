//! Interprets OpenAI's responses. Pure.
//!
//! | response | effect |
//! |---|---|
//! | 2xx | delivered |
//! | 400 or 422 whose `error.param` names an item (`data[3]. ...`) | that item is repaired or a dead letter, the others are sent again |
//! | 400, 422 without one | malformed: halves |
//! | 401, 403 | the key is refused: its items wait, then become dead letters; others are sent |
//! | 403 `zdr_forbidden` | the key's organisation retains no data: its items become dead letters immediately |
//! | 413 | too large: halves |
//! | 429, 503 | throttled, for as long as requested |
//! | 408, 409, 425, 502, 504, no connection, no response | retry |
//! | 508 | stop: the endpoint forwards back to this daemon |
//! | other 5xx | fault: a few retries, then halves |
//! | redirects, 404, 405 ..., 2xx with a web page | stop: the address is wrong |

use hyper::StatusCode;
use serde_json::Value;

use crate::sinks::Report;
use crate::sinks::http::Response;
use crate::sinks::http::classify::{self, StatusClass};

/// The meaning of a response for its request.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// All items were accepted.
    Taken,
    /// The key was refused.
    KeyRefused {
        /// The reason, without payload text.
        reason: String,
        /// Whether the refusal is permanent, because the organisation may not send traces at all.
        is_final: bool,
    },
    /// One item prevents all from being accepted.
    Item(Complaint),
    /// The same result for all items.
    All(Report),
}

/// OpenAI's complaint about an item.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Complaint {
    /// The item's index in the request.
    pub(super) index: usize,
    /// The invalid member, as a JSON pointer; empty for the item itself.
    pub(super) path: String,
    /// OpenAI's error code.
    pub(super) code: String,
    /// The reason, without payload text.
    pub(super) reason: String,
    /// OpenAI's response, which may quote payload.
    pub(super) answer: String,
}

/// The number of characters of a code that are shown; the known codes are shorter.
const CODE_CHARS_MAX: usize = 48;

/// Reads the response to a request.
pub(super) fn read(response: &Response) -> Answer {
    // `{"error": {...}}`, or the error object alone, which has been seen with 403.
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    let error = body.get("error").unwrap_or(&body);
    let said = |name: &str| error.get(name).and_then(Value::as_str);
    let code = shown_code(said("code"));
    let mut reason = response.reason();
    if !code.is_empty() {
        reason = format!("{reason} ({code})");
    }
    match (response.status, response.class()) {
        (status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN), _) => {
            let is_final = status == StatusCode::FORBIDDEN && code == "zdr_forbidden";
            Answer::KeyRefused { reason, is_final }
        }
        (StatusCode::CONFLICT, _) => {
            Answer::All(Report::down(classify::retry_after(&response.headers), reason))
        }
        (_, StatusClass::Taken) => Answer::Taken,
        (_, class) => {
            let named = ["param", "message"].into_iter().filter_map(said);
            let mut named = named.filter(|_| class == StatusClass::Malformed);
            match named.find_map(item_in) {
                Some((index, path)) => {
                    let answer = response.answer();
                    Answer::Item(Complaint { index, path, code, reason, answer })
                }
                None => Answer::All(class.report(reason, || response.answer())),
            }
        }
    }
}

/// Returns a code if it looks like one, because any other text might be payload.
fn shown_code(code: Option<&str>) -> String {
    let is_code = |code: &&str| {
        let is_of_code = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
        code.len() <= CODE_CHARS_MAX && code.bytes().all(is_of_code)
    };
    code.filter(is_code).unwrap_or_default().to_owned()
}

/// Returns the item and member that a text names: `data[3].span_data.usage.requests`, alone or within a sentence.
fn item_in(text: &str) -> Option<(usize, String)> {
    let (_, rest) = text.split_once("data[")?;
    let (index, mut rest) = rest.split_once(']')?;
    let index = index.parse().ok()?;
    let mut path = String::new();
    loop {
        let step = match (rest.strip_prefix('.'), rest.strip_prefix('[')) {
            (Some(after), _) => {
                let end = after.find(['.', '[', '\'', '"', ' ', ':', ',']).unwrap_or(after.len());
                Some(after.split_at(end)).filter(|(name, _)| !name.is_empty())
            }
            (_, Some(after)) => after.split_once(']'),
            _ => None,
        };
        let Some((name, after)) = step else { return Some((index, path)) };
        let name = name.trim_matches(['\'', '"']);
        path = format!("{path}/{}", name.replace('~', "~0").replace('/', "~1"));
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sinks::{Pace, RejectClass};
    use bytes::Bytes;
    use hyper::HeaderMap;
    use std::time::Duration;

    fn answer(status: u16, body: &str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "7".parse().unwrap());
        let response = Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers,
            body: Bytes::from(body.to_owned()),
            is_cut: false,
            trailers: HeaderMap::new(),
        };
        read(&response)
    }

    fn error(code: &str, param: Option<&str>, message: &str) -> String {
        serde_json::json!({ "error": { "message": message, "type": "invalid_request_error", "param": param, "code": code } })
            .to_string()
    }

    #[test]
    fn every_status_has_its_consequence() {
        let after = Some(Duration::from_secs(7));
        assert_eq!(answer(204, ""), Answer::Taken);
        assert_eq!(answer(200, "{}"), Answer::Taken);
        assert!(
            matches!(answer(401, &error("invalid_api_key", None, "sk-secret")), Answer::KeyRefused { reason, is_final: false } if reason == "HTTP 401 Unauthorized (invalid_api_key)")
        );
        assert!(matches!(
            answer(403, &error("zdr_forbidden", None, "no")),
            Answer::KeyRefused { is_final: true, .. }
        ));
        let bare = r#"{"code":"zdr_forbidden","message":"no"}"#;
        assert!(matches!(answer(403, bare), Answer::KeyRefused { is_final: true, .. }));
        assert!(matches!(answer(403, "no JSON"), Answer::KeyRefused { is_final: false, .. }));
        let report = |status| match answer(status, "{}") {
            Answer::All(report) => report,
            other => panic!("{status}: {other:?}"),
        };
        for status in [408, 409, 502] {
            let down = report(status);
            assert!(matches!(down.pace, Pace::Down { .. }) && down.refusal().is_none(), "{down:?}");
        }
        for (status, class) in
            [(500, RejectClass::Fault), (413, RejectClass::TooLarge), (400, RejectClass::Malformed)]
        {
            assert_eq!(report(status).refusal().unwrap().class, class, "{status}");
        }
        for status in [301, 404, 508] {
            assert!(matches!(report(status).pace, Pace::Hold { .. }), "{status}");
        }
        for status in [429, 503] {
            assert!(
                matches!(report(status).pace, Pace::Slow { after: found, .. } if found == after)
            );
        }
    }

    #[test]
    fn an_item_is_found_by_param_or_in_the_sentence() {
        for (param, message, index, path) in [
            (
                Some("data[1].span_data.usage.requests"),
                "Unknown parameter",
                1,
                "/span_data/usage/requests",
            ),
            (
                None,
                "Invalid 'data[0].span_data.input': data payload too large.",
                0,
                "/span_data/input",
            ),
            (Some("data[127]"), "", 127, ""),
            (Some("data[2].metadata['a b'].x[3]"), "", 2, "/metadata/a b/x/3"),
            (Some("data[2].metadata['a/b~c']"), "", 2, "/metadata/a~1b~0c"),
        ] {
            let Answer::Item(complaint) = answer(400, &error("unknown_parameter", param, message))
            else {
                panic!("{param:?}")
            };
            assert_eq!((complaint.index, &*complaint.path), (index, path));
            assert_eq!(complaint.code, "unknown_parameter");
        }
        let said = answer(400, &error("invalid_type", Some("data"), "expected an array"));
        let Answer::All(report) = said else { panic!("{said:?}") };
        assert_eq!(report.refusal().unwrap().class, RejectClass::Malformed);
    }

    #[test]
    fn what_is_no_code_is_not_shown() {
        let said = answer(401, &error("You said: my secret", None, ""));
        let reason = "HTTP 401 Unauthorized".to_owned();
        assert_eq!(said, Answer::KeyRefused { reason, is_final: false });
    }
}
