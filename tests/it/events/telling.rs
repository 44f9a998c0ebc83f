//! What nobody's request brings: keys that end, and floods.

use std::{collections::BTreeSet, thread, time::Duration};

use serde_json::json;

use super::{receiver::Receiver, script, site};
use crate::harness::{Server, credential};

#[test]
fn a_key_that_ends_is_told_of_once_for_each_threshold() {
    let receiver = Receiver::new(&[]);
    let site = site(receiver.port);
    script(
        &site,
        "fn on_key_expiring(event) { webhook(\"ops\", #{ key: event.id, user: event.user, days: event.days, threshold: event.threshold }); }",
    );
    let mut server = site.start();
    server.user("bob", &[]);
    let soon = server.key("bob", &["--expires", "36h"]);
    let later = server.key("bob", &["--expires", "20d"]);
    server.key("bob", &["--expires", "90d"]);
    server.key("bob", &[]);
    let gone = server.key("bob", &["--expires", "2d"]);
    server.site.json(&["key", "revoke", &gone.id]);
    // They are looked for at the start, and every ten minutes.
    assert!(server.stop().success());
    let server = Server::start(std::mem::take(&mut server.site), String::new());
    let mut came: Vec<_> = receiver.until(2).into_iter().map(|one| one.body).collect();
    came.sort_by_key(|one| one["days"].as_i64());
    assert_eq!(
        came,
        [
            json!({ "key": soon.id, "user": "bob", "days": 2, "threshold": 7 }),
            json!({ "key": later.id, "user": "bob", "days": 20, "threshold": 30 }),
        ]
    );
    let _server = Server::start(server.kill(), String::new());
    thread::sleep(Duration::from_millis(2500));
    // A copy may come of what was not noted yet as delivered; nothing new does.
    let ids: BTreeSet<String> = receiver.came().into_iter().map(|one| one.id).collect();
    assert_eq!(ids.len(), 2);
}

#[test]
fn a_flood_is_told_of_once() {
    let receiver = Receiver::new(&[]);
    let site = site(receiver.port)
        .with("KEYWARD_LIMITS__FAILURE_EXEMPT", "")
        .with("KEYWARD_LIMITS__FAILURES_PER_ADDRESS", "5");
    script(&site, "fn on_flood(event) { webhook(\"ops\", event); }");
    let server = site.start();
    server.user("bob", &[]);
    for _ in 0..20 {
        server.request("GET", "/user/1").header("API-KEY", credential("bob", "wrong")).send();
    }
    let came = receiver.until(1);
    let told = json!({ "client": "127.0.0.1", "limit": "credentials", "seconds": 900, "uid": null, "user": null, "actor": { "kind": "program" } });
    assert_eq!(came[0].body, told);
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(receiver.came().len(), 1);
}
