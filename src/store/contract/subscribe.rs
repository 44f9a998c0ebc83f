//! The contract of [`Store::subscribe`] as tests.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{TestEngine, contract, put};
use crate::store::{Commit, Expected, Lagged, Sequence, Subscriber, Table};

contract! {
    subscriber_receives_a_commit_before_its_writer_is_notified
    subscriber_receives_past_commits_and_then_new_ones
    subscriber_that_registers_late_receives_each_commit_once
    subscriber_does_not_receive_rejected_batches
    subscriber_that_registers_too_late_gets_lagged
}

/// A commit without the values: its sequence, and for each write the record and whether it has a
/// value.
type SeenCommit = (Sequence, Vec<(Table, Vec<u8>, bool)>);

/// Records the commits that it receives, after a delay.
#[derive(Default)]
struct RecordingSubscriber {
    seen: Mutex<Vec<SeenCommit>>,
    delay: Duration,
}

impl RecordingSubscriber {
    fn sequences(&self) -> Vec<Sequence> {
        self.seen.lock().iter().map(|(sequence, _)| *sequence).collect()
    }
}

impl Subscriber for RecordingSubscriber {
    fn apply(&self, commit: &Commit) {
        std::thread::sleep(self.delay);
        let writes = commit.writes.iter();
        let writes = writes.map(|write| (write.table, write.key.clone(), write.json.is_some()));
        self.seen.lock().push((commit.sequence, writes.collect()));
    }
}

async fn subscriber_receives_a_commit_before_its_writer_is_notified(engine: TestEngine) {
    let slow = Arc::new(RecordingSubscriber {
        delay: Duration::from_millis(30),
        ..RecordingSubscriber::default()
    });
    engine.store().subscribe(0, slow.clone()).unwrap();
    for number in 1..=3 {
        assert_eq!(engine.put(Table::Users, b"a", "x").await, number);
        assert_eq!(slow.sequences().last(), Some(&number));
    }
}

async fn subscriber_receives_past_commits_and_then_new_ones(engine: TestEngine) {
    let mut batch = put(Table::Users, b"a", "x");
    batch.delete(Table::Roles, *b"r");
    engine.store().commit(batch).await.unwrap();
    engine.put(Table::Users, b"b", "x").await;
    let [all, rest, none] = [0, 1, 2].map(|after| {
        let subscriber = Arc::new(RecordingSubscriber::default());
        engine.store().subscribe(after, subscriber.clone()).unwrap();
        subscriber
    });
    assert_eq!(all.sequences(), [1, 2]);
    assert_eq!(rest.sequences(), [2]);
    assert!(none.sequences().is_empty());
    engine.put(Table::Users, b"c", "x").await;
    assert_eq!(all.sequences(), [1, 2, 3]);
    assert_eq!(rest.sequences(), [2, 3]);
    assert_eq!(none.sequences(), [3]);
    let writes = all.seen.lock()[0].1.clone();
    assert_eq!(writes, [(Table::Users, b"a".to_vec(), true), (Table::Roles, b"r".to_vec(), false)]);
}

async fn subscriber_that_registers_late_receives_each_commit_once(engine: TestEngine) {
    const COMMITS: u64 = 300;
    let mut tasks = JoinSet::new();
    for number in 0..COMMITS {
        let store = engine.store().clone();
        tasks.spawn(async move {
            store.commit(put(Table::Users, &number.to_be_bytes(), "x")).await.unwrap()
        });
    }
    let mut subscribers = Vec::new();
    while let Some(sequence) = tasks.join_next().await {
        if sequence.unwrap() % 10 == 0 {
            let subscriber = Arc::new(RecordingSubscriber::default());
            engine.store().subscribe(0, subscriber.clone()).unwrap();
            subscribers.push(subscriber);
        }
    }
    assert_eq!(subscribers.len() as u64, COMMITS / 10);
    for subscriber in subscribers {
        assert_eq!(subscriber.sequences(), (1..=COMMITS).collect::<Vec<_>>());
    }
}

async fn subscriber_does_not_receive_rejected_batches(engine: TestEngine) {
    let subscriber = Arc::new(RecordingSubscriber::default());
    engine.store().subscribe(0, subscriber.clone()).unwrap();
    let mut batch = put(Table::Users, b"a", "x");
    batch.expect(Table::Users, *b"a", Expected::Present);
    assert!(engine.store().commit(batch).await.is_err());
    let mut batch = put(Table::Users, b"a", "x");
    batch.put(Table::Users, *b"b", vec![b' '; 10_000]);
    assert!(engine.store().commit(batch).await.is_err());
    assert!(subscriber.sequences().is_empty());
}

async fn subscriber_that_registers_too_late_gets_lagged(mut engine: TestEngine) {
    let subscribe = |engine: &TestEngine, after| {
        let subscriber = Arc::new(RecordingSubscriber::default());
        engine.store().subscribe(after, subscriber.clone()).map(|()| subscriber)
    };
    assert_eq!(subscribe(&engine, 1).err(), Some(Lagged), "the sequence does not exist yet");
    let mut tasks = JoinSet::new();
    for number in 0..2000_u64 {
        let store = engine.store().clone();
        tasks.spawn(async move {
            store.commit(put(Table::Users, &number.to_be_bytes(), "x")).await.unwrap()
        });
    }
    tasks.join_all().await;
    assert_eq!(subscribe(&engine, 0).err(), Some(Lagged));
    assert_eq!(subscribe(&engine, 2001).err(), Some(Lagged));
    assert_eq!(subscribe(&engine, 1990).unwrap().sequences(), (1991..=2000).collect::<Vec<_>>());
    if engine.folder.is_some() {
        // A reopened store remembers no earlier commits.
        engine.reopen();
        assert_eq!(subscribe(&engine, 1999).err(), Some(Lagged));
        assert!(subscribe(&engine, 2000).unwrap().sequences().is_empty());
    }
}
