//! Sinks that the standard environment variables of SDKs and clients make, where nobody names a sink.
//!
//! | set | sink | read for it as well |
//! |---|---|---|
//! | `LANGFUSE_PUBLIC_KEY` and `LANGFUSE_SECRET_KEY` | `langfuse` | `LANGFUSE_BASE_URL`, else `LANGFUSE_HOST` |
//! | `ELASTICSEARCH_URL`, one or several with commas | `elasticsearch` | `ELASTICSEARCH_API_KEY` |
//! | `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` | `otlp` | `_HEADERS`, `_PROTOCOL`, `_COMPRESSION`, `_TIMEOUT`, `_CERTIFICATE`, `_CLIENT_CERTIFICATE`, `_CLIENT_KEY`, `_INSECURE`, each with `TRACES_` before it or without |
//!
//! **A configuration that names a sink is the whole truth.** As in the OpenTelemetry Collector and in Vector, these variables then
//! add nothing, and what is wanted of them is brought in as `${NAME}`; the start says which of them are set and not used. Without a
//! file, or with one that names no sink, they take the place of the default sink: traces go where the variables say and nowhere
//! else. `SPANFERRY__SINKS__OTLP__BATCH__ITEMS_MAX` and its like still set options of such a sink.
//!
//! An address of our own is not sent to: in a sidecar, `OTEL_EXPORTER_OTLP_ENDPOINT` often says to apps where we are. That is a
//! warning and makes no sink.
//!
//! <https://opentelemetry.io/docs/specs/otel/protocol/exporter/>. Other than there, an empty protocol means protobuf over HTTP and an
//! empty compression gzip, as for every OTLP sink.

use percent_encoding::percent_decode_str;
use toml::Spanned;
use toml::de::{DeArray, DeTable, DeValue};

use super::environment::Environment;
use super::layers::Layers;
use super::ourselves::Ourselves;
use super::sources::{SourceKind, Sources};
use crate::sinks::KINDS;
use crate::support::problem::Problem;

/// A sink that variables make.
#[derive(Debug)]
struct Row {
    /// Its kind, which is its name too.
    kind: &'static str,
    /// Any of these makes it.
    signs: &'static [&'static str],
    /// If one of these is not set then, that is a mistake.
    needs: &'static [&'static str],
    /// What is read for it.
    variables: &'static [Variable],
}

/// What sets an option.
#[derive(Debug)]
struct Variable {
    /// The first of these that is set.
    names: &'static [&'static str],
    /// The keys that lead to the option from the sink's table.
    option: &'static [&'static str],
    form: Form,
}

/// How a variable's text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As it is.
    Text,
    /// Texts with commas between them.
    List,
    /// `name=value` with commas between them, percent-encoded.
    Headers,
    /// A number of milliseconds.
    Milliseconds,
    /// An address, which over gRPC may lack its scheme.
    Address,
}

static ROWS: &[Row] = &[
    // The order of the addresses is that of Langfuse's own SDKs.
    Row {
        kind: "langfuse",
        signs: &["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"],
        needs: &["LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"],
        variables: &[
            text(&["LANGFUSE_PUBLIC_KEY"], &["public_key"]),
            text(&["LANGFUSE_SECRET_KEY"], &["secret_key"]),
            text(&["LANGFUSE_BASE_URL", "LANGFUSE_HOST"], &["base_url"]),
        ],
    },
    Row {
        kind: "elasticsearch",
        signs: &["ELASTICSEARCH_URL"],
        needs: &[],
        variables: &[
            Variable { names: &["ELASTICSEARCH_URL"], option: &["endpoints"], form: Form::List },
            text(&["ELASTICSEARCH_API_KEY"], &["api_key"]),
        ],
    },
    Row {
        kind: "otlp",
        signs: &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"],
        needs: &[],
        variables: &[
            Variable {
                names: &["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"],
                option: &["traces_endpoint"],
                form: Form::Address,
            },
            Variable {
                names: &["OTEL_EXPORTER_OTLP_ENDPOINT"],
                option: &["endpoint"],
                form: Form::Address,
            },
            text(PROTOCOL, &["protocol"]),
            text(
                &["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
                &["compression"],
            ),
            Variable {
                names: &["OTEL_EXPORTER_OTLP_TRACES_HEADERS", "OTEL_EXPORTER_OTLP_HEADERS"],
                option: &["headers"],
                form: Form::Headers,
            },
            Variable {
                names: &["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
                option: &["timeout"],
                form: Form::Milliseconds,
            },
            text(
                &["OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", "OTEL_EXPORTER_OTLP_CERTIFICATE"],
                &["tls", "ca_file"],
            ),
            text(
                &[
                    "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE",
                    "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE",
                ],
                &["tls", "cert_file"],
            ),
            text(
                &["OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "OTEL_EXPORTER_OTLP_CLIENT_KEY"],
                &["tls", "key_file"],
            ),
        ],
    },
];

const PROTOCOL: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"];
const INSECURE: &[&str] = &["OTEL_EXPORTER_OTLP_TRACES_INSECURE", "OTEL_EXPORTER_OTLP_INSECURE"];

const fn text(names: &'static [&'static str], option: &'static [&'static str]) -> Variable {
    Variable { names, option, form: Form::Text }
}

/// A sink that variables make.
#[derive(Debug)]
pub(super) struct StandardSink {
    row: &'static Row,
    /// The variable because of which it is there.
    pub(super) sign: &'static str,
    /// Where that lies among the sources.
    at: usize,
    said: Vec<Said>,
}

/// What one variable says.
#[derive(Debug)]
struct Said {
    option: &'static [&'static str],
    form: Form,
    text: String,
    /// Where the variable lies among the sources.
    at: usize,
}

/// The sinks of which variables speak, those of kinds that there are. The variables become sources.
pub(super) fn sinks(environment: &Environment, sources: &mut Sources) -> Vec<StandardSink> {
    let is_there = |row: &&Row| KINDS.iter().any(|kind| kind.name == row.kind);
    let rows = ROWS.iter().filter(is_there);
    rows.filter_map(|row| StandardSink::read(row, environment, sources)).collect()
}

impl StandardSink {
    fn read(row: &'static Row, environment: &Environment, sources: &mut Sources) -> Option<Self> {
        let (sign, _) = first(row.signs, environment)?;
        let mut add = |name: &str| sources.add(SourceKind::Variable, name, name.to_owned());
        let at = add(sign);
        let read = |variable: &Variable| {
            let (name, text) = first(variable.names, environment)?;
            let (form, option, text) = (variable.form, variable.option, text.trim().to_owned());
            Some(Said { option, form, text, at: add(name) })
        };
        let said = row.variables.iter().filter_map(read).collect();
        Some(Self { row, sign, at, said })
    }

    /// Puts the sink into the configuration, or says why not.
    pub(super) fn apply(
        &self,
        environment: &Environment,
        ourselves: &Ourselves,
        layers: &mut Layers<'_>,
    ) {
        let is_missing = |name: &&&str| environment.variable(name).is_none();
        if let Some(missing) = self.row.needs.iter().find(is_missing) {
            layers.problems.push(Problem {
                at: Some(self.at..self.at),
                what: format!("{} is set, but {missing} is not", self.sign),
                hint: Some("set both or none, or name the sinks in a file".to_owned()),
            });
            return;
        }
        let ours =
            self.said.iter().find_map(|said| Some((said, said.leads_to(ourselves, environment)?)));
        if let Some((said, option)) = ours {
            layers.warnings.push(Problem {
                at: Some(said.at..said.at),
                what: format!(
                    "it says where this daemon listens (`{option}`), so it makes no sink"
                ),
                hint: Some(
                    "right for apps; to send traces on from here, name a sink in a file".to_owned(),
                ),
            });
            return;
        }
        let kind = self.row.kind;
        layers.set_default(self.at, &["sinks", kind, "type"], DeValue::String(kind.into()));
        for said in &self.said {
            layers.referenced.push((said.text.clone(), "the value".to_owned()));
            match said.value(environment) {
                Ok(value) => {
                    let path: Vec<_> = ["sinks", kind].iter().chain(said.option).copied().collect();
                    layers.set_default(said.at, &path, value);
                }
                Err(what) => layers.problems.push(Problem {
                    at: Some(said.at..said.at),
                    what: what.to_owned(),
                    hint: None,
                }),
            }
        }
    }
}

impl Said {
    /// The receiver of ours that one of its addresses leads to.
    fn leads_to(&self, ourselves: &Ourselves, environment: &Environment) -> Option<&'static str> {
        let is_address = matches!(self.form, Form::Address | Form::List);
        let mut addresses = parts(&self.text).filter(|_| is_address);
        let leads_to = |address| ourselves.reached_by(&with_scheme(address, environment));
        let (option, _) = addresses.find_map(leads_to)?;
        Some(option)
    }

    /// What it comes to as the option's value, or what is wrong with it.
    fn value(&self, environment: &Environment) -> Result<DeValue<'static>, &'static str> {
        let text = self.text.as_str();
        let string = |text: &str| DeValue::String(text.to_owned().into());
        match self.form {
            Form::Text => Ok(string(text)),
            Form::Address => Ok(string(&with_scheme(text, environment))),
            Form::List => {
                let part = |part| Spanned::new(self.at..self.at, string(part));
                Ok(DeValue::Array(parts(text).map(part).collect::<DeArray<'static>>()))
            }
            Form::Headers => self.headers().ok_or("not a list of headers: name=value,name=value"),
            Form::Milliseconds => match text.parse::<u64>() {
                Ok(count) => Ok(string(&format!("{count}ms"))),
                Err(_) => Err("not a number of milliseconds"),
            },
        }
    }

    /// Headers as the specification writes them: W3C Baggage without its properties.
    fn headers(&self) -> Option<DeValue<'static>> {
        let mut table = DeTable::new();
        for part in parts(&self.text) {
            let (name, value) = part.split_once('=')?;
            let decoded =
                |text: &str| percent_decode_str(text.trim()).decode_utf8_lossy().into_owned();
            let (name, value) = (decoded(name).to_ascii_lowercase(), decoded(value));
            let value = Spanned::new(self.at..self.at, DeValue::String(value.into()));
            table.insert(Spanned::new(self.at..self.at, name.into()), value);
        }
        Some(DeValue::Table(table))
    }
}

/// The first of these variables that is set.
fn first<'e>(
    names: &'static [&'static str],
    environment: &'e Environment,
) -> Option<(&'static str, &'e str)> {
    names.iter().find_map(|name| Some((*name, environment.variable(name)?)))
}

/// What stands between commas.
fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// Over gRPC an address may be a host and a port; then another variable says whether it is to be secured.
fn with_scheme(text: &str, environment: &Environment) -> String {
    let is = |names, value| {
        first(names, environment).is_some_and(|(_, said)| said.eq_ignore_ascii_case(value))
    };
    if text.contains("://") || !is(PROTOCOL, "grpc") {
        return text.to_owned();
    }
    let scheme = if is(INSECURE, "true") { "http" } else { "https" };
    format!("{scheme}://{text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a row puts into an empty configuration, and what it says is wrong.
    fn applied(kind: &str, variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let row = ROWS.iter().find(|row| row.kind == kind).unwrap();
        let environment = Environment::with(variables.iter().copied());
        let mut sources = Sources::default();
        let sink = StandardSink::read(row, &environment, &mut sources);
        let mut layers = Layers::read(&sources, &[]);
        let ourselves = Ourselves::of(&layers, &environment);
        if let Some(sink) = sink {
            sink.apply(&environment, &ourselves, &mut layers);
        }
        let options = layers.value(&["sinks", kind]).and_then(|sink| sink.get_ref().as_table());
        let options = options.into_iter().flatten().map(|(key, value)| {
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
