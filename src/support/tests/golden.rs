//! The fixtures under `tests/golden`, for tests.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use serde_json::Value;

/// A request that was captured or written by hand.
#[derive(Debug)]
pub(crate) struct Fixture {
    /// `<folder>/<file>`.
    pub(crate) name: String,
    /// The body as sent.
    pub(crate) body: Bytes,
    /// The request around it: `headers`, `path`, `expect` ...
    pub(crate) sidecar: Value,
    /// The request decoded to OTLP/JSON, if there is such a file.
    pub(crate) decoded: Option<Value>,
}

impl Fixture {
    /// Returns a header's value, ignoring the case of its name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let headers = self.sidecar["headers"].as_array().expect("a sidecar has headers");
        let is_wanted = |pair: &&Value| {
            pair[0].as_str().is_some_and(|header| header.eq_ignore_ascii_case(name))
        };
        headers.iter().find(is_wanted).and_then(|pair| pair[1].as_str())
    }
}

/// Returns the path of a file or folder under `tests/golden`.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Returns the bytes of a file under `tests/golden`.
pub(crate) fn read(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns whether goldens are to be written instead of compared.
pub(crate) fn is_update() -> bool {
    std::env::vars_os().any(|(name, _)| name == "UPDATE_GOLDENS")
}

/// Compares text with a file under `tests/golden`, line by line. With `UPDATE_GOLDENS` set, it writes the file first: read the difference
/// before committing it.
pub(crate) fn check(name: &str, text: &str) {
    if is_update() {
        let path = path(name);
        std::fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("a folder");
        std::fs::write(path, text).expect("the golden can be written");
    }
    let expected = std::fs::read_to_string(path(name)).unwrap_or_default();
    for (found, expected) in text.lines().zip(expected.lines()) {
        assert_eq!(found, expected, "{name}; UPDATE_GOLDENS=1 accepts the new one");
    }
    let (found, expected) = (text.lines().count(), expected.lines().count());
    assert_eq!(found, expected, "{name} has as many lines; UPDATE_GOLDENS=1 accepts the new one");
}

/// Returns every request in a folder's folders, or in one of them, by name.
pub(crate) fn fixtures(folder: &str) -> Vec<Fixture> {
    let mut found = Vec::new();
    collect(&path(folder), &mut found);
    found.sort_by(|one, other| one.name.cmp(&other.name));
    assert!(!found.is_empty(), "no fixtures in {folder}");
    found
}

fn collect(dir: &Path, found: &mut Vec<Fixture>) {
    for entry in std::fs::read_dir(dir).expect("the folder is there") {
        let path = entry.expect("the folder can be read").path();
        if path.is_dir() {
            collect(&path, found);
            continue;
        }
        let beside = |extension: &str| PathBuf::from(format!("{}{extension}", path.display()));
        let Some(sidecar) = parse(&beside(".headers.json")).or_else(|| parse(&instead(&path)))
        else {
            continue;
        };
        let folder = dir.file_name().expect("a folder has a name").to_string_lossy();
        let file = path.file_name().expect("a file has a name").to_string_lossy();
        let body = Bytes::from(std::fs::read(&path).expect("a body can be read"));
        found.push(Fixture {
            name: format!("{folder}/{file}"),
            body,
            sidecar,
            decoded: parse(&beside(".decoded.json")),
        });
    }
}

/// Returns the sidecar of `NNN.body.json`, which is `NNN.headers.json`.
fn instead(body: &Path) -> PathBuf {
    let name = body.file_name().expect("a file has a name").to_string_lossy();
    match name.strip_suffix(".body.json") {
        Some(number) => body.with_file_name(format!("{number}.headers.json")),
        None => PathBuf::new(),
    }
}

fn parse(path: &Path) -> Option<Value> {
    let text = std::fs::read(path).ok()?;
    Some(
        serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display())),
    )
}
