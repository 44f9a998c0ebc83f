//! Tests of simultaneous changes: each change is valid alone, but together they would break a rule.

use super::*;

#[tokio::test]
async fn two_administrators_cannot_both_be_removed_simultaneously() {
    for removal in ["block", "take roles", "delete"] {
        let (store, accounts) = two_administrators().await;
        store.before_commit(|others| async move { block(&others, 2).await.unwrap() });
        let result = match removal {
            "block" => block(&accounts, 1).await,
            "take roles" => set_roles(&accounts, 1, &[]).await,
            _ => accounts.delete_user(1, None).await,
        };
        assert_eq!(refusal(result), "admin is the last active administrator.");
        assert_eq!(accounts.directory().administrators(), [1]);
    }
}

#[tokio::test]
async fn remaining_administrator_must_keep_its_role() {
    let (store, accounts) = two_administrators().await;
    accounts.create(role("boss", true)).await.unwrap();
    set_roles(&accounts, 2, &["boss"]).await.unwrap();
    store.before_commit(|others| async move { set_admin(&others, "boss", false).await.unwrap() });
    assert_eq!(refusal(block(&accounts, 1).await), "admin is the last active administrator.");
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn role_stays_admin_when_the_other_administrator_is_blocked() {
    let (store, accounts) = two_administrators().await;
    accounts.create(role("boss", true)).await.unwrap();
    set_roles(&accounts, 1, &["boss"]).await.unwrap();
    store.before_commit(|others| async move { block(&others, 2).await.unwrap() });
    let result = set_admin(&accounts, "boss", false).await;
    assert!(refusal(result).contains("from the role boss"));
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn last_administrator_cannot_switch_to_a_role_that_loses_admin() {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create(role("boss", true)).await.unwrap();
    store.before_commit(|others| async move { set_admin(&others, "boss", false).await.unwrap() });
    let result = set_roles(&accounts, 1, &["boss"]).await;
    assert_eq!(refusal(result), "admin is the last active administrator.");

    set_admin(&accounts, "boss", true).await.unwrap();
    store.before_commit(|others| async move { others.delete::<Role>("boss", None).await.unwrap() });
    assert_eq!(invalid(set_roles(&accounts, 1, &["boss"]).await), ["roles.0"]);
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn role_is_not_deleted_if_a_user_gets_it_before_the_commit() {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create(role("boss", true)).await.unwrap();
    store.before_commit(|others| async move { set_roles(&others, 1, &["boss"]).await.unwrap() });
    let result = accounts.delete::<Role>("boss", None).await;
    assert_eq!(refusal(result), "The role boss is held by users.");
    assert_eq!(accounts.directory().administrators(), [1]);
}

#[tokio::test]
async fn key_created_during_the_deletion_of_its_user_is_deleted() {
    let (store, accounts) = two_administrators().await;
    let created_id = Arc::new(Mutex::new(None));
    store.before_commit({
        let created_id = created_id.clone();
        |others| async move {
            let issued = others.issue_key(2, NewKey::default()).await.unwrap();
            *created_id.lock() = Some(issued.key.record.id);
        }
    });
    accounts.delete_user(2, None).await.unwrap();
    let id = created_id.lock().unwrap();
    assert!(accounts.key(id).unwrap().is_none());
    assert!(accounts.directory().key(id).is_none());
    assert!(accounts.keys_of(2, None, 9).unwrap().items.is_empty());
}

#[tokio::test]
async fn no_key_is_created_for_a_user_who_is_deleted_before_the_commit() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move { others.delete_user(2, None).await.unwrap() });
    let result = accounts.issue_key(2, NewKey::default()).await;
    assert!(matches!(result, Err(AccountError::NotFound { what: "user", .. })), "{result:?}");
    assert_eq!(accounts.keys(None, 9).unwrap().items.len(), 1, "the administrator's key");
}

#[tokio::test]
async fn second_of_two_simultaneous_revocations_succeeds() {
    let (store, accounts) = two_administrators().await;
    let id = accounts.issue_key(2, NewKey::default()).await.unwrap().key.record.id;
    store.before_commit(move |others| async move { drop(others.revoke_key(id).await.unwrap()) });
    let revoked = accounts.revoke_key(id).await.unwrap();
    assert_eq!(revoked.record.revoked, Some(NOW));
    assert_eq!(revoked.revision, accounts.key(id).unwrap().unwrap().revision);
}

#[tokio::test]
async fn change_is_retried_after_a_conflict_unless_a_revision_is_expected() {
    let (store, accounts) = two_administrators().await;
    let rename = |user: &mut crate::model::User| {
        user.name.push('!');
        user.name = user.name.replace('!', "+");
        Ok::<_, AccountError>(())
    };
    let before = accounts.user(2).unwrap().unwrap().revision;
    store.before_commit(|others| async move { block(&others, 2).await.unwrap() });
    let user = accounts.change_user(2, None, rename).await.unwrap().record;
    assert_eq!((user.name.as_str(), user.status), ("second+", false));

    let current = accounts.user(2).unwrap().unwrap().revision;
    let result = accounts.change_user(2, Some(before), rename).await;
    assert!(matches!(result, Err(AccountError::Stale { current: now }) if now == current));
    let result = accounts.delete_user(2, Some(before)).await;
    assert!(matches!(result, Err(AccountError::Stale { .. })), "{result:?}");
    store.before_commit(|others| async move { set_roles(&others, 2, &[]).await.unwrap() });
    let result = accounts.change_user(2, Some(current), rename).await;
    assert!(matches!(result, Err(AccountError::Stale { .. })), "{result:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_one_of_fifty_simultaneous_users_with_the_same_name_is_created() {
    let accounts = accounts().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..50 {
        let accounts = accounts.clone();
        let name = if number % 2 == 0 { "Twin" } else { "tWIN" };
        let new = NewUser { mail: Some(format!("m{number}@example.com")), ..new_user(name) };
        tasks.spawn(async move { accounts.create_user(new).await });
    }
    let (made, refused): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(made.len(), 1);
    for result in refused {
        assert_eq!(invalid(result), ["name"]);
    }
    assert_eq!(accounts.users(None, 99).unwrap().items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn there_is_never_more_than_one_default_application() {
    use crate::model::Application;
    let accounts = accounts().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..8 {
        let accounts = accounts.clone();
        let id = format!("app{number}");
        let app = Application { is_default: true, ..Application::api_key(&id, "An application") };
        tasks.spawn(async move { accounts.create(app).await.unwrap() });
    }
    tasks.join_all().await;
    let all = accounts.list::<Application>(None, 99).unwrap().items;
    assert_eq!(all.len(), 9);
    assert_eq!(all.iter().filter(|application| application.record.is_default).count(), 1);
}

#[tokio::test]
async fn create_does_not_overwrite_a_record_that_was_just_created() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move {
        drop(others.create(role("boss", true)).await.unwrap());
    });
    assert_eq!(invalid(accounts.create(role("boss", false)).await), ["id"]);
    assert!(accounts.get::<Role>("boss").unwrap().unwrap().record.is_admin);
}

#[tokio::test]
async fn two_processes_do_not_assign_the_same_uid() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move {
        assert_eq!(others.create_user(new_user("theirs")).await.unwrap().record.uid, 3);
    });
    assert_eq!(accounts.create_user(new_user("ours")).await.unwrap().record.uid, 4);
    assert_eq!(accounts.user(3).unwrap().unwrap().record.name, "theirs");
}

#[tokio::test]
async fn largest_uid_does_not_shrink_when_two_users_are_deleted() {
    let (store, accounts) = two_administrators().await;
    store.before_commit(|others| async move {
        others.create_user(new_user("third")).await.unwrap();
        others.delete_user(3, None).await.unwrap();
    });
    accounts.delete_user(2, None).await.unwrap();
    // Accounts that are opened after a restart read the largest uid from the store.
    let restarted = accounts_on(store);
    assert_eq!(restarted.create_user(new_user("fourth")).await.unwrap().record.uid, 4);
}
