//! Tests of events that no single request causes: expiring keys, and exceeded failure limits.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::json;

use super::{receiver::Receiver, site_with_webhook, write_events_script};
use crate::harness::{Server, credential};

#[test]
fn expiring_key_is_reported_once_per_threshold() {
    let receiver = Receiver::new(&[]);
    let site = site_with_webhook(receiver.port);
    write_events_script(
        &site,
        "fn on_key_expiring(event) { webhook(\"ops\", #{ key: event.id, user: event.user, days: event.days, threshold: event.threshold }); }",
    );
    let mut server = site.start();
    server.add_user("bob", &[]);
    let soon = server.generate_key("bob", &["--expires", "36h"]);
    let later = server.generate_key("bob", &["--expires", "20d"]);
    server.generate_key("bob", &["--expires", "90d"]);
    server.generate_key("bob", &[]);
    let revoked = server.generate_key("bob", &["--expires", "2d"]);
    server.site.json(&["key", "revoke", &revoked.id]);
    // The server looks for expiring keys at its start, and then every ten minutes.
    assert!(server.stop().success());
    let server = Server::start(std::mem::take(&mut server.site), String::new());
    let mut received: Vec<_> =
        receiver.wait_for(2).into_iter().map(|webhook| webhook.body).collect();
    received.sort_by_key(|body| body["days"].as_i64());
    assert_eq!(
        received,
        [
            json!({ "key": soon.id, "user": "bob", "days": 2, "threshold": 7 }),
            json!({ "key": later.id, "user": "bob", "days": 20, "threshold": 30 }),
        ]
    );
    let _server = Server::start(server.kill(), String::new());
    thread::sleep(Duration::from_millis(2500));
    // A webhook may arrive twice if the server was killed before it recorded the delivery. But the
    // server must not send a new webhook.
    let ids: BTreeSet<String> = receiver.received().into_iter().map(|webhook| webhook.id).collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn exceeded_failure_limit_is_reported_once() {
    let receiver = Receiver::new(&[]);
    let site = site_with_webhook(receiver.port)
        .with_env("KEYWARD_LIMITS__FAILURE_EXEMPT", "")
        .with_env("KEYWARD_LIMITS__FAILURES_PER_ADDRESS", "5");
    write_events_script(&site, "fn on_flood(event) { webhook(\"ops\", event); }");
    let server = site.start();
    server.add_user("bob", &[]);
    for _ in 0..20 {
        server.request("GET", "/user/1").header("API-KEY", credential("bob", "wrong")).send();
    }
    let received = receiver.wait_for(1);
    let expected = json!({ "client": "127.0.0.1", "limit": "credentials", "seconds": 900, "uid": null, "user": null, "actor": { "kind": "program" } });
    assert_eq!(received[0].body, expected);
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(receiver.received().len(), 1);
}
