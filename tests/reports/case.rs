//! The cases, read from their folders.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// Stands for an image in a body, and in expected values.
const IMAGE: &str = "@IMAGE@";
/// Six megabytes of base64.
const IMAGE_PIECE: &str = "QUJD";
const IMAGE_PIECES: usize = 1_500_000;

/// Members of `expected.json`; an unknown member would never be checked.
const MEMBERS: [&str; 15] = [
    "source",
    "symptom",
    "why",
    "answer",
    "traces",
    "spans",
    "lines",
    "line_sums",
    "langfuse",
    "langfuse_sums",
    "otlp",
    "otlp_sums",
    "documents",
    "summary",
    "agents",
];

/// A request, and the expected result.
pub(crate) struct Case {
    /// The folder's name.
    pub(crate) name: String,
    /// Sent first, if there is one.
    pub(crate) before: Option<Request>,
    pub(crate) request: Request,
    pub(crate) expected: Value,
}

/// A request as its client sends it.
pub(crate) struct Request {
    pub(crate) path: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

/// Returns every case of a folder below `tests/golden`, by name.
pub(crate) fn read(folder: &str) -> Vec<Case> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(folder);
    let mut folders: Vec<PathBuf> =
        fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    assert!(!folders.is_empty(), "no cases in {}", root.display());
    folders.iter().map(|folder| Case::read(folder)).collect()
}

impl Case {
    fn read(folder: &Path) -> Self {
        let text = |name: &str| fs::read_to_string(folder.join(name)).ok();
        let head = text("headers.json").map(|text| serde_json::from_str(&text).unwrap());
        let request = |body: String| Request::new(head.as_ref(), &body);
        let expected: Value =
            serde_json::from_str(&whole(&text("expected.json").unwrap())).unwrap();
        for member in expected.as_object().unwrap().keys() {
            assert!(MEMBERS.contains(&member.as_str()), "{}: {member}", folder.display());
        }
        Self {
            name: folder.file_name().unwrap().to_str().unwrap().to_owned(),
            before: text("pre-body.json").map(request),
            request: request(text("body.json").unwrap()),
            expected,
        }
    }

    /// Returns the ids of its traces.
    pub(crate) fn traces(&self) -> Vec<String> {
        let traces = self.expected["traces"].as_array().unwrap();
        traces.iter().map(|id| id.as_str().unwrap().to_owned()).collect()
    }
}

impl Request {
    fn new(head: Option<&Value>, body: &str) -> Self {
        let body = whole(body);
        let Some(head) = head else {
            let headers = vec![("content-type".to_owned(), "application/json".to_owned())];
            return Self { path: "/v1/traces".to_owned(), headers, body };
        };
        let pairs = head["headers"].as_object().unwrap();
        let pair =
            |(name, value): (&String, &Value)| (name.clone(), value.as_str().unwrap().to_owned());
        let path = head["path"].as_str().unwrap().to_owned();
        Self { path, headers: pairs.iter().map(pair).collect(), body }
    }

    /// Returns the number of its spans.
    pub(crate) fn spans(&self) -> usize {
        self.body.matches("\"spanId\"").count()
    }
}

fn whole(text: &str) -> String {
    text.replace(IMAGE, &IMAGE_PIECE.repeat(IMAGE_PIECES))
}
