//! No mistake shows a credential, regardless of what is wrong with its line.

use super::*;
use crate::config::layers::is_secret_name;
use crate::config::schema::{sections_schema, sink_schema};

/// Mistakes in the value of an option, or next to it.
const WRONG: [&str; 17] = [
    "KEY = 'sk-hunter2'",
    "KEY = ['sk-hunter2']",
    "KEY = [5, 'sk-hunter2', { nme = 'sk-hunter2', token = 'sk-hunter2' }]",
    "KEY = { nme = 'sk-hunter2', x = ['sk-hunter2'] }",
    "KEY = sk-hunter2",
    "KEY = 'sk-hunter2",
    "KEY = \"sk-hunter2",
    "KEY = 'sk-hunter2'junk'sk-hunter2'",
    "KEY 'sk-hunter2'",
    "KEY = [\n  'sk-hunter2' 'sk-hunter2',\n  5\n]",
    "KEY = [\n  sk-hunter2,\n]",
    "KEY = [\n  'sk-hunter2', { token = 5, tenant = 'a', sk-hunter2 }\n]",
    "KEY = '''\nsk-hunter2\nsk-hunter2'''",
    "KEY = '''sk-hunter2\nsk-hunter2",
    "KEY = '${MISSING:-sk-hunter2}'",
    "KEY = 'Bearer sk-hunter2 ${SECRET} ${MISSING}'",
    "KEY = [['${MISSING:-sk-hunter2}', '${MISSING:?say it}']]",
];

/// Returns the tables of a configuration with their options that hold credentials, as `config show` recognizes them.
fn options() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect("", &sections_schema(), &mut found);
    for kind in KINDS {
        collect(&format!("sinks.one\ntype = '{}'", kind.name), &sink_schema(kind), &mut found);
    }
    found
}

fn collect(table: &str, schema: &Value, found: &mut Vec<(String, String)>) {
    for (key, property) in properties(schema) {
        let property = without_null(property);
        let is_secret = property["writeOnly"] == true || is_secret_name(key);
        if is_secret {
            found.push((table.to_owned(), key.clone()));
        } else if property.get("properties").is_some() && !table.contains('\n') {
            collect(format!("{table}.{key}").trim_start_matches('.'), property, found);
        }
    }
}

fn shown(text: &str) -> String {
    match read_texts(&[text], &[], Vec::new()) {
        Ok(loaded) => {
            loaded.warnings.map(|report| report.render("warning", Paint::Plain)).unwrap_or_default()
        }
        Err(report) => report.render("error", Paint::Plain),
    }
}

#[test]
fn no_mistake_shows_a_credential_of_any_option() {
    let options = options();
    assert!(options.len() >= 15, "{options:?}");
    let mut mistakes = 0;
    for (table, key) in &options {
        for wrong in WRONG {
            let (head, more) = table.split_once('\n').unwrap_or((table, ""));
            let text = format!("[{head}]\n{more}\n{}\n", wrong.replace("KEY", key));
            let shown = shown(&text);
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
            mistakes += usize::from(!shown.is_empty());
        }
    }
    // A line that cannot be parsed has no types, so the names of all these keys must mark credentials.
    let of_a_type = options.iter().map(|(_, key)| key).filter(|key| !is_secret_name(key));
    assert_eq!(of_a_type.collect::<Vec<_>>(), [""; 0]);
    assert!(mistakes > options.len() * WRONG.len() / 2, "{mistakes}");
}

#[test]
fn a_credential_whose_key_is_misspelt_is_not_shown() {
    for (table, key) in options().iter().filter(|(_, key)| key.len() > 3) {
        for at in 0..key.len() {
            let mut misspelt = key.clone();
            misspelt.remove(at);
            let (head, kind) = table.split_once('\n').unwrap_or((table, ""));
            let said = shown(&format!("[{head}]\n{kind}\n{misspelt} = 'sk-hunter2'\n"));
            assert!(said.contains("unknown key") && !said.contains("hunter2"), "{said}");
        }
    }
}

#[test]
fn no_mistake_shows_what_is_secret_in_an_address() {
    let mut seen = 0;
    for wrong in [
        "endpoint = 'https://me:sk-hunter2@example.com/v1'",
        "endpoint = 'https://example.com/v1?key=sk-hunter2'\nfoo = 1",
        "endpoint = ['https://example.com/v1?key=sk-hunter2']",
        "endpoint = 'https://me:sk-hunter2@example.com/v1?key=sk-hunter2",
        "endpoint = https://sk-hunter2@example.com/v1",
        "endpoints = [ 'https://example.com', 'https://me:sk-hunter2@example.com' 5 ]",
    ] {
        for kind in ["otlp", "openai", "elasticsearch", "langfuse"] {
            let text = format!("[sinks.one]\ntype = '{kind}'\n{wrong}\n");
            let shown = shown(&text.replace("langfuse'\nendpoint", "langfuse'\nbase_url"));
            assert!(!shown.contains("hunter2"), "{text}\n{shown}");
            seen += usize::from(shown.contains("example.com"));
        }
    }
    assert!(seen >= 15, "{seen} of the addresses are shown");
}
