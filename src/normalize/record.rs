//! The envelope of a record: everything kept of a request except its body. The format is `proto/spanferry/record/v1/record.proto`.

use bytes::Bytes;
use prost::Message;

use super::Coding;
use crate::span::Source;

/// How a decompressed body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Encoding {
    /// An OTLP message in protobuf.
    Protobuf = 1,
    /// JSON: OTLP's mapping, or the ingest format.
    Json = 2,
}

/// Everything kept of a request except its body.
#[derive(Debug, Clone, PartialEq)]
pub struct Envelope {
    /// The sender, and the time and way of arrival.
    pub source: Source,
    /// How the body is encoded.
    pub encoding: Encoding,
    /// How the body is compressed.
    pub coding: Coding,
    /// The number of items that the record counts for.
    pub items: u32,
    /// The length of the decompressed body, in bytes.
    pub body_bytes: u64,
    /// Indices, in ascending order, of items that are exact resends and are not delivered again.
    pub resent: Vec<u32>,
    /// Why the record is in the quarantine or a dead letter; `None` in the journal.
    pub aside: Option<SetAside>,
}

impl Envelope {
    /// Creates the envelope of an uncompressed body without resends whose items are not counted yet.
    pub fn new(source: Source, encoding: Encoding, body_bytes: usize) -> Self {
        Self {
            source,
            encoding,
            coding: Coding::Identity,
            items: 0,
            body_bytes: body_bytes as u64,
            resent: Vec::new(),
            aside: None,
        }
    }
}

/// Why an item was quarantined or became a dead letter.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct SetAside {
    /// The sink that rejected it; empty in the quarantine.
    #[prost(string, tag = "1")]
    pub sink: String,
    /// The reason.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// The backend's answer.
    #[prost(string, tag = "3")]
    pub answer: String,
    /// The time, in nanoseconds since 1970.
    #[prost(fixed64, tag = "4")]
    pub at_ns: u64,
    /// The ids of the dead letter's trace and span; empty in the quarantine and for a whole record.
    #[prost(bytes = "vec", tag = "5")]
    pub ids: Vec<u8>,
}

/// The resolution of quarantined items or dead letters: a record that follows theirs in the same journal.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Resolution {
    /// The sink whose counters it changes; empty in the quarantine.
    #[prost(string, tag = "1")]
    pub sink: String,
    /// An [`Outcome`].
    #[prost(enumeration = "Outcome", tag = "2")]
    pub outcome: i32,
    /// The positions of the resolved records, in the same journal.
    #[prost(uint64, repeated, tag = "3")]
    pub letters: Vec<u64>,
    /// The number of items in these records.
    #[prost(uint64, tag = "4")]
    pub items: u64,
    /// The time, in nanoseconds since 1970.
    #[prost(fixed64, tag = "5")]
    pub at_ns: u64,
}

/// How a quarantined item or dead letter was resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum Outcome {
    /// It was delivered, or received, in a later attempt.
    Delivered = 1,
    /// An operator discarded it.
    Dropped = 2,
}

/// A record of the quarantine or of the dead letters.
#[derive(Debug, Clone, PartialEq)]
pub enum Kept {
    /// An item or a complete record: its envelope and its body.
    Letter(Box<Envelope>, Bytes),
    /// The resolution of earlier records.
    Resolution(Resolution),
}

impl Kept {
    /// Decodes a record of the quarantine or of the dead letters.
    pub fn read(payload: &Bytes) -> Result<Self, NotARecord> {
        let mut record = wire::Record::decode(payload.clone())?;
        if let Some(resolution) = record.resolution.take() {
            known::<Outcome>("outcome", resolution.outcome)?;
            return Ok(Self::Resolution(resolution));
        }
        let (envelope, body) = Envelope::of(record)?;
        Ok(Self::Letter(Box::new(envelope), body))
    }
}

impl Resolution {
    /// Encodes the record.
    pub fn record(self) -> Vec<u8> {
        wire::Record { resolution: Some(self), ..wire::Record::default() }.encode_to_vec()
    }
}

/// The bytes are not a record.
#[derive(Debug, thiserror::Error)]
#[error("not a record: {0}")]
pub struct NotARecord(String);

impl From<prost::DecodeError> for NotARecord {
    fn from(error: prost::DecodeError) -> Self {
        Self(error.to_string())
    }
}

/// The tag of `body`: field number 15, length-delimited.
const BODY_TAG: u8 = (15 << 3) | 2;

impl Envelope {
    /// Encodes the record up to the body. Together with the body, it is one `Record` message.
    pub fn head(&self, body_len: usize) -> Vec<u8> {
        let source = &self.source;
        let header = |(name, value): &(String, String)| wire::Header {
            name: name.clone(),
            value: value.clone(),
        };
        let record = wire::Record {
            receiver: source.receiver.into(),
            encoding: self.encoding.into(),
            coding: self.coding.into(),
            received_at_unix_nano: source.received_at_ns,
            item_count: self.items,
            body_bytes: self.body_bytes,
            tenant: source.tenant.clone(),
            key_fingerprint: source.key_fingerprint.clone(),
            headers: source.headers.iter().map(header).collect(),
            resent_items: self.resent.clone(),
            aside: self.aside.clone(),
            ..wire::Record::default()
        };
        let mut head = record.encode_to_vec();
        head.push(BODY_TAG);
        prost::encoding::encode_varint(body_len as u64, &mut head);
        head
    }

    /// Splits a record into envelope and body. The body is a slice of the record.
    pub fn split(payload: &Bytes) -> Result<(Self, Bytes), NotARecord> {
        Self::of(wire::Record::decode(payload.clone())?)
    }

    fn of(record: wire::Record) -> Result<(Self, Bytes), NotARecord> {
        let headers = record.headers.into_iter().map(|header| (header.name, header.value));
        let source = Source {
            receiver: known("receiver", record.receiver)?,
            received_at_ns: record.received_at_unix_nano,
            tenant: record.tenant,
            key_fingerprint: record.key_fingerprint,
            headers: headers.collect(),
        };
        let envelope = Self {
            source,
            encoding: known("encoding", record.encoding)?,
            coding: known("coding", record.coding)?,
            items: record.item_count,
            body_bytes: record.body_bytes,
            resent: record.resent_items,
            aside: record.aside,
        };
        Ok((envelope, record.body))
    }
}

/// Converts an enum's number of `record.proto`.
fn known<T: TryFrom<i32>>(what: &str, number: i32) -> Result<T, NotARecord> {
    T::try_from(number).map_err(|_| NotARecord(format!("unknown {what} {number}")))
}

/// The messages of `record.proto`.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Record {
        #[prost(int32, tag = "1")]
        pub receiver: i32,
        #[prost(int32, tag = "2")]
        pub encoding: i32,
        #[prost(int32, tag = "3")]
        pub coding: i32,
        #[prost(fixed64, tag = "4")]
        pub received_at_unix_nano: u64,
        #[prost(uint32, tag = "5")]
        pub item_count: u32,
        #[prost(uint64, tag = "6")]
        pub body_bytes: u64,
        #[prost(string, tag = "7")]
        pub tenant: String,
        #[prost(string, tag = "8")]
        pub key_fingerprint: String,
        #[prost(message, repeated, tag = "9")]
        pub headers: Vec<Header>,
        #[prost(uint32, repeated, tag = "10")]
        pub resent_items: Vec<u32>,
        #[prost(message, optional, tag = "11")]
        pub aside: Option<super::SetAside>,
        #[prost(message, optional, tag = "12")]
        pub resolution: Option<super::Resolution>,
        #[prost(bytes = "bytes", tag = "15")]
        pub body: bytes::Bytes,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Header {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resolution_is_read_back_and_is_no_request() {
        for outcome in [Outcome::Delivered, Outcome::Dropped] {
            let resolution = Resolution {
                sink: "search".to_owned(),
                outcome: outcome.into(),
                letters: vec![0, 64, u64::MAX],
                items: 3,
                at_ns: 5,
            };
            let record = Bytes::from(resolution.clone().record());
            assert_eq!(Kept::read(&record).unwrap(), Kept::Resolution(resolution));
            assert!(Envelope::split(&record).is_err(), "what does not know settlements skips it");
        }
    }
}
