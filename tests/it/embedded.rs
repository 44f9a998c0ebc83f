//! The examples of programs that embed Keyward work as documented.

use std::sync::Arc;

use axum::{Router, body::Body};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Request;
use http_body_util::BodyExt as _;
use keyward::{Accounts, Actor, ClientSource, KeyId, NewKey, Passwords};

use crate::embedded_keyward::reopened;
use tower::ServiceExt as _;

#[allow(dead_code, reason = "the test does not call the example's main")]
#[path = "../../examples/appliance.rs"]
mod appliance;
#[allow(dead_code, reason = "the test does not call the example's main")]
#[path = "../../examples/custom_store.rs"]
pub mod custom_store;

/// Sends a request to an example, and returns the status and body of the response.
async fn send(app: &Router, method: &str, path: &str, credential: &str) -> (u16, String) {
    let mut request = Request::builder().method(method).uri(path);
    if !credential.is_empty() {
        request = request.header("api-key", credential);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_appliance_example_keeps_its_users_and_applies_the_owners_script() {
    let folder = tempfile::tempdir().unwrap();
    // The requests of this test have no connection.
    let open_now = async || {
        let client = ClientSource::from_fn(|_| Some([127, 0, 0, 1].into()));
        appliance::open(folder.path(), client).await
    };
    let open = async || reopened(&open_now).await;
    let keyward = open().await;
    let first = keyward.first_start().unwrap();
    let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
    let app = appliance::app(&keyward);
    assert_eq!(send(&app, "GET", "/valves/main", "").await.0, 401);
    assert_eq!(send(&app, "GET", "/valves/main", &credential).await, (200, "open\n".into()));
    let (status, body) = send(&app, "POST", "/valves/main", &credential).await;
    assert!(status == 403 && body.contains("SEALED"), "{status} {body}");
    let turned = (200, "Turned by admin.\n".to_owned());
    assert_eq!(send(&app, "POST", "/valves/side", &credential).await, turned);
    // The key page issues a key to the caller.
    let (status, text) = send(&app, "POST", "/keys", &credential).await;
    assert_eq!(status, 200, "{text}");
    let issued = STANDARD.encode(format!("admin:{}", text.trim_end()));
    assert_eq!(send(&app, "GET", "/valves/side", &issued).await.0, 200);

    // After a restart the same key works, the script that the owner has written applies, and the
    // uses of the key are counted.
    drop(app);
    let key = KeyId::parse(&first.key.expose()[3..11]).unwrap();
    keyward.stop().await;
    let policy =
        r#"fn on_request(req) { if req.method == "POST" { deny(403, "CLOSED", "At night."); } }"#;
    std::fs::write(folder.path().join("scripts/hooks.rhai"), policy).unwrap();
    let keyward = open().await;
    assert!(keyward.first_start().is_none());
    assert_eq!(keyward.accounts().usage_of(key).unwrap().map(|used| used.times), Some(3));
    let app = appliance::app(&keyward);
    assert_eq!(send(&app, "GET", "/valves/side", &credential).await.0, 200);
    assert_eq!(send(&app, "POST", "/valves/side", &credential).await.0, 403);
}

#[tokio::test]
async fn the_custom_store_example_keeps_every_acknowledged_write() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("journal.jsonl");
    let open = async || {
        let store = custom_store::JournalStore::open(&file).await.unwrap();
        let pepper = file.with_extension("pepper");
        Accounts::open(Arc::new(store), &pepper, Passwords::new(1)).unwrap()
    };
    let accounts = open().await;
    let first = accounts.first_start().await.unwrap().unwrap();
    let uid = accounts.directory().user_by_name(&first.username).unwrap().uid;
    let acting = accounts.as_actor(Actor::Program);
    let issued = acting.issue_key(uid, NewKey::default()).await.unwrap();
    acting.revoke_key(issued.key.record.id).await.unwrap();
    let revision = accounts.user(uid).unwrap().unwrap().revision;
    drop(accounts);

    // The store removes an incomplete last line, because the write of this line was never
    // acknowledged.
    let complete = std::fs::read(&file).unwrap();
    std::fs::write(&file, [&complete[..], b"[[117,"].concat()).unwrap();
    let accounts = open().await;
    assert_eq!(std::fs::read(&file).unwrap(), complete);
    assert!(accounts.first_start().await.unwrap().is_none());
    assert_eq!(accounts.user(uid).unwrap().unwrap().revision, revision);
    let key = accounts.directory().key(issued.key.record.id).unwrap();
    assert!(key.is_revoked);
}
