//! The operations that the sink needs of a store, and its two implementations: over HTTP, and in a folder.

use std::sync::Arc;

use ::object_store::path::Path;
use ::object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode,
    PutOptions, PutPayload, UpdateVersion,
};
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};

use super::answer::pace;
use super::folder::{Folder, Numbered, create, number_of};
use crate::sinks::Pace;
use crate::support::base64;

pub(super) enum Store {
    Http(Arc<dyn ObjectStore>),
    Folder(Folder),
}

/// An object's metadata. It is a single text, because Azure accepts no hyphens in names and a file has one attribute.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ObjectNote {
    /// The place after the object from which the lane continues, in base64.
    pub(super) place: String,
    pub(super) sha256: String,
    pub(super) rows: u64,
    pub(super) format: String,
}

impl ObjectNote {
    /// The metadata's name, for a file's attribute with the prefix `user.`.
    pub(super) const NAME: &str = "spanferry";

    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Parses the metadata of an object that a sink wrote; `None` for any other.
    pub(super) fn read(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|facts: &Self| base64::read(&facts.place).is_some())
    }

    /// Returns the place from which the lane continues after the object.
    pub(super) fn place(&self) -> Bytes {
        base64::read(&self.place).unwrap_or_default().into()
    }
}

/// A name that never exists: [`Store::probe`] requests its replacement.
const NEVER_THERE: &str = "spanferry-doctor";

impl Store {
    /// Returns the objects whose names have this prefix, in the partition `from` and later ones.
    pub(super) async fn numbered(
        &self,
        root: &Path,
        from: &Path,
        stem: &str,
    ) -> Result<Numbered, Pace> {
        let client = match self {
            Self::Http(client) => client,
            Self::Folder(folder) => return folder.numbered(from, stem).await,
        };
        let mut found = Numbered::new();
        let mut all = client.list_with_offset(Some(root), from);
        while let Some(meta) = all.next().await {
            let path = meta.map_err(|error| pace(&error))?.location;
            if let Some(number) = path.filename().and_then(|name| number_of(name, stem)) {
                found.insert(number, path);
            }
        }
        Ok(found)
    }

    /// Puts an object with its metadata if its name does not exist. Returns `false` if it does.
    pub(super) async fn create(
        &self,
        path: &Path,
        bytes: &Bytes,
        facts: &ObjectNote,
    ) -> Result<bool, Pace> {
        let client = match self {
            Self::Http(client) => client,
            Self::Folder(folder) => {
                let (name, bytes, facts) = (path.to_string(), bytes.clone(), facts.text());
                return folder.run(move |root| create(root, &name, &bytes, &facts)).await;
            }
        };
        let attributes =
            Attributes::from_iter([(Attribute::Metadata(ObjectNote::NAME.into()), facts.text())]);
        let options = PutOptions { mode: PutMode::Create, attributes, ..PutOptions::default() };
        match client.put_opts(path, PutPayload::from(bytes.clone()), options).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(pace(&error)),
        }
    }

    /// Returns an object's metadata.
    pub(super) async fn facts_of(&self, path: &Path) -> Result<ObjectNote, Pace> {
        let (text, above) = match self {
            Self::Folder(folder) => (folder.text_of(path).await?, folder.to_string()),
            Self::Http(client) => {
                let asked = GetOptions { head: true, ..GetOptions::default() };
                let found = client.get_opts(path, asked).await;
                let found = found.map_err(|error| pace(&error))?;
                let text = found.attributes.get(&Attribute::Metadata(ObjectNote::NAME.into()));
                (text.map(|text| text.as_ref().to_owned()).unwrap_or_default(), String::new())
            }
        };
        ObjectNote::read(&text).ok_or_else(|| {
            Pace::hold(format!(
                "{above}{path} exists but was not written by this sink; it is not overwritten: move it away"
            ))
        })
    }

    /// Checks whether objects can be listed and written. Leaves nothing behind.
    pub(super) async fn probe(&self, root: &Path) -> Result<String, Pace> {
        let client = match self {
            Self::Http(client) => client,
            Self::Folder(folder) => return folder.probe().await,
        };
        if let Some(Err(error)) = client.list(Some(root)).next().await {
            return Err(pace(&error));
        }
        // Stores check the permission to write before the existence of the object to be replaced.
        let absent = UpdateVersion { e_tag: Some("\"0\"".into()), version: Some("1".into()) };
        let path = root.clone().join(NEVER_THERE);
        match client.put_opts(&path, PutPayload::new(), PutMode::Update(absent).into()).await {
            Err(Error::Precondition { .. } | Error::NotFound { .. }) => {
                Ok("objects can be listed and conditionally written".to_owned())
            }
            Err(error) => Err(pace(&error)),
            Ok(_) => {
                client.delete(&path).await.ok();
                Err(Pace::hold(
                    "the store ignores conditional puts (If-Match), so rows could be stored twice: use another store",
                ))
            }
        }
    }
}
