//! The deletion of keys that are not accepted any more.

use serde_json::{Value, json};

use super::{ran, refused};
use crate::harness::Server;

fn ids(server: &Server) -> Vec<String> {
    let keys = server.site.json(&["key", "list"]);
    let ids = keys.as_array().unwrap().iter();
    ids.map(|key| key["id"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn only_a_dead_key_is_deleted_and_the_trail_keeps_it() {
    let server = Server::new();
    let site = &server.site;
    server.add_user("bob", &[]);
    let key = server.generate_key("bob", &["--label", "laptop"]);
    let target = format!("/api/v1/keys/{}", key.id);
    let response = server.admin_api("DELETE", &target).send();
    assert_eq!(response.status, 409, "{}", response.body);
    assert!(response.body.contains("Revoke it first"), "{}", response.body);
    assert!(refused(site, &["key", "delete", &key.id]).contains("is still accepted"));
    assert!(ids(&server).contains(&key.id));
    site.json(&["key", "revoke", &key.id]);
    let stale = server.admin_api("DELETE", &target).header("If-Match", "\"1\"").send();
    assert_eq!(stale.status, 412);
    let (code, out, _) = ran(site, &["key", "delete", &key.id]);
    assert_eq!((code, out), (0, format!("The key {} of bob (#2) is deleted.\n", key.id)));
    assert!(!ids(&server).contains(&key.id));
    assert_eq!(server.admin_api("DELETE", &target).send().status, 404);
    let entry = &site.json(&["audit", "list", "--limit", "1"])[0];
    assert_eq!(
        (&entry["action"], &entry["object"]),
        (&json!("key.delete"), &json!(format!("key/{}", key.id)))
    );
    let before = &entry["before"];
    assert_eq!(
        (&before["user"], &before["username"], &before["label"]),
        (&json!(2), &json!("bob"), &json!("laptop"))
    );
    // The owner of the leaked key is still found.
    let body = json!({ "text": key.text });
    let found = server.admin_api("POST", "/api/v1/keys/find").json(&body).send().json();
    let found = &found["items"][0];
    assert_eq!(
        (&found["state"], &found["username"], &found["label"], &found["deleted_alone"]),
        (&json!("deleted"), &json!("bob"), &json!("laptop"), &json!(true))
    );
    let credential = server.request("GET", "/user/1").header("API-KEY", &key.credential);
    assert_eq!(credential.send().status, 401);
}

#[test]
fn deletion_needs_the_authority_over_the_owner() {
    let server = Server::new();
    let helper = server.user_with_permissions("helper", &["administer users"]);
    let own = server.user_with_permissions("bob", &["generate own api key"]);
    let dead = |name: &str| {
        let key = server.generate_key(name, &[]);
        server.site.json(&["key", "revoke", &key.id]);
        key
    };
    let (of_admin, of_bob) = (dead("admin"), dead("bob"));
    let delete = |credential: &str, target: String| {
        server.admin_api_as(credential, "DELETE", &target).send().status
    };
    assert_eq!(delete(&helper.credential, format!("/api/v1/keys/{}", of_admin.id)), 403);
    assert_eq!(delete(&own.credential, format!("/api/v1/keys/{}", of_bob.id)), 403);
    assert_eq!(delete(&own.credential, format!("/api/v1/me/keys/{}", of_admin.id)), 404);
    assert_eq!(delete(&own.credential, format!("/api/v1/me/keys/{}", own.id)), 409);
    assert_eq!(delete(&own.credential, format!("/api/v1/me/keys/{}", of_bob.id)), 204);
    let purge = json!({ "ended_before": "2099-01-01" });
    let purged = server.admin_api_as(&helper.credential, "POST", "/api/v1/keys/purge").json(&purge);
    let purged = purged.send().json();
    assert_eq!((&purged["items"], &purged["kept"]), (&json!([]), &json!(1)), "{purged}");
}

#[test]
fn purge_deletes_the_keys_that_ended_before_a_time() {
    let server = Server::new();
    let site = &server.site;
    server.add_user("bob", &[]);
    let live = server.generate_key("bob", &[]);
    let revoked = server.generate_key("bob", &["--label", "old"]);
    let rotated = server.generate_key("bob", &[]);
    site.json(&["key", "revoke", &revoked.id]);
    let new = site.json(&["key", "rotate", &rotated.id, "--overlap", "0s"]);
    let total = ids(&server).len();
    assert_eq!(site.json(&["key", "purge", "--ended-before", "1h"])["keys"], 0);
    let dry = site.json(&["key", "purge", "--ended-before", "2099-01-01", "--dry-run"]);
    assert_eq!((&dry["keys"], &dry["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(ids(&server).len(), total);
    let (code, out, notes) = ran(site, &["key", "purge", "--ended-before", "2099-01-01"]);
    assert_eq!((code, notes.as_str()), (0, "2 keys deleted.\n"));
    assert!(out.contains(&format!("The key {} of bob (#2) (old), which ended at ", revoked.id)));
    let left = ids(&server);
    assert_eq!(left.len(), total - 2);
    assert!(left.contains(&live.id) && left.contains(&new["id"].as_str().unwrap().to_owned()));
    let entries = site.json(&["audit", "list", "--limit", "2"]);
    let of = |action: &str| -> Value {
        let entries = entries.as_array().unwrap();
        entries.iter().find(|entry| entry["action"] == action).unwrap()["after"].clone()
    };
    assert_eq!(of("key.purge")["keys"], 2);
    let listed = of("key.purged")["keys"].clone();
    assert!(listed.as_array().unwrap().contains(&json!([revoked.id, 2, "bob", "old"])), "{listed}");
    let shown = site.shell(&format!("printf %s '{}' | keyward key show -", revoked.text));
    let shown = { shown }.output().unwrap();
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(text.contains("belonged to bob (#2), and its record was deleted at"), "{text}");
    let body = json!({ "ended_before": "soon" });
    let refused = server.admin_api("POST", "/api/v1/keys/purge").json(&body).send();
    assert_eq!(refused.status, 422);
}

#[test]
fn generating_a_key_for_everybody_needs_consent() {
    let server = Server::new();
    let site = &server.site;
    let before = ids(&server).len();
    let errors = refused(site, &["key", "generate", "--all"]);
    assert!(errors.contains("Add --missing-only for users without a key, or --yes"), "{errors}");
    assert_eq!(ids(&server).len(), before);
    assert_eq!(ran(site, &["key", "generate", "--all", "--yes"]).0, 0);
    assert_eq!(ids(&server).len(), before + 1);
    assert_eq!(ran(site, &["key", "generate", "--all", "--missing-only"]).0, 0);
}
