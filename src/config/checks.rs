//! Checks across sections, and warnings about probable mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hyper::header::HeaderName;
use toml::de::{DeTable, DeValue};

use super::layers::{Layers, Whole};
use super::ourselves::Ourselves;
use super::sections::{
    AdminOptions, Config, JournalMode, JournalOptions, LISTENERS, LogOptions, OtlpMetrics, STORES,
};
use crate::server::TlsOptions;
use crate::sinks::blackhole;
use crate::sinks::http::secret_header;
use crate::support::address::Address;
use crate::support::byte_size::ByteSize;
use crate::support::options::{Value, did_you_mean, position};
use crate::support::problem::{Mistake, Mistakes, Problem};
use crate::support::secret::Secret;

/// Log levels.
const LEVELS: &[&str] = &["off", "error", "warn", "info", "debug", "trace"];

/// Finds mistakes that no section can detect alone. It skips values in `known`, because defaults replace invalid values.
pub(super) fn problems(config: &Config, layers: &Layers<'_>, known: &[Problem]) -> Vec<Problem> {
    let mut problems = addresses(layers);
    if known.is_empty() {
        problems.extend(placed(&["journal"], journal(&config.journal), layers));
        problems.extend(placed(&["receivers"], config.receivers.check(), layers));
        problems.extend(placed(&["admin"], admin(&config.admin), layers));
    }
    let otlp = config.telemetry.otlp.iter().flat_map(telemetry);
    problems.extend(placed(&["telemetry", "otlp"], otlp.collect(), layers));
    problems.extend(log_level(&config.log, layers));
    problems.extend(paths(config, layers));
    problems
}

/// Finds listeners with the same address; the second could not bind it.
fn addresses(layers: &Layers<'_>) -> Vec<Problem> {
    let mut before: Vec<([&str; 2], Address)> = Vec::new();
    let mut problems = Vec::new();
    for (path, default) in LISTENERS {
        let Some(address) = layers.address(&path, default) else { continue };
        if let Some((first, _)) = before.iter().find(|(_, other)| other.collides_with(&address)) {
            let other = layers.place(first);
            let origin = other.as_ref().map(|at| format!("in {}", layers.origin(at)));
            let origin = origin.unwrap_or_else(|| "by default".to_owned());
            let (one, first) = (path.join("."), first.join("."));
            let what = format!("`{one}` and `{first}` ({origin}) cannot both listen on {address}");
            let at = layers.place(&path).or(other);
            problems.push(Problem::new(at, what, "give each its own port"));
        }
        before.push((path, address));
    }
    problems
}

/// Reports mistakes at the options that they concern, or at the section.
fn placed<Words: Into<String>>(
    section: &[&str],
    mistakes: Vec<Mistake<Words>>,
    layers: &Layers<'_>,
) -> impl Iterator<Item = Problem> {
    mistakes.into_iter().map(move |Mistake { option, what, hint }| {
        let place = layers.place(&[section, &[option]].concat());
        Problem::new(place.or_else(|| layers.place(section)), what, hint)
    })
}

fn admin(options: &AdminOptions) -> Vec<Mistake> {
    let mut found = Mistakes::default();
    let is_empty = options.tokens.iter().any(|token| token.reveal().trim().is_empty());
    found.note(is_empty, "tokens", "a token is empty", "is its variable set?");
    found.0.extend(options.tls.iter().flat_map(TlsOptions::mistakes));
    found.0
}

fn telemetry(options: &OtlpMetrics) -> Vec<Mistake> {
    let mut found = Mistakes::default();
    let is_address = options.endpoint.uri().is_some_and(|uri| uri.query().is_none());
    let what = "not a plain address that begins with http:// or https://";
    let hint = "write for example \"http://localhost:4328\"; credentials go into `headers`";
    found.note(!is_address, "endpoint", what, hint);
    let is_never = options.interval.0.is_zero();
    found.note(is_never, "interval", "the interval is zero", "leave it out for \"1m\"");
    let is_header = |(name, value): (&String, &Secret)| {
        name.parse::<HeaderName>().is_ok() && secret_header(value.reveal()).is_some()
    };
    let (what, hint) =
        ("one of these is not a valid header", "write `authorization = \"Bearer ...\"`");
    found.note(!options.headers.iter().all(is_header), "headers", what, hint);
    found.0
}

fn journal(options: &JournalOptions) -> Vec<Mistake<String>> {
    let (all, segment) = (options.bytes_max, options.segment_bytes_max);
    let is_default = segment == JournalOptions::default().segment_bytes_max;
    let (option, what, hint) = if all.0 == 0 || segment.0 == 0 {
        let option = if all.0 == 0 { "bytes_max" } else { "segment_bytes_max" };
        (option, "the journal's size is zero".to_owned(), "leave it out for the default")
    } else if !is_default && all < segment {
        let what = format!("a segment of {segment} is larger than the whole journal of {all}");
        ("segment_bytes_max", what, "make `segment_bytes_max` an eighth of `bytes_max` or less")
    } else {
        return Vec::new();
    };
    vec![Mistake { option, what, hint: hint.to_owned() }]
}

/// Checks the log level. The library takes any word for the name of a module, and then logs nothing.
fn log_level(log: &LogOptions, layers: &Layers<'_>) -> Option<Problem> {
    let wrong = log.level.split(',').map(str::trim).find(|directive| {
        let (target, said) = match directive.rsplit_once('=') {
            Some((target, said)) => (Some(target), said),
            None => (None, *directive),
        };
        let is_level = LEVELS.iter().any(|level| level.eq_ignore_ascii_case(said));
        // A module without a level enables all its levels.
        let is_target = target.is_none() && (said.contains("::") || said.starts_with("spanferry"));
        !(is_level || is_target)
    });
    let said = match wrong {
        Some(wrong) => wrong.rsplit('=').next().unwrap_or_default(),
        None if log.filter().is_none() => "",
        None => return None,
    };
    let hint = did_you_mean(said, LEVELS).unwrap_or_default();
    Some(Problem::new(layers.place(&["log", "level"]), "not a log level", hint))
}

/// Finds sinks that write the same file or among the journal's files; each would overwrite the other's data.
fn paths(config: &Config, layers: &Layers<'_>) -> Vec<Problem> {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let stores = STORES.map(|store| whole(&config.state_dir.join(store)));
    let is_on_disk = config.journal.mode == JournalMode::Disk;
    let mut seen = BTreeMap::new();
    let mut problems = Vec::new();
    for (name, sink) in layers.entries(&["sinks"]) {
        let Some(path) = sink.get_ref().get("path") else { continue };
        let Some(text) = path.get_ref().as_str() else { continue };
        let (at, file) = (Some(position(&path.span())), whole(Path::new(text)));
        if is_on_disk && stores.iter().any(|store| file.starts_with(store)) {
            let what = "the daemon keeps its own files in this directory";
            problems.push(Problem::new(at, what, "give the sink a directory of its own"));
        } else if !text.contains("{sink}")
            && let Some((other, first)) = seen.insert(file, (name.get_ref(), path.span()))
        {
            // A template with the sink's name separates them.
            let first = layers.origin(&first);
            let what = format!("the sink `{other}` ({first}) writes to the same path");
            problems.push(Problem::new(at, what, "give each sink its own path"));
        }
    }
    problems
}

/// Finds sinks and metrics whose target is this daemon, because they would loop for ever. It checks every address, so no kind has to list
/// its options.
pub(super) fn loops(ourselves: &Ourselves, layers: &Layers<'_>) -> Vec<Problem> {
    let ways_out = layers.entries(&["sinks"]).chain(layers.entries(&["telemetry"]));
    let tables = ways_out.filter_map(|(_, table)| table.get_ref().as_table());
    let texts = tables.flat_map(DeTable::values).flat_map(|value| match value.get_ref() {
        DeValue::Array(elements) => elements.iter().collect(),
        _ => vec![value],
    });
    let problem = |value: &Value<'_>| {
        let (option, address) = ourselves.reached_by(value.get_ref().as_str()?)?;
        let hint = "give the address of the next receiver, or listen on another port";
        let what =
            format!("this leads back to this daemon, which listens on {address} (`{option}`)");
        Some(Problem::new(Some(position(&value.span())), what, hint))
    };
    texts.filter_map(problem).collect()
}

/// Finds probable mistakes. `validate --strict` treats them as errors.
pub(super) fn warnings(config: &Config, layers: &mut Layers<'_>) -> Vec<Problem> {
    let mut warnings = std::mem::take(&mut layers.warnings);
    let mut warn = |at, what: String, hint| warnings.push(Problem::new(at, what, hint));
    if config.journal.mode == JournalMode::Memory {
        let what = "with the journal in memory, a restart loses undelivered items".to_owned();
        warn(layers.place(&["journal", "mode"]), what, "leave `mode` out to keep it on disk");
    }
    let body_max = ByteSize(config.receivers.body_bytes_max as u64);
    // A record takes at most half of the journal.
    if config.journal.bytes_max.0 / 2 <= body_max.0 {
        let what = format!(
            "the journal has no room for a body of {body_max}, the largest that receivers accept: it is refused for good"
        );
        let hint = "a body has to fit into half of `bytes_max`: raise it, or lower `receivers.body_bytes_max`";
        warn(layers.place(&["journal", "bytes_max"]), what, hint);
    }
    if let Some((option, what)) = config.receivers.exposed() {
        let hint = "name keys in `receivers.tokens`, ask for certificates with `receivers.tls.client_ca`, or listen on \
                    loopback; in a container, publish the port as narrowly as you can";
        warn(layers.place(&["receivers", option]), what, hint);
    }
    if config.admin.tls.as_ref().is_some_and(TlsOptions::is_mutual) {
        let what = "probes need a certificate, and `spanferry`'s own commands have none".to_owned();
        warn(layers.place(&["admin", "tls"]), what, "write `client_auth = \"optional\"` there");
    }
    for rule in config.sinks.iter().flat_map(|sink| sink.rules.unreached()) {
        let what =
            format!("the rule `{}` is never reached: an earlier rule drops everything", rule.name);
        let hint = "move it up, or narrow the earlier rule with `match`";
        warn(rule.at.clone(), what, hint);
    }
    if config.sinks.iter().all(|sink| sink.kind.name == blackhole::KIND.name) {
        let hint = "add one that does; `spanferry kinds` lists them";
        warn(layers.place(&["sinks"]), "no sink keeps anything".to_owned(), hint);
    }
    warnings.extend(tenants_without_part(config, layers));
    warnings
}

/// Finds tenants without a part of a sink; their spans do not reach it.
fn tenants_without_part(config: &Config, layers: &Layers<'_>) -> Vec<Problem> {
    let problem = |whole: &Whole| {
        let known = whole.tenants.as_ref()?;
        let tenants = config.receivers.tokens.iter().map(|token| &token.tenant);
        let missing: BTreeSet<_> = tenants.filter(|tenant| !known.contains(*tenant)).collect();
        let named: Vec<_> = missing.iter().map(|tenant| format!("`{tenant}`")).collect();
        let what = format!(
            "the sink `{}` has no part for the tenant {}, so its spans do not get there",
            whole.name,
            named.join(", ")
        );
        let hint = "add a part for it, or one with `rest = true`";
        let at = layers.place(&["receivers", "tokens"]);
        (!missing.is_empty()).then(|| Problem::new(at, what, hint))
    };
    layers.wholes.iter().filter_map(problem).collect()
}
