//! Tests of the audit trail: the commit of each change writes one entry, and nothing else does.

use serde_json::{Value, json};

use super::*;
use crate::{
    model::{Application, Resource, Secret},
    store::{SledStore, audit_log::AuditVerdict},
};

/// The action and the object of each entry. The oldest entry is first.
fn trail(accounts: &Accounts) -> Vec<String> {
    let all = accounts.audit(AuditOrder::Oldest, None, 1000).unwrap().items;
    all.iter().map(|item| format!("{} {}", item.entry.act.action, item.entry.act.object)).collect()
}

fn last(accounts: &Accounts) -> NumberedEntry {
    accounts.audit(AuditOrder::Newest, None, 1).unwrap().items.remove(0)
}

async fn is_intact(accounts: &Accounts) -> bool {
    matches!(accounts.verify_audit().await.unwrap(), AuditVerdict::Intact { .. })
}

#[tokio::test]
async fn every_change_has_one_signed_entry() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let actor = Actor::User {
        uid: 1,
        name: "admin".into(),
        key: None,
        application: "default".into(),
        client: "192.0.2.7".parse().unwrap(),
    };
    let writer = accounts.as_admin(actor.clone());
    writer.create(role("r", false)).await.unwrap();
    set_admin(&writer, "r", true).await.unwrap();
    set_admin(&writer, "r", true).await.unwrap();
    writer.create(Application::api_key("a", "A")).await.unwrap();
    let uid = writer.create_user(new_user("bob")).await.unwrap().record.uid;
    block(&writer, uid).await.unwrap();
    block(&writer, uid).await.unwrap();
    let id = writer.issue_key(uid, NewKey::default()).await.unwrap().key.record.id;
    let to = writer.rotate_key(id, RotateOptions::default()).await.unwrap().issued.key.record.id;
    writer.revoke_key(to).await.unwrap();
    writer.revoke_key(to).await.unwrap();
    refusal(writer.delete_user(1, None).await);
    invalid(writer.create_user(new_user("bob")).await);
    writer.delete_user(uid, None).await.unwrap();
    writer.delete::<Role>("r", None).await.unwrap();
    writer.delete::<Resource>("entity.user", None).await.unwrap();
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
    assert_eq!(trail(&accounts), expected);
    let signed = accounts.audit(AuditOrder::Oldest, Some(1), 99).unwrap().items;
    assert!(signed.iter().all(|item| item.entry.actor == actor && item.entry.time == NOW));
    // Each commit has one entry.
    assert_eq!(store.snapshot().unwrap().sequence(), expected.len() as u64);
    assert!(is_intact(&accounts).await);
}

#[tokio::test]
async fn entry_contains_the_changed_fields_but_no_secret() {
    let accounts = accounts().await;
    let password = accounts.hash_password(Secret::new("hunter2")).await.unwrap();
    let phc = password.phc().to_owned();
    let new = NewUser { password: Some(password), ..new_user("bob") };
    accounts.create_user(new).await.unwrap();
    let after = last(&accounts).entry.act.after.unwrap();
    assert_eq!((&after["name"], &after["password"]), (&json!("bob"), &json!("(secret)")));
    block(&accounts, 2).await.unwrap();
    let act = last(&accounts).entry.act;
    assert_eq!(act.before.unwrap()["status"], true);
    assert_eq!(act.after.unwrap(), json!({ "status": false }));
    let issued = accounts.issue_key(2, NewKey::default()).await.unwrap();
    let digest = serde_json::to_value(issued.key.record.digest).unwrap();
    let rotated =
        accounts.rotate_key(issued.key.record.id, RotateOptions::default()).await.unwrap();
    let trail = format!("{:?}", accounts.audit(AuditOrder::Oldest, None, 99).unwrap());
    for secret in
        [issued.text.expose(), rotated.issued.text.expose(), digest.as_str().unwrap(), phc.as_str()]
    {
        assert!(!trail.contains(secret));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_of_simultaneous_changes_form_one_hash_chain() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let accounts = accounts_on(Arc::new(SledStore::open(&path, 16).unwrap()));
    accounts.first_start().await.unwrap().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..60 {
        let accounts = accounts.clone();
        tasks.spawn(async move {
            accounts.create_user(new_user(&format!("user {number}"))).await.unwrap();
        });
    }
    tasks.join_all().await;
    assert_eq!(trail(&accounts).len(), 61);
    assert!(is_intact(&accounts).await);
    drop(accounts);
    let accounts = accounts_on(Arc::new(SledStore::open(&path, 16).unwrap()));
    block(&accounts, 2).await.unwrap_or_else(|problem| panic!("{problem}"));
    assert_eq!(trail(&accounts).len(), 62);
    assert!(is_intact(&accounts).await);
}

#[tokio::test]
async fn trail_is_paged_in_both_orders() {
    let accounts = accounts().await;
    for number in 0..6 {
        accounts.create_user(new_user(&format!("user {number}"))).await.unwrap();
    }
    for (order, all) in
        [(AuditOrder::Oldest, [1, 2, 3, 4, 5, 6, 7]), (AuditOrder::Newest, [7, 6, 5, 4, 3, 2, 1])]
    {
        for limit in 1..9 {
            let (mut numbers, mut after) = (Vec::new(), None);
            loop {
                let page = accounts.audit(order, after, limit).unwrap();
                numbers.extend(page.items.iter().map(|item| item.number));
                after = numbers.last().copied();
                assert!(page.items.len() <= limit);
                if !page.has_more {
                    break;
                }
            }
            assert_eq!(numbers, all, "{order:?} {limit}");
        }
    }
    for after in [0, 1, 8, u64::MAX] {
        for order in [AuditOrder::Oldest, AuditOrder::Newest] {
            accounts.audit(order, Some(after), 3).unwrap();
        }
    }
}

#[tokio::test]
async fn trail_is_trimmed_to_its_limit_and_stays_intact() {
    let store = Arc::new(MemoryStore::new());
    let accounts =
        (*accounts_on(store.clone())).clone().with_audit_entries(5).as_actor(Actor::Program);
    accounts.first_start().await.unwrap().unwrap();
    for number in 0..20 {
        accounts.create_user(new_user(&format!("user {number}"))).await.unwrap();
        let expected = (number + 2).min(5);
        let AuditVerdict::Intact { first, end } = accounts.verify_audit().await.unwrap() else {
            panic!()
        };
        assert_eq!((end.number, end.number + 1 - first), (number + 2, expected));
        assert_eq!(trail(&accounts).len() as u64, expected);
    }
    // After the limit is lowered, the next change removes the old entries.
    let with_lower_limit = (*accounts).clone().with_audit_entries(2).as_actor(Actor::Program);
    block(&with_lower_limit, 2).await.unwrap();
    assert_eq!(trail(&with_lower_limit).len(), 2);
    assert!(is_intact(&with_lower_limit).await);
    let newest = with_lower_limit.audit(AuditOrder::Newest, None, 9).unwrap();
    assert_eq!((newest.items.len(), newest.has_more), (2, false));
    assert_eq!(
        newest.items[1].entry.act.after.as_ref().map(|after| &after["name"]),
        Some(&Value::from("user 19"))
    );
}

#[tokio::test]
async fn background_verification_reports_its_result() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    for number in 0..200 {
        accounts.create_user(new_user(&format!("user {number}"))).await.unwrap();
    }
    assert_eq!(accounts.trail_status(), TrailStatus::Unverified);
    accounts.verify_audit_in_background(std::future::ready(())).await;
    assert_eq!(accounts.trail_status(), TrailStatus::Unverified, "it was stopped at once");
    accounts.verify_audit_in_background(std::future::pending()).await;
    assert_eq!(accounts.trail_status(), TrailStatus::Intact);
    let mut batch = Batch::new();
    batch.delete(Table::Audit, crate::store::table::audit(150));
    store.commit(batch).await.unwrap();
    accounts.verify_audit_in_background(std::future::pending()).await;
    let status = accounts.trail_status();
    assert!(matches!(status, TrailStatus::Tampered { number: 150, .. }), "{status}");
}
