//! Reads objects for `spanferry import`: lists them and reads them in ranges, so that objects of any size need little memory and an
//! interrupted read continues where it stopped.

use std::ops::Range;
use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{Error, GetOptions, ObjectMeta, ObjectStore};
use bytes::Bytes;
use futures_util::TryStreamExt as _;

use super::answer::pace;
use super::connect;
use super::options::Options;
use super::store::Store;
use crate::sinks::Pace;

/// The size of a range: half the largest response that the client keeps.
const RANGE_BYTES: u64 = 4 << 20;

/// A listed object.
pub struct Object {
    client: Arc<dyn ObjectStore>,
    /// Its complete URL.
    pub url: String,
    /// Its path, its size, and the store's tag for this version of its content.
    pub meta: ObjectMeta,
}

impl Options {
    /// Creates options from a URL alone. Credentials come from the environment.
    pub fn of_url(url: &str) -> Result<Self, String> {
        let table = toml::Table::from_iter([("url".to_owned(), url.into())]);
        table.try_into().map_err(|error| error.to_string())
    }

    /// Returns the same options for another URL, if that is in the same bucket.
    pub fn at(&self, url: &str) -> Option<Self> {
        let other = Self { url: url.to_owned(), ..self.clone() };
        let is_same = (self.scheme(), self.place().0) == (other.scheme(), other.place().0);
        is_same.then_some(other)
    }

    /// Lists the objects that the URL refers to, by name: those below it or, if there are none, those whose names begin with it.
    pub async fn list(&self) -> Result<Vec<Object>, Pace> {
        let hold = |problem: &str| Pace::hold(format!("{}: {problem}", self.url));
        if let Some(mistake) = self.check().first() {
            return Err(hold(&format!("{}: {}", mistake.what, mistake.hint)));
        }
        let client = match connect::store(self) {
            Ok(Store::Http(client)) => client,
            Ok(Store::Folder(_)) => return Err(hold("folders are read as files")),
            Err(error) => return Err(hold(&error.to_string())),
        };
        let bucket = self.url.split('/').take(3).collect::<Vec<_>>().join("/");
        let named = self.place().1.trim_matches('/');
        let above = named.rsplit_once('/').map_or("", |(above, _)| above);
        let mut metas: Vec<ObjectMeta> = Vec::new();
        for folder in [named, above] {
            if metas.is_empty() {
                let listed = client.list(Some(&Path::from(folder))).try_collect().await;
                metas = listed.map_err(|error| pace(&error))?;
                metas.retain(|meta| meta.location.as_ref().starts_with(named));
            }
        }
        metas.sort_by(|a, b| a.location.cmp(&b.location));
        let object = |meta: ObjectMeta| {
            let (client, url) = (Arc::clone(&client), format!("{bucket}/{}", meta.location));
            Object { client, url, meta }
        };
        Ok(metas.into_iter().map(object).collect())
    }
}

impl Object {
    /// Reads the next bytes from this offset on.
    pub async fn read(&self, from: u64) -> Result<Bytes, Pace> {
        let ObjectMeta { location, size, e_tag, .. } = &self.meta;
        let wanted: Range<u64> = from..(from + RANGE_BYTES).min(*size);
        let (range, if_match) = (Some(wanted.clone().into()), e_tag.clone());
        let asked = GetOptions { range, if_match, ..GetOptions::default() };
        let got = async { self.client.get_opts(location, asked).await?.bytes().await };
        match got.await {
            Ok(bytes) if bytes.len() as u64 == wanted.end - from => Ok(bytes),
            Ok(_) => Err(Pace::down(format!("{} was truncated in transit", self.url))),
            Err(Error::Precondition { .. }) => {
                Err(Pace::hold(format!("{} changed while it was read", self.url)))
            }
            Err(error) => Err(pace(&error)),
        }
    }
}
