//! Tests that the work of a plan grows with the records, and that it ends when it is cancelled.

use std::sync::Arc;

use super::{plan::Plan, *};
use crate::{
    accounts::{Accounts, Passwords},
    directory::COMPILED,
    model::{Actor, Clock, Entropy, Pepper},
    store::{Cancel, MemoryStore, StoreError},
};

async fn writer() -> Writer {
    let accounts = Accounts::with(
        Arc::new(MemoryStore::new()),
        Pepper::from_bytes([7; 32]),
        Passwords::new(1),
        Clock::fixed(Timestamp(1_700_000_000)),
        Entropy::seeded(1),
    );
    let accounts = accounts.unwrap();
    accounts.first_start().await.unwrap();
    accounts.as_actor(Actor::Program)
}

fn resource(number: usize) -> Resource {
    let record = json!({
        "id": format!("r{number}"), "enabled": true, "handler": "respond",
        "path": format!("/r/{number}/{{x}}"), "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
    });
    serde_json::from_value(record).unwrap()
}

fn resources(count: usize) -> StateDocument {
    let resources = (0..count).map(resource).collect();
    StateDocument { resources, ..StateDocument::default() }
}

#[tokio::test]
async fn plan_compiles_each_resource_a_few_times() {
    const COUNT: usize = 2_000;
    let writer = writer().await;
    let mut plan = Plan::new(&writer, &resources(COUNT), Unlisted::Keep).unwrap();
    COMPILED.set(0);
    plan.check_guards(Guards::Keep).unwrap();
    plan.into_commit(&writer, ApplyOptions::default()).unwrap();
    assert!((COUNT..=5 * COUNT).contains(&COMPILED.get()), "{}", COMPILED.get());
}

#[tokio::test]
async fn cancelled_plan_ends_and_writes_nothing() {
    let cancel = Cancel::default();
    let writer = writer().await.with_cancel(cancel.clone());
    let mut plan = Plan::new(&writer, &resources(20), Unlisted::Keep).unwrap();
    cancel.cancel();
    let is_cancelled =
        |problem: &AccountError| matches!(problem, AccountError::Store(StoreError::Cancelled));
    assert!(matches!(plan.check_guards(Guards::Keep), Err(StoreError::Cancelled)));
    assert!(
        plan.into_commit(&writer, ApplyOptions::default())
            .is_err_and(|problem| is_cancelled(&problem))
    );
    let applied = writer.admin().unwrap().apply(resources(20), ApplyOptions::default()).await;
    assert!(applied.is_err_and(|problem| is_cancelled(&problem)));
    assert_eq!(writer.list::<Resource>(None, 100).unwrap().items.len(), 1);
}
