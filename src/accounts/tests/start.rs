//! The first start and later starts.

use std::os::unix::fs::PermissionsExt as _;

use super::*;
use crate::{
    model::{Application, KeyShape, KeyText, Resource},
    store::SledStore,
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
async fn one_of_two_simultaneous_first_starts_fills_the_store() {
    let store = InterruptedStore::new();
    store.before_commit(|others| async move { drop(others.first_start().await.unwrap().unwrap()) });
    let accounts = accounts_on(store);
    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.keys(None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn store_with_users_gets_no_first_start() {
    let store = Arc::new(MemoryStore::new());
    let accounts = accounts_on(store.clone());
    let role = encode(&role(ADMINISTRATOR, true));
    let mut batch = Batch::new();
    batch.put(Table::Roles, ADMINISTRATOR, role);
    store.commit(batch).await.unwrap();
    let own = accounts.create_user(new_admin("own")).await.unwrap();
    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.user(1).unwrap().unwrap().record, own.record);
}

#[tokio::test]
async fn operator_is_admitted_and_is_no_user() {
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
    // The operator's records cannot be changed. The operator does not count as an administrator.
    let result = accounts.issue_key(0, NewKey::default()).await;
    assert!(matches!(result, Err(AccountError::NotFound { .. })), "{result:?}");
    assert!(matches!(block(&accounts, 0).await, Err(AccountError::NotFound { .. })));
    assert!(matches!(accounts.delete_user(0, None).await, Err(AccountError::NotFound { .. })));
    assert!(matches!(accounts.revoke_key(id).await, Err(AccountError::NotFound { .. })));
    assert_eq!(refusal(block(&accounts, 1).await), "admin is the last active administrator.");
    let id = Application::api_key("keyward.operator", "Mine");
    assert_eq!(invalid(accounts.create(id).await), ["id"]);
}

fn open(folder: &std::path::Path) -> Result<Writer, SetupError> {
    let store = Arc::new(SledStore::open(&folder.join("store"), 16)?);
    let accounts = Accounts::open(store, &folder.join("pepper"), Passwords::new(1))?;
    Ok(accounts.as_actor(Actor::Program))
}

#[tokio::test]
async fn store_is_opened_only_with_its_own_pepper() {
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

    let kept = folder.path().join("kept");
    std::fs::rename(&pepper, &kept).unwrap();
    let problem = open(folder.path()).err().unwrap().to_string();
    assert!(problem.ends_with(
        "is missing. Without it no key can be checked: put the file back from a backup"
    ));
    assert!(!pepper.exists(), "a new pepper would make every key useless");

    create_pepper(&pepper, &Entropy::system()).unwrap();
    let problem = open(folder.path()).err().unwrap();
    assert!(matches!(problem, SetupError::Pepper(PepperError::Wrong(_))), "{problem}");
    assert!(problem.to_string().contains("not the one that this store was made with"));

    std::fs::rename(&kept, &pepper).unwrap();
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
        // Delete the largest uid, or the one before it.
        let deleted = uids[uids.len() - 1 - start % 2];
        accounts.delete_user(deleted, None).await.unwrap();
        uids.push(
            accounts.create_user(new_user(&format!("late {start}"))).await.unwrap().record.uid,
        );
        accounts.delete_user(*uids.last().unwrap(), None).await.unwrap();
    }
    assert!(uids.is_sorted_by(|a, b| a < b), "{uids:?}");
}
