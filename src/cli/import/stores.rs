//! Finds the sources of an import: files, the standard input, and objects of stores, which are read here as byte streams.

use std::io::{self, Read};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::patience::patiently;
use super::sources::{Source, files};
use crate::config::SinkConfig;
use crate::sinks::object_store::{Object, Objects, Options};

/// The access to stores.
pub(super) struct Stores<'a> {
    /// Sinks whose options are used to read from their buckets; other buckets use the environment.
    pub(super) sinks: &'a [SinkConfig],
    pub(super) give_up_after: Duration,
}

impl Stores<'_> {
    /// Returns the sources of the arguments, by name if one argument has several.
    pub(super) async fn find(&self, given: &[String]) -> Result<Vec<Source>, String> {
        let mut found = Vec::new();
        for argument in given {
            match argument.strip_prefix("file://").unwrap_or(argument) {
                "-" => found.push(Source::new("-".to_owned(), || Ok(Box::new(io::stdin())))),
                url if url.contains("://") => found.extend(self.objects(url).await?),
                path => found.extend(files(path)?),
            }
        }
        Ok(found)
    }

    async fn objects(&self, url: &str) -> Result<Vec<Source>, String> {
        let mut configured = self.sinks.iter().filter_map(|sink| sink.plan.objects());
        let options = configured.find_map(|options| options.at(url));
        let options = options.map_or_else(|| Options::of_url(url), Ok);
        let store = options.and_then(|options| Objects::of(&options));
        let store = store.map_err(|error| format!("{url}: {error}"))?;
        let found = patiently(self.give_up_after, async || store.list().await).await?;
        if found.is_empty() {
            return Err(format!("{url}: there is no such object"));
        }
        let (runtime, give_up_after) = (Handle::current(), self.give_up_after);
        let source = |object: Object| {
            let (name, e_tag, runtime) =
                (object.url.clone(), object.e_tag.clone(), runtime.clone());
            let download = Download { object, at: 0, ahead: Bytes::new(), runtime, give_up_after };
            let mut source = Source::new(name, || Ok(Box::new(download)));
            source.e_tag = e_tag;
            source
        };
        Ok(found.into_iter().map(source).collect())
    }
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
        if self.ahead.is_empty() && self.at < self.object.size {
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
