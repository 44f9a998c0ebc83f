//! A change that restricts a key or its user applies to the server, the proxy, the layer and
//! `/-/verify`, from the first request after the response to the change.

use http::Method;
use keyward::{
    ClientSource, GuardLayer,
    accounts::{AccountError, NewKey},
    model::{Actor, Handler, Key, KeyId, User},
};

use super::{
    DIALECTS,
    corpus::TestRequest,
    fixture::{Fixture, send_through, user},
    listen, upstream,
};

/// The name of each change, and the status of the next request.
const CHANGES: [(&str, u16); 7] = [
    ("revoke", 401),
    ("expire", 401),
    ("rotate", 401),
    ("move", 401),
    ("narrow", 403),
    ("demote", 403),
    ("block", 403),
];

/// Applies a change to a key or its user, and returns when it is committed.
async fn change(fixture: &Fixture, change: &str, uid: u64, key: KeyId) {
    let writer = fixture.accounts.as_actor(Actor::Program);
    let change_key = async |edit: fn(&mut Key)| {
        let edit = |key: &mut Key| {
            edit(key);
            Ok::<_, AccountError>(())
        };
        writer.change_key(key, None, edit).await.unwrap();
    };
    let change_user = async |edit: fn(&mut User)| {
        let edit = |user: &mut User| {
            edit(user);
            Ok::<_, AccountError>(())
        };
        writer.change_user(uid, None, edit).await.unwrap();
    };
    match change {
        "revoke" => drop(writer.revoke_key(key).await.unwrap()),
        "rotate" => {
            let how = keyward::accounts::RotateOptions { overlap: Some(0), ..Default::default() };
            writer.rotate_key(key, how).await.unwrap();
        }
        "expire" => fixture.accounts.clock().set(fixture.accounts.clock().now().plus(60)),
        "move" => change_key(|key| key.networks = vec!["203.0.113.0/24".parse().unwrap()]).await,
        "narrow" => change_key(|key| key.scopes = Some(vec![])).await,
        "demote" => change_user(|user| user.roles.clear()).await,
        _ => change_user(|user| user.status = false).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_apply_to_every_face_from_the_next_request() {
    let fixture = Fixture::new().await;
    let (address, verify) = listen(&fixture).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let upstream = upstream().await;
    let mut checked = 0;
    for handler in [Handler::Respond, Handler::Proxy, Handler::Decide] {
        fixture.set_handler(&handler, &upstream).await;
        for (name, status) in CHANGES {
            // For each face that serves this handler, change a new user, and send the first request
            // after this change through the face.
            let faces = if handler == Handler::Decide { DIALECTS.len() } else { 2 };
            for face in 0..faces {
                let name_of_user = format!("{name} {handler:?} {face}").to_lowercase();
                let soon = fixture.accounts.clock().now().plus(60);
                let expires = (name == "expire").then_some(soon);
                let key = NewKey { expires, ..NewKey::default() };
                let credential = user(&fixture.accounts, &name_of_user, &["reader"], key).await;
                let uid = fixture.accounts.directory().user_by_name(&name_of_user).unwrap().uid;
                let id = fixture.accounts.keys_of(uid, None, 1).unwrap().items[0].record.id;
                let request =
                    TestRequest::new(Method::POST, "/orders/1", &[("api-key", &credential)]);
                let verdict = async || match (&handler, face) {
                    (Handler::Decide, dialect) => {
                        DIALECTS[dialect].verdict(&request, "127.0.0.1", verify).await.0
                    }
                    (_, 0) => request.send(address).await.status().as_u16(),
                    _ => send_through(&layer, request.request()).await.0.status().as_u16(),
                };
                assert_eq!(verdict().await, 200, "{name_of_user}");
                change(&fixture, name, uid, id).await;
                assert_eq!(verdict().await, status, "{name_of_user}");
                checked += 1;
            }
        }
    }
    assert_eq!(checked, CHANGES.len() * (2 + 2 + DIALECTS.len()));
}
