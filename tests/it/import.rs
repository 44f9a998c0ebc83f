//! Keys of other systems, from their files.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Server, Site};

fn put(site: &Site, name: &str, text: &str) {
    fs::write(site.path().join(name), text).unwrap();
}

fn refused(site: &Site, args: &[&str]) -> (i32, Value) {
    let output = site.run(&[args, &["--output", "json"]].concat());
    let said: Value = serde_json::from_slice(&output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn a_file_is_imported_whole_or_not_at_all() {
    let server = Server::new();
    let site = &server.site;
    server.user("bob", &[]);
    let many: String = (0..2500).map(|at| format!("user{at},key-number-{at}\n")).collect();
    put(site, "good.csv", &format!("username,key\nbob,a-key-of-bobs\n{many}"));
    put(site, "bad.csv", &format!("username,key\nbob,a-key-of-bobs\n{many}bob,x\neve\n"));
    server.hide("a-key-of-bobs");
    let good = ["key", "import", "good.csv", "--create-users"];
    let (exit, said) = refused(site, &["key", "import", "bad.csv", "--create-users"]);
    assert_eq!((exit, &said["errors"][0]["location"]), (4, &json!("line 2504")), "{said}");
    put(site, "bad.csv", &format!("{many}bob,x\n"));
    let (exit, said) = refused(site, &["key", "import", "bad.csv", "--create-users"]);
    assert_eq!((exit, &said["errors"][0]["location"]), (4, &json!("line 2501.key")), "{said}");
    // Of users that are not there each line is told, a hundred at most.
    let (exit, said) = refused(site, &["key", "import", "good.csv"]);
    assert_eq!((exit, said["errors"].as_array().unwrap().len()), (4, 100));
    let counts = json!({ "keys": 2501, "users": 2500, "known": 0 });
    assert_eq!(site.json(&[&good[..], &["--dry-run"]].concat()), counts);
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&good), counts);
    assert_eq!(site.json(&good), json!({ "keys": 0, "users": 0, "known": 2501 }));
    let keys = site.json(&["key", "list", "bob"]);
    assert_eq!((&keys[0]["scheme"], keys.as_array().unwrap().len()), (&json!("text"), 1));
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn files_of_real_systems_are_read() {
    let site = Site::new();
    site.json(&["init"]);
    let kong = json!({ "_format_version": "3.0", "consumers": [
        { "username": "ann", "keyauth_credentials": [{ "key": "kong-key-of-ann" }] },
    ] });
    put(&site, "kong.json", &kong.to_string());
    put(&site, "drupal.csv", "username,key\nann,d41d8cd98f00b204e9800998ecf8427e\n");
    // printf %s secret-of-ann | sha256sum
    let digest = keyward::model::Scheme::Sha256.kept("secret-of-ann", None).unwrap();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    put(
        &site,
        "digests.jsonl",
        &format!(
            "{{\"username\":\"ann\",\"key\":\"{digest}\",\"label\":\"old\",\"expires\":\"90d\"}}\n"
        ),
    );
    for (args, users) in [
        (&["kong.json", "--create-users"][..], 1),
        (&["drupal.csv"], 0),
        (&["digests.jsonl", "--digest", "sha256"], 0),
    ] {
        let done = site.json(&[&["key", "import"], args].concat());
        assert_eq!(done, json!({ "keys": 1, "users": users, "known": 0 }), "{args:?}");
    }
    let keys = site.json(&["key", "list", "ann"]);
    let mut schemes: Vec<&str> =
        keys.as_array().unwrap().iter().map(|key| key["scheme"].as_str().unwrap()).collect();
    schemes.sort_unstable();
    assert_eq!(schemes, ["sha256", "text", "text"]);
    assert_eq!(refused(&site, &["key", "import", "missing.csv"]).0, 2);
    assert_eq!(refused(&site, &["key", "import", "digests.jsonl", "--format", "kong"]).0, 4);
}

#[test]
fn the_clients_of_kong_go_on_with_their_keys() {
    let server = Server::new();
    let site = &server.site;
    server.application(json!({ "type": "bearer", "header": "apikey" }));
    server.user_with("ann", &["access user profiles"]);
    for secret in ["kong-key-of-ann", "kong-key-of-bob"] {
        server.hide(secret);
    }
    let asks = |key: &str| server.request("GET", "/user/1").header("apikey", key).send().status;
    let begin = "_format_version: \"3.0\"\nservices:\n- name: api\n  url: http://127.0.0.1:1\nconsumers:\n- username: ann\n  keyauth_credentials:\n  - key: kong-key-of-ann\n    tags: [old]\n";
    put(
        site,
        "bad.yaml",
        &format!("{begin}- username: bob\n  keyauth_credentials: kong-key-of-bob\n"),
    );
    let (exit, said) = refused(site, &["key", "import", "bad.yaml", "--create-users"]);
    assert_eq!((exit, &said["errors"][0]["location"]), (4, &json!("line 11")), "{said}");
    assert!(!said.to_string().contains("kong-key"), "{said}");
    assert_eq!(asks("kong-key-of-ann"), 401);
    put(
        site,
        "kong.yaml",
        &format!("{begin}- username: bob\n  keyauth_credentials:\n  - key: kong-key-of-bob\n"),
    );
    let good = ["key", "import", "kong.yaml", "--create-users"];
    assert_eq!(site.json(&good), json!({ "keys": 2, "users": 1, "known": 0 }));
    assert_eq!(site.json(&good), json!({ "keys": 0, "users": 0, "known": 2 }));
    assert_eq!(asks("kong-key-of-ann"), 200);
    // Bob is known, and may not do it.
    assert_eq!(asks("kong-key-of-bob"), 403);
    assert_eq!(asks("kong-key-of-eve"), 401);
}
