//! After a file was applied, everything is found by whatever it is found by: in the same process, and after the next start.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use keyward::{
    Layer,
    accounts::{
        AccountError, Accounts, Import, ImportDigest, ImportMode, ImportRow, NewKey, NewUser,
        Strangers,
    },
    model::{Actor, Secret},
    pipeline::Gate,
    store::SledStore,
};

use super::{Desk, file, on};
use crate::{faces::rig::ask, harness::credential};

const APPLICATIONS: &str = "[[applications]]\nid = \"plain\"\nname = \"P\"\ntype = \"bearer\"\nheader = \"Authorization\"\n\
    [[applications]]\nid = \"login\"\nname = \"L\"\ntype = \"basic\"\n";

/// What a request with these header fields is answered.
async fn status(accounts: &Accounts, headers: &[(&str, &str)]) -> u16 {
    let layer = Layer::new(Gate::new(accounts, 4096)).requires_user();
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(&layer, request.body(Full::new(Bytes::new())).unwrap()).await.0.status().as_u16()
}

/// Who has which credentials.
struct Known {
    own: String,
    foreign: String,
    password: String,
}

async fn source() -> (Desk, Known) {
    let (desk, _) = Desk::first().await;
    desk.applies(&file(APPLICATIONS), "").await;
    let acting = desk.accounts.acting(Actor::Program);
    let password = desk.accounts.hash_password(Secret::new("hunter22")).await.unwrap();
    let new = NewUser {
        name: "Anna".into(),
        mail: Some("anna@x.example".into()),
        status: true,
        password: Some(password),
        ..NewUser::default()
    };
    let uid = acting.create_user(new).await.unwrap().record.uid;
    let own = acting.issue_key(uid, NewKey::default()).await.unwrap();
    let rows = vec![ImportRow {
        line: 1,
        username: "anna".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (strangers, mode) = (Strangers::Refused, ImportMode::Write);
    let import = Import {
        digest: ImportDigest::Clear,
        strangers,
        includes_administrators: false,
        mode,
        rows,
    };
    acting.import_keys(&import).await.unwrap();
    let known = Known {
        own: credential("anna", own.text.expose()),
        foreign: "Bearer the-foreign-key".into(),
        password: format!("Basic {}", credential("ANNA", "hunter22")),
    };
    (desk, known)
}

async fn is_found(accounts: &Accounts, known: &Known, exported: &str) {
    assert_eq!(status(accounts, &[("api-key", &known.own)]).await, 200);
    let plain = [("auth-method", "plain"), ("authorization", known.foreign.as_str())];
    assert_eq!(status(accounts, &plain).await, 200);
    let login = [("auth-method", "login"), ("authorization", known.password.as_str())];
    assert_eq!(status(accounts, &login).await, 200);
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 2);
    let acting = accounts.acting(Actor::Program);
    let named = |name: &str, mail: &str| NewUser {
        name: name.into(),
        mail: Some(mail.into()),
        status: true,
        ..NewUser::default()
    };
    for new in [named("aNNa", "new@x.example"), named("new", "ANNA@x.example")] {
        let taken = acting.create_user(new).await.unwrap_err();
        assert!(taken.to_string().contains("already taken"), "{taken}");
    }
    // The same key cannot come a second time.
    let rows = vec![ImportRow {
        line: 1,
        username: "admin".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (strangers, mode) = (Strangers::Refused, ImportMode::Check);
    let again = Import {
        digest: ImportDigest::Clear,
        strangers,
        includes_administrators: true,
        mode,
        rows,
    };
    let taken = acting.import_keys(&again).await.unwrap_err();
    assert!(matches!(taken, AccountError::Invalid(_)), "{taken}");
    assert_eq!(accounts.export().await.unwrap(), exported);
}

fn open(path: &Path) -> Accounts {
    on(Arc::new(SledStore::open(path, 16).unwrap()))
}

#[tokio::test]
async fn everything_is_found_after_an_apply_and_after_a_start() {
    let (desk, known) = source().await;
    let exported = desk.export().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = Desk::of(open(&path));
    other.applies(&exported, "").await;
    is_found(&other.accounts, &known, &exported).await;
    drop(other);
    let accounts = open(&path);
    is_found(&accounts, &known, &exported).await;
    // The store is filled: a start makes nothing new.
    assert!(accounts.first_start().await.unwrap().is_none());
    // Numbers go on behind the largest.
    let new = NewUser { name: "next".into(), status: true, ..NewUser::default() };
    let acting = accounts.acting(Actor::Program);
    // Those who were refused above have used up two of them.
    assert_eq!(acting.create_user(new).await.unwrap().record.uid, 5);
}

#[tokio::test]
async fn who_gives_a_name_up_gives_it_to_another() {
    let (desk, known) = source().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = Desk::of(open(&path));
    other.applies(&desk.export().await, "").await;
    let text = "[[users]]\nname = \"bob\"\nmail = \"bob@x.example\"\n";
    other.applies(&file(text), "").await;
    // Names and mail addresses change hands, and a third takes what is free.
    let text = "[[users]]\nuid = 2\nname = \"bob\"\nmail = \"bob@x.example\"\n\
        [[users]]\nuid = 3\nname = \"carl\"\nmail = \"anna@x.example\"\n\
        [[users]]\nname = \"anna\"\n";
    other.applies(&file(text), "").await;
    has_moved(&other.accounts, &known).await;
    drop(other);
    has_moved(&open(&path), &known).await;
}

async fn has_moved(accounts: &Accounts, known: &Known) {
    let uid = |name: &str| accounts.directory().user_by_name(name).map(|member| member.uid);
    assert_eq!(
        [uid("bob"), uid("carl"), uid("anna"), uid("nobody")],
        [Some(2), Some(3), Some(4), None]
    );
    assert_eq!(status(accounts, &[("api-key", &known.own)]).await, 401);
    let plain = [("auth-method", "plain"), ("authorization", known.foreign.as_str())];
    assert_eq!(status(accounts, &plain).await, 200);
    for mail in ["bob@x.example", "anna@x.example"] {
        let new = NewUser {
            name: "new".into(),
            mail: Some(mail.into()),
            status: true,
            ..NewUser::default()
        };
        let taken = accounts.acting(Actor::Program).create_user(new).await.unwrap_err();
        assert!(taken.to_string().contains("already taken"), "{taken}");
    }
}

#[tokio::test]
async fn a_number_that_was_a_users_is_nobody_elses_after_a_start_either() {
    let (desk, _) = Desk::first().await;
    let first = desk.export().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let other = Desk::of(open(&path));
    other.applies(&first, "").await;
    other.applies(&file("[[users]]\nname = \"anna\"\n"), "").await;
    assert_eq!(other.applies(&first, "prune=true").await["removed"], 1);
    drop(other);
    let accounts = open(&path);
    let new = NewUser { name: "anna".into(), status: true, ..NewUser::default() };
    let made = accounts.acting(Actor::Program).create_user(new).await.unwrap();
    assert_eq!(made.record.uid, 3);
}
