//! Tests of the `script` commands and of `explain` with the real program.

use std::{fs, io::Write as _, process::Stdio};

use serde_json::{Value, json};

use crate::harness::{Server, Site, credential};

fn write_script(site: &Site, file: &str, text: &str) {
    let path = site.path().join("scripts").join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Runs a command and returns its exit code, standard output and standard error.
#[track_caller]
fn run(site: &Site, args: &[&str]) -> (i32, String, String) {
    let output = site.run(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (out, err) = (text(output.stdout), text(output.stderr));
    assert!(!err.contains("panicked"), "{err}");
    (output.status.code().unwrap(), out, err)
}

#[test]
fn scripts_are_created_checked_and_tested_without_a_server() {
    let site = Site::new();
    assert_eq!(run(&site, &["script", "check"]).0, 2, "there is no folder");
    for kind_and_name in [["auth", "tokens"], ["hook", "orders"], ["handler", "hello"]] {
        let args = [&["script", "new"], kind_and_name.as_slice()].concat();
        let (code, out, err) = run(&site, &args);
        assert_eq!((code, out.contains("is written")), (0, true), "{out}{err}");
        let before = fs::read_dir(site.path().join("scripts")).unwrap().count();
        assert_eq!(run(&site, &args).0, 4, "the file exists already");
        assert_eq!(fs::read_dir(site.path().join("scripts")).unwrap().count(), before);
    }
    assert_eq!(run(&site, &["script", "new", "hook"]).0, 0);
    assert_eq!(run(&site, &["script", "new", "auth", "../x"]).0, 2);
    assert_eq!(run(&site, &["script", "new", "auth"]).0, 2);
    assert_eq!(run(&site, &["script", "definitions"]).0, 0);
    let definitions = fs::read_to_string(site.path().join("scripts/definitions.d.rhai")).unwrap();
    assert!(definitions.contains("fn deny"), "{definitions}");

    let checked = site.json(&["script", "check"]);
    let files: Vec<_> = checked.as_array().unwrap().iter().map(|script| &script["file"]).collect();
    assert_eq!(
        files,
        ["auth/tokens.rhai", "handlers/hello.rhai", "hooks.rhai", "resources/orders.rhai"]
    );
    assert_eq!(checked[0]["functions"], json!(["header", "decode"]));
    let tested = site.json(&["script", "test"]);
    assert_eq!(tested.as_array().unwrap().len(), 6);
    assert!(tested.as_array().unwrap().iter().all(|test| test["passed"] == true), "{tested}");
    let filtered = site.json(&["script", "test", "--filter", "hello"]);
    assert_eq!(filtered.as_array().unwrap().len(), 1);
    assert_eq!(run(&site, &["script", "test", "--filter", "no such test"]).0, 3);
    // None of these commands creates a store.
    assert!(!site.store().exists());
}

#[test]
fn script_errors_name_file_line_and_column() {
    let site = Site::new();
    write_script(&site, "hooks.rhai", "fn on_request(req) {\n\tdney(403, \"A\", \"b\")\n}\n");
    let (code, out, err) = run(&site, &["script", "check"]);
    assert_eq!((code, out.as_str()), (4, ""));
    assert!(err.contains("hooks.rhai:2:2: there is no function dney; did you mean deny?"), "{err}");
    assert!(err.contains("\n    2 |  dney(403") && err.contains("\n      |  ^"), "{err}");
    let (_, _, err) = run(&site, &["script", "check", "--output", "json"]);
    let problem: Value = serde_json::from_str(&err).unwrap();
    let found = &problem["errors"][0];
    assert_eq!(
        (&found["file"], &found["line"], &found["column"]),
        (&json!("hooks.rhai"), &json!(2), &json!(2))
    );

    let test = "fn on_request(req) {}\nfn test_a() {}\nfn test_b() {\n  assert_eq(1, 2);\n}\n";
    write_script(&site, "hooks.rhai", test);
    assert_eq!(run(&site, &["script", "check"]).0, 0, "it compiles");
    let (code, out, err) = run(&site, &["script", "test"]);
    assert_eq!(code, 4);
    assert!(
        out.contains("ok      hooks.rhai  test_a") && out.contains("FAILED  hooks.rhai  test_b")
    );
    assert!(err.contains("1 of 2 tests failed") && err.contains("hooks.rhai:4:3"), "{err}");
    // The command accepts another folder of scripts as its argument.
    let dir = site.path().join("scripts");
    fs::rename(&dir, site.path().join("other")).unwrap();
    assert_eq!(run(&site, &["script", "test", "other", "--filter", "test_a"]).0, 0);
}

#[test]
fn reload_command_reports_its_result() {
    let site = Site::new();
    site.json(&["init"]);
    let (code, _, err) = run(&site, &["script", "reload"]);
    assert_eq!((code, err.contains("No server runs")), (4, true), "{err}");
    write_script(&site, "hooks.rhai", "fn on_request(req) {}");
    let server = Server::start(site, String::new());
    write_script(
        &server.site,
        "hooks.rhai",
        "fn on_request(req) { if req.path == \"/x\" { deny(418, \"TEA\", \"Tea.\"); } }",
    );
    let loaded = server.site.json(&["script", "reload"]);
    assert_eq!((&loaded["scripts"], &loaded["tests"]), (&json!(1), &json!(0)));
    assert_eq!(server.request("GET", "/x").send().status, 418);

    write_script(&server.site, "hooks.rhai", "fn on_request(req) {\n  nothing()\n}");
    let (code, _, err) = run(&server.site, &["script", "reload"]);
    assert_eq!(code, 4);
    assert!(err.contains("hooks.rhai:2:3: there is no function nothing"), "{err}");
    assert!(err.contains("2 |   nothing()"), "the line: {err}");
    assert_eq!(server.request("GET", "/x").send().status, 418, "the last good scripts stay active");
}

#[test]
fn api_lists_and_reloads_scripts() {
    let site = Site::new();
    write_script(&site, "auth/a.rhai", "fn header(req) { () }\nfn test_a() {}");
    let first = site.json(&["init"]);
    let server = Server::start(site, first["key"].as_str().unwrap().to_owned());
    let shown = server.admin_api("GET", "/api/v1/scripts").send();
    assert_eq!(shown.status, 200, "{}", shown.body);
    assert_eq!(
        shown.json()["scripts"],
        json!([{ "file": "auth/a.rhai", "functions": ["header"], "blocking": false, "state": "on", "tests": 1 }])
    );
    assert_eq!(shown.json()["problems"], json!([]));
    write_script(&server.site, "auth/a.rhai", "fn header(req) { ( }");
    let rejected = server.admin_api("POST", "/api/v1/scripts/reload").send();
    assert_eq!(rejected.status, 422, "{}", rejected.body);
    assert_eq!(rejected.json()["type"], "urn:keyward:problem:invalid-scripts");
    let shown = server.admin_api("GET", "/api/v1/scripts").send().json();
    let problem = &shown["problems"][0];
    assert_eq!((&problem["file"], &problem["line"]), (&json!("auth/a.rhai"), &json!(1)));
    assert!(problem["excerpt"].as_str().unwrap().contains('^'), "{problem}");
    assert_eq!(shown["scripts"][0]["file"], "auth/a.rhai", "the last good scripts stay active");
    assert_eq!(server.admin_api("DELETE", "/api/v1/scripts").send().status, 405);
}

#[test]
fn scripts_need_the_configuration_permission_and_explain_needs_an_administrator() {
    let server = Server::new();
    let configurator = server.user_with_permissions("conny", &["administer site configuration"]);
    let user_manager = server.user_with_permissions("nora", &["administer users"]);
    let status = |method: &str, path: &str, key: &str, body: Value| {
        let target = format!("/api/v1/{path}");
        let request = crate::harness::Request::new(server.admin, method, &target);
        request.header("API-KEY", key).json(&body).send().status
    };
    let request_to_explain = json!({ "target": "/user/1" });
    for (key, scripts, explain) in [(&configurator, 200, 403), (&user_manager, 403, 403)] {
        assert_eq!(status("GET", "scripts", &key.credential, Value::Null), scripts);
        assert_eq!(status("POST", "scripts/reload", &key.credential, Value::Null), scripts);
        assert_eq!(status("POST", "explain", &key.credential, request_to_explain.clone()), explain);
    }
    // A key with scopes has no administrator rights, even if its user is an administrator.
    let scoped = server.generate_key("admin", &["--scope", "administer site configuration"]);
    assert_eq!(status("POST", "explain", &scoped.credential, request_to_explain.clone()), 403);
    assert_eq!(status("POST", "explain", &server.admin_credential(), request_to_explain), 200);
}

/// The verdict of each phase.
fn verdicts(explained: &Value) -> Vec<&str> {
    let phases = explained["phases"].as_array().unwrap();
    phases.iter().map(|phase| phase["verdict"].as_str().unwrap()).collect()
}

#[test]
fn explain_works_with_and_without_a_server() {
    let site = Site::new();
    let first = site.json(&["init"]);
    let key = first["key"].as_str().unwrap().to_owned();
    assert_explains(&site, &key);
    let server = Server::start(site, key.clone());
    server.forbid_in_log(&credential("admin", &key));
    assert_explains(&server.site, &key);
}

fn assert_explains(site: &Site, key: &str) {
    let valid = credential("admin", key);
    let file = site.path().join("fields");
    fs::write(&file, format!("API-KEY: {valid}\n")).unwrap();
    let explained = site.json(&["explain", "/user/1?_format=json", "-H", "@fields"]);
    assert_eq!((&explained["allowed"], &explained["response"]), (&json!(true), &Value::Null));
    assert_eq!(verdicts(&explained), ["passed"; 6]);
    let found = |phase: usize, name: &str| explained["phases"][phase]["found"][name].clone();
    assert_eq!(found(0, "resource"), "entity.user");
    assert_eq!((found(1, "application"), found(1, "type")), (json!("default"), json!("api_key")));
    assert_eq!(found(1, "credential"), format!("API-KEY ({} bytes)", valid.len()));
    assert_eq!((found(3, "user"), found(4, "user")), (json!("admin"), json!("admin")));
    assert_eq!(found(4, "key"), key[3..11]);
    assert!(explained["phases"][1]["microseconds"].is_u64());
    assert_hides_secrets(&explained.to_string(), key, &valid);

    // Explain a POST request with a body and a wrong key.
    let wrong = credential("admin", "s3cret-and-wrong");
    let field = format!("API-KEY: {wrong}");
    let args = ["explain", "-X", "POST", "/entity/user", "-H", &field, "-d", "{}"];
    let (code, out, err) = run(site, &args);
    assert_eq!(code, 0, "{err}");
    assert!(out.contains("401 AUTHENTICATION_FAILED") && out.contains("no such key"), "{out}");
    assert!(out.contains("not reached"), "{out}");
    assert_hides_secrets(&out, "s3cret-and-wrong", &wrong);
    // In this credential the user name and the key are exchanged. The key must not be shown as the
    // name of an unknown user.
    let exchanged = credential(key, "admin");
    let explained = site.json(&["explain", "/user/1", "-H", &format!("API-KEY: {exchanged}")]);
    assert_eq!(explained["response"]["error"], "USER_DOES_NOT_EXIST");
    assert_hides_secrets(&explained.to_string(), key, &exchanged);

    let explained = site.json(&["explain", "/nowhere", "--headers", "fields"]);
    assert_eq!(explained["response"]["error"], "ROUTE_NOT_FOUND");
    assert_eq!(verdicts(&explained)[4..], ["passed", "refused"]);
    let explained = site.json(&["explain", "/a%2fb", "--headers", "fields"]);
    assert_eq!(verdicts(&explained)[..2], ["refused", "not reached"]);
    let (code, out, err) = run(site, &["explain", "nowhere"]);
    assert_eq!((code, out.as_str()), (4, ""), "{err}");
    assert!(err.contains("target: This is not a path."), "{err}");
    assert_eq!(run(site, &["explain", "/", "-H", "s3cret"]).0, 2);
}

#[track_caller]
fn assert_hides_secrets(text: &str, key: &str, credential: &str) {
    let secret = key.rsplit('_').next().unwrap();
    for secret in [secret, &secret[..secret.len() - 4], credential, &credential[8..]] {
        assert!(!text.contains(secret), "{secret} in {text}");
    }
}

#[test]
fn explain_names_the_denying_script_and_counts_nothing() {
    let site = Site::new();
    write_script(
        &site,
        "hooks.rhai",
        "fn on_request(req) {\n  if !once(req.param(\"nonce\"), 600) {\n    deny(401, \"REPLAYED\", \"Again: \" + req.header(\"X-Token\"));\n  }\n  if !rate_limit(\"all\", 2, 3600) { deny(429, \"SLOW\", \"Slow.\"); }\n}",
    );
    let first = site.json(&["init"]);
    let server = Server::start(site, first["key"].as_str().unwrap().to_owned());
    let explain = |nonce: &str| {
        let target = format!("/user/1?_format=json&nonce={nonce}");
        let mut command =
            server.site.command(&["explain", &target, "--headers", "-", "--output", "json"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let fields =
            format!("API-KEY: {}\nX-Token: t0ken-of-a-client\n", server.admin_credential());
        child.stdin.take().unwrap().write_all(fields.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        serde_json::from_slice::<Value>(&output.stdout).unwrap()
    };
    for _ in 0..5 {
        assert_eq!(explain("a")["allowed"], true, "{}", explain("a"));
    }
    let send = |nonce: &str| {
        let target = format!("/user/1?_format=json&nonce={nonce}");
        server.request_as_admin("GET", &target).header("X-Token", "x").send().status
    };
    assert_eq!(send("a"), 200, "explain did not use up the nonce");
    let explained = explain("a");
    assert_eq!(verdicts(&explained)[1], "refused");
    let found = &explained["phases"][1]["found"];
    assert_eq!(found["error"], "REPLAYED");
    assert_eq!(found["detail"], "refused by hooks.rhai:3:5");
    assert!(!explained.to_string().contains("t0ken"), "{explained}");
    assert_eq!([send("b"), send("c")], [200, 429]);
    assert_eq!(explain("d")["response"]["error"], "SLOW");
    // If a script fails, `explain` names the line of the failure.
    write_script(&server.site, "hooks.rhai", "fn on_request(req) {\n  let a = 1 / 0;\n}");
    server.site.json(&["script", "reload"]);
    let explained = explain("e");
    assert_eq!(explained["response"]["error"], "SCRIPT_ERROR");
    let detail = explained["phases"][1]["found"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("hooks.rhai:2:"), "{detail}");
}

#[test]
fn explain_does_not_adopt_keys() {
    let site = Site::new();
    write_script(
        &site,
        "auth/old.rhai",
        "fn lookup(req, credential) { user_by_name(credential.user) }\nfn verify(req, user, credential) { #{ adopt: credential.secret } }",
    );
    let first = site.json(&["init"]);
    let server = Server::start(site, first["key"].as_str().unwrap().to_owned());
    server.add_user("bob", &[]);
    server.site.json(&["app", "add", "old", "--type", "old"]);
    let old = credential("bob", "a key of another system");
    server.forbid_in_log("a key of another system");
    let fields = format!("AUTH-METHOD: old\nAPI-KEY: {old}\n");
    fs::write(server.site.path().join("fields"), fields).unwrap();
    let explained = server.site.json(&["explain", "/user/1?_format=json", "--headers", "fields"]);
    assert_eq!(explained["phases"][4]["found"]["user"], "bob");
    assert_eq!(explained["phases"][1]["found"]["script"], "auth/old.rhai");
    assert_eq!(server.site.json(&["key", "list", "bob"]), json!([]));
    let request = server.request("GET", "/user/1?_format=json");
    request.header("AUTH-METHOD", "old").header("API-KEY", &old).send();
    let deadline = std::time::Instant::now() + crate::harness::TIMEOUT;
    while server.site.json(&["key", "list", "bob"]) == json!([]) {
        assert!(std::time::Instant::now() < deadline, "a real request adopts the key");
    }
}
