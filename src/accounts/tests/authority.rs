//! Tests of a writer without an administrator's rights, which must not change records that concern
//! administrators.

use super::*;
use crate::model::{Application, KeySource, User};

/// Two writers of the same accounts. The actor of the first is the program. The actor of the second
/// is the user `helper` (uid 2), who is not an administrator.
async fn program_and_helper() -> (Writer, Writer) {
    let accounts = accounts().await;
    let uid = accounts.create_user(new_user("helper")).await.unwrap().record.uid;
    let helper = accounts.as_actor(Actor::User {
        uid,
        name: "helper".into(),
        key: None,
        application: "default".into(),
        client: [192, 0, 2, 7].into(),
    });
    (accounts, helper)
}

fn assert_admin_only<T: std::fmt::Debug>(result: Result<T, AccountError>) {
    assert!(matches!(result, Err(AccountError::AdminOnly)), "{result:?}");
}

#[tokio::test]
async fn only_an_administrator_gets_the_handles_of_administrators() {
    let (accounts, helper) = program_and_helper().await;
    assert!(helper.admin().is_none() && helper.operator().is_none());
    assert!(accounts.admin().is_some() && accounts.operator().is_some());
    let admin = accounts.as_admin(helper.actor().clone());
    assert!(admin.admin().is_some() && admin.operator().is_none());
}

#[tokio::test]
async fn administrators_accounts_are_changed_by_administrators_only() {
    let (accounts, helper) = program_and_helper().await;
    assert_admin_only(helper.create_user(new_admin("second")).await);
    assert_admin_only(set_roles(&helper, 2, &[ADMINISTRATOR]).await);
    assert_admin_only(set_roles(&helper, 1, &[]).await);
    assert_admin_only(block(&helper, 1).await);
    assert_admin_only(helper.delete_user(1, None).await);
    let set_timezone = |user: &mut User| {
        user.timezone = Some("UTC".into());
        Ok::<_, AccountError>(())
    };
    assert_admin_only(helper.change_user(1, None, set_timezone).await);
    assert_eq!(accounts.users(None, 9).unwrap().items.len(), 2);
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn administrators_keys_are_changed_by_administrators_only() {
    let (accounts, helper) = program_and_helper().await;
    let id = accounts.issue_key(1, NewKey::default()).await.unwrap().key.record.id;
    let edit = |key: &mut crate::model::Key| {
        key.label = "mine".into();
        Ok::<_, AccountError>(())
    };
    assert_admin_only(helper.issue_key(1, NewKey::default()).await);
    assert_admin_only(helper.change_key(id, None, edit).await);
    assert_admin_only(helper.rotate_key(id, RotateOptions::default()).await);
    assert_admin_only(helper.revoke_key(id).await);
    let universal = NewKey { universal: true, ..NewKey::default() };
    assert_admin_only(helper.issue_key(2, universal).await);
    // The helper may change the keys that belong to the helper.
    let id = helper.issue_key(2, NewKey::default()).await.unwrap().key.record.id;
    helper.revoke_key(id).await.unwrap();
}

#[tokio::test]
async fn admin_roles_and_universal_applications_are_changed_by_administrators_only() {
    let (accounts, helper) = program_and_helper().await;
    assert_admin_only(helper.create(role("boss", true)).await);
    helper.create(role("reader", false)).await.unwrap();
    assert_admin_only(set_admin(&helper, "reader", true).await);
    assert_admin_only(set_admin(&helper, ADMINISTRATOR, false).await);
    assert_admin_only(helper.delete::<Role>(ADMINISTRATOR, None).await);
    let universal = Application {
        key_source: KeySource::Universal,
        ..Application::api_key("universal", "Universal")
    };
    assert_admin_only(helper.create(universal.clone()).await);
    accounts.create(universal).await.unwrap();
    assert_admin_only(helper.delete::<Application>("universal", None).await);
}
