//! Tests of the delivery of webhooks: signatures, retries, and webhooks that are pending when the
//! server is killed.

use std::{fs, os::unix::fs::PermissionsExt as _, thread, time::Duration};

use serde_json::json;

use super::{receiver::Receiver, site_with_webhook, write_events_script};
use crate::harness::Server;

const SCRIPT: &str = r#"
fn on_key_created(event) {
    webhook("ops", #{ type: "key.created", key: event.id, user: event.user, actor: event.actor.kind, rotated_from: event.rotated_from });
    if event.label == "no" { deny(403, "NO", "No."); }
}
fn on_key_revoked(event) { webhook("ops", #{ type: "key.revoked", key: event.id }); 1 / 0 }
fn on_user_created(event) { webhook("ops", #{ type: "user.created", user: event.user, mail: event.mail, attributes: event.attributes }); }
"#;

#[test]
fn webhook_is_signed_and_retried_until_it_is_accepted() {
    let receiver = Receiver::new(&[500, 302]);
    let site = site_with_webhook(receiver.port);
    write_events_script(&site, &SCRIPT.replace(" 1 / 0", ""));
    let server = site.start();
    server.add_user("bob", &["--mail", "bob@example.com"]);
    let received = receiver.wait_for(3);
    let statuses: Vec<u16> = received.iter().map(|webhook| webhook.status).collect();
    assert_eq!(statuses, [500, 302, 204]);
    assert!(
        received
            .iter()
            .all(|webhook| webhook.id == received[0].id && webhook.id.starts_with("msg_"))
    );
    let expected = json!({ "type": "user.created", "user": "bob", "mail": "bob@example.com", "attributes": {} });
    assert!(received.iter().all(|webhook| webhook.body == expected), "{received:?}");
    let key = server.generate_key("bob", &[]);
    let rotated = server.site.json(&["key", "rotate", &key.id]);
    server.forbid_key_in_log(rotated["key"].as_str().unwrap());
    server.site.json(&["key", "revoke", &key.id]);
    let received = receiver.wait_for(6);
    assert_eq!(received[3].body["key"], key.id);
    assert_eq!(received[3].body["actor"], "operator");
    assert_eq!(received[4].body["rotated_from"], key.id);
    assert_eq!(received[5].body, json!({ "type": "key.revoked", "key": key.id }));
    // If the script denies a new key, the webhook for this key is not sent.
    let denied = server.site.run(&["key", "generate", "bob", "--label", "no"]);
    assert!(!denied.status.success());
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(receiver.received().len(), 6);
}

#[test]
fn configuration_check_refuses_a_secret_that_the_server_refuses() {
    let site = site_with_webhook(1);
    assert!(site.run(&["config", "check"]).status.success());
    let secret = site.path().join("secrets/hook");
    for (text, mode, expected) in [
        ("short", 0o600, "webhooks.ops.secret: the secret has fewer than 16 bytes"),
        ("whsec_!", 0o600, "webhooks.ops.secret: the secret has no valid base64 after whsec_"),
        (super::SECRET, 0o644, "can be read by others (mode 0644)"),
        ("", 0o600, "is empty"),
    ] {
        fs::write(&secret, text).unwrap();
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        for command in [["config", "check"].as_slice(), &["serve"]] {
            let output = site.run(command);
            let text = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(!output.status.success() && text.contains(expected), "{command:?}: {text}");
        }
    }
    fs::remove_file(&secret).unwrap();
    let text = String::from_utf8_lossy(&site.run(&["config", "check"]).stderr).into_owned();
    assert!(text.contains("webhooks.ops.secret"), "{text}");
}

#[test]
fn query_of_a_receiver_is_sent() {
    let receiver = Receiver::new(&[]);
    let site = site_with_webhook(receiver.port);
    let config = fs::read_to_string(site.path().join("config.toml")).unwrap();
    let with = |query: &str| config.replace("/in\"", &format!("/in{query}\""));
    fs::write(site.path().join("config.toml"), with("?a b")).unwrap();
    let text = String::from_utf8_lossy(&site.run(&["config", "check"]).stderr).into_owned();
    assert!(text.contains("The query of the receiver's URL"), "{text}");
    fs::write(site.path().join("config.toml"), with("?token=a%20b&c")).unwrap();
    write_events_script(&site, SCRIPT);
    let server = site.start();
    server.add_user("bob", &[]);
    assert_eq!(receiver.wait_for(1)[0].target, "/in?token=a%20b&c");
}

#[test]
fn pending_webhook_survives_a_kill_and_status_410_ends_its_retries() {
    // The server is killed before it delivers a webhook to this port: nobody responds there.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let site = site_with_webhook(port);
    write_events_script(&site, SCRIPT);
    let server = Server::start(site, String::new());
    server.add_user("bob", &[]);
    let site = server.kill();
    let receiver = Receiver::new(&[410, 204]);
    let text = fs::read_to_string(site.path().join("config.toml")).unwrap();
    let text = text.replace(&format!(":{port}/"), &format!(":{}/", receiver.port));
    fs::write(site.path().join("config.toml"), text).unwrap();
    let server = Server::start(site, String::new());
    assert_eq!(receiver.wait_for(1)[0].body["user"], "bob");
    server.add_user("eve", &[]);
    let received = receiver.wait_for(2);
    assert_eq!((received[0].status, &received[1].body["user"]), (410, &json!("eve")));
    // After another restart, no webhook is sent a second time.
    let mut server = server;
    assert!(server.stop().success());
    let site = std::mem::take(&mut server.site);
    let _server = Server::start(site, String::new());
    thread::sleep(Duration::from_millis(2500));
    assert_eq!(receiver.received().len(), 2);
}

#[test]
fn number_of_pending_webhooks_is_limited() {
    let receiver = Receiver::new(&[503; 99]);
    let site = site_with_webhook(receiver.port).with_env("KEYWARD_EVENTS__WEBHOOKS_WAITING", "2");
    write_events_script(&site, SCRIPT);
    let server = site.start();
    for name in ["a", "b", "c", "d"] {
        server.add_user(name, &[]);
    }
    server.wait_for_log("too many webhooks wait");
    receiver.statuses.lock().unwrap().clear();
    let deadline = std::time::Instant::now() + Duration::from_secs(8);
    let accepted = || receiver.received().iter().filter(|webhook| webhook.status == 204).count();
    while accepted() < 2 {
        assert!(std::time::Instant::now() < deadline);
        thread::sleep(Duration::from_millis(50));
    }
    server.add_user("e", &[]);
    let received = receiver.wait_for(receiver.received().len().max(3));
    let users: std::collections::BTreeSet<String> =
        received.iter().map(|webhook| webhook.body["user"].as_str().unwrap().to_owned()).collect();
    assert!(
        users.contains("a") && users.contains("b") && !users.contains("c") && !users.contains("d"),
        "{users:?}"
    );
}
