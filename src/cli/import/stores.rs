//! Objects of stores, as byte streams.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::runtime::Handle;

use super::patience::patiently;
use crate::config::SinkConfig;
use crate::sinks::object_store::{Object, Objects, Options};

/// How stores are reached.
pub(super) struct Stores<'a> {
    /// What one of these says of a bucket holds for reading from it; of any other the environment says it.
    pub(super) sinks: &'a [SinkConfig],
    pub(super) give_up_after: Duration,
}

impl Stores<'_> {
    /// What an address names, each object with what reads it.
    pub(super) async fn find(&self, url: &str) -> Result<Vec<(Object, Download)>, String> {
        let mut configured = self.sinks.iter().filter_map(|sink| sink.plan.objects());
        let options = configured.find_map(|options| options.at(url));
        let options = options.map_or_else(|| Options::of_url(url), Ok);
        let store = options.and_then(|options| Objects::of(&options));
        let store = store.map_err(|error| format!("{url}: {error}"))?;
        let found = patiently(self.give_up_after, async || store.list().await).await?;
        if found.is_empty() {
            return Err(format!("{url}: there is no such object"));
        }
        let (store, runtime) = (Arc::new(store), Handle::current());
        let download = |object: Object| Download {
            store: Arc::clone(&store),
            object,
            at: 0,
            ahead: Bytes::new(),
            runtime: runtime.clone(),
            give_up_after: self.give_up_after,
        };
        Ok(found.into_iter().map(|object| (object.clone(), download(object))).collect())
    }
}

/// An object, as it is read. It blocks, so it is for a thread that may.
pub(super) struct Download {
    store: Arc<Objects>,
    object: Object,
    at: u64,
    ahead: Bytes,
    runtime: Handle,
    give_up_after: Duration,
}

impl Read for Download {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if self.ahead.is_empty() && self.at < self.object.size {
            let next = async || self.store.read(&self.object, self.at).await;
            let next = self.runtime.block_on(patiently(self.give_up_after, next));
            self.ahead = next.map_err(io::Error::other)?;
            self.at += self.ahead.len() as u64;
        }
        let read = self.ahead.as_ref().read(out)?;
        self.ahead.advance(read);
        Ok(read)
    }
}
