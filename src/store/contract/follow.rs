//! What [`Store::changes`] promises.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::task::JoinSet;

use super::{Bench, contract, put};
use crate::store::{Change, Lagged, Sequence, Subscriber, Table};

contract! {
    a_follower_hears_of_a_commit_before_its_writer_is_answered
    a_follower_hears_what_was_and_then_what_comes
    a_follower_that_comes_in_between_misses_nothing_and_hears_nothing_twice
    a_follower_hears_nothing_of_what_was_refused
    a_follower_that_comes_too_late_is_told_so
}

/// A change, without the values: its number, and each place with whether it was written or deleted.
type Heard = (Sequence, Vec<(Table, Vec<u8>, bool)>);

/// Writes down what it hears, slowly.
#[derive(Default)]
struct Listener {
    heard: Mutex<Vec<Heard>>,
    slowness: Duration,
}

impl Listener {
    fn sequences(&self) -> Vec<Sequence> {
        self.heard.lock().unwrap().iter().map(|(sequence, _)| *sequence).collect()
    }
}

impl Subscriber for Listener {
    fn apply(&self, change: &Change) {
        std::thread::sleep(self.slowness);
        let writes = change.writes.iter();
        let writes = writes.map(|one| (one.table, one.key.clone(), one.json.is_some()));
        self.heard.lock().unwrap().push((change.sequence, writes.collect()));
    }
}

async fn a_follower_hears_of_a_commit_before_its_writer_is_answered(on: Bench) {
    let slow = Arc::new(Listener { slowness: Duration::from_millis(30), ..Listener::default() });
    on.store().changes(0, slow.clone()).unwrap();
    for number in 1..=3 {
        assert_eq!(on.put(Table::Users, b"a", "x").await, number);
        assert_eq!(slow.sequences().last(), Some(&number));
    }
}

async fn a_follower_hears_what_was_and_then_what_comes(on: Bench) {
    let mut batch = put(Table::Users, b"a", "x");
    batch.delete(Table::Roles, *b"r");
    on.store().commit(batch).await.unwrap();
    on.put(Table::Users, b"b", "x").await;
    let [all, rest, none] = [0, 1, 2].map(|after| {
        let listener = Arc::new(Listener::default());
        on.store().changes(after, listener.clone()).unwrap();
        listener
    });
    assert_eq!(all.sequences(), [1, 2]);
    assert_eq!(rest.sequences(), [2]);
    assert!(none.sequences().is_empty());
    on.put(Table::Users, b"c", "x").await;
    assert_eq!(all.sequences(), [1, 2, 3]);
    assert_eq!(rest.sequences(), [2, 3]);
    assert_eq!(none.sequences(), [3]);
    let heard = all.heard.lock().unwrap()[0].1.clone();
    assert_eq!(heard, [(Table::Users, b"a".to_vec(), true), (Table::Roles, b"r".to_vec(), false)]);
}

async fn a_follower_that_comes_in_between_misses_nothing_and_hears_nothing_twice(on: Bench) {
    const ALL: u64 = 300;
    let mut tasks = JoinSet::new();
    for number in 0..ALL {
        let store = on.store().clone();
        tasks.spawn(async move {
            store.commit(put(Table::Users, &number.to_be_bytes(), "x")).await.unwrap()
        });
    }
    let mut listeners = Vec::new();
    while let Some(sequence) = tasks.join_next().await {
        if sequence.unwrap() % 10 == 0 {
            let listener = Arc::new(Listener::default());
            on.store().changes(0, listener.clone()).unwrap();
            listeners.push(listener);
        }
    }
    assert_eq!(listeners.len() as u64, ALL / 10);
    for listener in listeners {
        assert_eq!(listener.sequences(), (1..=ALL).collect::<Vec<_>>());
    }
}

async fn a_follower_hears_nothing_of_what_was_refused(on: Bench) {
    let listener = Arc::new(Listener::default());
    on.store().changes(0, listener.clone()).unwrap();
    let mut batch = put(Table::Users, b"a", "x");
    batch.expect(Table::Users, *b"a", crate::store::State::Present);
    assert!(on.store().commit(batch).await.is_err());
    let mut batch = put(Table::Users, b"a", "x");
    batch.put(Table::Users, *b"b", vec![b' '; 10_000]);
    assert!(on.store().commit(batch).await.is_err());
    assert!(listener.sequences().is_empty());
}

async fn a_follower_that_comes_too_late_is_told_so(mut on: Bench) {
    let follow = |on: &Bench, after| {
        let listener = Arc::new(Listener::default());
        on.store().changes(after, listener.clone()).map(|()| listener)
    };
    assert_eq!(follow(&on, 1).err(), Some(Lagged), "nothing was committed yet");
    let mut tasks = JoinSet::new();
    for number in 0..2000_u64 {
        let store = on.store().clone();
        tasks.spawn(async move {
            store.commit(put(Table::Users, &number.to_be_bytes(), "x")).await.unwrap()
        });
    }
    tasks.join_all().await;
    assert_eq!(follow(&on, 0).err(), Some(Lagged));
    assert_eq!(follow(&on, 2001).err(), Some(Lagged));
    assert_eq!(follow(&on, 1990).unwrap().sequences(), (1991..=2000).collect::<Vec<_>>());
    if on.folder.is_some() {
        // A store that was opened anew remembers nothing of before.
        on.reopen();
        assert_eq!(follow(&on, 1999).err(), Some(Lagged));
        assert!(follow(&on, 2000).unwrap().sequences().is_empty());
    }
}
