//! Tests of the import of keys from files of other systems.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Server, Site};

fn write_file(site: &Site, name: &str, text: &str) {
    fs::write(site.path().join(name), text).unwrap();
}

/// Runs a command that must fail, and returns its exit code and the problem that it prints.
fn run_failing(site: &Site, args: &[&str]) -> (i32, Value) {
    let output = site.run(&[args, &["--output", "json"]].concat());
    let problem: Value = serde_json::from_slice(&output.stderr).unwrap();
    (output.status.code().unwrap(), problem)
}

#[test]
fn import_is_all_or_nothing_and_can_be_repeated() {
    let server = Server::new();
    let site = &server.site;
    server.add_user("bob", &[]);
    let many: String =
        (0..2500).map(|number| format!("user{number},key-number-{number}\n")).collect();
    write_file(site, "good.csv", &format!("username,key\nbob,a-key-of-bobs\n{many}"));
    write_file(site, "bad.csv", &format!("username,key\nbob,a-key-of-bobs\n{many}bob,x\neve\n"));
    server.forbid_in_log("a-key-of-bobs");
    let import = ["key", "import", "good.csv", "--create-users"];
    let (exit, problem) = run_failing(site, &["key", "import", "bad.csv", "--create-users"]);
    assert_eq!((exit, &problem["errors"][0]["location"]), (4, &json!("line 2504")), "{problem}");
    write_file(site, "bad.csv", &format!("{many}bob,x\n"));
    let (exit, problem) = run_failing(site, &["key", "import", "bad.csv", "--create-users"]);
    assert_eq!(
        (exit, &problem["errors"][0]["location"]),
        (4, &json!("line 2501.key")),
        "{problem}"
    );
    // Each row with an unknown user is an error. Only the first 100 errors are reported.
    let (exit, problem) = run_failing(site, &["key", "import", "good.csv"]);
    assert_eq!((exit, problem["errors"].as_array().unwrap().len()), (4, 100));
    let counts = json!({ "keys": 2501, "users": 2500, "known": 0 });
    assert_eq!(site.json(&[&import[..], &["--dry-run"]].concat()), counts);
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&import), counts);
    assert_eq!(site.json(&import), json!({ "keys": 0, "users": 0, "known": 2501 }));
    let keys = site.json(&["key", "list", "bob"]);
    assert_eq!((&keys[0]["scheme"], keys.as_array().unwrap().len()), (&json!("text"), 1));
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn files_of_kong_and_drupal_and_json_lines_are_imported() {
    let site = Site::new();
    site.json(&["init"]);
    let kong = json!({ "_format_version": "3.0", "consumers": [
        { "username": "ann", "keyauth_credentials": [{ "key": "kong-key-of-ann" }] },
    ] });
    write_file(&site, "kong.json", &kong.to_string());
    write_file(&site, "drupal.csv", "username,key\nann,d41d8cd98f00b204e9800998ecf8427e\n");
    // The digest is that of `printf %s secret-of-ann | sha256sum`.
    let digest = keyward::model::Scheme::Sha256.kept("secret-of-ann", None).unwrap();
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    write_file(
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
        let imported = site.json(&[&["key", "import"], args].concat());
        assert_eq!(imported, json!({ "keys": 1, "users": users, "known": 0 }), "{args:?}");
    }
    let keys = site.json(&["key", "list", "ann"]);
    let mut schemes: Vec<&str> =
        keys.as_array().unwrap().iter().map(|key| key["scheme"].as_str().unwrap()).collect();
    schemes.sort_unstable();
    assert_eq!(schemes, ["sha256", "text", "text"]);
    assert_eq!(run_failing(&site, &["key", "import", "missing.csv"]).0, 2);
    assert_eq!(run_failing(&site, &["key", "import", "digests.jsonl", "--format", "kong"]).0, 4);
}

#[test]
fn imported_kong_keys_authenticate_their_users() {
    let server = Server::new();
    let site = &server.site;
    server.patch_application(json!({ "type": "bearer", "header": "apikey" }));
    server.user_with_permissions("ann", &["access user profiles"]);
    for secret in ["kong-key-of-ann", "kong-key-of-bob"] {
        server.forbid_in_log(secret);
    }
    let status = |key: &str| server.request("GET", "/user/1").header("apikey", key).send().status;
    let beginning = "_format_version: \"3.0\"\nservices:\n- name: api\n  url: http://127.0.0.1:1\nconsumers:\n- username: ann\n  keyauth_credentials:\n  - key: kong-key-of-ann\n    tags: [old]\n";
    write_file(
        site,
        "bad.yaml",
        &format!("{beginning}- username: bob\n  keyauth_credentials: kong-key-of-bob\n"),
    );
    let (exit, problem) = run_failing(site, &["key", "import", "bad.yaml", "--create-users"]);
    assert_eq!((exit, &problem["errors"][0]["location"]), (4, &json!("line 11")), "{problem}");
    assert!(!problem.to_string().contains("kong-key"), "{problem}");
    assert_eq!(status("kong-key-of-ann"), 401);
    write_file(
        site,
        "kong.yaml",
        &format!("{beginning}- username: bob\n  keyauth_credentials:\n  - key: kong-key-of-bob\n"),
    );
    let import = ["key", "import", "kong.yaml", "--create-users"];
    assert_eq!(site.json(&import), json!({ "keys": 2, "users": 1, "known": 0 }));
    assert_eq!(site.json(&import), json!({ "keys": 0, "users": 0, "known": 2 }));
    assert_eq!(status("kong-key-of-ann"), 200);
    // Bob is authenticated, but lacks the permission.
    assert_eq!(status("kong-key-of-bob"), 403);
    assert_eq!(status("kong-key-of-eve"), 401);
}
