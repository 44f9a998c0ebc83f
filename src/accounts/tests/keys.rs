//! Tests of rotation, scopes, quotas and bulk runs.

use super::*;
use crate::model::{KeyId, KeyShape, KeyText, Role};

const DAY: i64 = 86_400;

/// Accounts with a user (uid 2) who has the permission `read`.
async fn accounts_with_reader() -> Writer {
    let accounts = accounts().await;
    let reader = Role { permissions: BTreeSet::from(["read".to_owned()]), ..role("reader", false) };
    accounts.create(reader).await.unwrap();
    let bob = NewUser { roles: vec!["reader".into()], ..new_user("bob") };
    accounts.create_user(bob).await.unwrap();
    accounts
}

async fn issue(accounts: &Writer, new: NewKey) -> KeyId {
    accounts.issue_key(2, new).await.unwrap().key.record.id
}

fn overlap(seconds: i64) -> RotateOptions {
    RotateOptions { overlap: Some(seconds), ..RotateOptions::default() }
}

fn is_in_force(accounts: &Writer, id: KeyId) -> bool {
    let key = accounts.directory().key(id).unwrap();
    !key.is_revoked && !key.is_expired(accounts.clock().now())
}

#[tokio::test]
async fn rotated_key_works_until_the_overlap_ends() {
    let accounts = accounts_with_reader().await;
    let new = NewKey {
        label: "ci".into(),
        application: Some("default".into()),
        scopes: Some(vec!["read".into()]),
        expires: Some(NOW.plus(90 * DAY)),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        ..NewKey::default()
    };
    let old = issue(&accounts, new).await;
    accounts.clock().set(NOW.plus(80 * DAY));
    let rotated = accounts.rotate_key(old, overlap(3600)).await.unwrap();
    let (before, after) = (rotated.old.record, rotated.issued.key.record);
    assert_eq!(KeyText::shape(rotated.issued.text.expose()), KeyShape::Ours(after.id));
    assert_eq!(
        (after.user, &after.label, &after.application, &after.scopes, &after.networks),
        (2, &before.label, &before.application, &before.scopes, &before.networks)
    );
    // The new key has the same lifetime as the old key.
    assert_eq!((after.created, after.expires), (NOW.plus(80 * DAY), Some(NOW.plus(170 * DAY))));
    assert_ne!(after.digest, before.digest);
    let rotation = before.rotated.unwrap();
    assert_eq!((rotation.to, rotation.until), (after.id, NOW.plus(80 * DAY + 3600)));
    assert_eq!(rotated.old.revision, rotated.issued.key.revision, "one commit");
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 2);

    assert!(is_in_force(&accounts, old) && is_in_force(&accounts, after.id));
    accounts.clock().set(NOW.plus(80 * DAY + 3599));
    assert!(is_in_force(&accounts, old));
    accounts.clock().set(NOW.plus(80 * DAY + 3600));
    assert!(!is_in_force(&accounts, old) && is_in_force(&accounts, after.id));
}

#[tokio::test]
async fn overlap_defaults_to_a_day_or_the_remaining_lifetime() {
    let accounts = accounts_with_reader().await;
    for (expires, options, expected) in [
        (None, RotateOptions::default(), DAY),
        (Some(100), RotateOptions::default(), 100),
        (Some(2 * DAY), RotateOptions::default(), DAY),
        (Some(100), overlap(100), 100),
        (None, overlap(0), 0),
    ] {
        let expires = expires.map(|seconds| NOW.plus(seconds));
        let id = issue(&accounts, NewKey { expires, ..NewKey::default() }).await;
        let rotated = accounts.rotate_key(id, options).await.unwrap();
        assert_eq!(rotated.old.record.rotated.unwrap().until, NOW.plus(expected), "{options:?}");
        assert_eq!(is_in_force(&accounts, id), expected > 0);
    }
    let id = issue(&accounts, NewKey { expires: Some(NOW.plus(9)), ..NewKey::default() }).await;
    let never = RotateOptions { lifetime: Lifetime::Never, overlap: None };
    let rotated = accounts.rotate_key(id, never).await.unwrap();
    assert_eq!(rotated.issued.key.record.expires, None);
    let until = RotateOptions { lifetime: Lifetime::Until(NOW.plus(7)), overlap: None };
    let second = accounts.rotate_key(rotated.issued.key.record.id, until).await.unwrap();
    assert_eq!(second.issued.key.record.expires, Some(NOW.plus(7)));
}

#[tokio::test]
async fn impossible_rotation_changes_nothing() {
    let accounts = accounts_with_reader().await;
    let expires = Some(NOW.plus(100));
    let id = issue(&accounts, NewKey { expires, ..NewKey::default() }).await;
    for options in [overlap(-1), overlap(i64::MIN), overlap(101), overlap(i64::MAX)] {
        assert_eq!(invalid(accounts.rotate_key(id, options).await), ["overlap"], "{options:?}");
    }
    let past = RotateOptions { lifetime: Lifetime::Until(NOW), overlap: None };
    assert_eq!(invalid(accounts.rotate_key(id, past).await), ["expires"]);
    let revoked = issue(&accounts, NewKey::default()).await;
    accounts.revoke_key(revoked).await.unwrap();
    let message = refusal(accounts.rotate_key(revoked, RotateOptions::default()).await);
    assert!(message.ends_with("was revoked."), "{message}");
    let replaced = issue(&accounts, NewKey::default()).await;
    let rotated = accounts.rotate_key(replaced, RotateOptions::default()).await.unwrap();
    let replacement = rotated.issued.key.record.id;
    let message = refusal(accounts.rotate_key(replaced, RotateOptions::default()).await);
    assert!(message.contains(&format!("already replaced by {replacement}")), "{message}");
    accounts.clock().set(NOW.plus(100));
    let message = refusal(accounts.rotate_key(id, overlap(0)).await);
    assert!(message.ends_with("has expired."), "{message}");
    let unknown = accounts.rotate_key(KeyId::from_number(1), RotateOptions::default()).await;
    assert!(matches!(unknown, Err(AccountError::NotFound { what: "key", .. })));
    // The key of the first start, three keys of this test, and one replacement.
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_ten_simultaneous_rotations_succeeds() {
    let accounts = accounts_with_reader().await;
    let id = issue(&accounts, NewKey::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let accounts = accounts.clone();
        tasks.spawn(async move { accounts.rotate_key(id, RotateOptions::default()).await.is_ok() });
    }
    let succeeded = tasks.join_all().await.into_iter().filter(|is_ok| *is_ok).count();
    assert_eq!((succeeded, accounts.keys_of(2, None, 99).unwrap().items.len()), (1, 2));
}

#[tokio::test]
async fn rotation_notices_changes_before_its_commit() {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    let id = issue(&accounts, NewKey::default()).await;
    store.before_commit(move |others| async move { drop(others.revoke_key(id).await.unwrap()) });
    let message = refusal(accounts.rotate_key(id, RotateOptions::default()).await);
    assert!(message.ends_with("was revoked."), "{message}");

    let id = issue(&accounts, NewKey::default()).await;
    store.before_commit(|others| async move { others.delete_user(2, None).await.unwrap() });
    let gone = accounts.rotate_key(id, RotateOptions::default()).await;
    assert!(matches!(gone, Err(AccountError::NotFound { .. })), "{gone:?}");
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), 1);
}

#[tokio::test]
async fn scope_must_be_a_permission_of_the_user() {
    let accounts = accounts_with_reader().await;
    let scoped = |scopes: &[&str]| {
        let scopes = Some(scopes.iter().map(|scope| (*scope).to_owned()).collect());
        accounts.issue_key(2, NewKey { scopes, ..NewKey::default() })
    };
    let problem = scoped(&["read", "write"]).await.unwrap_err();
    assert!(problem.to_string().contains("does not have the permission \"write\""), "{problem}");
    assert_eq!(invalid(scoped(&["write", "read", ""]).await), ["scopes.0", "scopes.2"]);
    let id = scoped(&["read"]).await.unwrap().key.record.id;
    scoped(&[]).await.unwrap();
    // A key whose user has lost the permission can still be rotated.
    set_roles(&accounts, 2, &[]).await.unwrap();
    assert_eq!(invalid(scoped(&["read"]).await), ["scopes.0"]);
    let rotated = accounts.rotate_key(id, RotateOptions::default()).await.unwrap();
    assert_eq!(rotated.issued.key.record.scopes, Some(vec!["read".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn simultaneous_keys_do_not_exceed_the_quota() {
    let accounts = with_key_limit(&accounts_with_reader().await, 5);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let accounts = accounts.clone();
        tasks.spawn(async move { accounts.issue_key(2, NewKey::default()).await });
    }
    let (made, refused): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), accounts.keys_of(2, None, 99).unwrap().items.len()), (5, 5));
    for result in refused {
        assert_eq!(refusal(result), "The user has 5 keys in force, and the limit is 5.");
    }
    // The keys of one user do not count for another user.
    accounts.issue_key(1, NewKey::default()).await.unwrap();
}

#[tokio::test]
async fn key_added_by_another_process_counts_for_the_quota() {
    let store = InterruptedStore::new();
    let accounts = with_key_limit(&accounts_on(store.clone()), 1);
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    store.before_commit(|others| async move {
        drop(others.issue_key(2, NewKey::default()).await.unwrap());
    });
    let message = refusal(accounts.issue_key(2, NewKey::default()).await);
    assert_eq!(message, "The user has 1 keys in force, and the limit is 1.");
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn revoked_and_expired_keys_do_not_count_for_the_quota() {
    let accounts = with_key_limit(&accounts_with_reader().await, 2);
    let first = issue(&accounts, NewKey { expires: Some(NOW.plus(9)), ..NewKey::default() }).await;
    let second = issue(&accounts, NewKey::default()).await;
    refusal(accounts.issue_key(2, NewKey::default()).await);
    // A user who has the maximum number of keys can rotate each of them once.
    let new = accounts.rotate_key(first, overlap(9)).await.unwrap().issued.key.record.id;
    accounts.rotate_key(second, overlap(9)).await.unwrap();
    refusal(accounts.rotate_key(new, overlap(0)).await);
    accounts.revoke_key(new).await.unwrap();
    refusal(accounts.issue_key(2, NewKey::default()).await);
    accounts.clock().set(NOW.plus(9));
    issue(&accounts, NewKey::default()).await;
    refusal(accounts.issue_key(2, NewKey::default()).await);
}

/// Requests all parts of a run. Returns the uid and the text of each key.
async fn run(accounts: &Writer, bulk: &BulkIssue) -> Vec<(u64, String)> {
    let (mut all, mut bulk) = (Vec::new(), bulk.clone());
    loop {
        let part = accounts.issue_for_many(&bulk).await.unwrap();
        let texts = part
            .items
            .iter()
            .map(|(_, issued)| (issued.key.record.user, issued.text.expose().to_owned()));
        all.extend(texts);
        bulk.after = part.last;
        if !part.has_more {
            return all;
        }
    }
}

/// A request for the first part of a run. All bytes of the run's id are `run`.
fn bulk(run: u8, recipients: BulkRecipients, limit: usize) -> BulkIssue {
    let new = NewKey::default();
    BulkIssue { run: [run; 16], recipients, new, after: None, limit }
}

/// Accounts with the first administrator, the user `bob` with the role `reader`, and `count` other
/// users.
async fn accounts_with_users(count: usize) -> Writer {
    let accounts = accounts_with_reader().await;
    for number in 0..count {
        accounts.create_user(new_user(&format!("user {number}"))).await.unwrap();
    }
    accounts
}

#[tokio::test]
async fn repeated_run_returns_the_same_keys() {
    let accounts = accounts_with_users(9).await;
    let made = run(&accounts, &bulk(1, BulkRecipients::All, 4)).await;
    let users: Vec<u64> = made.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(users, (1..=11).collect::<Vec<_>>());
    for (uid, text) in &made {
        let KeyShape::Ours(id) = KeyText::shape(text) else { panic!("{text}") };
        let key = accounts.directory().key(id).unwrap();
        assert!(key.user == *uid && key.digest == accounts.pepper().digest(text));
    }
    let count = accounts.keys(None, 99).unwrap().items.len();
    assert_eq!(count, 12, "eleven keys of the run, and the key of the first start");
    // A repeated run with parts of another size gives the same keys, even to users with a key.
    assert_eq!(run(&accounts, &bulk(1, BulkRecipients::WithoutKey, 3)).await, made);
    assert_eq!(run(&accounts, &bulk(1, BulkRecipients::All, 99)).await, made);
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), count);
    // A new run for users without a key creates no keys, because all users have keys.
    assert!(run(&accounts, &bulk(2, BulkRecipients::WithoutKey, 4)).await.is_empty());
    // A new run for all users creates other keys.
    let other = run(&accounts, &bulk(3, BulkRecipients::All, 4)).await;
    assert!(other.len() == 11 && other.iter().all(|item| !made.contains(item)));
    // A server with another pepper creates other keys for the same run id.
    let elsewhere = Accounts::with(
        Arc::new(MemoryStore::new()),
        Pepper::from_bytes([8; 32]),
        Passwords::new(1),
        Clock::fixed(NOW),
        Entropy::seeded(1),
    );
    let elsewhere = elsewhere.unwrap().as_actor(Actor::Program);
    elsewhere.first_start().await.unwrap().unwrap();
    assert_ne!(run(&elsewhere, &bulk(1, BulkRecipients::All, 4)).await[0].1, made[0].1);
}

#[tokio::test]
async fn run_counts_skipped_users_by_reason() {
    let accounts = with_key_limit(&accounts_with_users(4).await, 1);
    let limited = accounts.as_actor(Actor::Anonymous { client: [127, 0, 0, 1].into() });
    issue(&accounts, NewKey::default()).await;
    let part = limited.issue_for_many(&bulk(1, BulkRecipients::All, 99)).await.unwrap();
    assert_eq!(part.items.len(), 4);
    assert_eq!(part.skipped, Skipped { administrator: 1, has_most: 1, ..Skipped::default() });
    let part = accounts.issue_for_many(&bulk(2, BulkRecipients::WithoutKey, 99)).await.unwrap();
    assert_eq!((part.items.len(), part.skipped.has_key), (0, 6));
    let accounts = with_key_limit(&accounts, 9);
    let mut scoped = bulk(3, BulkRecipients::All, 99);
    scoped.new.scopes = Some(vec!["read".into()]);
    let part = accounts.issue_for_many(&scoped).await.unwrap();
    // Only the administrator and the reader have the permission `read`.
    assert_eq!((part.items.len(), part.skipped.lacks_scope), (2, 4));
    // Repeating the run with other scopes creates other keys.
    let unscoped = accounts.issue_for_many(&bulk(3, BulkRecipients::All, 99)).await.unwrap();
    assert_eq!(unscoped.items.len(), 6);
    assert!(unscoped.items.iter().all(|(_, issued)| issued.key.record.scopes.is_none()));
    // Repeating the run does not return a key that was revoked.
    let id = unscoped.items[1].1.key.record.id;
    accounts.revoke_key(id).await.unwrap();
    let again = accounts.issue_for_many(&bulk(3, BulkRecipients::All, 99)).await.unwrap();
    assert_eq!(again.items.len(), 5);
    let mut past = bulk(4, BulkRecipients::All, 99);
    past.new.expires = Some(NOW);
    assert_eq!(invalid(accounts.issue_for_many(&past).await), ["expires"]);
}

#[tokio::test]
async fn run_skips_a_user_who_gets_a_key_before_its_commit() {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    accounts.create_user(new_user("eve")).await.unwrap();
    store.before_commit(|others| async move {
        drop(others.issue_key(2, NewKey::default()).await.unwrap());
    });
    let part = accounts.issue_for_many(&bulk(1, BulkRecipients::WithoutKey, 99)).await.unwrap();
    assert_eq!((part.items.len(), part.skipped.has_key), (1, 2));
    accounts.create_user(new_user("zoe")).await.unwrap();
    // A user without keys is deleted before the commit of the run. The run notices the deletion,
    // although only the user's record changes.
    accounts.delete_user(3, None).await.unwrap();
    store.before_commit(|others| async move { others.delete_user(4, None).await.unwrap() });
    let part = accounts.issue_for_many(&bulk(2, BulkRecipients::All, 99)).await.unwrap();
    assert_eq!(
        part.items.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["admin", "bob"]
    );
}
