//! Tests of the requests that each command sends, and of the command's output.

use clap::Parser as _;
use serde_json::{Value, json};

use super::fake::{Fake, run, run_json};

fn user(uid: u64, name: &str) -> Value {
    json!({ "uid": uid, "name": name, "mail": null, "active": true, "roles": ["a"], "has_password": false, "created": "2026-01-01T00:00:00+00:00" })
}

fn three_users() -> Fake {
    Fake::with(&[
        ("users/1", user(1, "admin")),
        ("users/2", user(2, "bobby")),
        ("users/3", user(3, "Bob")),
    ])
}

#[tokio::test]
async fn list_prints_all_pages() {
    let fake = three_users();
    let names = |list: Value| -> Vec<String> {
        let name = |user: &Value| user["name"].as_str().unwrap().to_owned();
        list.as_array().unwrap().iter().map(name).collect()
    };
    assert_eq!(names(run_json(&fake, &["user", "list"]).await), ["admin", "bobby", "Bob"]);
    assert_eq!(names(run_json(&fake, &["user", "list", "--limit", "1"]).await), ["admin"]);
    assert_eq!(run_json(&fake, &["role", "list"]).await, json!([]));
    let table = run(&fake, &["user", "list"]).await.out;
    assert_eq!(table.matches("UID").count(), 1);
    assert_eq!(table.lines().count(), 4, "{table}");
    assert!(table.contains("\n3    Bob    -     yes     a      no        2026-01-01"), "{table}");
}

#[tokio::test]
async fn list_with_a_repeated_page_is_an_error() {
    let fake = three_users();
    fake.0.lock().next_page_never_changes = true;
    let ran = run(&fake, &["user", "list"]).await;
    assert_eq!(ran.exit(), 1);
    assert!(fake.requests("GET").len() < 4);
}

#[tokio::test]
async fn user_is_found_by_name_and_by_number() {
    let fake = three_users();
    // The fake API lists bobby first, so the command must compare the whole name.
    assert_eq!(run_json(&fake, &["user", "show", "bob"]).await["uid"], 3);
    assert_eq!(run_json(&fake, &["user", "show", "#2"]).await["name"], "bobby");
    assert_eq!(run_json(&fake, &["user", "show", "--uid", "2"]).await["name"], "bobby");
    for name in ["bo", "nobody", "#9", "#x", "a&name=admin"] {
        let ran = run(&fake, &["user", "show", name]).await;
        assert_eq!(ran.exit(), 3, "{name}: {ran:?}");
        assert!(ran.out.is_empty());
    }
}

#[tokio::test]
async fn user_add_sends_the_given_fields() {
    let fake = Fake::default();
    let args = ["user", "add", "eve", "--mail", "e@x", "--role", "b", "--role", "a", "--blocked"];
    assert_eq!(run_json(&fake, &args).await["uid"], 9);
    let expected = json!({ "name": "eve", "active": false, "roles": ["b", "a"], "mail": "e@x" });
    assert_eq!(fake.requests("POST"), [("/api/v1/users".into(), expected)]);
    let rejected = run(&fake, &["user", "add", "bad"]).await;
    assert_eq!((rejected.exit(), rejected.out.as_str()), (4, ""));
}

#[tokio::test]
async fn user_edit_sends_only_changed_fields() {
    let fake = three_users();
    let args = [
        "user",
        "edit",
        "bob",
        "--add-role",
        "b",
        "--remove-role",
        "a",
        "--no-password",
        "--no-mail",
    ];
    assert_eq!(run_json(&fake, &args).await["roles"], json!(["b"]));
    let patch = json!({ "roles": ["b"], "password": null });
    assert_eq!(fake.requests("PATCH"), [("/api/v1/users/3".into(), patch)]);
    run_json(&fake, &["user", "block", "bob"]).await;
    assert_eq!(fake.requests("PATCH").last().unwrap().1, json!({ "active": false }));
    // The user is already blocked, so nothing is sent.
    run_json(&fake, &["user", "block", "bob"]).await;
    assert_eq!(fake.requests("PATCH").len(), 2);
}

#[tokio::test]
async fn stale_update_is_retried_on_the_current_record() {
    let fake = three_users();
    fake.0.lock().stale_responses_left = 2;
    assert_eq!(run_json(&fake, &["user", "unblock", "bob"]).await["active"], true);
    run_json(&fake, &["user", "edit", "bob", "--add-role", "z"]).await;
    assert_eq!(fake.requests("PATCH").len(), 3);
    fake.0.lock().stale_responses_left = 99;
    assert_eq!(run(&fake, &["user", "block", "bob"]).await.exit(), 4);
    assert_eq!(fake.requests("PATCH").len(), 8);
}

#[tokio::test]
async fn user_delete_needs_confirmation() {
    let fake = three_users();
    // Without a terminal, the command cannot ask for confirmation. If the tests run in a terminal,
    // this check is skipped.
    if !std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        let ran = run(&fake, &["user", "delete", "bob"]).await;
        assert_eq!(ran.exit(), 2, "{ran:?}");
        assert!(fake.requests("DELETE").is_empty());
    }
    let ran = run(&fake, &["user", "delete", "bob", "--yes"]).await;
    assert_eq!((ran.exit(), ran.out.as_str()), (0, ""));
    assert_eq!(ran.err, "The user bob (#3) is deleted.\n");
    assert_eq!(run(&fake, &["user", "delete", "bob", "--yes"]).await.exit(), 3);
    assert_eq!(fake.requests("DELETE").len(), 1);
}

#[tokio::test]
async fn only_the_key_is_on_standard_output() {
    let fake = three_users();
    let args = ["key", "generate", "bob", "--label", "ci", "--scope", "p", "--network", "::1/128"];
    let ran = run(&fake, &args).await;
    assert_eq!(ran.out, "kw_0000aZ19_text\n");
    assert!(ran.err.contains("0000aZ19") && ran.err.contains("not shown again"), "{}", ran.err);
    assert!(!ran.err.contains("kw_0000aZ19_text"));
    let body = json!({ "label": "ci", "scopes": ["p"], "networks": ["::1/128"] });
    assert_eq!(fake.requests("POST"), [("/api/v1/users/3/keys".into(), body)]);
    let args = ["key", "generate", "bob", "--expires", "2027-01-01T01:00:00+01:00"];
    assert_eq!(run_json(&fake, &args).await["key"], "kw_0000aZ19_text");
    assert_eq!(fake.requests("POST")[1].1, json!({ "expires": "2027-01-01T00:00:00+00:00" }));
}

#[tokio::test]
async fn key_rotate_sends_the_given_fields() {
    let fake = Fake::default();
    let args = ["key", "rotate", "00000001", "--overlap", "1d", "--expires", "never"];
    let ran = run(&fake, &args).await;
    assert_eq!(ran.out, "kw_0000aZ19_text\n");
    assert!(ran.err.contains("The old key 00000001 works until tomorrow."), "{}", ran.err);
    let target = "/api/v1/keys/00000001/rotate".to_owned();
    let body = json!({ "overlap": 86_400, "expires": "never" });
    assert_eq!(fake.requests("POST"), [(target.clone(), body)]);
    run_json(&fake, &["key", "rotate", "00000001"]).await;
    assert_eq!(fake.requests("POST")[1], (target, json!({})));
}

#[tokio::test]
async fn key_revoke_reports_each_key() {
    let fake = Fake::with(&[("keys/00000001", json!({ "id": "00000001" }))]);
    let ran = run(&fake, &["key", "revoke", "00000001", "00000002", "--output", "json"]).await;
    assert_eq!(ran.exit(), 3);
    assert_eq!(ran.json(), json!([{ "id": "00000001", "state": "revoked" }]));
    // If one id is invalid, the command revokes no key.
    let ran = run(&fake, &["key", "revoke", "00000001", "kw_x"]).await;
    assert_eq!((ran.exit(), fake.requests("POST").len()), (2, 2));
}

#[tokio::test]
async fn role_edit_adds_and_removes_permissions() {
    let fake = Fake::with(&[("roles/r", json!({ "id": "r", "permissions": ["b", "c"] }))]);
    let args = ["role", "edit", "r", "--grant", "a", "--revoke", "c", "--label", "R"];
    assert_eq!(run_json(&fake, &args).await["permissions"], json!(["b", "a"]));
    assert_eq!(fake.requests("PATCH")[0].1, json!({ "permissions": ["b", "a"], "label": "R" }));
    run_json(&fake, &["role", "add", "x", "--label", "X", "--permission", "p"]).await;
    let expected = json!({ "id": "x", "label": "X", "permissions": ["p"], "is_admin": false });
    assert_eq!(fake.requests("POST")[0].1, expected);
}

#[tokio::test]
async fn application_gets_the_default_header_of_its_type() {
    let fake = Fake::with(&[("applications/a", json!({ "id": "a", "enabled": true }))]);
    run_json(&fake, &["app", "add", "x"]).await;
    run_json(&fake, &["app", "add", "y", "--type", "basic", "--disabled", "--default"]).await;
    run_json(&fake, &["app", "add", "z", "--type", "bearer", "--header", "X-Token", "--name", "Z"])
        .await;
    let bodies: Vec<Value> = fake.requests("POST").into_iter().map(|(_, body)| body).collect();
    assert_eq!(bodies[0], json!({ "id": "x", "name": "x", "enabled": true }));
    assert_eq!(
        bodies[1],
        json!({ "id": "y", "name": "y", "enabled": false, "header": "Authorization", "type": "basic", "is_default": true })
    );
    assert_eq!((&bodies[2]["header"], &bodies[2]["name"]), (&json!("X-Token"), &json!("Z")));
    assert_eq!(run_json(&fake, &["app", "disable", "a"]).await["enabled"], false);
}

#[tokio::test]
async fn resource_comes_from_options_or_from_a_file() {
    let record = json!({ "id": "r", "methods": ["GET"], "formats": ["json"], "granularity": "resource", "respond": { "status": 200, "body": "x" } });
    let fake = Fake::with(&[("resources/r", record)]);
    let args = [
        "resource",
        "add",
        "x",
        "--handler",
        "respond",
        "--path",
        "/x",
        "--method",
        "GET",
        "--method",
        "POST",
        "--format",
        "any",
        "--authentication",
        "anonymous",
        "--permission",
        "GET=a=b",
        "--status",
        "404",
        "--body",
        "no",
    ];
    run_json(&fake, &args).await;
    let expected = json!({
        "enabled": true, "granularity": "resource", "id": "x", "handler": "respond", "path": "/x",
        "methods": ["GET", "POST"], "formats": ["any"], "authentication": ["anonymous"],
        "permissions": { "GET": ["a=b"] }, "respond": { "status": 404, "body": "no" },
    });
    assert_eq!(fake.requests("POST")[0].1, expected);
    assert_eq!(run(&fake, &["resource", "add", "x", "--path", "/x"]).await.exit(), 2);

    let args = "resource add p --handler proxy --upstream http://a --upstream http://b --protocol http2 --strip-prefix /p";
    run_json(&fake, &args.split(' ').collect::<Vec<_>>()).await;
    let proxy =
        json!({ "upstreams": ["http://a", "http://b"], "protocol": "http2", "strip_prefix": "/p" });
    assert_eq!(fake.requests("POST")[1].1["proxy"], proxy);

    let forwarded =
        ["resource", "edit", "r", "--forwarded", "x-real-ip", "--forwarded", "forwarded"];
    run_json(&fake, &forwarded).await;
    run_json(&fake, &["resource", "edit", "r", "--forwarded", "none"]).await;
    let sent: Vec<Value> = fake.requests("PATCH").into_iter().map(|(_, body)| body).collect();
    let expected = |fields: Value| json!({ "proxy": { "forwarded": fields } });
    assert_eq!(sent, [expected(json!(["x-real-ip", "forwarded"])), expected(json!([]))]);
    let file = ["resource", "edit", "r", "--file", "x", "--forwarded", "none"];
    assert!(crate::cli::Cli::try_parse_from([&["keyward"], &file[..]].concat()).is_err());

    run_json(&fake, &["resource", "edit", "r", "--body", "y"]).await;
    assert_eq!(fake.requests("PATCH")[2].1, json!({ "respond": { "body": "y" } }));

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.json");
    let record = json!({ "granularity": "method", "methods": { "GET": { "formats": ["json"] } } });
    std::fs::write(&file, record.to_string()).unwrap();
    let file = file.to_str().unwrap();
    run_json(&fake, &["resource", "edit", "r", "--file", file]).await;
    let patch = json!({ "formats": null, "respond": null, "proxy": null, "granularity": "method", "methods": { "GET": { "formats": ["json"] } } });
    assert_eq!(fake.requests("PATCH")[3].1, patch);
    std::fs::write(file, r#"{"id":"other"}"#).unwrap();
    assert_eq!(run(&fake, &["resource", "edit", "r", "--file", file]).await.exit(), 2);
    std::fs::write(file, "[]").unwrap();
    assert_eq!(run(&fake, &["resource", "add", "--file", file]).await.exit(), 2);
    assert_eq!(fake.requests("POST").len(), 2);
}
