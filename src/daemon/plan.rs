//! What must change where a configuration takes the place of another: a pure function of both.
//!
//! It compares all values in force ([`Effective`](crate::config::Effective)), so that an option that is added to a section or a sink
//! is covered without a word here.

use std::collections::BTreeMap;

use crate::config::Loaded;
use crate::operate::{CommandError, Rebuilt, Reloaded};

/// Which values take effect while the daemon runs, by the beginnings of their paths; all others need a restart: the journal and the
/// memory before it are laid out once, and so are threads and the form of the log.
const TAKE_EFFECT: &[&str] =
    &["receivers", "admin", "attributes", "log.level", "reload", "shutdown_timeout", "drain_grace"];

/// What there is to do, or why nothing of it can be done.
pub(super) fn plan(old: &Loaded, new: &Loaded) -> Result<Reloaded, CommandError> {
    let mut of_sinks: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let (mut applied, mut fixed) = (Vec::new(), Vec::new());
    for path in old.effective.differences(&new.effective) {
        match path.strip_prefix("sinks.").and_then(|path| path.split_once('.')) {
            Some((sink, option)) => of_sinks.entry(sink).or_default().push(option.to_owned()),
            None if takes_effect(path) => applied.push(path.to_owned()),
            None => fixed.push(format!("`{path}` needs a restart")),
        }
    }
    if !fixed.is_empty() {
        let what = fixed.join("; ");
        return Err(CommandError::Refused(format!("{what}. Restart the daemon, or take that back")));
    }
    let mut plan = Reloaded { applied, ..Reloaded::default() };
    let is_in = |loaded: &Loaded, name: &str| loaded.config.sinks.iter().any(|sink| sink.name == name);
    for sink in &new.config.sinks {
        let name = sink.name.clone();
        match of_sinks.remove(name.as_str()) {
            _ if !is_in(old, &name) => plan.added.push(name),
            Some(because_of) => plan.rebuilt.push(Rebuilt { sink: name, because_of }),
            None => plan.kept.push(name),
        }
    }
    let gone = old.config.sinks.iter().filter(|sink| !is_in(new, &sink.name));
    plan.removed = gone.map(|sink| sink.name.clone()).collect();
    Ok(plan)
}

fn takes_effect(path: &str) -> bool {
    let begins_with = |beginning: &str| {
        path.strip_prefix(beginning).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    TAKE_EFFECT.iter().any(|beginning| begins_with(beginning))
}
