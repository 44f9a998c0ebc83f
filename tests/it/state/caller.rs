//! Who may do it, and that nobody shuts the door: neither the last administrator's, nor one's own.

use keyward::{
    accounts::{NewKey, NewUser},
    model::Actor,
};

use super::{Desk, file};
use crate::harness::credential;

/// A user with these roles and a key.
async fn user(desk: &Desk, name: &str, roles: &[&str], key: NewKey) -> String {
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let acting = desk.accounts.acting(Actor::Program);
    let uid = acting.create_user(new).await.unwrap().record.uid;
    let issued = acting.issue_key(uid, key).await.unwrap();
    credential(name, issued.text.expose())
}

#[tokio::test]
async fn it_is_for_administrators_and_the_operator_alone() {
    let (desk, admin) = Desk::first().await;
    let role = "[[roles]]\nid = \"boss\"\nlabel = \"B\"\npermissions = [\"administer site configuration\", \"administer users\", \"administer permissions\"]\n";
    desk.applies(&file(role), "").await;
    let boss = user(&desk, "boss", &["boss"], NewKey::default()).await;
    let scoped =
        NewKey { scopes: Some(vec!["administer site configuration".into()]), ..NewKey::default() };
    let scoped = user(&desk, "scoped", &["administrator"], scoped).await;
    let networks = vec!["127.0.0.0/8".parse().unwrap()];
    let bound = NewKey { networks, ..NewKey::default() };
    let bound = user(&desk, "bound", &["administrator"], bound).await;
    let before = desk.export().await;
    let text = file("[[users]]\nname = \"late\"\n");
    for (who, export, apply) in [(&boss, 403, 403), (&scoped, 403, 403), (&bound, 200, 403)] {
        let desk = desk.asked_with(who);
        assert_eq!(desk.ask("GET", "/api/v1/state", "", "").await.0, export);
        for query in ["", "dry_run=true"] {
            assert_eq!(desk.apply(&text, query).await.0, apply);
        }
    }
    assert_eq!(desk.asked_with("x").apply(&text, "").await.0, 401);
    assert_eq!(desk.export().await, before);
    let admin = desk.asked_with(&admin);
    assert_eq!(admin.export().await, before);
    admin.applies(&text, "").await;
    let entry = &desk.accounts.audit(keyward::accounts::Order::Newest, None, 1).unwrap().items[0];
    assert!(matches!(&entry.entry.actor, Actor::User { name, .. } if name == "admin"));
}

#[tokio::test]
async fn somebody_can_always_administer() {
    let (desk, _) = Desk::first().await;
    desk.applies(&file("[[users]]\nname = \"anna\"\n"), "").await;
    let before = desk.export().await;
    let refused = [
        ("[[users]]\nname = \"admin\"\n", ""),
        ("[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\nactive = false\n", ""),
        ("[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n", ""),
        ("[[users]]\nname = \"anna\"\n", "prune=true"),
        ("", "prune=true"),
    ];
    for (text, query) in refused {
        let (status, told) = desk.apply(&file(text), query).await;
        assert!([409, 422].contains(&status), "{text}: {told:#}");
        assert!(told.to_string().contains("administrator"), "{told:#}");
        assert_eq!(desk.export().await, before, "{text}");
    }
    // One who comes in the same file will do.
    let text =
        "[[users]]\nname = \"admin\"\n[[users]]\nname = \"anna\"\nroles = [\"administrator\"]\n";
    desk.applies(&file(text), "").await;
    assert_eq!(desk.accounts.directory().administrators(), [2]);
    // So will another role.
    let text = "[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n[[roles]]\nid = \"root\"\nlabel = \"R\"\nis_admin = true\n[[users]]\nname = \"anna\"\nroles = [\"root\"]\n";
    desk.applies(&file(text), "").await;
    assert_eq!(desk.accounts.directory().administrators(), [2]);
    // A store that is made of a file needs one from the beginning.
    let (status, told) = Desk::empty().apply(&file("[[users]]\nname = \"anna\"\n"), "").await;
    assert_eq!(status, 409, "{told:#}");
}

#[tokio::test]
async fn nobody_shuts_the_door_on_itself() {
    let (desk, _) = Desk::first().await;
    let me = user(&desk, "me", &["administrator"], NewKey::default()).await;
    desk.accounts.clock().set(super::NOW.plus(100));
    let mine = desk.asked_with(&me);
    let before = desk.export().await;
    let my_key = before.split("[[keys]]").find(|one| one.contains("user = \"me\"")).unwrap();
    let head: String =
        before.lines().filter(|l| l.starts_with("pepper")).map(|l| format!("{l}\n")).collect();
    let me_with = |line: &str| format!("{head}[[keys]]{my_key}\n{line}\n");
    let application = |line: &str| {
        format!(
            "[[applications]]\nid = \"default\"\nname = \"Default\"\nis_default = true\n{line}\n"
        )
    };
    let without_me: String = before
        .split("\n\n")
        .filter(|one| !one.contains("\"me\""))
        .map(|one| format!("{one}\n\n"))
        .collect();
    let refused = [
        (file("[[users]]\nname = \"me\"\n"), "", "no administrator any more"),
        (
            file("[[users]]\nname = \"me\"\nroles = [\"administrator\"]\nactive = false\n"),
            "",
            "the user me is you",
        ),
        (
            file(
                "[[roles]]\nid = \"administrator\"\nlabel = \"A\"\n[[roles]]\nid = \"root\"\nlabel = \"R\"\nis_admin = true\n[[users]]\nname = \"admin\"\nroles = [\"root\"]\n",
            ),
            "",
            "no administrator any more",
        ),
        (without_me, "prune=true", "the user me is you"),
        (file(&me_with("revoked = 2027-01-15T08:00:00Z")), "", "which would not open"),
        (file(&me_with("networks = [\"10.0.0.0/8\"]")), "", "which would not open"),
        (file(&me_with("scopes = []")), "", "which would not open"),
        (
            file(&me_with(
                "application = \"other\"\n[[applications]]\nid = \"other\"\nname = \"O\"",
            )),
            "",
            "which would not open",
        ),
        (file(&application("enabled = false")), "", "the application default"),
        (file(&application("key_source = \"universal\"")), "", "read another credential"),
        (file(&application("header = \"X-Key\"")), "", "read another credential"),
        (file(&application("type = \"basic\"")), "", "read another credential"),
        (before.replace(&format!("[[keys]]{my_key}"), ""), "prune=true", "which would not open"),
    ];
    for (text, query, says) in refused {
        let (status, told) = mine.apply(&text, query).await;
        assert_eq!(status, 409, "{text}\n{told:#}");
        assert!(told["detail"].as_str().unwrap().contains(says), "{says}: {told:#}");
        assert_eq!(desk.export().await, before, "{says}");
        // The operator at the machine comes in another way.
        assert_eq!(desk.apply(&text, &format!("{query}&dry_run=true")).await.0, 200, "{says}");
    }
    mine.applies(&file(&me_with("networks = [\"127.0.0.0/8\"]")), "").await;
}
