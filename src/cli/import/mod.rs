//! `import`: sends stored data to the receivers of a running daemon again.
//!
//! ```text
//! sources -> pieces -> formats -> batches  |  posts
//! files      lines     requests   1 MiB    |  the daemon's answers, --resume, --rejects
//! stores     rows                          |
//!            a dedicated thread               this one
//! ```
//!
//! * Sources and batches keep their order. At most three batches and one piece are in memory.
//! * `--resume FILE` is written after each batch, once the daemon has acknowledged it. After a kill, at most one batch is sent again, with
//!   the same items, which the daemon recognises as resends (`feed/dedup.rs`) while it remembers them.
//! * Invalid data is rejected by itself and does not affect the rest.
//! * Partitions by hour are not read if they cannot contain anything of the requested time.
//! * For one sink, requests name it in a header, and the rules of the other sinks drop them (`rules/mod.rs`).
//! * An imported span arrives now: its times and ids are unchanged, `received_at` is new. Trace objects of the Agents SDK have no time, so
//!   `--from` and `--to` do not filter them.
#![expect(
    clippy::disallowed_types,
    reason = "it reads what an operator names, and notes how far it is"
)]

mod batches;
mod formats;
mod langfuse;
mod pieces;
mod posts;
mod sources;
mod stores;
#[cfg(test)]
mod langfuse_tests;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write as _};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::sync::mpsc;

use self::batches::Batch;
pub(super) use self::formats::of_piece;
use self::pieces::Pieces;
use self::sources::{Progress, Source, State};
use super::client::TrustArguments;
use super::output::{explain, harmless, say, say_json};
use super::run::block_on;
use super::{ConfigArguments, Ended, Shell};
use crate::config::Config;
use crate::support::moment::{self, NotATime};
use crate::support::options::did_you_mean;
use crate::support::{clock, duration, rfc3339};

/// The interval between progress messages.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// How many rejects are printed one by one.
const SAID_MAX: u64 = 20;

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Files, folders, patterns (`'traces-*.jsonl.zst'`), objects of a store (`s3://bucket/prefix`, `gs://`, `az://`), or `-` for the
    /// standard input; plain, gzip or zstd. What they hold is seen from their content. A bucket that a sink of the configuration writes
    /// to is read as that sink reaches it, any other with the environment's `AWS_...`, `GOOGLE_...` or `AZURE_...`
    #[arg(required = true, value_name = "FILE")]
    sources: Vec<String>,
    /// The daemon's HTTP receiver, without a path [default: the address in the configuration]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The key to send, if the receivers require one
    #[arg(long, default_value = "local", value_name = "KEY", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    trust: TrustArguments,
    /// Deliver to this sink only; it must be in the configuration
    #[arg(long, value_name = "NAME")]
    sink: Option<String>,
    /// Only spans that started at this time or later: RFC 3339, a date, or a length of time ago. What is in a partition
    /// (`dt=.../hour=...`) an hour before it or a day behind `--to` is not read
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Only spans that started before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// Save progress in this file, and continue from it if it exists
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Append what cannot be read or is refused to this file, with the reason; the file can be imported later
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// How long to wait for a daemon or store that does not answer or is full
    #[arg(long, default_value = "5m", value_name = "TIME")]
    give_up_after: duration::Duration,
    /// Print the totals as JSON
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<u64, NotATime> {
    moment::read(text, clock::unix_now_ns())
}

/// The totals of an import.
#[derive(Debug, Default, Serialize)]
struct Sums {
    /// Sources that were read completely.
    sources: u64,
    /// Sources whose partitions are outside of the requested time.
    left_out: u64,
    /// Spans and trace objects that the daemon acknowledged, including resends, which it does not deliver again.
    accepted: u64,
    /// Items that are in the daemon's quarantine.
    quarantined: u64,
    /// Spans that started outside of `--from` and `--to`.
    outside: u64,
    /// Lines, messages, requests and items that were invalid or refused.
    set_aside: u64,
}

/// A running import.
struct Import<'a> {
    arguments: &'a ImportArguments,
    /// The daemon's address, without a path.
    url: String,
    state: State,
    rejects: Option<File>,
    sums: Sums,
}

/// Runs the import. Succeeds if everything was acknowledged.
pub(super) fn import(arguments: &ImportArguments, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let fail = |what: String| output.fail(&what, None);
    let sink = arguments.sink.as_deref();
    let is_remote = arguments.sources.iter().any(|source| source.contains("://"));
    let needs_config = arguments.endpoint.is_none() || sink.is_some() || is_remote;
    let loaded = needs_config.then(|| shell.load(&arguments.config)).transpose()?;
    let Config { receivers, sinks, .. } = loaded.map(|loaded| loaded.config).unwrap_or_default();
    let own = receivers.http.url(receivers.tls.is_some());
    let url = arguments.endpoint.clone().unwrap_or(own);
    let names: Vec<&str> = sinks.iter().map(|sink| sink.name.as_str()).collect();
    if let Some(sink) = sink.filter(|sink| !names.contains(sink)) {
        let what = format!("there is no sink {sink} in the configuration");
        return Err(output.fail(&what, did_you_mean(sink, &names).as_deref()));
    }
    let window = arguments.from.unwrap_or(0)..arguments.to.unwrap_or(u64::MAX);
    let (from, to) = (rfc3339::text(window.start), rfc3339::text(window.end));
    let asked = format!("to {url}, from {from} to {to}");
    let asked = sink.map_or(asked.clone(), |sink| format!("{asked}, for the sink {sink}"));
    let of_file = |file: &Path, error: io::Error| fail(format!("{}: {error}", file.display()));
    let load = |file| State::load(file, &asked).map_err(|error| of_file(file, error));
    let state = arguments.resume.as_deref().map(load).transpose()?.unwrap_or_default();
    let open = |file: &Path| File::options().create(true).append(true).open(file);
    let open = |file| open(file).map_err(|error| of_file(file, error));
    let rejects = arguments.rejects.as_deref().map(open).transpose()?;
    let mut import = Import { arguments, url, state, rejects, sums: Sums::default() };
    let give_up_after = arguments.give_up_after.0;
    let importing = async {
        let sources = stores::find(&arguments.sources, &sinks, give_up_after).await;
        let sources = sources.map_err(fail)?;
        Ok::<_, ExitCode>(import.run(sources, window).await)
    };
    let ended = block_on(importing, output)??;
    let sums = import.sums;
    sums.say(arguments.json);
    match ended {
        Ok(()) if sums.set_aside + sums.quarantined == 0 => Ok(()),
        Ok(()) => Err(ExitCode::FAILURE),
        Err(problem) => {
            let hint = if arguments.resume.is_some() {
                "run the same command again: it continues from the progress that was saved last"
            } else {
                "another run starts from the beginning; with --resume FILE it would continue"
            };
            Err(output.fail(&problem, Some(hint)))
        }
    }
}

/// Returns the pieces of a file.
pub(super) fn pieces_of(file: &Path) -> io::Result<Pieces> {
    Ok(Source::of_file(file.to_owned()).open(&Progress::default())?.0)
}

impl Import<'_> {
    /// Reads in a dedicated thread, because a read may block for long, and sends in this one.
    async fn run(&mut self, mut sources: Vec<Source>, window: Range<u64>) -> Result<(), String> {
        let found = sources.len();
        sources.retain(|source| sources::may_be_of(&window, &source.name));
        self.sums.left_out = (found - sources.len()) as u64;
        let (sender, mut read) = mpsc::channel(1);
        let earlier = self.state.sources.clone();
        thread::spawn(move || {
            sources.into_iter().try_for_each(|source| {
                let before = earlier.get(&source.name).cloned().unwrap_or_default();
                batches::read(source, before, &window, |batch| sender.blocking_send(batch).ok())
            })
        });
        let mut told = Instant::now();
        while let Some(mut batch) = read.recv().await {
            self.take(&mut batch).await?;
            if TELL_EVERY < told.elapsed() {
                told = Instant::now();
                let (accepted, source) = (self.sums.accepted, harmless(&batch.source));
                let done = batch.progress.done;
                explain(&format!("{accepted} items accepted; {source} read up to {done}\n"));
            }
            let settled = self.settle(batch);
            settled.map_err(|error| format!("progress cannot be saved: {error}"))?;
        }
        Ok(())
    }

    /// Finishes a batch: stores first the rejects, then the progress.
    fn settle(&mut self, batch: Batch) -> io::Result<()> {
        for set_aside in &batch.set_aside {
            self.sums.set_aside += 1;
            if self.sums.set_aside <= SAID_MAX {
                let said = format!("set aside: {}: {}\n", set_aside.place, set_aside.reason);
                explain(&harmless(&said));
            }
            let line = set_aside.line();
            self.rejects.iter_mut().try_for_each(|file| file.write_all(line.as_bytes()))?;
        }
        self.sums.sources += u64::from(batch.is_end);
        self.sums.outside += batch.outside;
        self.state.sources.insert(batch.source, batch.progress);
        self.arguments.resume.as_deref().map_or(Ok(()), |file| self.state.save(file))
    }
}

impl Sums {
    fn say(&self, as_json: bool) {
        if as_json {
            return say_json(&serde_json::json!(self));
        }
        let Self { sources, left_out, accepted, quarantined, outside, set_aside } = self;
        let left_out = match left_out {
            0 => String::new(),
            count => format!(", {count} skipped by partition"),
        };
        say(&format!(
            "{sources} read to the end{left_out}: {accepted} items accepted, {quarantined} in the daemon's quarantine, {outside} outside \
             of the time, {set_aside} set aside\n"
        ));
    }
}
