//! Tests of the first start and of later starts.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{
    model::{Application, KeyShape, KeyText, Resource},
    store::{SledStore, audit_log::AuditVerdict, table},
};

#[tokio::test]
async fn first_start_creates_the_shipped_records() {
    let accounts = accounts_on(Arc::new(MemoryStore::new()));
    let first = accounts.first_start().await.unwrap().unwrap();
    assert_eq!((first.username.as_str(), first.application.as_str()), ("admin", "default"));
    let KeyShape::Ours(id) = KeyText::shape(first.key.expose()) else { panic!("not a key") };
    let key = accounts.directory().key(id).unwrap();
    assert_eq!(key.user, 1);
    assert!(key.digest == accounts.pepper().digest(first.key.expose()));
    assert_eq!(accounts.directory().administrators(), [1]);
    assert_eq!(accounts.directory().policy().applications.default().unwrap().record.id, "default");
    assert_eq!(accounts.list::<Role>(None, 9).unwrap().items.len(), 3);
    assert_eq!(accounts.list::<Resource>(None, 9).unwrap().items[0].record.id, "entity.user");

    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.keys(None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn only_one_of_two_simultaneous_first_starts_fills_the_store() {
    let store = InterruptedStore::new();
    store.before_commit(|others| async move { drop(others.first_start().await.unwrap().unwrap()) });
    let accounts = accounts_on(store);
    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.keys(None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn first_start_leaves_a_store_with_users_unchanged() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    let role = encode(&role(ADMINISTRATOR, true));
    let mut batch = Batch::new();
    batch.put(Table::Roles, ADMINISTRATOR, role);
    store.commit(batch).await.unwrap();
    let user = accounts.create_user(new_admin("existing")).await.unwrap();
    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.user(1).unwrap().unwrap().record, user.record);
}

#[tokio::test]
async fn store_whose_pepper_record_and_trail_were_removed_gets_no_first_start() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    let mut batch = Batch::new();
    for record in [&b"pepper"[..], b"audit-end"] {
        batch.delete(Table::Meta, record);
    }
    for number in 1..=2 {
        batch.delete(Table::Audit, table::audit(number));
    }
    // A first start creates the user 1, so the attacker has removed it.
    batch.delete(Table::Users, table::user(1)).delete(Table::Names, *b"admin");
    store.commit(batch).await.unwrap();
    let accounts = accounts_on(store);
    assert!(accounts.first_start().await.unwrap().is_none());
    accounts.create_user(new_user("ann")).await.unwrap();
    let verdict = accounts.verify_audit().await.unwrap();
    assert!(matches!(verdict, AuditVerdict::Tampered { number: 1, .. }), "{verdict:?}");
}

#[tokio::test]
async fn operator_may_do_everything_but_is_not_a_user() {
    let accounts = accounts().await;
    let before = accounts.directory().counts();
    let operator = accounts.create_operator_key();
    let KeyShape::Ours(id) = KeyText::shape(operator.key.expose()) else { panic!("not a key") };
    let key = accounts.directory().key(id).unwrap();
    assert_eq!((key.user, key.application()), (0, Some("keyward.operator")));
    let policy = accounts.directory().policy();
    let operator = accounts.directory().user(0).unwrap();
    assert!(policy.roles.allows(operator.roles(&policy.roles), "anything"));
    assert!(accounts.directory().user_by_name("keyward.operator").is_none());
    assert_eq!(accounts.directory().counts(), (before.0 + 1, before.1 + 1));
    // The records of the operator cannot be changed, because they are not in the store.
    let result = accounts.issue_key(0, NewKey::default()).await;
    assert!(matches!(result, Err(AccountError::NotFound { .. })), "{result:?}");
    assert!(matches!(block(&accounts, 0).await, Err(AccountError::NotFound { .. })));
    assert!(matches!(accounts.delete_user(0, None).await, Err(AccountError::NotFound { .. })));
    assert!(matches!(accounts.revoke_key(id).await, Err(AccountError::NotFound { .. })));
    // The operator does not count as an administrator who remains.
    assert_eq!(refusal(block(&accounts, 1).await), "admin is the last active administrator.");
    let application = Application::api_key("keyward.operator", "Mine");
    assert_eq!(invalid(accounts.create(application).await), ["id"]);
}

fn open(folder: &std::path::Path) -> Result<Writer, SetupError> {
    let store = Arc::new(SledStore::open(&folder.join("store"), 16)?);
    let accounts = Accounts::open(store, &folder.join("pepper"), Passwords::new(1))?;
    Ok(accounts.as_actor(Actor::Program))
}

#[tokio::test]
async fn store_opens_only_with_the_pepper_that_it_was_created_with() {
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    let accounts = open(folder.path()).unwrap();
    assert_eq!(std::fs::metadata(&pepper).unwrap().permissions().mode() & 0o777, 0o600);
    let key = accounts.first_start().await.unwrap().unwrap().key;
    drop(accounts);

    let accounts = open(folder.path()).unwrap();
    assert!(accounts.first_start().await.unwrap().is_none());
    let KeyShape::Ours(id) = KeyText::shape(key.expose()) else { panic!("not a key") };
    let digest = accounts.directory().key(id).unwrap().digest;
    assert!(digest == accounts.pepper().digest(key.expose()));
    drop(accounts);

    let saved = folder.path().join("saved");
    std::fs::rename(&pepper, &saved).unwrap();
    let problem = open(folder.path()).err().unwrap().to_string();
    assert!(problem.ends_with(
        "is missing. Without the pepper no key can be checked: restore the file from a backup"
    ));
    assert!(!pepper.exists(), "a new pepper would make every key useless");

    create_pepper(&pepper, &Entropy::system()).unwrap();
    let problem = open(folder.path()).err().unwrap();
    assert!(matches!(problem, SetupError::Pepper(PepperError::Wrong(_))), "{problem}");
    assert!(problem.to_string().contains("is not the pepper that this store was created with"));

    std::fs::rename(&saved, &pepper).unwrap();
    open(folder.path()).unwrap();
}

#[tokio::test]
async fn empty_store_beside_an_existing_pepper_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pepper = folder.path().join("pepper");
    open(folder.path()).unwrap().first_start().await.unwrap().unwrap();
    let before = std::fs::read(&pepper).unwrap();
    std::fs::rename(folder.path().join("store"), folder.path().join("disk")).unwrap();
    for _ in 0..2 {
        let problem = open(folder.path()).err().unwrap();
        assert!(matches!(problem, SetupError::StoreLost { .. }), "{problem}");
        let text = problem.to_string();
        assert!(
            text.contains(&pepper.display().to_string()) && text.contains("open_new"),
            "{text}"
        );
    }
    let store = Arc::new(SledStore::open(&folder.path().join("store"), 16).unwrap());
    let accounts = Accounts::open_new(store, &pepper, Passwords::new(1)).unwrap();
    assert!(accounts.is_new().unwrap());
    accounts.first_start().await.unwrap().unwrap();
    drop(accounts);
    assert_eq!(std::fs::read(&pepper).unwrap(), before);
    open(folder.path()).unwrap();
    // Records in memory never outlive a process.
    Accounts::open(Arc::new(MemoryStore::new()), &pepper, Passwords::new(1)).unwrap();
}

#[tokio::test]
async fn uid_is_never_reused() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).unwrap().first_start().await.unwrap().unwrap();
    let mut uids = vec![1];
    for start in 0..3 {
        let accounts = open(folder.path()).unwrap();
        for number in 0..2 {
            let name = format!("user {start} {number}");
            uids.push(accounts.create_user(new_user(&name)).await.unwrap().record.uid);
        }
        // Delete the user with the largest uid, or the user with the second largest uid.
        let deleted = uids[uids.len() - 1 - start % 2];
        accounts.delete_user(deleted, None).await.unwrap();
        uids.push(
            accounts.create_user(new_user(&format!("late {start}"))).await.unwrap().record.uid,
        );
        accounts.delete_user(*uids.last().unwrap(), None).await.unwrap();
    }
    assert!(uids.is_sorted_by(|a, b| a < b), "{uids:?}");
}
