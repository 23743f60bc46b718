//! A lane with the sink for object stores, over a store that fails in all ways while the lane is killed: each row exists once.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::tests::*;
use crate::journal::{Cursor, MemoryStorage, Storage as _, WhenFull};
use crate::sinks::object_store::Lake;
use crate::sinks::object_store::folder_tests::{files_in, folder_lake};
use crate::sinks::object_store::tests::{SinkOutcome, Told, lake, plain};
use crate::support::clock::unix_now_ns;
use crate::support::lock::lock;

/// The store of the objects.
enum Store {
    Told(Arc<Told>),
    /// A put completes late, after its lane was killed.
    Folder(tempfile::TempDir),
}

impl Store {
    fn sink(&self, options: &str, state: Bytes) -> Lake {
        match self {
            Self::Told(told) => lake(told, options, state),
            Self::Folder(dir) => folder_lake(dir.path(), options, state),
        }
    }

    async fn objects(&self) -> BTreeMap<String, Bytes> {
        match self {
            Self::Told(told) => told.objects().await,
            Self::Folder(dir) => files_in(dir.path()),
        }
    }

    /// Ends all failures.
    fn behave(&self) {
        if let Self::Told(told) = self {
            lock(&told.fates).clear();
            *lock(&told.deaf) = 0;
        }
    }
}

/// Pseudorandom numbers that are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Number of lives that end with a kill.
const LIVES: u32 = 3;
const HOUR_NS: u64 = 3_600_000_000_000;

/// Chooses how the next puts and queries fail.
fn trouble(dice: &mut Dice, store: &Store, may_hang: bool) {
    let fates = (0..dice.below(4)).map(|_| match dice.below(6) {
        0 => Some(SinkOutcome::Refused),
        1 => Some(SinkOutcome::Unheard),
        2 => Some(SinkOutcome::Late),
        3 if may_hang => Some(SinkOutcome::Hangs),
        _ => None,
    });
    let (fates, deaf): (Vec<_>, _) = (fates.collect(), dice.below(2));
    store.behave();
    if let Store::Told(told) = store {
        told.tell(fates);
        *lock(&told.deaf) = u32::try_from(deaf).unwrap();
    }
}

/// Counts each id in the store; checks that the rows of an object are of its hour, and that a writer's numbers have no gaps.
async fn rows(store: &Store) -> BTreeMap<String, usize> {
    let mut found = BTreeMap::new();
    let mut numbers = BTreeMap::<String, BTreeSet<u64>>::new();
    for (name, object) in store.objects().await {
        let (stem, number) = name.rsplit_once('/').unwrap().1.rsplit_once('-').unwrap();
        let number = number.split_once('.').unwrap().0.parse().unwrap();
        assert!(numbers.entry(stem.to_owned()).or_default().insert(number), "{name}");
        for line in String::from_utf8(plain(&object)).unwrap().lines() {
            let row: serde_json::Value = serde_json::from_str(line).unwrap();
            let received = row["received_at"].as_str().unwrap();
            let partition = format!(
                "dt={}/hour={}/",
                received.get(..10).unwrap(),
                received.get(11..13).unwrap()
            );
            assert!(name.contains(&partition), "{name}: {received}");
            *found.entry(row["openai_span_id"].as_str().unwrap().to_owned()).or_insert(0) += 1;
        }
    }
    assert!(numbers.len() <= 1, "one writer: {numbers:?}");
    for numbers in numbers.values() {
        assert_eq!(numbers.len() as u64, numbers.last().unwrap() + 1, "{numbers:?}");
    }
    found
}

async fn one_run(seed: u64, store: Store) {
    let mut dice = Dice(seed);
    let (storage, dead): (Arc<MemoryStorage>, Arc<MemoryStorage>) = Default::default();
    let age = dice.below(20) + 1;
    let options = format!("object = {{ age = \"{age}ms\", bytes_max = \"64KiB\" }}");
    let (mut sent, mut hour) = (0, 500_000);
    for life in 0.. {
        let saved = storage.read("told.cursor").ok();
        let saved = saved.and_then(|bytes| Cursor::from_bytes(&bytes)).unwrap_or_default();
        // A late put may send the last life back to before its end.
        if LIVES < life && saved.mark.items == sent {
            break;
        }
        let sink = Arc::new(store.sink(&options, saved.state));
        let world = World::with_dead_letters(storage.clone(), dead.clone(), sink);
        let may_hang = life < LIVES;
        for _ in 0..if life <= LIVES { dice.below(8) } else { 0 } {
            trouble(&mut dice, &store, may_hang);
            if dice.below(5) == 0 {
                hour = if dice.below(4) == 0 { hour - 1 } else { hour + 1 };
            }
            let items: Vec<_> =
                (0..=dice.below(3)).map(|at| span_item(&format!("s{}", sent + at))).collect();
            sent += items.len() as u64;
            world.send_items(&items, hour * HOUR_NS).await;
            tokio::time::sleep(Duration::from_millis(dice.below(8))).await;
        }
        store.behave();
        if may_hang {
            trouble(&mut dice, &store, true);
            tokio::time::sleep(Duration::from_millis(dice.below(12))).await;
            world.lane.abort();
            world.lane.await.ok();
            world.feed.journal().close();
            world.dead.close();
        } else {
            world.settled().await;
            world.drain().await;
        }
    }
    let rows = rows(&store).await;
    let lost: Vec<_> = (0..sent).filter(|id| !rows.contains_key(&format!("s{id}"))).collect();
    let twice: Vec<_> = rows.iter().filter(|(_, count)| **count > 1).collect();
    assert!(lost.is_empty() && twice.is_empty(), "seed {seed}: lost {lost:?}, twice {twice:?}");
}

#[tokio::test]
async fn whatever_fails_and_whenever_it_is_killed_each_row_is_in_the_store_once() {
    futures_util::future::join_all((0..200).map(|seed| one_run(seed, Store::Told(Arc::default()))))
        .await;
}

#[tokio::test]
async fn whenever_it_is_killed_each_row_is_in_the_folder_once() {
    let folder = || Store::Folder(tempfile::tempdir().unwrap());
    futures_util::future::join_all((0..60).map(|seed| one_run(seed, folder()))).await;
}

/// Sends more than twice what the journal of [`World::small`] may hold, one item per request. All are accepted.
async fn send_much(world: &World) -> usize {
    const COUNT: usize = 100;
    let data = format!(r#""data":{{"text":"{}"}}"#, "x".repeat(6_000));
    for number in 0..COUNT {
        let item = span_item(&format!("s{number}")).replace(r#""data":{}"#, &data);
        world.send_items(&[item], unix_now_ns()).await;
    }
    COUNT
}

#[tokio::test]
async fn an_object_is_put_early_where_the_journal_is_full_of_its_rows() {
    let told = Arc::<Told>::default();
    let sink = lake(&told, "object = { age = \"1h\" }", Bytes::new());
    let world = World::small(Arc::new(sink), WhenFull::Refuse);
    // No client is told to retry.
    let sent = send_much(&world).await;
    world.drain().await;
    let rows = rows(&Store::Told(told)).await;
    assert!(rows.len() == sent && rows.values().all(|count| *count == 1), "{rows:?}");
}

#[tokio::test]
async fn a_lake_without_its_store_gives_way_and_goes_on_with_what_is_left() {
    const FOR_LONG: usize = 10_000;
    let saved = r#"{"writer":"00000000000000aa","next":0,"hour":1}"#;
    for (state, puts, questions) in [("", FOR_LONG, 0), (saved, 0, FOR_LONG)] {
        let told = Arc::<Told>::default();
        told.tell((0..puts).map(|_| Some(SinkOutcome::Refused)));
        *lock(&told.deaf) = u32::try_from(questions).unwrap();
        let sink = lake(&told, "object = { age = \"1ms\" }", Bytes::from_static(state.as_bytes()));
        let world = World::small(Arc::new(sink), WhenFull::DropOldest);
        let (status, sent) = (Arc::clone(&world.status), send_much(&world).await);
        let store = Store::Told(told);
        store.behave();
        world.settled().await;
        world.drain().await;
        let (rows, dropped) = (rows(&store).await, status.cursor().dropped);
        assert!(0 < dropped && rows.values().all(|count| *count == 1), "{dropped} {rows:?}");
        assert_eq!(rows.len() as u64 + dropped, sent as u64);
    }
}
