//! The audit trail says who became what by a state file or an import, and which person on the
//! machine was the operator.

use std::os::unix::fs::MetadataExt as _;

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// The newest entries, the newest first.
fn newest(site: &Site, count: usize) -> Vec<Value> {
    let limit = count.to_string();
    site.json(&["audit", "list", "--limit", &limit]).as_array().unwrap().clone()
}

/// Asserts that an entry names the user of this process and the command.
#[track_caller]
fn assert_operator(site: &Site, entry: &Value, command: &str) {
    // The harness created the folder.
    let uid = std::fs::metadata(site.path()).unwrap().uid();
    assert_eq!(entry["actor"], json!({ "kind": "operator", "client": "127.0.0.1" }));
    assert_eq!(
        (&entry["operator"]["uid"], &entry["operator"]["command"]),
        (&json!(uid), &json!(command))
    );
    if uid == 0 {
        assert_eq!(entry["operator"]["name"], "root");
    }
}

const CARLA: &str = "version = 1\n[[users]]\nname = \"carla\"\nroles = [\"administrator\"]\n";

fn apply_and_import(site: &Site) {
    std::fs::write(site.path().join("state.toml"), CARLA).unwrap();
    assert!(site.run(&["apply", "state.toml"]).status.success());
    let entries = newest(site, 2);
    assert_eq!(
        (&entries[0]["action"], &entries[1]["action"]),
        (&json!("state.apply"), &json!("user.create"))
    );
    assert_eq!(entries[1]["after"]["roles"], json!(["administrator"]));
    assert_eq!(entries[1]["after"]["name"], "carla");
    assert_operator(site, &entries[0], "apply");
    assert_operator(site, &entries[1], "apply");
    let text = CARLA.replace("\"administrator\"", "");
    std::fs::write(site.path().join("state.toml"), text).unwrap();
    assert!(site.run(&["apply", "state.toml"]).status.success());
    let entries = newest(site, 2);
    assert_eq!(entries[1]["action"], "user.change");
    assert_eq!(entries[1]["before"]["roles"], json!(["administrator"]));
    let uid = entries[1]["object"].as_str().unwrap().trim_start_matches("user/").to_owned();
    let uid: u64 = uid.parse().unwrap();

    std::fs::write(site.path().join("old.csv"), "carla,old-carla-key-0001-abcdef\n").unwrap();
    let imported = site.run(&["key", "import", "old.csv"]);
    assert!(imported.status.success(), "{imported:?}");
    let entries = newest(site, 2);
    assert_eq!(
        (&entries[0]["action"], &entries[1]["action"]),
        (&json!("key.import"), &json!("key.imported"))
    );
    let keys = site.json(&["key", "list", "carla"]);
    assert_eq!(entries[1]["after"]["keys"], json!([[keys[0]["id"], uid]]));
    assert_operator(site, &entries[1], "key import");
    assert!(!entries[1].to_string().contains("old-carla-key"));

    assert!(site.run(&["key", "generate", "--all", "--yes", "--label", "all"]).status.success());
    let entries = newest(site, 2);
    assert_eq!(
        (&entries[0]["action"], &entries[1]["action"]),
        (&json!("key.generate-all"), &json!("key.generated"))
    );
    let keys = entries[1]["after"]["keys"].as_array().unwrap();
    assert!(keys.iter().any(|pair| pair[1] == uid), "{keys:?}");
    assert_operator(site, &entries[1], "key generate");
}

#[test]
fn each_record_of_a_state_file_and_of_an_import_is_in_the_trail() {
    let server = Server::new();
    server.forbid_in_log("old-carla-key-0001-abcdef");
    apply_and_import(&server.site);
}

#[test]
fn command_line_without_a_server_is_named_too() {
    let site = Site::new();
    site.json(&["init"]);
    apply_and_import(&site);
}

#[test]
fn no_argument_of_a_command_is_in_the_trail() {
    let server = Server::new();
    server.add_user("ann", &["--mail", "hidden@example.com"]);
    let entries = newest(&server.site, 1);
    assert_operator(&server.site, &entries[0], "user add");
    assert!(!entries[0]["operator"].to_string().contains("hidden"));
    // A user cannot claim to be a command of the operator.
    let request = server.admin_api("PATCH", "/api/v1/users/2");
    let request = request.header("Keyward-Command", "user block");
    assert_eq!(request.json(&json!({ "timezone": "UTC" })).send().status, 200);
    assert_eq!(newest(&server.site, 1)[0].get("operator"), None);
}
