//! Tests of applying state files while other writers change records.

use super::*;
use crate::{
    accounts::Guards,
    model::{Application, Key, Mode, Resource, User},
};

/// A user in a state file.
fn listed_user(name: &str, roles: &[&str]) -> DocumentUser {
    let accounts = accounts_on(Arc::new(MemoryStore::new()));
    let roles = roles.iter().map(|id| (*id).to_owned()).collect();
    let user = accounts.draft_user(NewUser { roles, ..new_user(name) });
    DocumentUser {
        user,
        uid: None,
        uuid: None,
        init: None,
        created: None,
        password: DocumentPassword::Unspecified,
    }
}

fn document_of_users(users: Vec<DocumentUser>) -> StateDocument {
    StateDocument { users, ..StateDocument::default() }
}

async fn apply(
    accounts: &Writer,
    document: StateDocument,
    options: ApplyOptions,
) -> Result<Applied, AccountError> {
    accounts.admin().unwrap().apply(document, options).await
}

const PRUNE: ApplyOptions = ApplyOptions {
    unlisted: Unlisted::Remove,
    guards: Guards::Keep,
    left_out: LeftOut::Refuse,
    mode: Mode::Live,
};

#[tokio::test]
async fn file_cannot_remove_the_last_administrator_during_another_change() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move { block(&others, 2).await.unwrap() });
    let document = document_of_users(vec![listed_user("admin", &[])]);
    let result = apply(&accounts, document, ApplyOptions::default()).await;
    assert!(refusal(result.map(drop)).contains("no active administrator"));
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn file_is_checked_again_after_a_conflict() {
    let (store, accounts) = two_administrators().await;
    accounts.create(role("reader", false)).await.unwrap();
    store.before_commit(
        |others| async move { others.delete::<Role>("reader", None).await.unwrap() },
    );
    let document = document_of_users(vec![listed_user("anna", &["reader"])]);
    let result = apply(&accounts, document, ApplyOptions::default()).await;
    assert_eq!(invalid(result.map(drop)), ["users.0.roles.0"]);
    // If another writer has just created a user with this name, the file changes that user.
    store.before_commit(|others| async move { drop(others.create_user(new_user("Anna")).await) });
    let document = document_of_users(vec![listed_user("anna", &[])]);
    let applied = apply(&accounts, document, ApplyOptions::default()).await.unwrap();
    assert_eq!(applied.counts(), [0, 1, 0]);
    let user: Versioned<User> = accounts.user(3).unwrap().unwrap();
    assert_eq!(user.record.name, "anna");
}

#[tokio::test]
async fn patch_does_not_overwrite_a_record_that_changed_after_it_was_merged() {
    let accounts = accounts().await;
    let patch = |base| {
        let mut bases = PatchBases::default();
        bases.insert("roles", 0, base);
        StateDocument { roles: vec![role("x", false)], bases, ..StateDocument::default() }
    };
    let options = ApplyOptions::default();
    assert_eq!(apply(&accounts, patch(None), options).await.unwrap().counts(), [1, 0, 0]);
    let current = accounts.get::<Role>("x").unwrap().unwrap().revision;
    for base in [None, Some(current - 1)] {
        let result = apply(&accounts, patch(base), options).await;
        assert!(matches!(result, Err(AccountError::Stale { .. })), "{result:?}");
    }
    let applied = apply(&accounts, patch(Some(current)), options).await.unwrap();
    assert_eq!((applied.changes.len(), applied.unchanged), (0, 1));
}

#[tokio::test]
async fn file_that_clears_a_field_which_it_leaves_out_is_refused_unless_it_is_told_to() {
    let accounts = accounts().await;
    let document = |names: serde_json::Value| {
        let mut document = document_of_users(vec![listed_user("anna", &[])]);
        document.fields.push("users", &names);
        document
    };
    let anna = NewUser { mail: Some("a@x.example".into()), ..new_user("anna") };
    accounts.create_user(anna).await.unwrap();
    let partial = || document(serde_json::json!({ "name": "anna" }));
    let refused = apply(&accounts, partial(), ApplyOptions::default()).await;
    assert_eq!(invalid(refused), ["users.0.mail"]);
    let dry = ApplyOptions { mode: Mode::DryRun, ..ApplyOptions::default() };
    assert_eq!(apply(&accounts, partial(), dry).await.unwrap().changes[0].cleared, ["mail"]);
    assert!(accounts.user(2).unwrap().unwrap().record.mail.is_some());
    let clear = ApplyOptions { left_out: LeftOut::Clear, ..ApplyOptions::default() };
    apply(&accounts, partial(), clear).await.unwrap();
    assert!(accounts.user(2).unwrap().unwrap().record.mail.is_none());
}

#[tokio::test]
async fn two_resources_cannot_get_the_same_path_simultaneously() {
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
    let state = StateDocument { resources: vec![resource("mine")], ..StateDocument::default() };
    let result = apply(&accounts, state, ApplyOptions::default()).await;
    assert_eq!(invalid(result.map(drop)), ["resources.0.path"]);
}

#[tokio::test]
async fn there_is_one_default_application_at_every_moment() {
    let (store, accounts) = two_administrators().await;
    let default =
        |id: &str| Application { is_default: true, ..Application::api_key(id, "Another") };
    let other = default("other");
    store.before_commit(|others| async move { drop(others.create(other).await.unwrap()) });
    let state = StateDocument { applications: vec![default("mine")], ..StateDocument::default() };
    apply(&accounts, state, ApplyOptions::default()).await.unwrap();
    let all = accounts.list::<Application>(None, 9).unwrap().items;
    let defaults: Vec<&str> =
        all.iter().filter(|app| app.record.is_default).map(|app| app.record.id.as_str()).collect();
    assert_eq!(defaults, ["mine"]);
}

#[tokio::test]
async fn key_created_while_its_user_is_pruned_is_deleted() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move {
        others.issue_key(2, NewKey::default()).await.unwrap();
    });
    let state = StateDocument {
        roles: vec![role("administrator", true)],
        ..document_of_users(vec![listed_user("admin", &["administrator"])])
    };
    let applied = apply(&accounts, state, PRUNE).await.unwrap();
    assert!(applied.changes.iter().any(|change| change.kind == "user" && change.id == "second"));
    assert!(accounts.keys_of(2, None, 9).unwrap().items.is_empty());
    let keys: Vec<Versioned<Key>> = accounts.keys(None, 9).unwrap().items;
    assert!(keys.is_empty(), "{keys:?}");
    assert!(accounts.user(2).unwrap().is_none());
}

#[tokio::test]
async fn file_creates_no_key_for_a_user_who_was_just_deleted() {
    let (store, accounts) = two_administrators().await;
    let (key, _) = accounts.draft_key(2, &NewKey::default());
    let id = crate::model::KeyId::from_number(7);
    let state = || StateDocument {
        pepper: Some(accounts.pepper().fingerprint()),
        keys: vec![DocumentKey {
            key: Key { id, user: 0, ..key.clone() },
            owner: "second".into(),
            prefix: None,
            last_four: None,
            created: None,
        }],
        ..StateDocument::default()
    };
    store.before_commit(|others| async move { others.delete_user(2, None).await.unwrap() });
    let result = apply(&accounts, state(), ApplyOptions::default()).await;
    assert_eq!(invalid(result.map(drop)), ["keys.0.user"]);
    assert!(accounts.key(id).unwrap().is_none());
}

#[tokio::test]
async fn file_and_simultaneous_key_do_not_exceed_the_quota() {
    let (store, accounts) = two_administrators().await;
    let accounts = with_key_limit(&accounts, 1);
    let key = accounts.issue_key(1, NewKey::default()).await;
    assert!(key.is_err(), "the administrator already has a key");
    let other = accounts.clone();
    store.before_commit(
        |_| async move { drop(other.issue_key(2, NewKey::default()).await.unwrap()) },
    );
    let digest = accounts.pepper().digest("x");
    let (key, _) = accounts.draft_key(2, &NewKey::default());
    let keys = vec![DocumentKey {
        key: Key { digest, ..key },
        owner: "second".into(),
        prefix: None,
        last_four: None,
        created: None,
    }];
    let pepper = Some(accounts.pepper().fingerprint());
    let state = StateDocument { pepper, keys, ..StateDocument::default() };
    let result = apply(&accounts, state, ApplyOptions::default()).await;
    assert_eq!(invalid(result.map(drop)), ["keys.0.user"]);
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 1);
}
