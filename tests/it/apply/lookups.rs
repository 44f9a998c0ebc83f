//! Every lookup works after `apply`, in the same process and after a restart.

use keyward::model::Mode;
use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use keyward::{
    ClientSource, GuardLayer,
    accounts::{
        AccountError, Accounts, ImportDigest, KeyImport, KeyRow, NewKey, NewUser, UnknownUsers,
    },
    model::{Actor, Secret},
    pipeline::Gate,
    store::SledStore,
};

use super::{ApiClient, accounts_on, file};
use crate::{faces::fixture::send_through, harness::credential};

const APPLICATIONS: &str = "[[applications]]\nid = \"plain\"\nname = \"P\"\ntype = \"bearer\"\nheader = \"Authorization\"\n\
    [[applications]]\nid = \"login\"\nname = \"L\"\ntype = \"basic\"\n";

/// The status of the response to a request with these header fields.
async fn status(accounts: &Accounts, headers: &[(&str, &str)]) -> u16 {
    let layer = GuardLayer::new(Gate::new(accounts, 4096), ClientSource::unknown()).requires_user();
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send_through(&layer, request.body(Full::new(Bytes::new())).unwrap()).await.0.status().as_u16()
}

/// The credentials of the user `Anna`.
struct Credentials {
    issued_key: String,
    imported_key: String,
    password: String,
}

/// Creates a store and the user `Anna`, who has an issued key, an imported key and a password.
async fn store_with_anna() -> (ApiClient, Credentials) {
    let (client, _) = ApiClient::after_first_start().await;
    client.apply_ok(&file(APPLICATIONS), "").await;
    let writer = client.accounts.as_actor(Actor::Program);
    let password = client.accounts.hash_password(Secret::new("hunter22")).await.unwrap();
    let new = NewUser {
        name: "Anna".into(),
        mail: Some("anna@x.example".into()),
        status: true,
        password: Some(password),
        ..NewUser::default()
    };
    let uid = writer.create_user(new).await.unwrap().record.uid;
    let issued = writer.issue_key(uid, NewKey::default()).await.unwrap();
    let rows = vec![KeyRow {
        line: 1,
        username: "anna".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (unknown_users, mode) = (UnknownUsers::Reject, Mode::Live);
    let import = KeyImport { digest: ImportDigest::Clear, unknown_users, mode, rows };
    writer.import_keys(&import).await.unwrap();
    let credentials = Credentials {
        issued_key: credential("anna", issued.text.expose()),
        imported_key: "Bearer the-foreign-key".into(),
        password: format!("Basic {}", credential("ANNA", "hunter22")),
    };
    (client, credentials)
}

/// Asserts that the credentials work, and that a second user cannot get the name, the mail address
/// or the imported key of `Anna`.
async fn assert_found(accounts: &Accounts, credentials: &Credentials, exported: &str) {
    assert_eq!(status(accounts, &[("api-key", &credentials.issued_key)]).await, 200);
    let plain = [("auth-method", "plain"), ("authorization", credentials.imported_key.as_str())];
    assert_eq!(status(accounts, &plain).await, 200);
    let login = [("auth-method", "login"), ("authorization", credentials.password.as_str())];
    assert_eq!(status(accounts, &login).await, 200);
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 2);
    let writer = accounts.as_actor(Actor::Program);
    let named = |name: &str, mail: &str| NewUser {
        name: name.into(),
        mail: Some(mail.into()),
        status: true,
        ..NewUser::default()
    };
    for new in [named("aNNa", "new@x.example"), named("new", "ANNA@x.example")] {
        let taken = writer.create_user(new).await.unwrap_err();
        assert!(taken.to_string().contains("already taken"), "{taken}");
    }
    // A key that was imported for one user cannot be imported for another user.
    let rows = vec![KeyRow {
        line: 1,
        username: "admin".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (unknown_users, mode) = (UnknownUsers::Reject, Mode::DryRun);
    let again = KeyImport { digest: ImportDigest::Clear, unknown_users, mode, rows };
    let taken = writer.import_keys(&again).await.unwrap_err();
    assert!(matches!(taken, AccountError::Invalid(_)), "{taken}");
    assert_eq!(
        accounts.as_actor(Actor::Program).admin().unwrap().export().await.unwrap(),
        exported
    );
}

fn open(path: &Path) -> Accounts {
    accounts_on(Arc::new(SledStore::open(path, 16).unwrap()))
}

#[tokio::test]
async fn every_lookup_works_after_apply_and_restart() {
    let (client, credentials) = store_with_anna().await;
    let exported = client.export().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = ApiClient::operator(open(&path));
    other.apply_ok(&exported, "").await;
    assert_found(&other.accounts, &credentials, &exported).await;
    drop(other);
    let accounts = open(&path);
    assert_found(&accounts, &credentials, &exported).await;
    // The store is not empty, so a start creates no first administrator.
    assert!(accounts.first_start().await.unwrap().is_none());
    // A new user gets a larger id than all users before. `assert_found` has just used up the ids 3
    // and 4 for the two users that were rejected.
    let new = NewUser { name: "next".into(), status: true, ..NewUser::default() };
    let writer = accounts.as_actor(Actor::Program);
    assert_eq!(writer.create_user(new).await.unwrap().record.uid, 5);
}

#[tokio::test]
async fn names_and_mail_addresses_can_move_to_other_users() {
    let (client, credentials) = store_with_anna().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = ApiClient::operator(open(&path));
    other.apply_ok(&client.export().await, "").await;
    let text = "[[users]]\nname = \"bob\"\nmail = \"bob@x.example\"\n";
    other.apply_ok(&file(text), "").await;
    // User 2 gets the name and mail address of user 3. User 3 gets a new name and the mail address
    // of user 2, and a new user gets the previous name of user 2.
    let text = "[[users]]\nuid = 2\nname = \"bob\"\nmail = \"bob@x.example\"\n\
        [[users]]\nuid = 3\nname = \"carl\"\nmail = \"anna@x.example\"\n\
        [[users]]\nname = \"anna\"\n";
    other.apply_ok(&file(text), "").await;
    assert_moved(&other.accounts, &credentials).await;
    drop(other);
    assert_moved(&open(&path), &credentials).await;
}

/// Asserts that names, mail addresses and credentials belong to their new users.
async fn assert_moved(accounts: &Accounts, credentials: &Credentials) {
    let uid = |name: &str| accounts.directory().user_by_name(name).map(|user| user.uid);
    assert_eq!(
        [uid("bob"), uid("carl"), uid("anna"), uid("nobody")],
        [Some(2), Some(3), Some(4), None]
    );
    assert_eq!(status(accounts, &[("api-key", &credentials.issued_key)]).await, 401);
    let plain = [("auth-method", "plain"), ("authorization", credentials.imported_key.as_str())];
    assert_eq!(status(accounts, &plain).await, 200);
    for mail in ["bob@x.example", "anna@x.example"] {
        let new = NewUser {
            name: "new".into(),
            mail: Some(mail.into()),
            status: true,
            ..NewUser::default()
        };
        let taken = accounts.as_actor(Actor::Program).create_user(new).await.unwrap_err();
        assert!(taken.to_string().contains("already taken"), "{taken}");
    }
}

#[tokio::test]
async fn uid_of_a_removed_user_is_not_reused_after_a_restart() {
    let (client, _) = ApiClient::after_first_start().await;
    let first = client.export().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = ApiClient::operator(open(&path));
    other.apply_ok(&first, "").await;
    other.apply_ok(&file("[[users]]\nname = \"anna\"\n"), "").await;
    assert_eq!(other.apply_ok(&first, "prune=true").await["removed"], 1);
    drop(other);
    let accounts = open(&path);
    let new = NewUser { name: "anna".into(), status: true, ..NewUser::default() };
    let created = accounts.as_actor(Actor::Program).create_user(new).await.unwrap();
    assert_eq!(created.record.uid, 3);
}
