//! A clock that goes back: while the program runs, and after a restart.

use super::*;
use crate::{
    limits::Bounds,
    model::{Credits, Mode},
};

const DAY: i64 = 86_400;

/// Accounts of this store at a time of the machine's clock.
fn restarted(store: Arc<dyn Store>, at: Timestamp) -> Accounts {
    let (pepper, clock) = (Pepper::from_bytes([7; 32]), Clock::fixed(at));
    Accounts::with(store, pepper, Passwords::new(1), clock, Entropy::seeded(2)).unwrap()
}

fn bounds(accounts: &Accounts, id: crate::model::KeyId) -> Arc<Bounds> {
    accounts.directory().key(id).unwrap().bounds().unwrap().clone()
}

/// Spends credits until none is left, and returns their number.
fn spend_all(accounts: &Accounts, id: crate::model::KeyId) -> usize {
    let bounds = bounds(accounts, id);
    let spend = |_: &u32| bounds.take(accounts.counters().now(), Mode::Live, |_| ());
    let spent = (0..9).take_while(spend).count();
    accounts.counters().used(id);
    spent
}

#[tokio::test]
async fn clock_that_jumps_back_and_forth_refills_no_credits_twice() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let credits = Credits::parse("credits", "2/day").ok();
    let new = NewKey { credits, ..NewKey::default() };
    let id = accounts.issue_key(1, new).await.unwrap().key.record.id;
    assert_eq!(spend_all(&accounts, id), 2);
    accounts.clock().set(NOW.plus(3 * DAY));
    assert_eq!(spend_all(&accounts, id), 2, "a new day");
    for day in [0, 3, 1, 2, 3] {
        accounts.clock().set(NOW.plus(day * DAY));
        assert_eq!(spend_all(&accounts, id), 0, "day {day}");
    }
    accounts.write_usage().await.unwrap();

    let restarted = restarted(store, NOW);
    for day in [0, 3, 1] {
        restarted.clock().set(NOW.plus(day * DAY));
        assert_eq!(spend_all(&restarted, id), 0, "day {day} after a restart");
    }
    restarted.clock().set(NOW.plus(4 * DAY));
    assert_eq!(spend_all(&restarted, id), 2, "the next day");
}

#[tokio::test]
async fn newest_time_is_read_from_changes_and_from_usage() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let id = accounts.keys(None, 1).unwrap().items[0].record.id;
    assert_eq!(restarted(store.clone(), NOW.plus(-DAY)).clock().now(), NOW);
    accounts.clock().set(NOW.plus(DAY));
    accounts.counters().used(id);
    accounts.write_usage().await.unwrap();
    assert_eq!(restarted(store.clone(), NOW).clock().now(), NOW.plus(DAY));
    accounts.clock().set(NOW.plus(2 * DAY));
    accounts.create_user(new_user("late")).await.unwrap();
    let restarted = restarted(store, NOW);
    assert_eq!(restarted.clock().now(), NOW.plus(2 * DAY));
    assert_eq!(restarted.clock().seconds_behind(), Some(2 * DAY));
}

#[tokio::test]
async fn idle_server_stores_the_time_once_an_hour() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let sequence = || store.snapshot().unwrap().sequence();
    let before = sequence();
    for (seconds, commits) in [(0, 1), (3599, 1), (3600, 2), (7000, 2), (7200, 3)] {
        accounts.clock().set(NOW.plus(seconds));
        accounts.write_newest_time_when_idle().await.unwrap();
        assert_eq!(sequence() - before, commits, "after {seconds} s");
    }
    assert_eq!(restarted(store, NOW).clock().now(), NOW.plus(7200));
}

#[tokio::test]
async fn accepted_clock_stays_accepted_after_a_restart() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.clock().set(NOW.plus(400 * DAY));
    accounts.first_start().await.unwrap().unwrap();
    let second = restarted(store.clone(), NOW);
    assert_eq!(second.accept_machine_clock().await.unwrap(), NOW.plus(400 * DAY));
    assert_eq!(second.clock().now(), NOW);
    assert_eq!(restarted(store.clone(), NOW).clock().now(), NOW);
    second.clock().set(NOW.plus(DAY));
    second.as_actor(Actor::Program).create_user(new_user("ann")).await.unwrap();
    assert_eq!(restarted(store, NOW).clock().now(), NOW.plus(DAY));
}
