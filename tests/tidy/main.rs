//! Rules about the code are tests: the import table, circles, front pages, purity, size, and what must not be in the tree.
#![expect(
    clippy::unwrap_used,
    clippy::string_slice,
    clippy::indexing_slicing,
    reason = "tests may panic"
)]

mod circles;
mod size;

use std::fs;
use std::path::{Path, PathBuf};

/// Which folder may import which, in the order of dependency: a folder may only name folders above it.
const MAY_IMPORT: &[(&str, &[&str])] = &[
    ("support", &[]),
    ("span", &["support"]),
    ("telemetry", &["support", "span"]),
    ("journal", &["support"]),
    ("normalize", &["support", "span"]),
    ("prices", &["support", "span"]),
    ("rules", &["support", "span", "normalize", "prices"]),
    ("server", &["support"]),
    ("sinks", &["support", "span", "telemetry", "prices"]),
    ("feed", &["support", "span", "telemetry", "normalize", "journal", "prices", "rules"]),
    ("receivers", &["support", "span", "telemetry", "normalize", "server", "feed", "rules"]),
    (
        "pipeline",
        &["support", "span", "telemetry", "journal", "normalize", "feed", "sinks", "rules"],
    ),
    ("index", &["support", "span", "telemetry", "journal", "normalize", "feed", "prices"]),
    (
        "operate",
        &[
            "support",
            "span",
            "journal",
            "prices",
            "normalize",
            "feed",
            "sinks",
            "pipeline",
            "rules",
            "index",
        ],
    ),
    (
        "config",
        &[
            "prices",
            "support",
            "span",
            "telemetry",
            "journal",
            "normalize",
            "server",
            "feed",
            "receivers",
            "pipeline",
            "sinks",
            "rules",
        ],
    ),
    (
        "admin",
        &[
            "support",
            "span",
            "telemetry",
            "journal",
            "server",
            "feed",
            "receivers",
            "pipeline",
            "operate",
            "sinks",
        ],
    ),
    (
        "daemon",
        &[
            "support",
            "span",
            "telemetry",
            "journal",
            "normalize",
            "server",
            "feed",
            "receivers",
            "pipeline",
            "index",
            "operate",
            "sinks",
            "config",
            "admin",
            "rules",
        ],
    ),
    (
        "cli",
        &[
            "prices",
            "support",
            "span",
            "telemetry",
            "journal",
            "normalize",
            "rules",
            "server",
            "sinks",
            "index",
            "operate",
            "config",
            "admin",
            "daemon",
        ],
    ),
];

/// Pure code: no task, clock, disk, network or environment.
const PURE: &[&str] = &[
    "span/",
    "normalize/",
    "prices/",
    "rules/",
    "journal/record.rs",
    "pipeline/tracker.rs",
    "receivers/kafka/offsets.rs",
    "pipeline/window.rs",
    "pipeline/work.rs",
    "pipeline/breaker.rs",
    "sinks/size_limit.rs",
    "sinks/jsonl/",
    "sinks/parquet/",
    "sinks/http/options.rs",
    "/encode.rs",
    "/response.rs",
];
const IMPURE: &[&str] = &[
    "tokio",
    "async fn",
    ".await",
    "std::fs",
    "std::net",
    "Instant::now",
    "SystemTime::now",
    "std::env",
];

/// Folders and files that may open files.
const OPENS_FILES: &[&str] = &[
    "journal/storage.rs",
    "journal/direct.rs",
    "sinks/file/",
    "sinks/object_store/folder.rs",
    "sinks/http/tls.rs",
    "server/listener.rs",
    "server/tls.rs",
    "config/",
    "support/process.rs",
    "cli/",
];

struct Source {
    /// Path below `src/`.
    path: String,
    text: String,
}

impl Source {
    fn folder(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    /// Returns the code without its unit tests, to which the rules do not apply.
    fn production(&self) -> &str {
        self.text.split("#[cfg(test)]\nmod tests {").next().unwrap()
    }

    fn is_test(&self) -> bool {
        self.path.ends_with("tests.rs")
            || self.path.contains("/tests/")
            || self.text.contains("\n#![cfg(test)]\n")
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut |path| {
        if path.extension().is_some_and(|extension| extension == "rs") {
            let below = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
            found.push(Source { path: below, text: fs::read_to_string(path).unwrap() });
        }
    });
    assert!(found.len() > 20, "the tree was not found");
    found
}

fn walk(dir: &Path, visit: &mut impl FnMut(&PathBuf)) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

/// Returns the folders named after `crate::`, also inside `crate::{a::B, c}`.
fn imports(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let (mut depth, mut start) = (1, 0);
            for (index, character) in list.char_indices() {
                match character {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if (character == ',' && depth == 1) || depth == 0 {
                    found.push(first_word(list[start..index].trim()));
                    start = index + 1;
                }
                if depth == 0 {
                    break;
                }
            }
        } else {
            found.push(first_word(rest));
        }
    }
    found
}

fn first_word(text: &str) -> &str {
    text.split(|character: char| !character.is_alphanumeric() && character != '_').next().unwrap()
}

fn report(broken: &[String]) {
    assert!(broken.is_empty(), "\n{}\n", broken.join("\n"));
}

#[test]
fn imports_go_one_way() {
    let mut broken = Vec::new();
    // Tests may import more, to build the world around what they test.
    for source in sources().iter().filter(|source| !source.is_test()) {
        let Some((_, allowed)) = MAY_IMPORT.iter().find(|(folder, _)| *folder == source.folder())
        else {
            continue;
        };
        for used in imports(&source.text) {
            let is_folder = MAY_IMPORT.iter().any(|(folder, _)| *folder == used);
            if is_folder && used != source.folder() && !allowed.contains(&used) {
                broken.push(format!(
                    "src/{}: {} may not import {used}",
                    source.path,
                    source.folder()
                ));
            }
        }
    }
    report(&broken);
}

#[test]
fn the_import_table_has_no_cycle_and_names_every_folder() {
    for (index, (folder, allowed)) in MAY_IMPORT.iter().enumerate() {
        for used in *allowed {
            let above = MAY_IMPORT[..index].iter().any(|(earlier, _)| earlier == used);
            assert!(above, "{folder} imports {used}, which does not stand above it");
        }
    }
    for source in sources().iter().filter(|source| source.path.contains('/')) {
        let known = MAY_IMPORT.iter().any(|(folder, _)| *folder == source.folder());
        assert!(known, "src/{} is in a folder that the table does not name", source.path);
    }
}

#[test]
fn every_file_begins_with_a_sentence_about_itself_and_is_ascii() {
    let mut broken = Vec::new();
    for source in sources() {
        if !source.text.starts_with("//! ") {
            broken.push(format!("src/{}: no //! sentence at the top", source.path));
        }
        if !source.is_test()
            && let Some(line) = source.production().lines().position(|line| !line.is_ascii())
        {
            broken.push(format!("src/{}:{}: not ASCII", source.path, line + 1));
        }
    }
    report(&broken);
}

#[test]
fn computing_code_is_pure() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        if !PURE.iter().any(|pure| {
            source.path.starts_with(pure) || (pure.starts_with('/') && source.path.ends_with(pure))
        }) {
            continue;
        }
        for word in IMPURE {
            if source
                .production()
                .lines()
                .any(|line| !line.trim_start().starts_with("//") && line.contains(word))
            {
                broken.push(format!("src/{}: {word} in code that only computes", source.path));
            }
        }
    }
    report(&broken);
}

#[test]
fn files_are_opened_in_few_places() {
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        let allowed = OPENS_FILES.iter().any(|place| source.path.starts_with(place));
        if !allowed
            && (source.production().contains("std::fs")
                || source.production().contains("OpenOptions"))
        {
            broken.push(format!("src/{}: opens files", source.path));
        }
    }
    report(&broken);
}

#[test]
fn nobody_reaches_over_two_folders() {
    let broken: Vec<_> = sources()
        .iter()
        .filter(|source| source.text.contains("super::super"))
        .map(|source| format!("src/{}: say use crate::... instead of super::super", source.path))
        .collect();
    report(&broken);
}

#[test]
fn every_file_is_part_of_the_program() {
    let sources = sources();
    let mut broken = Vec::new();
    for source in &sources {
        let path = Path::new(&source.path);
        let name = path.file_stem().unwrap().to_str().unwrap();
        let parent = path.parent().unwrap();
        let (module, declared_in) = match name {
            "main" | "lib" => continue,
            "mod" => (parent.file_name().unwrap().to_str().unwrap(), parent.parent().unwrap()),
            _ => (name, parent),
        };
        let home = if declared_in == Path::new("") {
            PathBuf::from("lib.rs")
        } else {
            declared_in.join("mod.rs")
        };
        let declares =
            |text: &str| text.lines().any(|line| line.trim().ends_with(&format!("mod {module};")));
        // A test module may be declared by the file that it tests.
        let is_part = sources.iter().any(|other| {
            (Path::new(&other.path) == home
                || (source.is_test() && other.path.starts_with(declared_in.to_str().unwrap())))
                && declares(&other.text)
        });
        if !is_part {
            broken.push(format!("src/{}: no mod line in src/{}", source.path, home.display()));
        }
    }
    report(&broken);
}
