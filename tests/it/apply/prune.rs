//! `prune` removes the records that the file does not contain, with all their index entries.

use keyward::model::Mode;
use std::sync::Arc;

use keyward::{
    accounts::{ImportDigest, KeyImport, KeyRow, NewKey, NewUser, UnknownUsers},
    model::{Actor, Secret},
    store::{MemoryStore, Store as _, Table},
};
use serde_json::json;

use super::{ApiClient, accounts_on, changes, file};
use crate::harness::credential;

/// The records of a first start that are in the files of the tests, so that `prune` keeps them.
const KEPT: &str = "[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\n\
    [[roles]]\nid = \"administrator\"\nlabel = \"Administrator\"\nweight = 2\nis_admin = true\n\
    [[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n";

#[tokio::test]
async fn prune_removes_unlisted_records_and_frees_their_names() {
    let (client, _) = ApiClient::after_first_start().await;
    let text = "[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\nroles = [\"reader\"]\n\
        [[roles]]\nid = \"reader\"\nlabel = \"R\"\n\
        [[applications]]\nid = \"mobile\"\nname = \"M\"\n\
        [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n";
    client.apply_ok(&file(text), "").await;
    let writer = client.accounts.as_actor(Actor::Program);
    writer.issue_key(2, NewKey::default()).await.unwrap();
    // Without `prune` nothing is removed.
    assert_eq!(client.apply_ok(&file(KEPT), "").await["changes"], json!([]));
    let result = client.apply_ok(&file(KEPT), "prune=true&dry_run=true").await;
    let removed = changes(&result);
    assert_eq!(result["removed"], 7);
    for expected in [
        "- role reader",
        "- application mobile",
        "- resource hi",
        "- resource entity.user",
        "- user anna",
    ] {
        assert!(removed.iter().any(|line| line == expected), "{expected} {removed:?}");
    }
    assert_eq!(changes(&client.apply_ok(&file(KEPT), "prune=true").await), removed);
    assert_eq!(client.apply_ok(&file(KEPT), "prune=true").await["changes"], json!([]));
    // `prune` keeps the two built-in roles, which are not in the file.
    let policy = client.accounts.directory().policy();
    assert!(
        policy.roles.role("anonymous").is_some() && policy.roles.role("authenticated").is_some()
    );
    assert!(client.accounts.keys(None, 9).unwrap().items.is_empty());
    assert!(client.accounts.keys_of(2, None, 9).unwrap().items.is_empty());
    // A new user can have the name and mail address of a removed user, but gets a new user id.
    let new = NewUser {
        name: "ANNA".into(),
        mail: Some("A@x.example".into()),
        status: true,
        ..NewUser::default()
    };
    assert_eq!(writer.create_user(new).await.unwrap().record.uid, 3);
}

#[tokio::test]
async fn prune_rejects_references_to_removed_records() {
    let (client, _) = ApiClient::after_first_start().await;
    let text = "[[roles]]\nid = \"reader\"\nlabel = \"R\"\n[[users]]\nname = \"anna\"\nroles = [\"reader\"]\n\
        [[applications]]\nid = \"mobile\"\nname = \"M\"\n\
        [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n";
    client.apply_ok(&file(text), "").await;
    let before = client.export().await;
    let without = |id: &str| {
        let parts =
            before.split("\n\n").filter(|part| !part.contains(&format!("\nid = \"{id}\"\n")));
        parts.map(|part| format!("{part}\n\n")).collect::<String>()
    };
    for (id, location) in
        [("reader", "user anna: roles.0"), ("mobile", "resource hi: authentication")]
    {
        let (status, result) = client.apply(&without(id), "prune=true").await;
        assert_eq!(status, 422, "{result:#}");
        assert!(
            result["errors"][0]["location"].as_str().unwrap().ends_with(location),
            "{result:#}"
        );
        assert_eq!(client.export().await, before);
    }
}

#[tokio::test]
async fn new_default_application_replaces_the_old_default() {
    let (client, _) = ApiClient::after_first_start().await;
    let result = client
        .apply_ok(&file("[[applications]]\nid = \"new\"\nname = \"N\"\nis_default = true\n"), "")
        .await;
    assert_eq!(changes(&result), ["+ application new", "~ application default"]);
    let policy = client.accounts.directory().policy();
    assert_eq!(policy.applications.default().unwrap().record.id, "new");
    assert!(!policy.applications.get("default").unwrap().record.is_default);
}

#[tokio::test]
async fn pruned_key_is_denied_at_once() {
    let (client, first) = ApiClient::after_first_start().await;
    let writer = client.accounts.as_actor(Actor::Program);
    let issued = writer.issue_key(1, NewKey::default()).await.unwrap();
    let other = client.with_credential(&credential("admin", issued.text.expose()));
    let text = client.export().await;
    let id = issued.key.record.id.to_string();
    let text: String = text
        .split("\n\n")
        .filter(|part| !part.contains(&id))
        .map(|part| format!("{part}\n\n"))
        .collect();
    assert_eq!(other.send("GET", "/api/v1/me", "", "").await.0, 200);
    assert_eq!(changes(&client.apply_ok(&text, "prune=true").await), [format!("- key {id}")]);
    assert_eq!(other.send("GET", "/api/v1/me", "", "").await.0, 401);
    assert_eq!(client.with_credential(&first).send("GET", "/api/v1/me", "", "").await.0, 200);
}

#[tokio::test]
async fn prune_removes_index_entries() {
    let store = Arc::new(MemoryStore::new());
    let client = ApiClient::operator(accounts_on(store.clone()));
    client.accounts.first_start().await.unwrap().unwrap();
    let count = |table| store.scan(table, &[], None, 99).unwrap().len();
    let counts = || {
        [Table::Users, Table::Names, Table::Mails, Table::Keys, Table::Owners, Table::Foreign]
            .map(count)
    };
    assert_eq!(counts(), [1, 1, 0, 1, 1, 0]);
    client.apply_ok(&file("[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\n"), "").await;
    let writer = client.accounts.as_actor(Actor::Program);
    writer.issue_key(2, NewKey::default()).await.unwrap();
    let rows = vec![KeyRow {
        line: 1,
        username: "anna".into(),
        key: Secret::new("the-foreign-key"),
        label: String::new(),
        expires: None,
        scopes: None,
    }];
    let (digest, unknown_users, mode) = (ImportDigest::Clear, UnknownUsers::Reject, Mode::Live);
    let import = KeyImport { digest, unknown_users, mode, rows };
    writer.import_keys(&import).await.unwrap();
    let with_anna = client.export().await;
    assert_eq!(counts(), [2, 2, 1, 3, 3, 1]);
    client.apply_ok(&file(KEPT), "prune=true").await;
    assert_eq!(counts(), [1, 1, 0, 0, 0, 0]);
    client.apply_ok(&with_anna, "").await;
    assert_eq!(counts(), [2, 2, 1, 3, 3, 1]);
    assert_eq!(client.export().await, with_anna);
    // A second key with the digest of an imported key is rejected, no matter whether the first key
    // is in the store or in the same file.
    let key =
        with_anna.split("[[keys]]").find(|table| table.contains("scheme = \"text\"")).unwrap();
    let id = key.lines().find(|line| line.starts_with("id = ")).unwrap();
    let head = with_anna.lines().find(|line| line.starts_with("pepper")).unwrap();
    let second = key.replace(id, "id = \"0000aZ19\"");
    for (text, message) in [
        (format!("{head}\n[[keys]]{second}"), "Another key of the store"),
        (format!("{head}\n[[keys]]{key}\n[[keys]]{second}"), "Two keys of the file"),
    ] {
        let (status, result) = client.apply(&file(&text), "").await;
        assert_eq!(status, 422);
        assert!(result.to_string().contains(message), "{result:#}");
    }
}
