//! Compares two configurations and plans the changes of a reload. Pure.
//!
//! It compares all effective values ([`Effective`](crate::config::Effective)), so new options of a section or a sink are covered
//! automatically.

use std::collections::BTreeMap;

use crate::config::Loaded;
use crate::operate::{CommandError, Rebuilt, Reloaded};

/// Prefixes of values that take effect while the daemon runs. All others need a restart: the journal, its memory, threads and the log
/// format are set up only once.
const TAKE_EFFECT: &[&str] = &[
    "receivers",
    "admin.listen",
    "admin.tokens",
    "admin.read_without_token",
    "admin.tls",
    "attributes",
    "log.level",
    "reload",
    "tests",
    "shutdown_timeout",
    "drain_grace",
];

/// Options that affect every sink's lane: the rules for all sinks, and the prices.
const OF_ALL_LANES: &[&str] = &["rules", "prices"];

/// Returns the planned changes, or why they cannot be applied.
pub(super) fn plan(old: &Loaded, new: &Loaded) -> Result<Reloaded, CommandError> {
    let mut of_sinks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut applied, mut fixed) = (Vec::new(), Vec::new());
    for path in old.effective.differences(&new.effective) {
        match path.strip_prefix("sinks.").and_then(|path| path.split_once('.')) {
            Some((sink, option)) => of_sinks.entry(sink).or_default().push(option.to_owned()),
            None if is_below(OF_ALL_LANES, path) => {
                let sinks = new.config.sinks.iter().map(|sink| sink.name.as_str());
                sinks.for_each(|sink| of_sinks.entry(sink).or_default().push(path.to_owned()));
                applied.push(path.to_owned());
            }
            None if is_below(TAKE_EFFECT, path) => applied.push(path.to_owned()),
            None => fixed.push(format!("`{path}` needs a restart")),
        }
    }
    if !fixed.is_empty() {
        let what = fixed.join("; ");
        return Err(CommandError::Refused(format!(
            "{what}. Restart the daemon, or undo the change"
        )));
    }
    let mut plan = Reloaded { applied, ..Reloaded::default() };
    let is_in =
        |loaded: &Loaded, name: &str| loaded.config.sinks.iter().any(|sink| sink.name == name);
    for sink in &new.config.sinks {
        let name = sink.name.clone();
        match of_sinks.remove(name.as_str()) {
            _ if !is_in(old, &name) => plan.added.push(name),
            Some(mut because_of) => {
                // Another kind has entirely different options.
                if because_of.iter().any(|option| option == "type") {
                    because_of.retain(|option| option == "type");
                }
                plan.rebuilt.push(Rebuilt { sink: name, because_of });
            }
            None => plan.kept.push(name),
        }
    }
    let gone = old.config.sinks.iter().filter(|sink| !is_in(new, &sink.name));
    plan.removed = gone.map(|sink| sink.name.clone()).collect();
    Ok(plan)
}

fn is_below(beginnings: &[&str], path: &str) -> bool {
    let begins_with = |beginning: &str| {
        path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    beginnings.iter().any(|beginning| begins_with(beginning))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{self, Environment, Request};

    /// Loads a text in a directory whose file `key` has these contents.
    fn loaded(dir: &Path, text: &str, key: &str) -> Loaded {
        std::fs::write(dir.join("key"), key).unwrap();
        let file = dir.join("spanferry.toml");
        std::fs::write(&file, text.replace("KEY", &dir.join("key").display().to_string())).unwrap();
        let environment = Environment::with([("SPANFERRY_STATE_DIR", "/state")]);
        let request = Request { files: vec![file], flags: Vec::new() };
        config::load(&request, &environment).unwrap_or_else(|report| panic!("{report:?}"))
    }

    /// Returns the plan for a change of the text, or of the contents of `key`.
    fn planned((old, old_key): (&str, &str), (new, new_key): (&str, &str)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let old = loaded(dir.path(), old, old_key);
        match plan(&old, &loaded(dir.path(), new, new_key)) {
            Ok(plan) => plan.to_string(),
            Err(problem) => problem.to_string(),
        }
    }

    const FILE: &str = "[sinks.archive]\ntype = 'file'\npath = 'a.jsonl'\n";
    const OTLP: &str = "[sinks.far]\ntype = 'otlp'\nendpoint = 'http://127.0.0.1:9'\n";

    #[test]
    fn a_plan_says_what_is_added_removed_rebuilt_kept_and_applied() {
        let with = |table: &str, line: &str| format!("[{table}]\n{line}\n{FILE}");
        let both = format!("{OTLP}{FILE}");
        for (old, new, expected) in [
            (FILE.to_owned(), FILE.to_owned(), "nothing is new; kept: archive"),
            (FILE.to_owned(), format!("# a word\n\n{FILE}"), "nothing is new; kept: archive"),
            (FILE.to_owned(), both.clone(), "added: far; kept: archive"),
            (both.clone(), FILE.to_owned(), "removed: far; kept: archive"),
            (both.clone(), format!("{FILE}{OTLP}"), "nothing is new; kept: archive, far"),
            (FILE.to_owned(), OTLP.to_owned(), "added: far; removed: archive"),
            (
                both.clone(),
                both.replace("a.jsonl", "b.jsonl"),
                "rebuilt: archive (path); kept: far",
            ),
            (
                FILE.to_owned(),
                format!("{FILE}batch = {{ age_max = '1s' }}\nwhen_full = 'drop_oldest'\n"),
                "rebuilt: archive (batch.age_max, when_full)",
            ),
            (
                // Writing out a default is no change.
                FILE.to_owned(),
                format!("{FILE}when_full = 'refuse'\n"),
                "nothing is new; kept: archive",
            ),
            (FILE.to_owned(), OTLP.replace("far", "archive"), "rebuilt: archive (type)"),
            (
                FILE.to_owned(),
                with(
                    "receivers",
                    "http = '127.0.0.1:5318'\ntokens = [{ token = 'sk-hunter2', tenant = 'a' }]",
                ),
                "kept: archive; applied: receivers.http, receivers.tokens",
            ),
            (
                with("log", "level = 'info'"),
                with("log", "level = 'debug'"),
                "kept: archive; applied: log.level",
            ),
            (
                FILE.to_owned(),
                with("attributes", "session = 'acme.thread'"),
                "kept: archive; applied: attributes.session",
            ),
            (
                with("prices", "enabled = true"),
                with("prices", "enabled = false"),
                "rebuilt: archive (prices.enabled); applied: prices.enabled",
            ),
            (
                FILE.to_owned(),
                format!("{both}[[rules]]\ndrop = true\n"),
                "added: far; rebuilt: archive (rules); applied: rules",
            ),
            (
                both.clone(),
                format!(
                    "{FILE}[[sinks.archive.rules]]\nmatch = {{ kind = 'tool' }}\ndrop = true\n{OTLP}"
                ),
                "rebuilt: archive (rules); kept: far",
            ),
            (
                FILE.to_owned(),
                format!("drain_grace = '1s'\n{FILE}"),
                "kept: archive; applied: drain_grace",
            ),
        ] {
            let plan = planned((&old, ""), (&new, ""));
            assert_eq!(plan, expected, "{old}\n{new}");
        }
    }

    #[test]
    fn what_cannot_change_while_it_runs_is_refused_as_a_whole_and_all_of_it_is_named() {
        let new = format!(
            "threads = 3\n[receivers]\ntokens = [{{ token = 'sk-hunter2', tenant = 'a' }}]\n\
             [journal]\ndir = '/elsewhere'\nretain = '1h'\n[feed]\ntail_bytes_max = '1MiB'\n\
             [log]\nformat = 'json'\n[admin]\ntraces = false\n{OTLP}"
        );
        let refused = planned((FILE, ""), (&new, ""));
        for path in [
            "admin.traces",
            "feed.tail_bytes_max",
            "journal.dir",
            "journal.retain",
            "log.format",
            "threads",
        ] {
            assert!(refused.contains(&format!("`{path}` needs a restart")), "{refused}");
        }
        assert!(!refused.contains("tokens") && !refused.contains("hunter2"), "{refused}");
    }

    #[test]
    fn a_secret_or_a_certificate_that_was_replaced_rebuilds_the_sinks_that_have_it_and_no_other() {
        let by_reference = "headers = { authorization = 'Bearer ${file:KEY}' }\n";
        for (option, name) in
            [(by_reference, "headers"), ("tls = { ca_file = 'KEY' }\n", "tls.ca_file")]
        {
            let text = format!("{FILE}{OTLP}{option}");
            let plan = planned((&text, "sk-hunter1"), (&text, "sk-hunter2"));
            assert_eq!(plan, format!("rebuilt: far ({name}); kept: archive"));
            assert_eq!(planned((&text, "a"), (&text, "a")), "nothing is new; kept: archive, far");
        }
    }
}
