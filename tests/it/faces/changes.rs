//! What takes a key's use away is in force in every face from the first request after the answer to the change.

use http::Method;
use keyward::{
    Layer,
    accounts::{AccountError, NewKey},
    model::{Actor, Handler, Key, KeyId, User},
};

use super::{
    WAYS,
    corpus::Asked,
    listen,
    rig::{House, ask, user},
    upstream,
};

/// A change, and the status that it leads to.
const CHANGES: [(&str, u16); 7] = [
    ("revoke", 401),
    ("expire", 401),
    ("rotate", 401),
    ("move", 401),
    ("narrow", 403),
    ("demote", 403),
    ("block", 403),
];

/// Changes somebody's key, or its user, and returns when that is answered.
async fn change(house: &House, change: &str, uid: u64, key: KeyId) {
    let acting = house.accounts.acting(Actor::Program);
    let of_key = async |edit: fn(&mut Key)| {
        let edit = |key: &mut Key| {
            edit(key);
            Ok::<_, AccountError>(())
        };
        acting.change_key(key, None, edit).await.unwrap();
    };
    let of_user = async |edit: fn(&mut User)| {
        let edit = |user: &mut User| {
            edit(user);
            Ok::<_, AccountError>(())
        };
        acting.change_user(uid, None, edit).await.unwrap();
    };
    match change {
        "revoke" => drop(acting.revoke_key(key).await.unwrap()),
        "rotate" => {
            let how = keyward::accounts::Rotate { overlap: Some(0), ..Default::default() };
            acting.rotate_key(key, how).await.unwrap();
        }
        "expire" => house.accounts.clock().set(house.accounts.clock().now().plus(60)),
        "move" => of_key(|key| key.networks = vec!["203.0.113.0/24".parse().unwrap()]).await,
        "narrow" => of_key(|key| key.scopes = Some(vec![])).await,
        "demote" => of_user(|user| user.roles.clear()).await,
        _ => of_user(|user| user.status = false).await,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_taken_back_is_refused_by_every_face_from_the_next_request() {
    let house = House::new().await;
    let address = listen(&house).await;
    let layer = Layer::new(house.gate.clone());
    let upstream = upstream().await;
    let mut asked_of = 0;
    for handler in [Handler::Respond, Handler::Proxy, Handler::Decide] {
        house.hand_over(&handler, &upstream).await;
        for (name, status) in CHANGES {
            // As many faces as are asked with this handler: each is the first to ask once.
            let faces = if handler == Handler::Decide { WAYS.len() } else { 2 };
            for face in 0..faces {
                let who = format!("{name} {handler:?} {face}").to_lowercase();
                let soon = house.accounts.clock().now().plus(60);
                let expires = (name == "expire").then_some(soon);
                let key = NewKey { expires, ..NewKey::default() };
                let credential = user(&house.accounts, &who, &["reader"], key).await;
                let uid = house.accounts.directory().user_by_name(&who).unwrap().uid;
                let id = house.accounts.keys_of(uid, None, 1).unwrap().items[0].record.id;
                let asked = Asked::new(Method::POST, "/orders/1", &[("api-key", &credential)]);
                let verdict = async || match (&handler, face) {
                    (Handler::Decide, way) => {
                        WAYS[way].verdict(&asked, "127.0.0.1", address).await.0
                    }
                    (_, 0) => asked.send(address).await.status().as_u16(),
                    _ => ask(&layer, asked.request()).await.0.status().as_u16(),
                };
                assert_eq!(verdict().await, 200, "{who}");
                change(&house, name, uid, id).await;
                assert_eq!(verdict().await, status, "{who}");
                asked_of += 1;
            }
        }
    }
    assert_eq!(asked_of, CHANGES.len() * (2 + 2 + WAYS.len()));
}
