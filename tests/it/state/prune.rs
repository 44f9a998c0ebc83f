//! What a file does not name goes, if that is asked for, and leaves nothing behind.

use std::sync::Arc;

use keyward::{
    accounts::{Import, ImportDigest, ImportMode, ImportRow, NewKey, NewUser, Strangers},
    model::{Actor, Secret},
    store::{MemoryStore, Store as _, Table},
};
use serde_json::json;

use super::{Desk, changes, file, on};
use crate::harness::credential;

const KEPT: &str = "[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\n\
    [[roles]]\nid = \"administrator\"\nlabel = \"Administrator\"\nweight = 2\nis_admin = true\n\
    [[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n";

#[tokio::test]
async fn what_is_not_named_goes_and_what_was_its_is_free() {
    let (desk, _) = Desk::first().await;
    let text = "[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\nroles = [\"reader\"]\n\
        [[roles]]\nid = \"reader\"\nlabel = \"R\"\n\
        [[applications]]\nid = \"mobile\"\nname = \"M\"\n\
        [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n";
    desk.applies(&file(text), "").await;
    let acting = desk.accounts.acting(Actor::Program);
    acting.issue_key(2, NewKey::default()).await.unwrap();
    // Without being asked for, nothing goes.
    assert_eq!(desk.applies(&file(KEPT), "").await["changes"], json!([]));
    let told = desk.applies(&file(KEPT), "prune=true&dry_run=true").await;
    let gone = changes(&told);
    assert_eq!(told["removed"], 7);
    for one in [
        "- role reader",
        "- application mobile",
        "- resource hi",
        "- resource entity.user",
        "- user anna",
    ] {
        assert!(gone.iter().any(|gone| gone == one), "{one} {gone:?}");
    }
    assert_eq!(changes(&desk.applies(&file(KEPT), "prune=true").await), gone);
    assert_eq!(desk.applies(&file(KEPT), "prune=true").await["changes"], json!([]));
    // Two roles are the program's own.
    let policy = desk.accounts.directory().policy();
    assert!(
        policy.roles.role("anonymous").is_some() && policy.roles.role("authenticated").is_some()
    );
    assert!(desk.accounts.keys(None, 9).unwrap().items.is_empty());
    assert!(desk.accounts.keys_of(2, None, 9).unwrap().items.is_empty());
    // Name and mail address are free, the number is not.
    let new = NewUser {
        name: "ANNA".into(),
        mail: Some("A@x.example".into()),
        status: true,
        ..NewUser::default()
    };
    assert_eq!(acting.create_user(new).await.unwrap().record.uid, 3);
}

#[tokio::test]
async fn what_stays_cannot_rest_on_what_goes() {
    let (desk, _) = Desk::first().await;
    let text = "[[roles]]\nid = \"reader\"\nlabel = \"R\"\n[[users]]\nname = \"anna\"\nroles = [\"reader\"]\n\
        [[applications]]\nid = \"mobile\"\nname = \"M\"\n\
        [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n";
    desk.applies(&file(text), "").await;
    let before = desk.export().await;
    let part = |id: &str| {
        let parts = before.split("\n\n").filter(|one| !one.contains(&format!("\nid = \"{id}\"\n")));
        parts.map(|one| format!("{one}\n\n")).collect::<String>()
    };
    for (id, says) in [("reader", "user anna: roles.0"), ("mobile", "resource hi: authentication")]
    {
        let (status, told) = desk.apply(&part(id), "prune=true").await;
        assert_eq!(status, 422, "{told:#}");
        assert!(told["errors"][0]["location"].as_str().unwrap().ends_with(says), "{told:#}");
        assert_eq!(desk.export().await, before);
    }
}

#[tokio::test]
async fn a_default_application_steps_back_for_another() {
    let (desk, _) = Desk::first().await;
    let told = desk
        .applies(&file("[[applications]]\nid = \"new\"\nname = \"N\"\nis_default = true\n"), "")
        .await;
    assert_eq!(changes(&told), ["+ application new", "~ application default"]);
    let policy = desk.accounts.directory().policy();
    assert_eq!(policy.applications.default().unwrap().record.id, "new");
    assert!(!policy.applications.get("default").unwrap().record.is_default);
}

#[tokio::test]
async fn a_key_that_goes_does_not_open_from_then_on() {
    let (desk, first) = Desk::first().await;
    let acting = desk.accounts.acting(Actor::Program);
    let issued = acting.issue_key(1, NewKey::default()).await.unwrap();
    let other = desk.asked_with(&credential("admin", issued.text.expose()));
    let text = desk.export().await;
    let id = issued.key.record.id.to_string();
    let text: String = text
        .split("\n\n")
        .filter(|one| !one.contains(&id))
        .map(|one| format!("{one}\n\n"))
        .collect();
    assert_eq!(other.ask("GET", "/api/v1/me", "", "").await.0, 200);
    assert_eq!(changes(&desk.applies(&text, "prune=true").await), [format!("- key {id}")]);
    assert_eq!(other.ask("GET", "/api/v1/me", "", "").await.0, 401);
    assert_eq!(desk.asked_with(&first).ask("GET", "/api/v1/me", "", "").await.0, 200);
}

#[tokio::test]
async fn no_index_keeps_what_has_gone() {
    let store = Arc::new(MemoryStore::new());
    let desk = Desk::of(on(store.clone()));
    desk.accounts.first_start().await.unwrap().unwrap();
    let count = |table| store.scan(table, &[], None, 99).unwrap().len();
    let all = || {
        [Table::Users, Table::Names, Table::Mails, Table::Keys, Table::Owners, Table::Foreign]
            .map(count)
    };
    assert_eq!(all(), [1, 1, 0, 1, 1, 0]);
    desk.applies(&file("[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\n"), "").await;
    let acting = desk.accounts.acting(Actor::Program);
    acting.issue_key(2, NewKey::default()).await.unwrap();
    let rows = vec![ImportRow {
        line: 1,
        username: "anna".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (digest, strangers, mode) = (ImportDigest::Clear, Strangers::Refused, ImportMode::Write);
    let import = Import { digest, strangers, includes_administrators: false, mode, rows };
    acting.import_keys(&import).await.unwrap();
    let with_anna = desk.export().await;
    assert_eq!(all(), [2, 2, 1, 3, 3, 1]);
    desk.applies(&file(KEPT), "prune=true").await;
    assert_eq!(all(), [1, 1, 0, 0, 0, 0]);
    desk.applies(&with_anna, "").await;
    assert_eq!(all(), [2, 2, 1, 3, 3, 1]);
    assert_eq!(desk.export().await, with_anna);
    // What another system's key is found by is one user's.
    let key = with_anna.split("[[keys]]").find(|one| one.contains("scheme = \"text\"")).unwrap();
    let id = key.lines().find(|line| line.starts_with("id = ")).unwrap();
    let head = with_anna.lines().find(|line| line.starts_with("pepper")).unwrap();
    let second = key.replace(id, "id = \"0000aZ19\"");
    for (text, says) in [
        (format!("{head}\n[[keys]]{second}"), "Another key of the store"),
        (format!("{head}\n[[keys]]{key}\n[[keys]]{second}"), "Two keys of the file"),
    ] {
        let (status, told) = desk.apply(&file(&text), "").await;
        assert_eq!(status, 422);
        assert!(told.to_string().contains(says), "{told:#}");
    }
}
