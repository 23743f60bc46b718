//! Tests of the sink alone, over a scripted store in memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::ops::Range;

use ::object_store::memory::InMemory;
use ::object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt as _, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as StoreResult,
};
use async_trait::async_trait;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};

use super::*;
use crate::sinks::{Verdicts, samples};
use crate::span::{Detail, Item, keys};

/// The outcome of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SinkOutcome {
    /// It is rejected.
    Refused,
    /// It succeeds, and the response is lost.
    Unheard,
    /// The response is lost, and it succeeds later.
    Late,
    /// It succeeds, and the response never arrives.
    Hangs,
}

/// A store in memory whose puts and reads may fail.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) fates: Mutex<VecDeque<Option<SinkOutcome>>>,
    /// How many of the next reads fail.
    pub(crate) deaf: Mutex<u32>,
}

impl Told {
    pub(crate) fn tell(&self, fates: impl IntoIterator<Item = Option<SinkOutcome>>) {
        lock(&self.fates).extend(fates);
    }

    fn hear(&self) -> StoreResult<()> {
        let mut deaf = lock(&self.deaf);
        if *deaf == 0 {
            return Ok(());
        }
        *deaf -= 1;
        Err(broken())
    }

    /// Returns all objects by name.
    pub(crate) async fn objects(&self) -> BTreeMap<String, Bytes> {
        let metas: Vec<ObjectMeta> = self.inner.list(None).try_collect().await.unwrap();
        let mut all = BTreeMap::new();
        for meta in metas {
            let bytes = self.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
            all.insert(meta.location.to_string(), bytes);
        }
        all
    }
}

fn broken() -> Error {
    Error::Generic { store: "told", source: "it broke".into() }
}

impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("told")
    }
}

#[async_trait]
impl ObjectStore for Told {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> StoreResult<PutResult> {
        let fate = lock(&self.fates).pop_front().flatten();
        let put = |inner: Arc<InMemory>| {
            let path = path.clone();
            async move { inner.put_opts(&path, payload, options).await }
        };
        match fate {
            None => put(Arc::clone(&self.inner)).await,
            Some(SinkOutcome::Refused) => Err(broken()),
            Some(SinkOutcome::Unheard) => {
                put(Arc::clone(&self.inner)).await.and_then(|_| Err(broken()))
            }
            Some(SinkOutcome::Late) => {
                let late = put(Arc::clone(&self.inner));
                tokio::spawn(async {
                    for _ in 0..200 {
                        tokio::task::yield_now().await;
                    }
                    late.await.ok();
                });
                Err(broken())
            }
            Some(SinkOutcome::Hangs) => {
                put(Arc::clone(&self.inner)).await?;
                std::future::pending().await
            }
        }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.hear()?;
        self.inner.get_opts(path, options).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> StoreResult<Vec<Bytes>> {
        self.inner.get_ranges(path, ranges).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, StoreResult<Path>>,
    ) -> BoxStream<'static, StoreResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.hear() {
            Ok(()) => self.inner.list(prefix),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        match self.hear() {
            Ok(()) => self.inner.list_with_offset(prefix, offset),
            Err(error) => stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

/// Returns a sink over this store, with these options.
pub(crate) fn lake(store: &Arc<Told>, options: &str, state: Bytes) -> Lake {
    let options = format!("url = \"s3://bucket/a/b\"\n{options}");
    let options: Options = toml::from_str(&options).unwrap();
    let parts = Parts { name: "lake".to_owned(), state, ..Parts::default() };
    let client = Arc::clone(store) as Arc<dyn ObjectStore>;
    Lake::over(Store::Http(client), &options, parts)
}

/// Returns the decompressed bytes of an object.
pub(crate) fn plain(object: &Bytes) -> Vec<u8> {
    zstd::stream::decode_all(object.as_ref()).unwrap()
}

/// 2026-11-21T05:15:09Z.
pub(super) const HOUR_5: u64 = 1_795_238_109_000_000_000;
const HOUR: u64 = 3600 * NS_PER_SECOND;

pub(super) fn spans(received_at_ns: u64, numbers: Range<u64>) -> Delivery {
    let items = numbers.map(|number| Item::Span(samples::numbered_span(number)));
    samples::delivery(received_at_ns, items.collect())
}

pub(super) fn place(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

async fn begun(store: &Arc<Told>, options: &str) -> Lake {
    begun_over(lake(store, options, Bytes::new())).await
}

/// Returns a sink that already has its writer's number.
pub(super) async fn begun_over(sink: Lake) -> Lake {
    let first = sink.deliver(&spans(HOUR_5, 0..1)).await;
    assert_eq!(first, Report::all(Verdict::Retry, Pace::Checkpoint), "a number is saved before");
    sink.checkpoint_at(place("0")).await.unwrap();
    sink
}

pub(super) fn lines_of(object: &Bytes) -> usize {
    plain(object).split(|byte| *byte == b'\n').count() - 1
}

#[tokio::test]
async fn an_object_has_the_rows_of_one_hour_and_a_name_that_says_it() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    let mut both = spans(HOUR_5, 0..2);
    both.append(spans(HOUR_5 + HOUR, 2..5));
    let report = sink.deliver(&both).await;
    let verdicts =
        [Verdict::Delivered, Verdict::Delivered, Verdict::Retry, Verdict::Retry, Verdict::Retry];
    assert_eq!(report.verdicts, Verdicts::Each(verdicts.to_vec()));
    assert_eq!(report.pace, Pace::Checkpoint);
    sink.checkpoint_at(place("1")).await.unwrap();
    assert_eq!(sink.deliver(&spans(HOUR_5 + HOUR, 2..5)).await, Report::delivered());
    let back = sink.deliver(&spans(HOUR_5, 5..6)).await;
    assert_eq!(back, Report::all(Verdict::Retry, Pace::Checkpoint), "the clock went back");
    let state = sink.checkpoint_at(place("2")).await.unwrap().state;
    let saved: Saved = serde_json::from_slice(&state).unwrap();
    let objects = store.objects().await;
    let names: Vec<_> = objects.keys().cloned().collect();
    let stem = format!("lake-{}", saved.writer);
    assert_eq!(
        names,
        [
            format!("a/b/dt=2026-11-21/hour=05/{stem}-0000000000.jsonl.zst"),
            format!("a/b/dt=2026-11-21/hour=06/{stem}-0000000001.jsonl.zst"),
        ]
    );
    assert_eq!(objects.values().map(lines_of).collect::<Vec<_>>(), [2, 3]);
}

#[tokio::test]
async fn a_put_whose_answer_is_lost_is_repeated_and_recognised() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    store.tell([Some(SinkOutcome::Refused), Some(SinkOutcome::Unheard)]);
    for _ in 0..2 {
        assert!(matches!(sink.checkpoint_at(place("1")).await, Err(Pace::Down { .. })));
        let meanwhile = sink.deliver(&spans(HOUR_5, 3..4)).await;
        assert_eq!(
            meanwhile,
            Report::all(Verdict::Retry, Pace::Checkpoint),
            "the bytes stay the same"
        );
    }
    assert_eq!(sink.checkpoint_at(place("1")).await.unwrap().go_on, None);
    assert_eq!(store.objects().await.values().map(lines_of).sum::<usize>(), 3);
}

#[tokio::test]
async fn after_a_crash_behind_the_put_the_lane_goes_on_behind_the_object() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    let state = sink.checkpoint_at(place("0")).await.unwrap().state;
    for at in ["1", "2"] {
        sink.deliver(&spans(HOUR_5, 0..3)).await;
        sink.checkpoint_at(place(at)).await.unwrap();
    }
    // Neither cursor was saved. The format has changed, and so has the first hour.
    let sink = lake(&store, "format = \"otlp\"", state);
    assert_eq!(
        sink.checkpoint_at(place("0")).await.unwrap().go_on,
        None,
        "nothing is to be written"
    );
    *lock(&store.deaf) = 1;
    assert_eq!(sink.deliver(&spans(HOUR_5 + HOUR, 0..3)).await.pace, Pace::Checkpoint);
    assert!(sink.checkpoint_at(place("0")).await.is_err(), "it cannot be asked");
    assert_eq!(sink.checkpoint_at(place("0")).await.unwrap().go_on, Some(place("2")));
    assert_eq!(sink.deliver(&spans(HOUR_5, 9..10)).await, Report::delivered());
    sink.checkpoint_at(place("3")).await.unwrap();
    let objects = store.objects().await;
    assert!(objects.last_key_value().unwrap().0.ends_with("-0000000002.otlp.zst"), "{objects:?}");
}

#[tokio::test]
async fn a_put_of_an_earlier_run_that_comes_late_is_believed() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    let state = sink.checkpoint_at(place("0")).await.unwrap().state;
    let next = lake(&store, "", state);
    assert_eq!(next.deliver(&spans(HOUR_5, 0..9)).await.pace, Pace::Checkpoint);
    assert_eq!(next.checkpoint_at(place("0")).await.unwrap().go_on, None);
    assert_eq!(next.deliver(&spans(HOUR_5, 0..9)).await, Report::delivered());
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    sink.checkpoint_at(place("1")).await.unwrap();
    assert_eq!(next.checkpoint_at(place("3")).await.unwrap().go_on, Some(place("1")));
    assert_eq!(next.deliver(&spans(HOUR_5, 3..9)).await, Report::delivered());
    assert_eq!(next.checkpoint_at(place("3")).await.unwrap().go_on, None);
    assert_eq!(store.objects().await.values().map(lines_of).collect::<Vec<_>>(), [3, 6]);
}

#[tokio::test]
async fn what_somebody_else_wrote_under_our_name_is_never_overwritten() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    sink.deliver(&spans(HOUR_5, 0..3)).await;
    store.tell([Some(SinkOutcome::Unheard)]);
    assert!(sink.checkpoint_at(place("1")).await.is_err());
    let name = store.objects().await.into_keys().next().unwrap();
    store.inner.put(&Path::from(name.clone()), "another's".into()).await.unwrap();
    let Err(Pace::Hold { reason }) = sink.checkpoint_at(place("1")).await else { panic!() };
    assert!(reason.contains(&name) && reason.contains("move it away"), "{reason}");
    assert_eq!(store.objects().await.get(&name).unwrap().as_ref(), b"another's");
    store.inner.delete(&Path::from(name.clone())).await.unwrap();
    sink.checkpoint_at(place("1")).await.unwrap();
    assert_eq!(lines_of(store.objects().await.get(&name).unwrap()), 3);
}

#[tokio::test]
async fn an_object_is_asked_for_when_it_is_full_and_when_it_is_old() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "object = { bytes_max = \"64KiB\", age = \"1s\" }").await;
    assert_eq!(sink.open_until(), None);
    let before = Instant::now();
    assert_eq!(sink.deliver(&spans(HOUR_5, 0..1)).await, Report::delivered());
    let until = sink.open_until().unwrap();
    assert!(before + std::time::Duration::from_secs(1) <= until);
    let mut number = 1;
    let full = loop {
        let report = sink.deliver(&spans(HOUR_5, number..number + 10)).await;
        number += 10;
        if report != Report::delivered() {
            break report;
        }
        assert_eq!(sink.open_until(), Some(until), "its first row counts");
    };
    assert_eq!(full, Report::all(Verdict::Delivered, Pace::Checkpoint));
    sink.checkpoint_at(place("1")).await.unwrap();
    assert_eq!(store.objects().await.values().map(lines_of).sum::<usize>() as u64, number);
}

#[tokio::test]
async fn a_delivery_that_nobody_heard_of_is_read_again_with_all_since_the_last_checkpoint() {
    let store = Arc::new(Told::default());
    let sink = begun(&store, "").await;
    assert_eq!(sink.deliver(&spans(HOUR_5, 0..3)).await, Report::delivered());
    // Enough spans that encoding outlasts the first poll.
    let next = spans(HOUR_5, 3..5000);
    let mut given_up = sink.deliver(&next);
    let polled =
        std::future::poll_fn(|context| std::task::Poll::Ready(given_up.as_mut().poll(context)));
    assert!(polled.await.is_pending());
    drop(given_up);
    assert_eq!(sink.deliver(&spans(HOUR_5, 3..6)).await.pace, Pace::Checkpoint);
    assert_eq!(sink.checkpoint_at(place("1")).await.unwrap().go_on, Some(place("0")));
    assert!(store.objects().await.is_empty());
}

#[tokio::test]
async fn the_archive_has_requests_as_received_and_items_of_the_agents_sdk_twice() {
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use prost::Message as _;

    const ITEM: &str = r#"{"object": "trace.span", "id":"span_1","name":"a\nb"}"#;
    let store = Arc::new(Told::default());
    let sink = begun(&store, "format = \"otlp\"").await;
    let sdk = samples::sdk_span(7, ITEM, Detail::default(), crate::span::Facts::default());
    let delivery = samples::delivery(HOUR_5, vec![Item::Span(sdk)]);
    assert_eq!(sink.deliver(&delivery).await, Report::delivered());
    sink.checkpoint_at(place("1")).await.unwrap();
    let bytes = plain(store.objects().await.values().next().unwrap());
    let mut rest = bytes.as_slice();
    let request = ExportTraceServiceRequest::decode_length_delimited(&mut rest).unwrap();
    assert!(rest.is_empty());
    let spans: usize = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans)
        .map(|scope| scope.spans.len())
        .sum();
    assert_eq!(spans, 1);
    let last = request.resource_spans.last().unwrap();
    assert!(last.scope_spans.is_empty());
    let attribute = &last.resource.as_ref().unwrap().attributes[0];
    assert_eq!(attribute.key, keys::SPANFERRY_BODY);
    let value = attribute.value.as_ref().unwrap().value.as_ref();
    assert_eq!(value, Some(&Value::StringValue(format!("{{\"data\":[{ITEM}]}}"))));
}
