//! The life of a key.

use super::*;
use crate::model::{KeyId, KeyShape, KeyText, Role};

const DAY: i64 = 86_400;

/// Accounts with a user (number 2) who may read.
async fn with_reader() -> Writer {
    let accounts = accounts().await;
    let reader = Role { permissions: BTreeSet::from(["read".to_owned()]), ..role("reader", false) };
    accounts.create(reader).await.unwrap();
    let bob = NewUser { roles: vec!["reader".into()], ..named("bob") };
    accounts.create_user(bob).await.unwrap();
    accounts
}

async fn key_of(accounts: &Writer, new: NewKey) -> KeyId {
    accounts.issue_key(2, new).await.unwrap().key.record.id
}

fn overlap(seconds: i64) -> Rotate {
    Rotate { overlap: Some(seconds), ..Rotate::default() }
}

fn is_in_force(accounts: &Writer, id: KeyId) -> bool {
    let held = accounts.directory().key(id).unwrap();
    !held.is_revoked && !held.has_ended(accounts.clock().now())
}

#[tokio::test]
async fn a_rotated_key_is_replaced_by_one_like_it_and_works_until_the_overlap_ends() {
    let accounts = with_reader().await;
    let new = NewKey {
        label: "ci".into(),
        application: Some("default".into()),
        scopes: Some(vec!["read".into()]),
        expires: Some(NOW.plus(90 * DAY)),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        ..NewKey::default()
    };
    let old = key_of(&accounts, new).await;
    accounts.clock().set(NOW.plus(80 * DAY));
    let rotated = accounts.rotate_key(old, overlap(3600)).await.unwrap();
    let (before, after) = (rotated.old.record, rotated.issued.key.record);
    assert_eq!(KeyText::shape(rotated.issued.text.expose()), KeyShape::Ours(after.id));
    assert_eq!(
        (after.user, &after.label, &after.application, &after.scopes, &after.networks),
        (2, &before.label, &before.application, &before.scopes, &before.networks)
    );
    // As long again as the old one was made for.
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
async fn an_overlap_is_a_day_or_what_is_left_or_nothing() {
    let accounts = with_reader().await;
    for (expires, how, until) in [
        (None, Rotate::default(), DAY),
        (Some(100), Rotate::default(), 100),
        (Some(2 * DAY), Rotate::default(), DAY),
        (Some(100), overlap(100), 100),
        (None, overlap(0), 0),
    ] {
        let expires = expires.map(|seconds| NOW.plus(seconds));
        let id = key_of(&accounts, NewKey { expires, ..NewKey::default() }).await;
        let rotated = accounts.rotate_key(id, how).await.unwrap();
        assert_eq!(rotated.old.record.rotated.unwrap().until, NOW.plus(until), "{how:?}");
        assert_eq!(is_in_force(&accounts, id), until > 0);
    }
    let id = key_of(&accounts, NewKey { expires: Some(NOW.plus(9)), ..NewKey::default() }).await;
    let never = Rotate { lifetime: Lifetime::Never, overlap: None };
    let rotated = accounts.rotate_key(id, never).await.unwrap();
    assert_eq!(rotated.issued.key.record.expires, None);
    let until = Rotate { lifetime: Lifetime::Until(NOW.plus(7)), overlap: None };
    let again = accounts.rotate_key(rotated.issued.key.record.id, until).await.unwrap();
    assert_eq!(again.issued.key.record.expires, Some(NOW.plus(7)));
}

#[tokio::test]
async fn what_cannot_be_rotated_stays_as_it_is() {
    let accounts = with_reader().await;
    let expires = Some(NOW.plus(100));
    let id = key_of(&accounts, NewKey { expires, ..NewKey::default() }).await;
    for how in [overlap(-1), overlap(i64::MIN), overlap(101), overlap(i64::MAX)] {
        assert_eq!(invalid(accounts.rotate_key(id, how).await), ["overlap"], "{how:?}");
    }
    let past = Rotate { lifetime: Lifetime::Until(NOW), overlap: None };
    assert_eq!(invalid(accounts.rotate_key(id, past).await), ["expires"]);
    let revoked = key_of(&accounts, NewKey::default()).await;
    accounts.revoke_key(revoked).await.unwrap();
    let said = refusal(accounts.rotate_key(revoked, Rotate::default()).await);
    assert!(said.ends_with("was revoked."), "{said}");
    let twice = key_of(&accounts, NewKey::default()).await;
    let to = accounts.rotate_key(twice, Rotate::default()).await.unwrap().issued.key.record.id;
    let said = refusal(accounts.rotate_key(twice, Rotate::default()).await);
    assert!(said.contains(&format!("replaced already: by {to}")), "{said}");
    accounts.clock().set(NOW.plus(100));
    let said = refusal(accounts.rotate_key(id, overlap(0)).await);
    assert!(said.ends_with("has expired."), "{said}");
    let unknown = accounts.rotate_key(KeyId::from_number(1), Rotate::default()).await;
    assert!(matches!(unknown, Err(AccountError::NotFound { what: "key", .. })));
    // The key of the first start, two that were made here, and one that was rotated.
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_ten_rotations_at_one_moment_one_is_made() {
    let accounts = with_reader().await;
    let id = key_of(&accounts, NewKey::default()).await;
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let accounts = accounts.clone();
        tasks.spawn(async move { accounts.rotate_key(id, Rotate::default()).await.is_ok() });
    }
    let made = tasks.join_all().await.into_iter().filter(|is_made| *is_made).count();
    assert_eq!((made, accounts.keys_of(2, None, 99).unwrap().items.len()), (1, 2));
}

#[tokio::test]
async fn a_rotation_sees_what_happens_before_it_is_written() {
    let store = Contended::new();
    let accounts = on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(named("bob")).await.unwrap();
    let id = key_of(&accounts, NewKey::default()).await;
    store.before_commit(move |others| async move { drop(others.revoke_key(id).await.unwrap()) });
    let said = refusal(accounts.rotate_key(id, Rotate::default()).await);
    assert!(said.ends_with("was revoked."), "{said}");

    let id = key_of(&accounts, NewKey::default()).await;
    store.before_commit(|others| async move { others.delete_user(2, None).await.unwrap() });
    let gone = accounts.rotate_key(id, Rotate::default()).await;
    assert!(matches!(gone, Err(AccountError::NotFound { .. })), "{gone:?}");
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), 1);
}

#[tokio::test]
async fn a_scope_is_a_permission_that_the_user_has() {
    let accounts = with_reader().await;
    let scoped = |scopes: &[&str]| {
        let scopes = Some(scopes.iter().map(|one| (*one).to_owned()).collect());
        accounts.issue_key(2, NewKey { scopes, ..NewKey::default() })
    };
    let problem = scoped(&["read", "write"]).await.unwrap_err();
    assert!(problem.to_string().contains("does not have the permission \"write\""), "{problem}");
    assert_eq!(invalid(scoped(&["write", "read", ""]).await), ["scopes.0", "scopes.2"]);
    let id = scoped(&["read"]).await.unwrap().key.record.id;
    scoped(&[]).await.unwrap();
    // One that is lost later is lost for the key; its rotation goes on.
    give(&accounts, 2, &[]).await.unwrap();
    assert_eq!(invalid(scoped(&["read"]).await), ["scopes.0"]);
    let rotated = accounts.rotate_key(id, Rotate::default()).await.unwrap();
    assert_eq!(rotated.issued.key.record.scopes, Some(vec!["read".to_owned()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_keys_at_one_moment_no_more_are_made_than_there_may_be() {
    let accounts = with_keys(&with_reader().await, 5);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let accounts = accounts.clone();
        tasks.spawn(async move { accounts.issue_key(2, NewKey::default()).await });
    }
    let (made, refused): (Vec<_>, Vec<_>) =
        tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((made.len(), accounts.keys_of(2, None, 99).unwrap().items.len()), (5, 5));
    for one in refused {
        assert_eq!(refusal(one), "The user has 5 keys in force, and there may be 5.");
    }
    // Others have their own.
    accounts.issue_key(1, NewKey::default()).await.unwrap();
}

#[tokio::test]
async fn a_key_of_another_process_counts_as_well() {
    let store = Contended::new();
    let accounts = with_keys(&on(store.clone()), 1);
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(named("bob")).await.unwrap();
    store.before_commit(|others| async move {
        drop(others.issue_key(2, NewKey::default()).await.unwrap());
    });
    let said = refusal(accounts.issue_key(2, NewKey::default()).await);
    assert_eq!(said, "The user has 1 keys in force, and there may be 1.");
    assert_eq!(accounts.keys_of(2, None, 9).unwrap().items.len(), 1);
}

#[tokio::test]
async fn what_is_revoked_or_has_ended_does_not_count() {
    let accounts = with_keys(&with_reader().await, 2);
    let ended = key_of(&accounts, NewKey { expires: Some(NOW.plus(9)), ..NewKey::default() }).await;
    let revoked = key_of(&accounts, NewKey::default()).await;
    refusal(accounts.issue_key(2, NewKey::default()).await);
    // All that there may be can be replaced, and not more.
    let one = accounts.rotate_key(ended, overlap(9)).await.unwrap().issued.key.record.id;
    accounts.rotate_key(revoked, overlap(9)).await.unwrap();
    refusal(accounts.rotate_key(one, overlap(0)).await);
    accounts.revoke_key(one).await.unwrap();
    refusal(accounts.issue_key(2, NewKey::default()).await);
    accounts.clock().set(NOW.plus(9));
    key_of(&accounts, NewKey::default()).await;
    refusal(accounts.issue_key(2, NewKey::default()).await);
}

/// A run over all users, in parts of this size.
async fn run(accounts: &Writer, bulk: &Bulk) -> Vec<(u64, String)> {
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

fn bulk(run: u8, whom: Whom, limit: usize) -> Bulk {
    let new = NewKey::default();
    Bulk { run: [run; 16], whom, includes_administrators: true, new, after: None, limit }
}

async fn crowd(count: usize) -> Writer {
    let accounts = with_reader().await;
    for number in 0..count {
        accounts.create_user(named(&format!("user {number}"))).await.unwrap();
    }
    accounts
}

#[tokio::test]
async fn a_run_makes_a_key_for_each_user_and_the_same_when_it_is_asked_again() {
    let accounts = crowd(9).await;
    let made = run(&accounts, &bulk(1, Whom::All, 4)).await;
    let users: Vec<u64> = made.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(users, (1..=11).collect::<Vec<_>>());
    for (uid, text) in &made {
        let KeyShape::Ours(id) = KeyText::shape(text) else { panic!("{text}") };
        let held = accounts.directory().key(id).unwrap();
        assert!(held.user == *uid && held.digest == accounts.pepper().digest(text));
    }
    let count = accounts.keys(None, 99).unwrap().items.len();
    assert_eq!(count, 12, "eleven, and that of the first start");
    // In other parts as well, and although each has a key by now.
    assert_eq!(run(&accounts, &bulk(1, Whom::Missing, 3)).await, made);
    assert_eq!(run(&accounts, &bulk(1, Whom::All, 99)).await, made);
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), count);
    // Another run has other keys; one for those without a key finds nobody.
    assert!(run(&accounts, &bulk(2, Whom::Missing, 4)).await.is_empty());
    let other = run(&accounts, &bulk(3, Whom::All, 4)).await;
    assert!(other.len() == 11 && other.iter().all(|one| !made.contains(one)));
    // Nor does another server make the same ones of the name.
    let elsewhere = Accounts::with(
        Arc::new(MemoryStore::new()),
        Pepper::from_bytes([8; 32]),
        Passwords::new(1),
        Clock::fixed(NOW),
        Entropy::seeded(1),
    );
    let elsewhere = elsewhere.unwrap().acting(Actor::Program);
    elsewhere.first_start().await.unwrap().unwrap();
    assert_ne!(run(&elsewhere, &bulk(1, Whom::All, 4)).await[0].1, made[0].1);
}

#[tokio::test]
async fn a_run_leaves_out_whom_it_has_to_and_says_why() {
    let accounts = with_keys(&crowd(4).await, 1);
    let without = Bulk { includes_administrators: false, ..bulk(1, Whom::All, 99) };
    key_of(&accounts, NewKey::default()).await;
    let part = accounts.issue_for_many(&without).await.unwrap();
    assert_eq!(part.items.len(), 4);
    assert_eq!(part.skipped, Skipped { administrator: 1, has_most: 1, ..Skipped::default() });
    let part = accounts.issue_for_many(&bulk(2, Whom::Missing, 99)).await.unwrap();
    assert_eq!((part.items.len(), part.skipped.has_key), (0, 6));
    let accounts = with_keys(&accounts, 9);
    let mut scoped = bulk(3, Whom::All, 99);
    scoped.new.scopes = Some(vec!["read".into()]);
    let part = accounts.issue_for_many(&scoped).await.unwrap();
    // The administrator and the reader.
    assert_eq!((part.items.len(), part.skipped.lacks_scope), (2, 4));
    // What is asked for again with less is not given with more, nor the other way round.
    let wider = accounts.issue_for_many(&bulk(3, Whom::All, 99)).await.unwrap();
    assert_eq!(wider.items.len(), 6);
    assert!(wider.items.iter().all(|(_, issued)| issued.key.record.scopes.is_none()));
    // One that was revoked is not given again.
    let id = wider.items[1].1.key.record.id;
    accounts.revoke_key(id).await.unwrap();
    let again = accounts.issue_for_many(&bulk(3, Whom::All, 99)).await.unwrap();
    assert_eq!(again.items.len(), 5);
    let mut past = bulk(4, Whom::All, 99);
    past.new.expires = Some(NOW);
    assert_eq!(invalid(accounts.issue_for_many(&past).await), ["expires"]);
}

#[tokio::test]
async fn a_user_who_gets_a_key_meanwhile_gets_no_second() {
    let store = Contended::new();
    let accounts = on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(named("bob")).await.unwrap();
    accounts.create_user(named("eve")).await.unwrap();
    store.before_commit(|others| async move {
        drop(others.issue_key(2, NewKey::default()).await.unwrap());
    });
    let part = accounts.issue_for_many(&bulk(1, Whom::Missing, 99)).await.unwrap();
    assert_eq!((part.items.len(), part.skipped.has_key), (1, 2));
    accounts.create_user(named("zoe")).await.unwrap();
    // Of one without keys there is nothing else that changes.
    accounts.delete_user(3, None).await.unwrap();
    store.before_commit(|others| async move { others.delete_user(4, None).await.unwrap() });
    let part = accounts.issue_for_many(&bulk(2, Whom::All, 99)).await.unwrap();
    assert_eq!(
        part.items.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(),
        ["admin", "bob"]
    );
}
