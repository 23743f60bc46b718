//! Sinks from the standard environment variables of SDKs and clients, used if no sink is configured.
//!
//! | set | sink | also read |
//! |---|---|---|
//! | `LANGFUSE_PUBLIC_KEY` and `LANGFUSE_SECRET_KEY` | `langfuse` | `LANGFUSE_BASE_URL`, else `LANGFUSE_HOST` |
//! | `ELASTICSEARCH_URL`, one or several with commas | `elasticsearch` | `ELASTICSEARCH_API_KEY` |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` | `otlp` | `_HEADERS`, `_PROTOCOL`, `_COMPRESSION`, `_TIMEOUT`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_INSECURE`, each with or without the prefix `TRACES_` |
//!
//! **A configuration that defines a sink is complete.** As in the OpenTelemetry Collector and in Vector, these variables then add nothing,
//! unless it refers to them with `${NAME}`; the start reports variables that are set but unused. Without a file, or with one that defines
//! no sink, they replace the default sink: traces go only where the variables point. `SPANFERRY__SINKS__OTLP__BATCH__ITEMS_MAX` and similar
//! variables still set options of such a sink.
//!
//! An address of this daemon creates no sink, only a warning: in a sidecar, `OTEL_EXPORTER_OTLP_ENDPOINT` often tells apps where Spanferry
//! listens.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>. Unlike there, an empty protocol means protobuf over HTTP, and an empty
//! compression means the OTLP sink's default.

use std::ops::Range;

use percent_encoding::percent_decode_str;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::environment::Environment;
use super::layers::{Layers, Wins};
use super::ourselves::Ourselves;
use super::sources::SourceKind;
use crate::support::problem::Problem;

/// A sink that variables create.
struct Row {
    /// Its kind, which is also its name.
    kind: &'static str,
    /// Variables of which any one creates it.
    signs: &'static [&'static str],
    /// Variables whose absence is then a mistake.
    needs: &'static [&'static str],
    /// Options: the variables (the first one that is set counts), the path of keys to the option, and the format of the text.
    options: &'static [(&'static [&'static str], &'static [&'static str], Form)],
}

/// Format of a variable's text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    /// Comma-separated texts.
    List,
    /// Comma-separated `name=value` pairs, percent-encoded.
    Headers,
    Milliseconds,
    /// An address; over gRPC, the scheme may be missing.
    Address,
}
use Form::{Address, Headers, List, Milliseconds, Text};

/// The two variables for an OTLP option; the one for traces takes precedence over the one for all signals.
macro_rules! otlp {
    ($option:literal) => {
        &[concat!("OTEL_EXPORTER_OTLP_TRACES_", $option), concat!("OTEL_EXPORTER_OTLP_", $option)]
    };
}

static ROWS: &[Row] = &[
    // The addresses are in the order of Langfuse's own SDKs.
    Row {
        kind: "langfuse",
        signs: &["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"],
        needs: &["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"],
        options: &[
            (&["LANGFUSE_PUBLIC_KEY"], &["public_key"], Text),
            (&["LANGFUSE_SECRET_KEY"], &["secret_key"], Text),
            (&["LANGFUSE_BASE_URL", "LANGFUSE_HOST"], &["base_url"], Text),
        ],
    },
    Row {
        kind: "elasticsearch",
        signs: &["ELASTICSEARCH_URL"],
        needs: &[],
        options: &[
            (&["ELASTICSEARCH_URL"], &["endpoints"], List),
            (&["ELASTICSEARCH_API_KEY"], &["api_key"], Text),
        ],
    },
    Row {
        kind: "otlp",
        signs: otlp!("ENDPOINT"),
        needs: &[],
        options: &[
            (&["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"], &["traces_endpoint"], Address),
            (&["OTEL_EXPORTER_OTLP_ENDPOINT"], &["endpoint"], Address),
            (otlp!("PROTOCOL"), &["protocol"], Text),
            (otlp!("COMPRESSION"), &["compression"], Text),
            (otlp!("HEADERS"), &["headers"], Headers),
            (otlp!("TIMEOUT"), &["timeout"], Milliseconds),
            (otlp!("CERTIFICATE"), &["tls", "ca_file"], Text),
            (otlp!("CLIENT_CERTIFICATE"), &["tls", "cert_file"], Text),
            (otlp!("CLIENT_KEY"), &["tls", "key_file"], Text),
        ],
    },
];

/// Adds the sinks that the environment defines, unless a sink is configured. Returns the variables that would create one but are unused.
pub(super) fn add_sinks(
    layers: &mut Layers<'_>,
    ourselves: &Ourselves,
    environment: &Environment,
) -> Vec<&'static str> {
    let set = ROWS.iter().filter_map(|row| Some((row, first(row.signs, environment)?.0)));
    if layers.name_a_sink() {
        let is_used = |sign: &&str| layers.referenced.iter().any(|(_, text)| text.contains(sign));
        return set.map(|(_, sign)| sign).filter(|sign| !is_used(sign)).collect();
    }
    for (row, sign) in set {
        row.add(sign, layers, ourselves, environment);
    }
    Vec::new()
}

impl Row {
    /// Adds the sink to the configuration, or reports why it cannot.
    fn add(
        &self,
        sign: &str,
        layers: &mut Layers<'_>,
        ourselves: &Ourselves,
        environment: &Environment,
    ) {
        let mut source =
            |name: &str| layers.sources.add(SourceKind::Variable, name, name.to_owned().into());
        let at = source(sign);
        let said: Vec<_> = (self.options.iter())
            .filter_map(|(names, option, form)| {
                let (name, text) = first(names, environment)?;
                Some((*option, form, text.trim(), source(name)))
            })
            .collect();
        let is_missing = |name: &&&str| environment.variable(name).is_none();
        if let Some(missing) = self.needs.iter().find(is_missing) {
            let what = format!("{sign} is set, but {missing} is not");
            let hint = "set both or none, or name the sinks in a file";
            return layers.problems.push(Problem::new(Some(at), what, hint));
        }
        for (_, form, text, at) in &said {
            let Some(option) = form.leads_to(text, ourselves, environment) else { continue };
            let hint =
                "it is meant for apps; to send traces on from here, configure a sink in a file";
            let what =
                format!("it says where this daemon listens (`{option}`), so it creates no sink");
            return layers.warnings.push(Problem::new(Some(at.clone()), what, hint));
        }
        let kind = DeValue::String(self.kind.into());
        layers.set(Wins::Old, &["sinks", self.kind, "type"], &at, kind);
        for (option, form, text, at) in said {
            layers.referenced.push((text.to_owned(), "the value".to_owned()));
            match form.value(text, &at, environment) {
                Ok(value) => {
                    let path = [&["sinks", self.kind], option].concat();
                    layers.set(Wins::Old, &path, &at, value);
                }
                Err(what) => layers.problems.push(Problem::new(Some(at), what, "")),
            }
        }
    }
}

impl Form {
    /// Returns the receiver of this daemon that one of its addresses leads to.
    fn leads_to<'o>(
        self,
        text: &str,
        ourselves: &'o Ourselves,
        environment: &Environment,
    ) -> Option<&'o str> {
        let is_address = matches!(self, Address | List);
        parts(text).filter(|_| is_address).find_map(|address| {
            let (option, _) = ourselves.reached_by(&with_scheme(address, environment))?;
            Some(option.as_str())
        })
    }

    /// Converts the text to the option's value, or returns what is wrong with it.
    fn value(
        self,
        text: &str,
        at: &Range<usize>,
        environment: &Environment,
    ) -> Result<DeValue<'static>, &'static str> {
        let string = |text: String| DeValue::String(text.into());
        match self {
            Text => Ok(string(text.to_owned())),
            Address => Ok(string(with_scheme(text, environment))),
            List => {
                let part = |part: &str| Spanned::new(at.clone(), string(part.to_owned()));
                Ok(DeValue::Array(parts(text).map(part).collect()))
            }
            // The specification's format: W3C Baggage without properties.
            Headers => {
                let decoded =
                    |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
                let header = |part: &str| {
                    let (name, value) = part.split_once('=')?;
                    let name = decoded(name).to_ascii_lowercase().into();
                    let value = string(decoded(value));
                    Some((Spanned::new(at.clone(), name), Spanned::new(at.clone(), value)))
                };
                let table = parts(text).map(header).collect::<Option<DeTable<'_>>>();
                table.map(DeValue::Table).ok_or("not a list of headers: name=value,name=value")
            }
            Milliseconds => match text.parse::<u64>() {
                Ok(count) => Ok(string(format!("{count}ms"))),
                Err(_) => Err("not a number of milliseconds"),
            },
        }
    }
}

fn first<'e>(
    names: &'static [&'static str],
    environment: &'e Environment,
) -> Option<(&'static str, &'e str)> {
    names.iter().find_map(|name| Some((*name, environment.variable(name)?)))
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Adds the scheme to an address. Over gRPC it may be a host and a port; another variable then decides between HTTP and HTTPS.
fn with_scheme(text: &str, environment: &Environment) -> String {
    let is = |names, value| {
        first(names, environment).is_some_and(|(_, said)| said.eq_ignore_ascii_case(value))
    };
    if text.contains("://") || !is(otlp!("PROTOCOL"), "grpc") {
        return text.to_owned();
    }
    let scheme = if is(otlp!("INSECURE"), "true") { "http" } else { "https" };
    format!("{scheme}://{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the sinks that variables create in an empty configuration, and the mistakes.
    fn applied(kind: &str, variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let environment = Environment::with(variables.iter().copied());
        let mut layers = Layers::default();
        let ourselves = Ourselves::of(&layers, &environment);
        add_sinks(&mut layers, &ourselves, &environment);
        let options = layers.entries(&["sinks", kind]).map(|(key, value)| {
            let texts = match value.get_ref() {
                DeValue::Array(elements) => elements.iter().collect(),
                _ => vec![value],
            };
            let texts: Vec<_> = texts.iter().filter_map(|text| text.get_ref().as_str()).collect();
            format!("{} = {}", key.get_ref(), texts.join(" | "))
        });
        let problems = layers.problems.iter().chain(&layers.warnings);
        (options.collect(), problems.map(|problem| problem.what.clone()).collect())
    }

    #[test]
    fn langfuse_needs_both_keys_and_knows_the_old_name_of_its_address() {
        let keys = [("LANGFUSE_PUBLIC_KEY", "pk"), ("LANGFUSE_SECRET_KEY", "sk")];
        let options = ["type = langfuse", "public_key = pk", "secret_key = sk"].map(str::to_owned);
        assert_eq!(applied("langfuse", &keys), (options.to_vec(), vec![]));
        let [public, secret] = keys;
        let host = ("LANGFUSE_HOST", "https://host.example.com");
        let base = ("LANGFUSE_BASE_URL", "https://base.example.com");
        let address = |variables: &[_]| applied("langfuse", variables).0.pop().unwrap();
        assert_eq!(address(&[public, secret, host]), "base_url = https://host.example.com");
        assert_eq!(address(&[public, secret, host, base]), "base_url = https://base.example.com");
        assert_eq!(applied("langfuse", &[host, base]), (vec![], vec![]));
        for (set, missing) in [(public, secret), (secret, public)] {
            let what = format!("{} is set, but {} is not", set.0, missing.0);
            assert_eq!(applied("langfuse", &[set, host]), (vec![], vec![what]));
        }
    }

    #[test]
    fn elasticsearch_takes_several_addresses() {
        let url = ("ELASTICSEARCH_URL", "http://a:9200, http://b:9200,");
        let options = ["type = elasticsearch", "endpoints = http://a:9200 | http://b:9200"];
        assert_eq!(applied("elasticsearch", &[url]), (options.map(str::to_owned).to_vec(), vec![]));
        let key = ("ELASTICSEARCH_API_KEY", "key");
        assert!(applied("elasticsearch", &[url, key]).0.contains(&"api_key = key".to_owned()));
        assert_eq!(applied("elasticsearch", &[key]), (vec![], vec![]));
        let ours = ("ELASTICSEARCH_URL", "http://a:9200,http://localhost:4318");
        let (options, problems) = applied("elasticsearch", &[ours]);
        assert_eq!((options.len(), problems.len()), (0, 1));
    }
}
