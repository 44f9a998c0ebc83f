//! Tests with the real program: options, the admin API, state files and `explain`.

use serde_json::{Value, json};

use crate::harness::{Server, Site};

fn server() -> Server {
    let site = Site::new();
    let folder = site.path().join("scripts/auth");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["hmac", "query_key"] {
        let path = format!("{}/scripts/auth/{name}.rhai", env!("CARGO_MANIFEST_DIR"));
        std::fs::copy(path, folder.join(format!("{name}.rhai"))).unwrap();
    }
    site.start()
}

fn error_of(server: &Server, args: &[&str]) -> String {
    let output = server.site.run(args);
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8(output.stderr).unwrap()
}

const RESOURCE: [&str; 12] = [
    "resource",
    "add",
    "r",
    "--handler",
    "respond",
    "--path",
    "/r",
    "--method",
    "GET",
    "--format",
    "any",
    "--authentication",
];

#[test]
fn list_of_applications_is_set_by_options_the_api_and_state_files() {
    let server = server();
    server.site.json(&["app", "add", "token", "--type", "bearer"]);
    let list = ["--application", "token", "--application", "default"];
    let added = server.site.json(&[&RESOURCE[..], &["*"], &list].concat());
    assert_eq!(added["applications"], json!(["token", "default"]));
    assert_eq!(server.request_as_admin("GET", "/r").send().status, 200);
    let bearer = format!("Bearer {}", server.key);
    assert_eq!(server.request("GET", "/r").header("Authorization", bearer).send().status, 200);
    let response = server.request("GET", "/r").send();
    response.assert_error(401, "MISSING_AUTHORIZATION_HEADER", "Authorization header not received");
    let challenges = response.headers.iter().filter(|(name, _)| name == "www-authenticate");
    assert_eq!(challenges.count(), 2);

    let explained = explain(&server, "/r", &[]);
    assert_eq!(explained["phases"][0]["found"]["applications"], "token, default");
    assert_eq!(explained["response"]["error"], "MISSING_AUTHORIZATION_HEADER");
    // A state file contains the list, and `apply` restores it.
    let exported = server.site.run(&["export"]);
    let text = String::from_utf8(exported.stdout).unwrap();
    assert!(text.contains("applications = [\"token\", \"default\"]"), "{text}");
    let target = "/api/v1/resources/r";
    let patched =
        server.admin_api("PATCH", target).json(&json!({ "applications": ["token"] })).send();
    assert_eq!(patched.json()["applications"], json!(["token"]), "{}", patched.body);
    std::fs::write(server.site.path().join("state.toml"), &text).unwrap();
    let applied = server.site.run(&["apply", "state.toml"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    assert_eq!(
        server.site.json(&["resource", "show", "r"])["applications"],
        json!(["token", "default"])
    );

    let removed = server.site.json(&["resource", "edit", "r", "--no-applications"]);
    assert_eq!(removed.get("applications"), None);
    let edited = server.site.json(&["resource", "edit", "r", "--application", "token"]);
    assert_eq!(edited["applications"], json!(["token"]));
    let problem = error_of(&server, &["app", "delete", "token", "--yes"]);
    assert!(problem.contains("token is named by the resource r"), "{problem}");
}

#[test]
fn invalid_list_of_applications_is_refused_with_the_reason() {
    let server = server();
    server.site.json(&["app", "add", "token", "--type", "bearer"]);
    let add = |authentication: &str, list: &[&str]| {
        error_of(&server, &[&RESOURCE[..], &[authentication], list].concat())
    };
    for (authentication, list, says) in [
        ("*", &["--application", "nothing"][..], "There is no application \"nothing\"."),
        ("*", &["--application", "A b"], "applications.0"),
        ("*", &["--application", "token", "--application", "token"], "\"token\" is listed twice."),
        (
            "default",
            &["--application", "token"],
            "The authentication of GET does not accept \"token\".",
        ),
        ("*", &["--application", "token", "--no-applications"], "cannot be used with"),
    ] {
        let problem = add(authentication, list);
        assert!(problem.contains(says), "{list:?}: {problem}");
    }
    let many: Vec<_> = (0..17).map(|number| format!("a{number}")).collect();
    let record = json!({
        "id": "r", "handler": "respond", "path": "/r", "methods": ["GET"], "formats": ["any"],
        "authentication": ["*"], "applications": many,
    });
    let response = server.admin_api("POST", "/api/v1/resources").json(&record).send();
    assert!(response.body.contains("more than 16 applications"), "{}", response.body);
}

#[test]
fn application_with_a_script_shows_where_the_script_looks_for_the_credential() {
    let server = server();
    let added = server.site.json(&["app", "add", "signed", "--type", "hmac"]);
    assert_eq!(added["header"], "Authorization");
    assert_eq!(added["challenge"], "HMAC-SHA256 realm=\"Keyward\"");
    let chosen =
        server.site.json(&["app", "add", "other", "--type", "hmac", "--header", "X-Other"]);
    assert_eq!(chosen["header"], "X-Other");
    server.site.json(&["app", "add", "query", "--type", "query_key", "--realm", "A \"realm\""]);
    let shown = server.site.json(&["app", "show", "query"]);
    assert_eq!(shown["challenge"], "query_key realm=\"A \\\"realm\\\"\", query=\"api_key\"");
    // A client may send the record back as it was.
    let mut copy = shown;
    copy["id"] = "copy".into();
    let created = server.admin_api("POST", "/api/v1/applications").json(&copy).send();
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(server.site.json(&["app", "show", "default"]).get("challenge"), None);
    let retyped = server.site.json(&["app", "edit", "default", "--type", "hmac"]);
    assert_eq!(retyped["header"], "Authorization");

    server.site.json(&[&RESOURCE[..], &["*"]].concat());
    let key = server.generate_key("admin", &[]);
    let target = format!("/r?api_key={}", key.text);
    let explained = explain(&server, &target, &["-H", "AUTH-METHOD: query"]);
    let header = &explained["phases"][1]["found"];
    assert!(header.to_string().contains("query parameter api_key (48 bytes)"), "{header}");
    let explained = explain(&server, "/r", &["-H", "AUTH-METHOD: query"]);
    let description = "The credential is missing. Send it in the query parameter api_key.";
    assert_eq!(explained["response"]["description"], description, "{explained:#}");
}

fn explain(server: &Server, target: &str, args: &[&str]) -> Value {
    server.site.json(&[&["explain", target], args].concat())
}
