//! Tests of changes of many users and keys.

use super::*;
use crate::{
    model::{Key, Mode, User},
    store::Expected,
};

/// Accounts with an administrator, a role `reader` and this many other users, from uid 2 on.
async fn accounts_with_users(count: usize) -> (Arc<InterruptedStore>, Writer) {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create(role("reader", false)).await.unwrap();
    for number in 0..count {
        accounts.create_user(new_user(&format!("user-{number}"))).await.unwrap();
    }
    (store, accounts)
}

fn many(conditions: &str, change: ManyUsers) -> ChangeMany {
    let selection = UserSelection::parse(conditions, NOW).unwrap();
    ChangeMany { selection, change, mode: Mode::Live, after: None }
}

fn give(role: &str) -> ManyUsers {
    ManyUsers::Edit(UserEdit { add_roles: vec![role.into()], ..UserEdit::default() })
}

/// Repeats a change until its last part, and sums the parts. Also returns their number.
async fn change_all(accounts: &Writer, mut many: ChangeMany) -> (PartOfMany, usize) {
    let (mut sum, mut parts) = (PartOfMany::default(), 0);
    loop {
        let part = accounts.change_many_users(&many).await.unwrap();
        parts += 1;
        sum.matched += part.matched;
        sum.changed += part.changed;
        sum.unchanged += part.unchanged;
        sum.left_out.forbidden += part.left_out.forbidden;
        sum.left_out.refused += part.left_out.refused;
        if part.next.is_none() {
            return (sum, parts);
        }
        many.after = part.next;
    }
}

/// A writer for a user who is no administrator.
fn operator_without_rights(accounts: &Writer) -> Writer {
    accounts.as_actor(Actor::User {
        uid: 2,
        name: "user-0".into(),
        key: None,
        application: "default".into(),
        client: "127.0.0.1".parse().unwrap(),
    })
}

fn actions(accounts: &Writer) -> Vec<String> {
    let page = accounts.audit(AuditOrder::Newest, None, 5_000).unwrap();
    page.items.into_iter().map(|item| item.entry.act.action).collect()
}

#[tokio::test]
async fn role_is_given_in_parts_and_again_without_effect() {
    const COUNT: usize = 1_100;
    let (_, accounts) = accounts_with_users(COUNT).await;
    let before = actions(&accounts).len();
    let (sum, parts) = change_all(&accounts, many("name=user-*", give("reader"))).await;
    assert_eq!((sum.matched, sum.changed, sum.unchanged, parts), (COUNT, COUNT, 0, 2));
    // One entry for each user.
    assert_eq!(actions(&accounts).len() - before, COUNT);
    let (sum, _) = change_all(&accounts, many("name=user-*", give("reader"))).await;
    assert_eq!((sum.changed, sum.unchanged), (0, COUNT));
    assert_eq!(actions(&accounts).len() - before, COUNT);
    let taken = UserEdit { remove_roles: vec!["reader".into()], ..UserEdit::default() };
    let (sum, _) = change_all(&accounts, many("role=reader", ManyUsers::Edit(taken))).await;
    assert_eq!((sum.matched, sum.changed), (COUNT, COUNT));
    assert!(!accounts.directory().has_user_with_role("reader"));
}

#[tokio::test]
async fn dry_run_counts_and_changes_nothing() {
    let (_, accounts) = accounts_with_users(3).await;
    let entries = actions(&accounts).len();
    let dry = ChangeMany { mode: Mode::DryRun, ..many("name=user-*", ManyUsers::Delete) };
    let part = accounts.change_many_users(&dry).await.unwrap();
    assert_eq!((part.matched, part.changed), (3, 3));
    assert_eq!(part.first[0], ("2".to_owned(), "user-0".to_owned()));
    assert_eq!(actions(&accounts).len(), entries);
    assert_eq!(accounts.users(None, 9).unwrap().items.len(), 4);
}

#[tokio::test]
async fn administrators_are_left_out_for_others_and_one_always_remains() {
    let (_, accounts) = accounts_with_users(2).await;
    accounts.create_user(new_admin("second")).await.unwrap();
    let others = operator_without_rights(&accounts);
    let blocked = || ManyUsers::Edit(UserEdit { active: Some(false), ..UserEdit::default() });
    let (sum, _) = change_all(&others, many("role=administrator", blocked())).await;
    assert_eq!((sum.matched, sum.changed, sum.left_out.forbidden), (2, 0, 2));
    let (sum, _) = change_all(&others, many("role=administrator", ManyUsers::Delete)).await;
    assert_eq!((sum.changed, sum.left_out.forbidden), (0, 2));
    let (sum, _) = change_all(&others, many("name=user-1", give("administrator"))).await;
    assert_eq!((sum.changed, sum.left_out.forbidden), (0, 1));
    // An administrator may change administrators, but not the last one.
    let (sum, _) = change_all(&accounts, many("role=authenticated", blocked())).await;
    assert_eq!((sum.matched, sum.changed, sum.left_out.refused), (4, 3, 1));
    assert_eq!(accounts.directory().administrators().len(), 1);
}

#[tokio::test]
async fn other_writer_wins_and_is_not_overwritten() {
    let (store, accounts) = accounts_with_users(3).await;
    store.before_commit(|others| async move {
        let rename = |user: &mut User| {
            user.name = "renamed".into();
            Ok::<_, AccountError>(())
        };
        others.change_user(3, None, rename).await.unwrap();
    });
    let (sum, _) = change_all(&accounts, many("name=user-*", give("reader"))).await;
    assert_eq!((sum.matched, sum.changed), (2, 2));
    let renamed = accounts.user(3).unwrap().unwrap().record;
    assert_eq!((renamed.name.as_str(), renamed.roles.len()), ("renamed", 0));
}

#[tokio::test]
async fn users_are_deleted_with_their_keys() {
    let (store, accounts) = accounts_with_users(3).await;
    accounts.issue_key(2, NewKey::default()).await.unwrap();
    // A key that appears during the deletion is deleted, too.
    store.before_commit(|others| async move {
        others.issue_key(3, NewKey::default()).await.unwrap();
    });
    let (sum, _) = change_all(&accounts, many("name=user-*", ManyUsers::Delete)).await;
    assert_eq!(sum.changed, 3);
    assert_eq!(accounts.users(None, 9).unwrap().items.len(), 1);
    let keys: Vec<Versioned<Key>> = accounts.keys(None, 9).unwrap().items;
    assert!(keys.iter().all(|key| key.record.user == 1), "{keys:?}");
}

#[tokio::test]
async fn unknown_role_is_refused_before_any_change() {
    let (_, accounts) = accounts_with_users(1).await;
    for id in ["writer", "authenticated"] {
        let result = accounts.change_many_users(&many("name=user-*", give(id))).await;
        assert_eq!(invalid(result), ["add_roles"]);
    }
}

#[tokio::test]
async fn keys_are_revoked_by_conditions() {
    let (_, accounts) = accounts_with_users(2).await;
    for (uid, label) in [(2, "build-1"), (2, "build-2"), (3, "build-3"), (3, "other")] {
        let new = NewKey { label: label.into(), ..NewKey::default() };
        accounts.issue_key(uid, new).await.unwrap();
    }
    let revoke = |writer: Writer, conditions: &'static str| async move {
        let selection = KeySelection::parse(conditions, &writer).unwrap();
        let many = RevokeMany { selection, mode: Mode::Live, after: None };
        let part = writer.revoke_many_keys(&many).await.unwrap();
        (part.matched, part.changed, part.unchanged)
    };
    let entries = actions(&accounts).len();
    assert_eq!(revoke(accounts.clone(), "user=user-0,label=build-*").await, (2, 2, 0));
    assert_eq!(revoke(accounts.clone(), "label=build-*").await, (3, 1, 2));
    assert_eq!(actions(&accounts).len() - entries, 3);
    assert_eq!(revoke(accounts.clone(), "created-after=1h").await, (5, 2, 3));
    // The keys of an administrator are left out for others.
    let (_, accounts) = accounts_with_users(2).await;
    let others = operator_without_rights(&accounts);
    assert_eq!(revoke(others, "user=admin").await, (1, 0, 0));
    assert!(KeySelection::parse("user=nobody", &accounts).is_err());
}

#[tokio::test]
async fn deletions_of_different_users_do_not_write_one_record() {
    let (_, accounts) = accounts_with_users(3).await;
    let touched = |uid: u64| {
        let before = accounts.user(uid).unwrap().unwrap();
        let batch = accounts.deletion_batch(&before).unwrap();
        let of_meta = batch.expects.iter().filter(|expect| expect.table == Table::Meta);
        of_meta.map(|expect| expect.state).collect::<Vec<_>>()
    };
    assert_eq!(touched(2), [Expected::Missing]);
    accounts.delete_user(3, None).await.unwrap();
    // The store has the largest uid of all users now, so no further deletion writes it.
    assert_eq!(touched(2), []);
    assert_eq!(touched(4), []);
    accounts.delete_user(4, None).await.unwrap();
    let new = accounts.create_user(new_user("new")).await.unwrap();
    assert_eq!(new.record.uid, 5);
}

#[tokio::test]
async fn usage_is_written_in_the_order_of_the_keys() {
    const COUNT: u64 = 600;
    let (store, accounts) = accounts_with_users(0).await;
    let accounts = with_key_limit(&accounts, 2_000);
    for _ in 0..COUNT {
        accounts.issue_key(1, NewKey::default()).await.unwrap();
    }
    let ids: Vec<_> = accounts.keys(None, 2_000).unwrap().items;
    for key in ids {
        accounts.counters().used(key.record.id);
    }
    store.record_commits();
    accounts.write_usage().await.unwrap();
    let ranges: Vec<(Vec<u8>, Vec<u8>)> = store
        .recorded_commits()
        .into_iter()
        .map(|batch| {
            let keys = batch.writes.into_iter().filter(|write| write.table == Table::Usage);
            let mut keys: Vec<Vec<u8>> = keys.map(|write| write.key).collect();
            keys.sort();
            (keys[0].clone(), keys[keys.len() - 1].clone())
        })
        .collect();
    assert!(ranges.len() > 1);
    for (index, (first, last)) in ranges.iter().enumerate() {
        for (other_first, other_last) in &ranges[index + 1..] {
            assert!(last < other_first || other_last < first, "commits share pages of the store");
        }
    }
}
