//! Whatever changes a record is in the audit trail, in the same commit, and nothing else is.

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Application, Resource, Secret},
    store::{SledStore, audit_log::Verdict},
};

/// What the trail says: each entry's action and object.
fn told(accounts: &Accounts) -> Vec<String> {
    let all = accounts.audit(Order::Oldest, None, 1000).unwrap().items;
    all.iter().map(|one| format!("{} {}", one.entry.act.action, one.entry.act.object)).collect()
}

fn last(accounts: &Accounts) -> Audited {
    accounts.audit(Order::Newest, None, 1).unwrap().items.remove(0)
}

async fn is_intact(accounts: &Accounts) -> bool {
    matches!(accounts.verify_audit().await.unwrap(), Verdict::Intact { .. })
}

#[tokio::test]
async fn every_act_is_told_and_signed_and_what_changes_nothing_is_not() {
    let store = Arc::new(MemoryStore::new());
    let accounts = on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let ann = Actor::User {
        uid: 1,
        name: "admin".into(),
        key: None,
        application: "default".into(),
        client: "192.0.2.7".parse().unwrap(),
    };
    let hands = accounts.acting(ann.clone());
    hands.create(role("r", false)).await.unwrap();
    set_admin(&hands, "r", true).await.unwrap();
    set_admin(&hands, "r", true).await.unwrap();
    hands.create(Application::api_key("a", "A")).await.unwrap();
    let uid = hands.create_user(named("bob")).await.unwrap().record.uid;
    block(&hands, uid).await.unwrap();
    block(&hands, uid).await.unwrap();
    let id = hands.issue_key(uid, NewKey::default()).await.unwrap().key.record.id;
    let to = hands.rotate_key(id, Rotate::default()).await.unwrap().issued.key.record.id;
    hands.revoke_key(to).await.unwrap();
    hands.revoke_key(to).await.unwrap();
    refusal(hands.delete_user(1, None).await);
    invalid(hands.create_user(named("bob")).await);
    hands.delete_user(uid, None).await.unwrap();
    hands.delete::<Role>("r", None).await.unwrap();
    hands.delete::<Resource>("entity.user", None).await.unwrap();
    let expected = [
        "store.first-start store".to_owned(),
        "role.create role/r".into(),
        "role.change role/r".into(),
        "application.create application/a".into(),
        "user.create user/2".into(),
        "user.change user/2".into(),
        format!("key.create key/{id}"),
        format!("key.rotate key/{id}"),
        format!("key.revoke key/{to}"),
        "user.delete user/2".into(),
        "role.delete role/r".into(),
        "resource.delete resource/entity.user".into(),
    ];
    assert_eq!(told(&accounts), expected);
    let signed = accounts.audit(Order::Oldest, Some(1), 99).unwrap().items;
    assert!(signed.iter().all(|one| one.entry.actor == ann && one.entry.time == NOW));
    // As many entries as commits: none without the other.
    assert_eq!(store.snapshot().unwrap().sequence(), expected.len() as u64);
    assert!(is_intact(&accounts).await);
}

#[tokio::test]
async fn an_entry_holds_what_changed_and_no_secret() {
    let accounts = accounts().await;
    let password = accounts.hash_password(Secret::new("hunter2")).await.unwrap();
    let phc = password.phc().to_owned();
    let new = NewUser { password: Some(password), ..named("bob") };
    accounts.create_user(new).await.unwrap();
    let after = last(&accounts).entry.act.after.unwrap();
    assert_eq!((&after["name"], &after["password"]), (&json!("bob"), &json!("(secret)")));
    block(&accounts, 2).await.unwrap();
    let act = last(&accounts).entry.act;
    assert_eq!(act.before.unwrap()["status"], true);
    assert_eq!(act.after.unwrap(), json!({ "status": false }));
    let issued = accounts.issue_key(2, NewKey::default()).await.unwrap();
    let digest = serde_json::to_value(issued.key.record.digest).unwrap();
    let rotated = accounts.rotate_key(issued.key.record.id, Rotate::default()).await.unwrap();
    let trail = format!("{:?}", accounts.audit(Order::Oldest, None, 99).unwrap());
    for secret in
        [issued.text.expose(), rotated.issued.text.expose(), digest.as_str().unwrap(), phc.as_str()]
    {
        assert!(!trail.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_acts_at_one_moment_make_one_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let accounts = on(Arc::new(SledStore::open(&path, 16).unwrap()));
    accounts.first_start().await.unwrap().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let accounts = accounts.clone();
        tasks.spawn(async move {
            accounts.create_user(named(&format!("user {number}"))).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(told(&accounts).len(), 61);
    assert!(is_intact(&accounts).await);
    drop(accounts);
    let accounts = on(Arc::new(SledStore::open(&path, 16).unwrap()));
    block(&accounts, 2).await.unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(told(&accounts).len(), 62);
    assert!(is_intact(&accounts).await);
}

#[tokio::test]
async fn the_trail_is_read_in_parts_from_either_end() {
    let accounts = accounts().await;
    for number in 0..6 {
        accounts.create_user(named(&format!("user {number}"))).await.unwrap();
    }
    for (order, all) in
        [(Order::Oldest, [1, 2, 3, 4, 5, 6, 7]), (Order::Newest, [7, 6, 5, 4, 3, 2, 1])]
    {
        for limit in 1..9 {
            let (mut numbers, mut after) = (Vec::new(), None);
            loop {
                let part = accounts.audit(order, after, limit).unwrap();
                numbers.extend(part.items.iter().map(|one| one.number));
                after = numbers.last().copied();
                assert!(part.items.len() <= limit);
                if !part.has_more {
                    break;
                }
            }
            assert_eq!(numbers, all, "{order:?} {limit}");
        }
    }
    for after in [0, 1, 8, u64::MAX] {
        for order in [Order::Oldest, Order::Newest] {
            accounts.audit(order, Some(after), 3).unwrap();
        }
    }
}

#[tokio::test]
async fn the_trail_is_as_long_as_it_may_be_and_stays_whole() {
    let store = Arc::new(MemoryStore::new());
    let accounts = (*on(store.clone())).clone().with_audit_entries(5).acting(Actor::Program);
    accounts.first_start().await.unwrap().unwrap();
    for number in 0..20 {
        accounts.create_user(named(&format!("user {number}"))).await.unwrap();
        let expected = (number + 2).min(5);
        let Verdict::Intact { first, end } = accounts.verify_audit().await.unwrap() else {
            panic!()
        };
        assert_eq!((end.number, end.number + 1 - first), (number + 2, expected));
        assert_eq!(told(&accounts).len() as u64, expected);
    }
    // Fewer than there are: they go by and by.
    let fewer = (*accounts).clone().with_audit_entries(2).acting(Actor::Program);
    block(&fewer, 2).await.unwrap();
    assert_eq!(told(&fewer).len(), 2);
    assert!(is_intact(&fewer).await);
    let newest = fewer.audit(Order::Newest, None, 9).unwrap();
    assert_eq!((newest.items.len(), newest.has_more), (2, false));
    assert_eq!(
        newest.items[1].entry.act.after.as_ref().map(|after| &after["name"]),
        Some(&Value::from("user 19"))
    );
}
