//! A program that embeds Keyward has the same rules: they are in the writer, not in the admin API.

use keyward::{
    accounts::{AccountError, NewKey, NewUser, Writer},
    model::{Actor, Application, Handler, KeyId, Proxy, Resource, Role, Rules, Secret, User},
};

use crate::faces::fixture::Fixture;

/// An actor with this key.
fn actor(uid: u64, key: KeyId) -> Actor {
    Actor::User {
        uid,
        name: "who".into(),
        key: Some(key),
        application: "default".into(),
        client: [192, 0, 2, 7].into(),
    }
}

#[track_caller]
fn assert_refused<T>(result: Result<T, AccountError>) {
    match result {
        Err(AccountError::Forbidden { .. } | AccountError::AdminOnly) => {}
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was allowed"),
    }
}

/// Creates a user with a key.
async fn user(fixture: &Fixture, name: &str, roles: &[&str], key: NewKey) -> (u64, KeyId) {
    let program = fixture.accounts.as_actor(Actor::Program);
    let roles = roles.iter().map(|role| (*role).to_owned()).collect();
    let new = NewUser { name: name.into(), status: true, roles, ..NewUser::default() };
    let uid = program.create_user(new).await.unwrap().record.uid;
    (uid, program.issue_key(uid, key).await.unwrap().key.record.id)
}

#[tokio::test]
async fn writer_of_a_bound_key_makes_no_wider_key_and_no_password() {
    let fixture = Fixture::new().await;
    let end = fixture.accounts.clock().now().plus(3600);
    for (number, bound) in [
        NewKey { scopes: Some(vec![]), ..NewKey::default() },
        NewKey { networks: vec!["192.0.2.0/24".parse().unwrap()], ..NewKey::default() },
        NewKey { expires: Some(end), ..NewKey::default() },
        NewKey { application: Some("default".into()), ..NewKey::default() },
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("boss{number}");
        let (uid, key) = user(&fixture, &name, &["administrator"], bound.clone()).await;
        let writer = fixture.accounts.as_admin(actor(uid, key));
        assert!(writer.admin().is_none(), "{bound:?}");
        for owner in [uid, 1] {
            assert_refused(writer.issue_key(owner, NewKey::default()).await);
        }
        let digest = writer.hash_password(Secret::new("a new password")).await.unwrap();
        let set_password = |user: &mut User| {
            user.password = Some(digest.clone());
            Ok::<_, AccountError>(())
        };
        assert_refused(writer.change_user(uid, None, set_password).await);
        let roles = vec!["administrator".into()];
        let admin = NewUser { name: "eve".into(), roles, ..NewUser::default() };
        assert_refused(writer.create_user(admin).await);
        // A key with the same bound is no escape.
        writer.issue_key(uid, bound).await.unwrap();
    }
}

#[tokio::test]
async fn writer_of_a_user_grants_and_forwards_no_more_than_the_user_has() {
    let fixture = Fixture::new().await;
    let (uid, key) = user(&fixture, "eve", &["reader"], NewKey::default()).await;
    let writer: Writer = fixture.accounts.as_actor(actor(uid, key));
    let role = |permission: &str| Role {
        id: "mine".into(),
        label: "Mine".into(),
        weight: 0,
        is_admin: false,
        permissions: [permission.to_owned()].into(),
    };
    assert_refused(writer.create(role("write")).await);
    writer.create(role("read")).await.unwrap();
    let proxy = |upstream: &str| Resource {
        id: "mine".into(),
        handler: Handler::Proxy,
        path: Some("/free".into()),
        rules: Rules::Resource {
            methods: ["GET".to_owned()].into(),
            formats: ["any".to_owned()].into(),
            authentication: ["*".to_owned()].into(),
            permissions: [].into(),
        },
        proxy: Some(Proxy { upstreams: vec![upstream.into()], ..Proxy::default() }),
        ..Resource::entity_user()
    };
    assert_refused(writer.create(proxy("http://127.0.0.1:1")).await);
    assert_refused(writer.delete::<Resource>("entity.user", None).await);
    writer.create(proxy("http://192.0.2.1")).await.unwrap();
    let change_header = |application: &mut Application| {
        application.header = "X-Other".into();
        Ok::<_, AccountError>(())
    };
    assert_refused(writer.change("default", None, change_header).await);
}

/// The key of the actor was deleted with its user, so nothing is known about its bounds.
#[tokio::test]
async fn writer_of_a_deleted_key_makes_nothing() {
    let fixture = Fixture::new().await;
    let (uid, key) = user(&fixture, "late", &["administrator"], NewKey::default()).await;
    let (other, _) = user(&fixture, "other", &[], NewKey::default()).await;
    fixture.accounts.as_actor(Actor::Program).delete_user(uid, None).await.unwrap();
    let writer = fixture.accounts.as_admin(actor(uid, key));
    assert!(writer.admin().is_none());
    assert_refused(writer.issue_key(other, NewKey::default()).await);
}
