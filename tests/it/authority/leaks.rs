//! Leaked credentials: their owner is found in every form in which clients send them, also after
//! the owner was deleted, and keys are revoked by filter.

use std::{
    io::Write as _,
    process::{Output, Stdio},
};

use serde_json::{Value, json};

use crate::harness::{Server, Site, credential};

/// Runs a command with this standard input.
fn run(site: &Site, args: &[&str], input: &str) -> Output {
    let mut command = site.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn owner_of_a_leaked_credential_is_found_in_every_form() {
    let server = Server::new();
    server.add_user("dora", &[]);
    let key = server.generate_key("dora", &[]);
    let old = "old-dora-key-0001-abcdef";
    server.forbid_in_log(old);
    std::fs::write(server.site.path().join("old.csv"), format!("dora,{old}\n")).unwrap();
    let imported = server.site.run(&["key", "import", "old.csv"]);
    assert!(imported.status.success(), "{}", text(&imported.stderr));
    for secret in [&key.text, old] {
        let basic = credential("dora", secret);
        for form in [
            secret.to_owned(),
            format!("dora:{secret}"),
            basic.clone(),
            format!("API-KEY: {basic}"),
            format!("Authorization: Basic {basic}"),
            format!("authorization: Bearer {secret}"),
            format!("curl https://api.example/x \\\n  -H 'API-KEY: {basic}'"),
            format!("curl -u dora:{secret} https://api.example"),
            format!("{{\"token\": \"{secret}\"}}"),
            format!("token = \"{secret}\""),
            format!("export API_KEY={secret}"),
        ] {
            let args = ["key", "show", "-", "--output", "json"];
            let output = run(&server.site, &args, &form);
            let (out, errors) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success(), "{form}: {errors}");
            let found: Value = serde_json::from_str(&out).unwrap();
            assert_eq!(found["username"], "dora", "{form}");
            assert!(found["recognized"]["form"].is_string(), "{form}");
            let all = format!("{out}{errors}");
            assert!(!all.contains(secret) && !all.contains(&basic), "{form}: {all}");
        }
    }
    // A text without a key is refused, and not shown.
    let output = run(&server.site, &["key", "show", "-"], "API-KEY: c29tZWJvZHk6c29tZXRoaW5n");
    assert_eq!(output.status.code(), Some(2), "{}", text(&output.stderr));
    assert!(!text(&output.stderr).contains("c29tZWJvZHk6"));
    // The whole line revokes the imported key.
    let basic = credential("dora", old);
    assert_eq!(server.request("GET", "/user/2").header("API-KEY", &basic).send().status, 200);
    let line = format!("API-KEY: {basic}");
    let output = run(&server.site, &["key", "revoke", "-"], &line);
    assert!(text(&output.stdout).contains("of dora (#2) is revoked."), "{output:?}");
    assert!(text(&output.stderr).contains("for the user dora"), "{output:?}");
    assert_eq!(server.request("GET", "/user/2").header("API-KEY", &basic).send().status, 401);
}

#[test]
fn keys_of_deleted_users_are_found_in_the_trail() {
    let server = Server::new();
    server.add_user("builder", &[]);
    let own = server.generate_key("builder", &[]);
    let bulk = server.site.run(&["key", "generate", "--all", "--yes", "--label", "bulk"]);
    let bulk = text(&bulk.stdout);
    let bulk = bulk.lines().find(|line| line.contains(",builder,")).unwrap();
    let bulk = bulk.rsplit(',').next().unwrap().to_owned();
    server.forbid_in_log(&bulk);
    assert!(server.site.run(&["user", "delete", "builder", "--yes"]).status.success());
    // The trail has an entry for the one key, and a list with the other.
    for key in [&own.text, &bulk] {
        let output = run(&server.site, &["key", "show", "-", "--output", "json"], key);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(
            (&found["state"], &found["user"], &found["username"]),
            (&json!("deleted"), &json!(2), &json!("builder")),
        );
        assert!(found["deleted"].is_string());
    }
    let output = run(&server.site, &["key", "revoke", "-"], &format!("kw = {}", own.text));
    assert!(output.status.success(), "{output:?}");
    let told = text(&output.stderr);
    assert!(told.contains("belonged to builder (#2), who was deleted at 20"), "{told}");
    // A key that this store never had is no success.
    let foreign = keyward::model::KeyText::generate("kw", &keyward::model::Entropy::system());
    let output = run(&server.site, &["key", "revoke", "-"], foreign.text.expose());
    assert!(!output.status.success());
    assert!(text(&output.stderr).contains("this store never had it"), "{output:?}");
}

#[test]
fn keys_are_revoked_by_user_application_and_time() {
    let server = Server::new();
    server.site.json(&["app", "add", "partners", "--type", "bearer"]);
    server.add_user("ann", &[]);
    server.add_user("bob", &[]);
    let partner = ["--application", "partners"];
    let ann = [server.generate_key("ann", &[]), server.generate_key("ann", &partner)];
    let bob = [server.generate_key("bob", &[]), server.generate_key("bob", &partner)];
    let state = |id: &str| server.site.json(&["key", "show", id])["state"].clone();
    let entries = || {
        let list = server.admin_api("GET", "/api/v1/audit?limit=1000").send().json();
        let items = list["items"].as_array().unwrap();
        items.iter().filter(|entry| entry["action"] == "key.revoke").count()
    };
    let both = ["key", "revoke", "--user", "ann", "--application", "partners"];
    let output = server.site.run(&[&both[..], &["--dry-run"]].concat());
    assert!(text(&output.stdout).contains("of ann (#2) would be revoked."), "{output:?}");
    assert!(text(&output.stderr).contains("1 keys would be revoked."), "{output:?}");
    assert_eq!((state(&ann[1].id), entries()), (json!("active"), 0));
    let revoked = server.site.json(&both);
    assert_eq!(revoked.as_array().unwrap().len(), 1);
    assert_eq!((state(&ann[0].id), state(&ann[1].id)), (json!("active"), json!("revoked")));
    let none = server.site.json(&["key", "revoke", "--created-before", "2020-01-01T00:00:00Z"]);
    assert_eq!(none, json!([]));
    let span = server.site.json(&["key", "revoke", "--created-before", "1h"]);
    assert_eq!(span, json!([]));
    let all = ["key", "revoke", "--created-before", "2999-01-01T00:00:00Z", "--user", "bob"];
    assert_eq!(server.site.json(&all).as_array().unwrap().len(), 2);
    assert_eq!((state(&bob[0].id), state(&bob[1].id)), (json!("revoked"), json!("revoked")));
    assert_eq!(entries(), 3);
    // An id and a filter together are a mistake, and so is nothing at all.
    for args in [&["key", "revoke"][..], &["key", "revoke", &ann[0].id, "--user", "ann"]] {
        assert_eq!(server.site.run(args).status.code(), Some(2));
    }
    assert_eq!(state(&ann[0].id), json!("active"));
}
