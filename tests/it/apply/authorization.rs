//! Only administrators and the operator may export and apply. A file can remove neither the last
//! administrator nor the caller's access.

use keyward::{
    accounts::{NewKey, NewUser},
    model::Actor,
};

use super::{ApiClient, file, without_mark};
use crate::harness::credential;

/// Creates a user with these roles and a key. Returns the credential.
async fn create_user(client: &ApiClient, name: &str, roles: &[&str], key: NewKey) -> String {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let writer = client.accounts.as_actor(Actor::Program);
    let uid = writer.create_user(new).await.unwrap().record.uid;
    let issued = writer.issue_key(uid, key).await.unwrap();
    credential(name, issued.text.expose())
}

#[tokio::test]
async fn only_administrators_and_the_operator_export_and_apply() {
    let (client, admin) = ApiClient::after_first_start().await;
    let role = "[[roles]]\nid = \"boss\"\nlabel = \"B\"\npermissions = [\"administer site configuration\", \"administer users\", \"administer permissions\"]\n";
    client.apply_ok(&file(role), "").await;
    let boss = create_user(&client, "boss", &["boss"], NewKey::default()).await;
    let scoped =
        NewKey { scopes: Some(vec!["administer site configuration".into()]), ..NewKey::default() };
    let scoped = create_user(&client, "scoped", &["administrator"], scoped).await;
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let network_bound = NewKey { networks, ..NewKey::default() };
    let network_bound = create_user(&client, "bound", &["administrator"], network_bound).await;
    let before = client.export().await;
    let text = file("[[users]]\nname = \"late\"\n");
    for (credential, export, apply) in
        [(&boss, 403, 403), (&scoped, 403, 403), (&network_bound, 200, 403)]
    {
        let client = client.with_credential(credential);
        assert_eq!(client.send("GET", "/api/v1/state", "", "").await.0, export);
        for query in ["", "dry_run=true"] {
            assert_eq!(client.apply(&text, query).await.0, apply);
        }
    }
    assert_eq!(client.with_credential("x").apply(&text, "").await.0, 401);
    assert_eq!(client.export().await, before);
    let admin = client.with_credential(&admin);
    assert_eq!(admin.export().await, before);
    admin.apply_ok(&text, "").await;
    let entry =
        &client.accounts.audit(keyward::accounts::AuditOrder::Newest, None, 1).unwrap().items[0];
    assert!(matches!(&entry.entry.actor, Actor::User { name, .. } if name == "admin"));
}

#[tokio::test]
async fn last_administrator_cannot_be_removed() {
    let (client, _) = ApiClient::after_first_start().await;
    client.apply_ok(&file("[[users]]\nname = \"anna\"\n"), "").await;
    let before = client.export().await;
    let rejected = [
        ("[[users]]\nname = \"admin\"\n", ""),
        ("[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\nactive = false\n", ""),
        ("[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n", ""),
        ("[[users]]\nname = \"anna\"\n", "prune=true"),
        ("", "prune=true"),
    ];
    for (text, query) in rejected {
        let (status, result) = client.apply(&file(text), query).await;
        assert!([409, 422].contains(&status), "{text}: {result:#}");
        assert!(result.to_string().contains("administrator"), "{result:#}");
        assert_eq!(client.export().await, before, "{text}");
    }
    // `admin` may lose the role if the same file makes another user an administrator.
    let text =
        "[[users]]\nname = \"admin\"\n[[users]]\nname = \"anna\"\nroles = [\"administrator\"]\n";
    client.apply_ok(&file(text), "").await;
    assert_eq!(client.accounts.directory().administrators(), [2]);
    // The role may lose its rights if the same file gives them to another role.
    let text = "[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n[[roles]]\nid = \"root\"\nlabel = \"R\"\nis_admin = true\n[[users]]\nname = \"anna\"\nroles = [\"root\"]\n";
    client.apply_ok(&file(text), "").await;
    assert_eq!(client.accounts.directory().administrators(), [2]);
    // A file for an empty store must contain an administrator.
    let (status, result) =
        ApiClient::on_empty_store().apply(&file("[[users]]\nname = \"anna\"\n"), "").await;
    assert_eq!(status, 409, "{result:#}");
}

#[tokio::test]
async fn caller_cannot_remove_its_own_access() {
    let (client, _) = ApiClient::after_first_start().await;
    let me = create_user(&client, "me", &["administrator"], NewKey::default()).await;
    client.accounts.clock().set(super::NOW.plus(100));
    let caller = client.with_credential(&me);
    let before = client.export().await;
    let my_key = before.split("[[keys]]").find(|table| table.contains("user = \"me\"")).unwrap();
    let head: String =
        before.lines().filter(|l| l.starts_with("pepper")).map(|l| format!("{l}\n")).collect();
    let my_key_with = |line: &str| format!("{head}[[keys]]{my_key}\n{line}\n");
    let application = |line: &str| {
        format!(
            "[[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n{line}\n"
        )
    };
    let without_me: String = before
        .split("\n\n")
        .filter(|part| !part.contains("\"me\""))
        .map(|part| format!("{part}\n\n"))
        .collect();
    let rejected = [
        (file("[[users]]\nname = \"me\"\n"), "", "no longer be an administrator"),
        (
            file("[[users]]\nname = \"me\"\nroles = [\"administrator\"]\nactive = false\n"),
            "",
            "your user me would be removed or blocked",
        ),
        (
            file(
                "[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n[[roles]]\nid = \"root\"\nlabel = \"R\"\nis_admin = true\n[[users]]\nname = \"admin\"\nroles = [\"root\"]\n",
            ),
            "",
            "no longer be an administrator",
        ),
        (without_me, "prune=true", "your user me would be removed or blocked"),
        (file(&my_key_with("revoked = 2027-01-15T08:00:00Z")), "", "no longer be accepted"),
        (file(&my_key_with("networks = [\"10.0.0.0/8\"]")), "", "no longer be accepted"),
        (file(&my_key_with("scopes = []")), "", "no longer be accepted"),
        (
            file(&my_key_with(
                "application = \"other\"\n[[applications]]\nid = \"other\"\nname = \"O\"",
            )),
            "",
            "no longer be accepted",
        ),
        (file(&application("enabled = false")), "", "the application default"),
        (file(&application("key_source = \"universal\"")), "", "read another credential"),
        (file(&application("header = \"X-Key\"")), "", "read another credential"),
        (file(&application("type = \"basic\"")), "", "read another credential"),
        (
            without_mark(&before.replace(&format!("[[keys]]{my_key}"), "")),
            "prune=true",
            "no longer be accepted",
        ),
    ];
    for (text, query, expected) in rejected {
        let (status, result) = caller.apply(&text, query).await;
        assert_eq!(status, 409, "{text}\n{result:#}");
        assert!(result["detail"].as_str().unwrap().contains(expected), "{expected}: {result:#}");
        assert_eq!(client.export().await, before, "{expected}");
        // The operator's access does not depend on records, so the operator may apply the file.
        assert_eq!(
            client.apply(&text, &format!("{query}&dry_run=true")).await.0,
            200,
            "{expected}"
        );
    }
    caller.apply_ok(&file(&my_key_with("networks = [\"127.0.0.0/8\"]")), "").await;
}
