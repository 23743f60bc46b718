//! Finds the sources of an import: files, the standard input, and objects of stores, which are read here as byte streams.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::sources::{Source, files};
use crate::cli::output::explain;
use crate::config::SinkConfig;
use crate::sinks::Pace;
use crate::sinks::object_store::{Object, Options};
use crate::support::backoff::Backoff;

const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// Returns the sources of the arguments, by name if one argument has several. Buckets of these sinks are read with the sinks' options, others
/// with the environment's.
pub(super) async fn find(
    given: &[String],
    sinks: &[SinkConfig],
    give_up_after: Duration,
) -> Result<Vec<Source>, String> {
    let mut found = Vec::new();
    for argument in given {
        match argument.strip_prefix("file://").unwrap_or(argument) {
            "-" => found.push(Source::new("-".to_owned(), None, || Ok(Box::new(io::stdin())))),
            url if url.contains("://") => {
                let mut configured = sinks.iter().filter_map(|sink| sink.plan.objects());
                let options = configured.find_map(|options| options.at(url));
                found.extend(objects(url, options, give_up_after).await?);
            }
            path => found.extend(files(path)?),
        }
    }
    Ok(found)
}

async fn objects(
    url: &str,
    options: Option<Options>,
    give_up_after: Duration,
) -> Result<impl Iterator<Item = Source>, String> {
    let options = options.map_or_else(|| Options::of_url(url), Ok);
    let options = options.map_err(|error| format!("{url}: {error}"))?;
    let found = patiently(give_up_after, async || options.list().await).await?;
    if found.is_empty() {
        return Err(format!("{url}: there is no such object"));
    }
    let runtime = Handle::current();
    Ok(found.into_iter().map(move |object| {
        let (name, e_tag) = (object.url.clone(), object.meta.e_tag.clone());
        let (at, ahead, runtime) = (0, Bytes::new(), runtime.clone());
        let download = Download { object, at, ahead, runtime, give_up_after };
        Source::new(name, e_tag, || Ok(Box::new(download)))
    }))
}

/// Reads an object. It blocks, so it belongs on a thread that may.
struct Download {
    object: Object,
    at: u64,
    ahead: Bytes,
    runtime: Handle,
    give_up_after: Duration,
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() && self.at < self.object.meta.size {
            let next = async || self.object.read(self.at).await;
            let next = self.runtime.block_on(patiently(self.give_up_after, next));
            self.ahead = next.map_err(io::Error::other)?;
            self.at += self.ahead.len() as u64;
        }
        let read = self.ahead.as_ref().read(out)?;
        self.ahead.advance(read);
        Ok(read)
    }
}

/// Retries until success, at most for the given time. Returns an error that waiting cannot solve immediately, any other at the end.
pub(super) async fn patiently<T>(
    give_up_after: Duration,
    attempt: impl AsyncFn() -> Result<T, Pace>,
) -> Result<T, String> {
    let (began, mut backoff) = (Instant::now(), Backoff::new(FIRST_WAIT, LONGEST_WAIT));
    let mut is_said = false;
    loop {
        let (said, wanted) = match attempt().await {
            Ok(done) => return Ok(done),
            Err(Pace::Hold { reason }) => return Err(reason),
            Err(Pace::Slow { after, reason } | Pace::Down { after, reason }) => (reason, after),
            Err(Pace::Go | Pace::Checkpoint) => (String::new(), None),
        };
        let wait = wanted.unwrap_or_default().max(backoff.next_wait());
        if give_up_after < began.elapsed() + wait {
            return Err(said);
        }
        if !std::mem::replace(&mut is_said, true) {
            explain(&format!("waiting: {said}\n"));
        }
        tokio::time::sleep(wait).await;
    }
}
