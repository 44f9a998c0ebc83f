//! What waits to be sent, and nothing else, is what tells of what was written.

use super::*;
use crate::scripting::{Limits, Secrets};

const TELLS: &str = r#"
fn on_user_created(event) { webhook("ops", #{ user: event.user }); }
fn on_key_created(event) {
    webhook("ops", #{ key: event.id });
    if event.label == "taken over" { deny(403, "NO", "No."); }
}
"#;

/// Accounts of this store whose script of events is this one.
fn telling(store: Arc<dyn Store>, most: usize) -> (Writer, tempfile::TempDir) {
    let accounts = (*on(store)).clone().with_webhooks(["ops".to_owned()], most).unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("events.rhai"), TELLS).unwrap();
    let (limits, secrets) = (Limits::default(), Secrets::default());
    accounts.load_scripts(folder.path(), limits, secrets, None).unwrap();
    (accounts.acting(Actor::Program), folder)
}

fn letters(accounts: &Accounts) -> Vec<String> {
    let all = accounts.store().scan(Table::Webhooks, &[], None, 99).unwrap();
    all.into_iter().map(|(_, one)| String::from_utf8(one.json).unwrap()).collect()
}

#[tokio::test]
async fn who_loses_a_race_sends_nothing() {
    let store = Contended::new();
    let (accounts, _folder) = telling(store.clone(), 9);
    accounts.first_start().await.unwrap().unwrap();
    assert_eq!(accounts.webhooks(), (0, 0));
    store.before_commit(
        |others| async move { drop(others.create_user(named("bob")).await.unwrap()) },
    );
    assert_eq!(invalid(accounts.create_user(named("bob")).await), ["name"]);
    assert_eq!((letters(&accounts).len(), accounts.webhooks()), (0, (0, 0)));
    // One that is tried again tells of what was written at last, once.
    store.before_commit(|others| async move {
        drop(others.issue_key(1, NewKey::default()).await.unwrap());
    });
    let made = accounts.issue_key(1, NewKey::default()).await.unwrap().key.record.id;
    let found = letters(&accounts);
    assert_eq!((found.len(), accounts.webhooks()), (1, (1, 0)));
    assert!(found[0].contains(&made.to_string()), "{found:?}");
}

#[tokio::test]
async fn a_key_that_a_script_takes_over_is_asked_about() {
    let (accounts, _folder) = telling(Arc::new(MemoryStore::new()), 9);
    accounts.first_start().await.unwrap().unwrap();
    let text = crate::model::Secret::new("a-key-of-another-system");
    let refused = accounts.adopt_key(1, "default", &text).await;
    assert!(matches!(refused, Err(AccountError::Script(_))), "{refused:?}");
    assert_eq!((letters(&accounts).len(), accounts.webhooks()), (0, (0, 0)));
}

#[tokio::test]
async fn a_letter_comes_back_until_it_is_done() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    let (accounts, _folder) = telling(store.clone(), 1);
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(named("bob")).await.unwrap();
    accounts.create_user(named("eve")).await.unwrap();
    assert_eq!(accounts.webhooks(), (1, 1), "there is room for one");
    let (id, mut letter) = accounts.letters("ops", 9).unwrap().remove(0);
    assert!(accounts.letters("ops", 9).unwrap().is_empty(), "somebody has it");
    letter.tries += 1;
    letter.next = NOW.plus(60);
    accounts.letter_later(id, letter.clone()).await.unwrap();
    assert!(accounts.letters("ops", 9).unwrap().is_empty());
    // Also after a start.
    let (again, _other) = telling(store.clone(), 1);
    assert_eq!(again.webhooks(), (1, 0));
    again.clock().set(NOW.plus(60));
    assert_eq!(again.letters("ops", 9).unwrap(), [(id, letter)]);
    again.letter_done(id).await.unwrap();
    assert_eq!((letters(&again).len(), again.webhooks()), (0, (0, 0)));
    // Those of a receiver who is gone are given up.
    again.create_user(named("amy")).await.unwrap();
    let none = (*on(store)).clone().with_webhooks([], 1).unwrap();
    assert_eq!((none.webhooks(), none.drop_strangers_letters().await.unwrap()), ((1, 0), 1));
    assert_eq!(letters(&none).len(), 0);
}
