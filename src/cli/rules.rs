//! `rules try`: shows what the rules of a configuration do to the spans of a file. Starts and sends nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Subcommand;
use serde_json::json;

use super::import::{of_piece, pieces_of};
use super::output::{explain, say, table};
use super::{ConfigArguments, Ended, Shell};
use crate::normalize::{self, Decoded};
use crate::rules::{Decided, Effect, KnownTraces, Rules, explained};
use crate::span::{Batch, Item};
use crate::support::options::did_you_mean;

#[derive(Debug, Subcommand)]
pub(super) enum RulesVerb {
    /// Show what each rule does to each span of a file: whatever can be imported, such as JSON lines and bodies of requests
    Try {
        #[command(flatten)]
        config: ConfigArguments,
        /// The file
        file: PathBuf,
        /// The sink whose rules are meant; without it, those for all sinks
        #[arg(long, value_name = "NAME")]
        sink: Option<String>,
        /// Answer as JSON, one line for each span
        #[arg(long)]
        json: bool,
    },
}

/// How often each rule had each effect, and how many items remain.
#[derive(Debug, Default)]
struct Totals {
    items: u64,
    dropped: u64,
    effects: BTreeMap<(String, Effect), u64>,
}

/// `rules`.
pub(super) fn run(verb: &RulesVerb, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let RulesVerb::Try { config, file, sink, json } = verb;
    let config = shell.load(config)?.config;
    let names: Vec<_> = config.sinks.iter().map(|sink| sink.name.as_str()).collect();
    if let Some(name) = sink.as_deref().filter(|name| !names.contains(name)) {
        let hint = did_you_mean(name, &names);
        return Err(output.fail("there is no sink with this name", hint.as_deref()));
    }
    let cannot_read =
        |error| output.fail(&format!("cannot read {}: {error}", file.display()), None);
    let mut pieces = pieces_of(file).map_err(cannot_read)?;
    // No mapping was installed in this process before.
    normalize::install(&config.attributes);
    let rules = config.rules_of(sink.as_deref());
    let (mut totals, mut ended) = (Totals::default(), Ok(()));
    let (mut batches, mut known) = (Vec::new(), Decided::default());
    while let Some(piece) = pieces.next().map_err(cannot_read)? {
        let problems = match of_piece(&piece) {
            Ok(Decoded { batch, refused, .. }) => {
                // The file is assumed to contain all spans of its traces.
                for (trace, marks) in rules.survey(&batch).traces {
                    let of_trace = known.traces.entry(trace).or_default();
                    *of_trace = of_trace.with(marks);
                }
                batches.push(Arc::new(batch));
                refused.into_iter().map(|refused| refused.reason.to_owned()).collect()
            }
            Err(problem) => vec![problem],
        };
        for problem in problems {
            let place = format!("{} {}", pieces.unit, piece.place);
            explain(&format!("{place} of the file is skipped: {problem}\n"));
            ended = Err(ExitCode::FAILURE);
        }
    }
    for batch in &batches {
        totals.try_batch((&rules, &known), batch, *json);
    }
    totals.say(*json);
    ended
}

impl Totals {
    fn try_batch(&mut self, (rules, known): (&Rules, &Decided), batch: &Arc<Batch>, as_json: bool) {
        let (_, steps) = rules.explain(batch, KnownTraces::Decided(known));
        for (item, steps) in batch.items.iter().zip(steps) {
            self.items += 1;
            let has = |wanted| steps.iter().any(|(_, effect)| *effect == wanted);
            self.dropped += u64::from(has(Effect::Dropped));
            let left = match () {
                () if has(Effect::Dropped) => "dropped",
                () if has(Effect::Changed) => "changed",
                () => "as it was",
            };
            let (what, id, name) = match item {
                Item::Span(span) => ("span", Some(span.span_id), span.facts().name.to_string()),
                Item::Trace(trace) => {
                    ("trace", None, trace.workflow.as_deref().unwrap_or("").into())
                }
            };
            let (trace, id) = (item.trace_id().to_string(), id.map(|id| id.to_string()));
            if as_json {
                let steps = steps
                    .iter()
                    .map(|(rule, effect)| json!({ "rule": rule, "effect": effect.as_str() }));
                let line = json!({
                    "record": what, "trace_id": trace, "span_id": id, "name": name,
                    "left": left, "rules": steps.collect::<Vec<_>>(),
                });
                say(&format!("{line}\n"));
            } else {
                let id = id.unwrap_or(trace);
                say(&format!("{what} {id} {name:?}: {left} ({})\n", explained(&steps)));
            }
            for (rule, effect) in steps {
                *self.effects.entry((rule.to_owned(), effect)).or_default() += 1;
            }
        }
    }

    fn say(&self, as_json: bool) {
        let Self { items, dropped, effects } = self;
        if as_json {
            let rules = effects.iter().map(|((rule, effect), count)| {
                json!({ "rule": rule, "effect": effect.as_str(), "items": count })
            });
            let rules: Vec<_> = rules.collect();
            say(&format!("{}\n", json!({ "items": items, "dropped": dropped, "rules": rules })));
            return;
        }
        say(&format!("\n{items} items: {dropped} dropped, {} left\n", items - dropped));
        let rows: Vec<_> = (effects.iter())
            .map(|((rule, effect), count)| {
                vec![rule.clone(), effect.as_str().to_owned(), count.to_string()]
            })
            .collect();
        if !rows.is_empty() {
            say(&table(&["rule", "effect", "items"], &rows));
        }
    }
}
