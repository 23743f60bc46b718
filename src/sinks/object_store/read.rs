//! Objects as `spanferry import` reads them: listed, and then in ranges, so that one of any size takes little memory, and what breaks off is
//! asked for again from where it was.

use std::ops::Range;
use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{Error, GetOptions, ObjectMeta, ObjectStore};
use bytes::Bytes;
use futures_util::StreamExt as _;

use super::answer::pace;
use super::connect;
use super::options::Options;
use super::store::Store;
use crate::sinks::Pace;

/// What is asked for at once: half of what the client keeps of an answer.
const RANGE_BYTES: u64 = 4 << 20;

/// What an address names in a store.
pub struct Objects {
    client: Arc<dyn ObjectStore>,
    bucket: String,
    /// The name of an object, or of what many are below.
    named: String,
}

/// An object that was listed.
pub struct Object {
    client: Arc<dyn ObjectStore>,
    /// Its whole address.
    pub url: String,
    /// What the store calls this content of it.
    pub e_tag: Option<String>,
    /// In bytes.
    pub size: u64,
    path: Path,
}

impl Options {
    /// Options with nothing but an address: credentials are those of the environment.
    pub fn of_url(url: &str) -> Result<Self, String> {
        let table = toml::Table::from_iter([("url".to_owned(), url.into())]);
        table.try_into().map_err(|error| error.to_string())
    }

    /// The same for another address, if that is in the same bucket.
    pub fn at(&self, url: &str) -> Option<Self> {
        let other = Self { url: url.to_owned(), ..self.clone() };
        let is_same = (self.scheme(), self.place().0) == (other.scheme(), other.place().0);
        is_same.then_some(other)
    }
}

impl Objects {
    /// Connects to nobody.
    pub fn of(options: &Options) -> Result<Self, String> {
        if let Some(mistake) = options.check().first() {
            return Err(format!("{}: {}", mistake.what, mistake.hint));
        }
        let store = connect::store(options).map_err(|error| error.to_string())?;
        let Store::Http(client) = store else {
            return Err("a folder is read as files".to_owned());
        };
        let named = options.place().1.trim_matches('/').to_owned();
        let bucket = options.url.split('/').take(3).collect::<Vec<_>>().join("/");
        Ok(Self { client, bucket, named })
    }

    /// What the address names, in the order of names: those below it, or else all whose names begin so, as that of one object does.
    pub async fn list(&self) -> Result<Vec<Object>, Pace> {
        let above = self.named.rsplit_once('/').map_or("", |(above, _)| above);
        let mut found = Vec::new();
        for folder in [&self.named, above].map(Path::from) {
            let mut all = self.client.list(Some(&folder));
            while let Some(meta) = all.next().await {
                let meta = meta.map_err(|error| pace(&error))?;
                let ObjectMeta { location: path, size, e_tag, .. } = meta;
                let url = format!("{}/{path}", self.bucket);
                found.push(Object { client: Arc::clone(&self.client), url, e_tag, size, path });
            }
            found.retain(|object| object.path.as_ref().starts_with(&self.named));
            if !found.is_empty() {
                break;
            }
        }
        found.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }
}

impl Object {
    /// The next bytes, from this one on.
    pub async fn read(&self, from: u64) -> Result<Bytes, Pace> {
        let wanted: Range<u64> = from..self.size.min(from + RANGE_BYTES);
        let (range, if_match) = (Some(wanted.clone().into()), self.e_tag.clone());
        let asked = GetOptions { range, if_match, ..GetOptions::default() };
        let got = async { self.client.get_opts(&self.path, asked).await?.bytes().await };
        match got.await {
            Ok(bytes) if bytes.len() as u64 == wanted.end - from => Ok(bytes),
            Ok(_) => {
                let reason = format!("{} was cut on its way", self.url);
                Err(Pace::Down { after: None, reason })
            }
            Err(Error::Precondition { .. }) => {
                let reason = format!("{} was written anew while it was read", self.url);
                Err(Pace::Hold { reason })
            }
            Err(error) => Err(pace(&error)),
        }
    }
}
