//! `import`: what was kept goes through the doors of a running daemon once more.
//!
//! ```text
//! sources -> pieces -> formats -> batches  |  posts -> state
//! files      lines     requests   1 MiB    |  the daemon's answers, --resume, --rejects
//!            a thread of its own              this one
//! ```
//!
//! * Sources and batches keep their order, and with `--concurrency 1` so do the daemon's answers. At most twice so many batches as
//!   are under way are in memory, and one piece.
//! * `--resume FILE` is written after each batch in order, once the daemon acknowledged it. After a kill at most the batches that were
//!   under way are sent again; they are the same items, which the daemon recognises as resends (`feed/dedup.rs`) while it remembers them.
//! * What cannot be read is set aside by itself; nothing of it stops the rest.
//! * An imported span arrives now: its times and ids are what they were, `received_at` is new. A trace object of the Agents SDK has no
//!   time, so `--from` and `--to` let it pass.
#![expect(
    clippy::disallowed_types,
    reason = "it reads what an operator names, and notes how far it is"
)]

mod batches;
mod formats;
mod lines;
mod pieces;
mod posts;
mod rejects;
mod sources;
mod state;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;
use futures_util::{StreamExt as _, stream};
use serde::Serialize;
use tokio::sync::mpsc;

use self::batches::{Batch, Window};
use self::posts::{Daemon, Stopped};
use self::rejects::SetAside;
use self::sources::Source;
use self::state::{Progress, State};
use super::client::{TrustArguments, reachable};
use super::output::{explain, harmless, say, say_json};
use super::run::block_on;
use super::{ConfigArguments, Ended, Shell};
use crate::support::moment::{self, NotATime};
use crate::support::{clock, duration};

/// How often it says how far it is.
const TELL_EVERY: Duration = Duration::from_secs(5);
/// So many of what was set aside are said one by one.
const SAID_MAX: u64 = 20;

#[derive(Debug, Args)]
pub(super) struct ImportArguments {
    #[command(flatten)]
    config: ConfigArguments,
    /// Files, folders, patterns (`'traces-*.jsonl.zst'`), or `-` for the standard input; plain, gzip or zstd. What they hold is
    /// seen from their content
    #[arg(required = true, value_name = "FILE")]
    sources: Vec<String>,
    /// Where the daemon takes requests over HTTP, without a path [default: the address of the configuration]
    #[arg(long, value_name = "URL")]
    endpoint: Option<String>,
    /// The key to send; needed where the receivers ask for one
    #[arg(long, default_value = "local", value_name = "KEY", hide_default_value = true)]
    token: String,
    #[command(flatten)]
    trust: TrustArguments,
    /// Only spans that started at this time or later: RFC 3339, a date, or a length of time ago
    #[arg(long, value_name = "TIME", value_parser = time)]
    from: Option<u64>,
    /// Only spans that started before this time
    #[arg(long, value_name = "TIME", value_parser = time)]
    to: Option<u64>,
    /// Keep in this file how far it is, and go on from there if it is there
    #[arg(long, value_name = "FILE")]
    resume: Option<PathBuf>,
    /// Append to this file what cannot be read or is refused, with the reason; such a file can be imported again
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// Requests under way at once; with more than one the order of spans is not kept
    #[arg(long, default_value = "1", value_name = "1-4", value_parser = clap::value_parser!(u8).range(1..=4))]
    concurrency: u8,
    /// How long to wait for a daemon that does not answer or has no room
    #[arg(long, default_value = "5m", value_name = "TIME")]
    give_up_after: duration::Duration,
    /// The sums as JSON
    #[arg(long)]
    json: bool,
}

fn time(text: &str) -> Result<u64, NotATime> {
    moment::read(text, clock::unix_now_ns())
}

/// What became of what was read.
#[derive(Debug, Default, Serialize)]
struct Sums {
    /// Sources that were read to their end.
    sources: u64,
    /// Spans and trace objects that the daemon acknowledged; resends too, which it does not deliver again.
    accepted: u64,
    /// Items that it has in its quarantine.
    quarantined: u64,
    /// Spans that started outside of `--from` and `--to`.
    outside: u64,
    /// Lines, messages, requests and items that could not be read or were refused.
    set_aside: u64,
}

/// An import under way.
struct Import<'a> {
    arguments: &'a ImportArguments,
    state: State,
    rejects: Option<File>,
    sums: Sums,
}

/// Sends all of it. Succeeds when everything was acknowledged.
pub(super) fn import(arguments: &ImportArguments, shell: Shell<'_>) -> Ended {
    let output = shell.output;
    let fail = |what: String| output.fail(&what, None);
    let url = if let Some(url) = &arguments.endpoint {
        url.clone()
    } else {
        let receivers = shell.load(&arguments.config)?.config.receivers;
        reachable(&receivers.http, receivers.tls.is_some())
    };
    let window =
        Window { from_ns: arguments.from.unwrap_or(0), to_ns: arguments.to.unwrap_or(u64::MAX) };
    let sources = sources::find(&arguments.sources).map_err(fail)?;
    let asked = format!("to {url}, {window}");
    let state = arguments.resume.as_deref().map(|file| {
        State::load(file, &asked).map_err(|error| fail(format!("{}: {error}", file.display())))
    });
    let rejects = arguments.rejects.as_deref().map(|file| {
        let opened = File::options().create(true).append(true).open(file);
        opened.map_err(|error| fail(format!("{}: {error}", file.display())))
    });
    let state = state.transpose()?.unwrap_or_default();
    let mut import =
        Import { arguments, state, rejects: rejects.transpose()?, sums: Sums::default() };
    let (token, trust) = (&*arguments.token, &arguments.trust);
    let daemon = Daemon { url, token, trust, give_up_after: arguments.give_up_after.0 };
    let ended = block_on(import.run(sources, window, &daemon), output)?;
    import.sums.say(arguments.json);
    match ended {
        Ok(()) if import.sums.set_aside + import.sums.quarantined == 0 => Ok(()),
        Ok(()) => Err(ExitCode::FAILURE),
        Err(Stopped(problem)) => {
            let hint = if arguments.resume.is_some() {
                "what was acknowledged is noted: the same command goes on behind it"
            } else {
                "all of it is read again by a further run; with --resume FILE it would go on"
            };
            Err(output.fail(&problem, Some(hint)))
        }
    }
}

impl Import<'_> {
    /// Reads in a thread of its own, because a read may block for long, and sends here.
    async fn run(
        &mut self,
        sources: Vec<Source>,
        window: Window,
        daemon: &Daemon<'_>,
    ) -> Result<(), Stopped> {
        let under_way = usize::from(self.arguments.concurrency);
        let (sender, mut read) = mpsc::channel(under_way);
        let earlier = self.state.clone();
        thread::spawn(move || {
            batches::read(sources, &earlier, window, |batch| sender.blocking_send(batch).is_ok());
        });
        let batches = stream::poll_fn(|context| read.poll_recv(context));
        let mut answers = batches.map(|batch| daemon.take(batch)).buffered(under_way);
        let mut told = Instant::now();
        while let Some(taken) = answers.next().await {
            let batch = taken?;
            if TELL_EVERY < told.elapsed() {
                told = Instant::now();
                let (accepted, source) = (self.sums.accepted, harmless(&batch.source));
                explain(&format!(
                    "{accepted} items accepted; {source} read up to {}\n",
                    batch.done
                ));
            }
            let settled = self.settle(batch);
            settled.map_err(|error| Stopped(format!("how far it is cannot be noted: {error}")))?;
        }
        Ok(())
    }

    /// A batch is done with: first what was set aside is kept, then how far it is.
    fn settle(&mut self, batch: Batch) -> io::Result<()> {
        for set_aside in &batch.set_aside {
            self.keep(set_aside)?;
        }
        self.sums.sources += u64::from(batch.is_end);
        self.sums.accepted += batch.accepted;
        self.sums.quarantined += batch.quarantined;
        self.sums.outside += batch.outside;
        let progress = self.state.sources.entry(batch.source).or_default();
        let accepted = if batch.done == 0 { 0 } else { progress.accepted + batch.accepted };
        *progress = Progress { mark: batch.mark, done: batch.done, accepted };
        self.arguments.resume.as_deref().map_or(Ok(()), |file| self.state.save(file))
    }

    fn keep(&mut self, set_aside: &SetAside) -> io::Result<()> {
        self.sums.set_aside += 1;
        if self.sums.set_aside <= SAID_MAX {
            let said = format!("set aside: {}: {}\n", set_aside.place, set_aside.reason);
            explain(&harmless(&said));
        }
        match &mut self.rejects {
            Some(file) => file.write_all(rejects::rejected(set_aside).as_bytes()),
            None => Ok(()),
        }
    }
}

impl Sums {
    fn say(&self, as_json: bool) {
        if as_json {
            return say_json(&serde_json::json!(self));
        }
        let Self { sources, accepted, quarantined, outside, set_aside } = self;
        say(&format!(
            "{sources} read to the end: {accepted} items accepted, {quarantined} in the daemon's quarantine, {outside} outside of the \
             time, {set_aside} set aside\n"
        ));
    }
}
