//! Files that are applied while others write.

use super::*;
use crate::model::Mode;
use crate::model::{Application, Key, Resource, User};

/// A user as a file states it.
fn stated(name: &str, roles: &[&str]) -> StatedUser {
    let accounts = on(Arc::new(MemoryStore::new()));
    let roles = roles.iter().map(|id| (*id).to_owned()).collect();
    let user = accounts.draft_user(NewUser { roles, ..named(name) });
    StatedUser {
        user,
        uid: None,
        uuid: None,
        init: None,
        created: None,
        password: StatedPassword::Unsaid,
    }
}

fn users(users: Vec<StatedUser>) -> State {
    State { users, ..State::default() }
}

const PRUNE: Apply = Apply { others: Others::Go, mode: Mode::Live };

/// Accounts with a second administrator, on a store in which something can happen in between.
async fn two_administrators() -> (Arc<Contended>, Writer) {
    let store = Contended::new();
    let accounts = on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(administrator("second")).await.unwrap();
    (store, accounts)
}

#[tokio::test]
async fn no_file_takes_the_one_administrator_while_somebody_takes_the_other() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move { block(&others, 2).await.unwrap() });
    let result = accounts.apply(users(vec![stated("admin", &[])]), Apply::default()).await;
    assert!(refusal(result.map(drop)).contains("no active administrator"));
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn what_a_file_rests_on_is_looked_at_again_when_it_has_changed() {
    let (store, accounts) = two_administrators().await;
    accounts.create(role("reader", false)).await.unwrap();
    store.before_commit(
        |others| async move { others.delete::<Role>("reader", None).await.unwrap() },
    );
    let result = accounts.apply(users(vec![stated("anna", &["reader"])]), Apply::default()).await;
    assert_eq!(invalid(result.map(drop)), ["users.0.roles.0"]);
    // A name that somebody takes in between is that user's, and is changed as the file says.
    store.before_commit(|others| async move { drop(others.create_user(named("Anna")).await) });
    let applied = accounts.apply(users(vec![stated("anna", &[])]), Apply::default()).await.unwrap();
    assert_eq!(applied.counts(), [0, 1, 0]);
    let held: Versioned<User> = accounts.user(3).unwrap().unwrap();
    assert_eq!(held.record.name, "anna");
}

#[tokio::test]
async fn two_resources_do_not_come_to_one_place_from_two_sides() {
    let (store, accounts) = two_administrators().await;
    let resource = |id: &str| -> Resource {
        let record = serde_json::json!({
            "id": id, "enabled": true, "handler": "respond", "path": "/one", "granularity": "resource",
            "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
        });
        serde_json::from_value(record).unwrap()
    };
    let other = resource("other");
    store.before_commit(|others| async move { drop(others.create(other).await.unwrap()) });
    let state = State { resources: vec![resource("mine")], ..State::default() };
    let result = accounts.apply(state, Apply::default()).await;
    assert_eq!(invalid(result.map(drop)), ["resources.0.path"]);
}

#[tokio::test]
async fn there_is_one_default_application_at_every_moment() {
    let (store, accounts) = two_administrators().await;
    let default =
        |id: &str| Application { is_default: true, ..Application::api_key(id, "Another") };
    let other = default("other");
    store.before_commit(|others| async move { drop(others.create(other).await.unwrap()) });
    let state = State { applications: vec![default("mine")], ..State::default() };
    accounts.apply(state, Apply::default()).await.unwrap();
    let all = accounts.list::<Application>(None, 9).unwrap().items;
    let defaults: Vec<&str> =
        all.iter().filter(|one| one.record.is_default).map(|one| one.record.id.as_str()).collect();
    assert_eq!(defaults, ["mine"]);
}

#[tokio::test]
async fn a_key_that_is_made_while_its_user_is_pruned_goes_too() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move {
        others.issue_key(2, NewKey::default()).await.unwrap();
    });
    let state = State {
        roles: vec![role("administrator", true)],
        ..users(vec![stated("admin", &["administrator"])])
    };
    let applied = accounts.apply(state, PRUNE).await.unwrap();
    assert!(applied.changes.iter().any(|one| one.kind == "user" && one.id == "second"));
    assert!(accounts.keys_of(2, None, 9).unwrap().items.is_empty());
    let keys: Vec<Versioned<Key>> = accounts.keys(None, 9).unwrap().items;
    assert!(keys.is_empty(), "{keys:?}");
    assert!(accounts.user(2).unwrap().is_none());
}

#[tokio::test]
async fn no_key_comes_for_a_user_that_has_just_gone() {
    let (store, accounts) = two_administrators().await;
    let (key, _) = accounts.draft_key(2, &NewKey::default());
    let id = crate::model::KeyId::from_number(7);
    let state = || State {
        pepper: Some(accounts.pepper().fingerprint()),
        keys: vec![StatedKey {
            key: Key { id, user: 0, ..key.clone() },
            owner: "second".into(),
            prefix: None,
            last_four: None,
            created: None,
        }],
        ..State::default()
    };
    store.before_commit(|others| async move { others.delete_user(2, None).await.unwrap() });
    let result = accounts.apply(state(), Apply::default()).await;
    assert_eq!(invalid(result.map(drop)), ["keys.0.user"]);
    assert!(accounts.key(id).unwrap().is_none());
}

#[tokio::test]
async fn a_user_gets_no_key_too_many_from_two_sides() {
    let (store, accounts) = two_administrators().await;
    let accounts = with_keys(&accounts, 1);
    let key = accounts.issue_key(1, NewKey::default()).await;
    assert!(key.is_err(), "the administrator has one");
    let other = accounts.clone();
    store.before_commit(
        |_| async move { drop(other.issue_key(2, NewKey::default()).await.unwrap()) },
    );
    let digest = accounts.pepper().digest("x");
    let (key, _) = accounts.draft_key(2, &NewKey::default());
    let keys = vec![StatedKey {
        key: Key { digest, ..key },
        owner: "second".into(),
        prefix: None,
        last_four: None,
        created: None,
    }];
    let pepper = Some(accounts.pepper().fingerprint());
    let state = State { pepper, keys, ..State::default() };
    let result = accounts.apply(state, Apply::default()).await;
    assert_eq!(invalid(result.map(drop)), ["keys.0.user"]);
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 1);
}
