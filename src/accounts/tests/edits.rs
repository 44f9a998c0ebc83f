//! Tests of changed and deleted keys.

use super::*;
use crate::{
    accounts::{AdoptedBounds, KeyPurge},
    model::{Key, KeyId, Mode, Secret},
};

const DAY: i64 = 86_400;

/// Creates a key of the administrator.
async fn issue(accounts: &Writer, new: NewKey) -> KeyId {
    accounts.issue_key(1, new).await.unwrap().key.record.id
}

async fn edit(
    accounts: &Writer,
    id: KeyId,
    mut change: impl FnMut(&mut Key),
) -> Result<Versioned<Key>, AccountError> {
    let edit = |key: &mut Key| {
        change(key);
        Ok::<_, AccountError>(())
    };
    accounts.change_key(id, None, edit).await
}

fn purge(mode: Mode) -> KeyPurge {
    KeyPurge { ended_before: NOW.plus(DAY), mode, after: None, limit: 100 }
}

#[tokio::test]
async fn moved_end_is_in_force_at_once_and_a_dead_key_frees_its_place() {
    let accounts = with_key_limit(&accounts().await, 2);
    let id = issue(&accounts, NewKey { expires: Some(NOW.plus(9)), ..NewKey::default() }).await;
    let is_expired = |at: i64| {
        accounts.clock().set(NOW.plus(at));
        accounts.directory().key(id).unwrap().is_expired(accounts.clock().now())
    };
    edit(&accounts, id, |key| key.expires = Some(NOW.plus(20))).await.unwrap();
    assert!(!is_expired(15));
    assert!(is_expired(20));
    // An end in the past is no way to revoke a key.
    let past = edit(&accounts, id, |key| key.expires = Some(NOW.plus(19))).await;
    assert_eq!(invalid(past), ["expires"]);
    edit(&accounts, id, |key| key.label = "old".into()).await.unwrap();
    // The user has another key since the first start, and gets one more: no place is left.
    issue(&accounts, NewKey::default()).await;
    let revived = edit(&accounts, id, |key| key.expires = None).await;
    assert!(refusal(revived).contains("the limit is 2"));
}

#[tokio::test]
async fn deleted_key_is_gone_from_the_store_and_from_the_directory() {
    let accounts = accounts().await;
    let id = issue(&accounts, NewKey::default()).await;
    assert!(refusal(accounts.delete_key(id, None).await).contains("is still accepted"));
    accounts.revoke_key(id).await.unwrap();
    accounts.delete_key(id, None).await.unwrap();
    assert!(accounts.key(id).unwrap().is_none() && accounts.directory().key(id).is_none());
    let keys = accounts.keys_of(1, None, 9).unwrap().items;
    assert!(keys.iter().all(|key| key.record.id != id));
}

#[tokio::test]
async fn adopted_key_is_never_deleted_because_its_script_would_adopt_it_again() {
    let accounts = accounts().await;
    let text = Secret::new("a-key-of-another-system");
    accounts.adopt_key(1, "default", &text, &AdoptedBounds::default()).await.unwrap();
    let keys = accounts.keys_of(1, None, 9).unwrap().items;
    let id = keys.iter().find(|key| key.record.label == "taken over").unwrap().record.id;
    let other = issue(&accounts, NewKey::default()).await;
    for id in [id, other] {
        accounts.revoke_key(id).await.unwrap();
    }
    accounts.clock().set(NOW.plus(2 * DAY));
    assert!(
        refusal(accounts.delete_key(id, None).await).contains("would take the credential over")
    );
    let dry = accounts.purge_keys(purge(Mode::DryRun)).await.unwrap();
    assert_eq!((dry.keys.len(), dry.kept), (1, 1));
    assert!(accounts.key(other).unwrap().is_some());
    let purged = accounts.purge_keys(purge(Mode::Live)).await.unwrap();
    assert_eq!((purged.keys[0].id, purged.kept, purged.has_more), (other, 1, false));
    assert!(accounts.key(other).unwrap().is_none());
    // The revoked key stays revoked when its credential is presented again.
    accounts.adopt_key(1, "default", &text, &AdoptedBounds::default()).await.unwrap();
    assert!(accounts.key(id).unwrap().unwrap().record.revoked.is_some());
}

#[tokio::test]
async fn purge_goes_on_after_the_last_key_of_a_step() {
    let accounts = accounts().await;
    for _ in 0..5 {
        let id = issue(&accounts, NewKey::default()).await;
        accounts.revoke_key(id).await.unwrap();
    }
    accounts.clock().set(NOW.plus(2 * DAY));
    let (mut after, mut count, mut steps) = (None, 0, 0);
    loop {
        let step = KeyPurge { after, limit: 2, ..purge(Mode::Live) };
        let purged = accounts.purge_keys(step).await.unwrap();
        count += purged.keys.len();
        steps += 1;
        after = purged.last;
        if !purged.has_more {
            break;
        }
    }
    assert_eq!((count, steps), (5, 3));
}

#[tokio::test]
async fn only_an_administrator_widens_a_key() {
    let accounts = accounts().await;
    accounts.create_user(new_user("bob")).await.unwrap();
    let bounds = NewKey {
        scopes: Some(Vec::new()),
        expires: Some(NOW.plus(DAY)),
        networks: vec!["10.0.0.0/8".parse().unwrap()],
        rate_limit: Some(crate::model::RateLimit::parse("", "5/1m").unwrap()),
        ..NewKey::default()
    };
    let id = accounts.issue_key(2, bounds).await.unwrap().key.record.id;
    let user = |uid: u64| Actor::User {
        uid,
        name: "somebody".into(),
        key: None,
        application: "default".into(),
        client: [192, 0, 2, 7].into(),
    };
    let (owner, helper) = (accounts.as_actor(user(2)), accounts.as_actor(user(3)));
    let wider: [fn(&mut Key); 5] = [
        |key| key.scopes = None,
        |key| key.networks = Vec::new(),
        |key| key.networks.push("192.0.2.0/24".parse().unwrap()),
        |key| key.expires = None,
        |key| key.expires = Some(NOW.plus(2 * DAY)),
    ];
    for (index, change) in wider.into_iter().enumerate() {
        for writer in [&owner, &helper] {
            let refused = edit(writer, id, change).await;
            assert!(matches!(refused, Err(AccountError::Forbidden { .. })), "{index} {refused:?}");
        }
    }
    let raised = edit(&owner, id, |key| key.rate_limit = None).await;
    assert!(matches!(raised, Err(AccountError::Forbidden { .. })), "{raised:?}");
    let narrower = |key: &mut Key| {
        key.networks = vec!["10.1.0.0/16".parse().unwrap()];
        key.expires = Some(NOW.plus(60));
    };
    edit(&owner, id, narrower).await.unwrap();
    for change in wider {
        edit(&accounts, id, change).await.unwrap();
    }
    accounts.revoke_key(id).await.unwrap();
    let revoked = edit(&accounts, id, |key| key.scopes = None).await;
    assert!(revoked.is_ok(), "an unchanged bound: {revoked:?}");
    let revoked = edit(&accounts, id, |key| key.scopes = Some(Vec::new())).await;
    assert!(refusal(revoked).contains("a revocation is final"));
}
