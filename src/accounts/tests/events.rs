//! Tests of the rule that a webhook waits for delivery if and only if the change that the webhook
//! reports was written.

use super::*;
use crate::scripting::{ScriptLimits, Secrets};

const SCRIPT: &str = r#"
fn on_user_created(event) { webhook("ops", #{ user: event.user }); }
fn on_key_created(event) {
    webhook("ops", #{ key: event.id });
    if event.label == "taken over" { deny(403, "NO", "No."); }
}
"#;

/// Accounts of this store with the event script above. At most `limit` webhooks may wait.
fn accounts_with_script(store: Arc<dyn Store>, limit: usize) -> (Writer, tempfile::TempDir) {
    let accounts = (*accounts_on(store)).clone().with_webhooks(["ops".to_owned()], limit).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.rhai"), SCRIPT).unwrap();
    let (limits, secrets) = (ScriptLimits::default(), Secrets::default());
    accounts.load_scripts(folder.path(), limits, secrets, None).unwrap();
    (accounts.as_actor(Actor::Program), folder)
}

fn stored_webhooks(accounts: &Accounts) -> Vec<String> {
    let all = accounts.store().scan(Table::Webhooks, &[], None, 99).unwrap();
    all.into_iter().map(|(_, stored)| String::from_utf8(stored.json).unwrap()).collect()
}

#[tokio::test]
async fn refused_or_conflicting_attempt_sends_no_webhook() {
    let store = InterruptedStore::new();
    let (accounts, _folder) = accounts_with_script(store.clone(), 9);
    accounts.first_start().await.unwrap().unwrap();
    assert_eq!(accounts.webhooks(), (0, 0));
    store.before_commit(|others| async move {
        drop(others.create_user(new_user("bob")).await.unwrap())
    });
    assert_eq!(invalid(accounts.create_user(new_user("bob")).await), ["name"]);
    assert_eq!((stored_webhooks(&accounts).len(), accounts.webhooks()), (0, (0, 0)));
    // A change that is retried after a conflict sends one webhook, about the written record.
    store.before_commit(|others| async move {
        drop(others.issue_key(1, NewKey::default()).await.unwrap());
    });
    let id = accounts.issue_key(1, NewKey::default()).await.unwrap().key.record.id;
    let found = stored_webhooks(&accounts);
    assert_eq!((found.len(), accounts.webhooks()), (1, (1, 0)));
    assert!(found[0].contains(&id.to_string()), "{found:?}");
}

#[tokio::test]
async fn adopted_key_needs_approval() {
    let (accounts, _folder) = accounts_with_script(Arc::new(MemoryStore::new()), 9);
    accounts.first_start().await.unwrap().unwrap();
    let text = crate::model::Secret::new("a-key-of-another-system");
    let refused = accounts.adopt_key(1, "default", &text, &AdoptedBounds::default()).await;
    assert!(matches!(refused, Err(AccountError::Script(_))), "{refused:?}");
    assert_eq!((stored_webhooks(&accounts).len(), accounts.webhooks()), (0, (0, 0)));
}

#[tokio::test]
async fn webhook_is_retried_until_it_is_removed() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (accounts, _folder) = accounts_with_script(store.clone(), 1);
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    accounts.create_user(new_user("eve")).await.unwrap();
    assert_eq!(accounts.webhooks(), (1, 1), "the limit is one");
    let (id, mut webhook) = accounts.take_due_webhooks("ops", 9).unwrap().remove(0);
    assert!(
        accounts.take_due_webhooks("ops", 9).unwrap().is_empty(),
        "the webhook is being delivered"
    );
    webhook.tries += 1;
    webhook.next = NOW.plus(60);
    accounts.retry_webhook_later(id, webhook.clone()).await.unwrap();
    assert!(accounts.take_due_webhooks("ops", 9).unwrap().is_empty());
    // After a restart, the webhook is scheduled for the same time.
    let (restarted, _other) = accounts_with_script(store.clone(), 1);
    assert_eq!(restarted.webhooks(), (1, 0));
    restarted.clock().set(NOW.plus(60));
    assert_eq!(restarted.take_due_webhooks("ops", 9).unwrap(), [(id, webhook)]);
    restarted.remove_webhook(id).await.unwrap();
    assert_eq!((stored_webhooks(&restarted).len(), restarted.webhooks()), (0, (0, 0)));
    // Webhooks of a receiver that is no longer configured are dropped.
    restarted.create_user(new_user("amy")).await.unwrap();
    let without_receivers = (*accounts_on(store)).clone().with_webhooks([], 1).unwrap();
    assert_eq!(without_receivers.webhooks(), (1, 0));
    assert_eq!(without_receivers.drop_unknown_webhooks().await.unwrap(), 1);
    assert_eq!(stored_webhooks(&without_receivers).len(), 0);
}
