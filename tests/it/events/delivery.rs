//! Webhooks on their way.

use std::{thread, time::Duration};

use serde_json::json;

use super::{receiver::Receiver, script, site};
use crate::harness::Server;

const TELLS: &str = r#"
fn on_key_created(event) {
    webhook("ops", #{ type: "key.created", key: event.id, user: event.user, actor: event.actor.kind, rotated_from: event.rotated_from });
    if event.label == "no" { deny(403, "NO", "No."); }
}
fn on_key_revoked(event) { webhook("ops", #{ type: "key.revoked", key: event.id }); 1 / 0 }
fn on_user_created(event) { webhook("ops", #{ type: "user.created", user: event.user, mail: event.mail, attributes: event.attributes }); }
"#;

#[test]
fn a_webhook_is_signed_and_tried_again_until_it_is_taken() {
    let receiver = Receiver::new(&[500, 302]);
    let site = site(receiver.port);
    script(&site, &TELLS.replace(" 1 / 0", ""));
    let server = site.start();
    server.user("bob", &["--mail", "bob@example.com"]);
    let came = receiver.until(3);
    let statuses: Vec<u16> = came.iter().map(|one| one.answered).collect();
    assert_eq!(statuses, [500, 302, 204]);
    assert!(came.iter().all(|one| one.id == came[0].id && one.id.starts_with("msg_")));
    let told = json!({ "type": "user.created", "user": "bob", "mail": "bob@example.com", "attributes": {} });
    assert!(came.iter().all(|one| one.body == told), "{came:?}");
    let key = server.key("bob", &[]);
    let rotated = server.site.json(&["key", "rotate", &key.id]);
    server.hide_key(rotated["key"].as_str().unwrap());
    server.site.json(&["key", "revoke", &key.id]);
    let came = receiver.until(6);
    assert_eq!(came[3].body["key"], key.id);
    assert_eq!(came[3].body["actor"], "operator");
    assert_eq!(came[4].body["rotated_from"], key.id);
    assert_eq!(came[5].body, json!({ "type": "key.revoked", "key": key.id }));
    // What is not made is not told.
    let refused = server.site.run(&["key", "generate", "bob", "--label", "no"]);
    assert!(!refused.status.success());
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(receiver.came().len(), 6);
}

#[test]
fn a_webhook_survives_a_kill_and_410_ends_it() {
    // Nobody is there yet: the port is free again.
    let port = Receiver::new(&[]).port;
    let site = site(port);
    script(&site, TELLS);
    let server = Server::start(site, String::new());
    server.user("bob", &[]);
    let site = server.kill();
    let receiver = Receiver::new(&[410, 204]);
    let text = std::fs::read_to_string(site.path().join("config.toml")).unwrap();
    let text = text.replace(&format!(":{port}/"), &format!(":{}/", receiver.port));
    std::fs::write(site.path().join("config.toml"), text).unwrap();
    let server = Server::start(site, String::new());
    assert_eq!(receiver.until(1)[0].body["user"], "bob");
    server.user("eve", &[]);
    let came = receiver.until(2);
    assert_eq!((came[0].answered, &came[1].body["user"]), (410, &json!("eve")));
    // None comes again.
    let mut server = server;
    assert!(server.stop().success());
    let site = std::mem::take(&mut server.site);
    let _server = Server::start(site, String::new());
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(receiver.came().len(), 2);
}

#[test]
fn what_waits_is_bounded() {
    let receiver = Receiver::new(&[503; 99]);
    let site = site(receiver.port).with("KEYWARD_EVENTS__WEBHOOKS_WAITING", "2");
    script(&site, TELLS);
    let server = site.start();
    for name in ["a", "b", "c", "d"] {
        server.user(name, &[]);
    }
    server.tells("too many webhooks wait");
    receiver.answers.lock().unwrap().clear();
    let until = std::time::Instant::now() + Duration::from_secs(8);
    let taken = || receiver.came().iter().filter(|one| one.answered == 204).count();
    while taken() < 2 {
        assert!(std::time::Instant::now() < until);
        thread::sleep(Duration::from_millis(50));
    }
    server.user("e", &[]);
    let came = receiver.until(receiver.came().len().max(3));
    let users: std::collections::BTreeSet<String> =
        came.iter().map(|one| one.body["user"].as_str().unwrap().to_owned()).collect();
    assert!(
        users.contains("a") && users.contains("b") && !users.contains("c") && !users.contains("d"),
        "{users:?}"
    );
}
