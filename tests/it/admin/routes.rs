//! Resources through the API, the command line and state files: hosts, methods, exceptions from the
//! path rules, and changes that open a path which another resource guards.

use serde_json::{Value, json};

use crate::harness::{Response, Server, Site};

/// The arguments of `keyward resource add` for a resource with the handler decide.
fn add<'a>(id: &'a str, path: &'a str, authentication: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let usual = ["resource", "add", id, "--handler", "decide", "--path", path, "--format", "any"];
    [usual.as_slice(), &["--authentication", authentication], more].concat()
}

/// Runs a command that must be refused, and returns its error output.
#[track_caller]
fn refused(site: &Site, args: &[&str]) -> String {
    let output = site.run(args);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{args:?} {errors}");
    errors
}

fn record(id: &str, path: &str, authentication: &str) -> Value {
    json!({
        "id": id, "handler": "decide", "path": path, "methods": ["GET", "DELETE"],
        "formats": ["any"], "authentication": [authentication],
    })
}

#[track_caller]
fn is_refused(response: &Response, guard: &str, place: &str) {
    assert_eq!(response.status, 409, "{}", response.body);
    let problem = response.json();
    assert_eq!(problem["type"], "urn:keyward:problem:opens-guarded");
    let message = problem["errors"][0]["message"].as_str().unwrap();
    let expected = format!("The resource {guard} guards {place} ");
    assert!(message.starts_with(&expected), "{message}");
    assert!(problem["detail"].as_str().unwrap().contains("opens_guarded=true"), "{problem}");
}

#[test]
fn change_that_opens_a_guarded_path_needs_a_word_in_the_api() {
    let server = Server::new();
    let post = |target: &str, record: Value| server.admin_api("POST", target).json(&record).send();
    let patch = |id: &str, query: &str, change: Value| {
        let target = format!("/api/v1/resources/{id}{query}");
        server.admin_api("PATCH", &target).json(&change).send()
    };
    let delete = |id: &str, query: &str| {
        server.admin_api("DELETE", &format!("/api/v1/resources/{id}{query}")).send()
    };
    let (list, knowing) = ("/api/v1/resources", "?opens_guarded=true");
    assert_eq!(post(list, record("guard", "/{*rest}", "*")).status, 201);
    let open = record("open", "/public/{*rest}", "anonymous");
    is_refused(&post(list, open.clone()), "guard", "/public");
    is_refused(&post(&format!("{list}?opens_guarded=false"), open.clone()), "guard", "/public");
    assert_eq!(server.admin_api("GET", "/api/v1/resources/open").send().status, 404);
    assert_eq!(post(&format!("{list}{knowing}"), open).status, 201);
    // The opened path may be edited, but not moved to other guarded paths.
    assert_eq!(patch("open", "", json!({ "buffer_body": true })).status, 200);
    is_refused(&patch("open", "", json!({ "path": "/other/{x}" })), "guard", "/other/…");
    // A rule that is as strict opens nothing.
    assert_eq!(post(list, record("strict", "/strict/{*rest}", "*")).status, 201);
    let looser = json!({ "authentication": ["*", "anonymous"] });
    is_refused(&patch("strict", "", looser.clone()), "guard", "/strict");
    assert_eq!(patch("strict", knowing, looser).status, 200);
    // A guard that is deleted or moved leaves its path to another resource.
    assert_eq!(post(list, record("secret", "/public/secret", "*")).status, 201);
    is_refused(&delete("secret", ""), "secret", "/public/secret");
    is_refused(&patch("secret", "", json!({ "enabled": false })), "secret", "/public/secret");
    assert_eq!(delete("secret", knowing).status, 204);
    // A resource for one host takes the paths of a resource for all hosts.
    let mut at_host = record("host", "/private/{*rest}", "anonymous");
    at_host["host"] = json!("API.example.");
    is_refused(&post(list, at_host), "guard", "api.example/private");
    // An invalid record is reported as such.
    assert_eq!(post(list, record("bad", "no path", "anonymous")).status, 422);
}

#[test]
fn change_that_opens_a_guarded_path_needs_a_word_on_the_command_line() {
    let server = Server::new();
    let site = &server.site;
    let guard = ["--method", "GET", "--method", "DELETE", "--permission", "DELETE=delete"];
    site.json(&add("guard", "/a/{*rest}", "*", &guard));
    let open = add("open", "/a/b", "*", &["--method", "any"]);
    let errors = refused(site, &open);
    let expected = "The resource guard guards /a/b (DELETE). The resource open would decide about \
                    it, and does not need the permission \"delete\".";
    assert!(errors.contains(expected) && errors.contains("--opens-guarded"), "{errors}");
    site.json(&[open.as_slice(), &["--opens-guarded"]].concat());
    let moved = ["resource", "edit", "open", "--path", "/a/c"];
    assert!(refused(site, &moved).contains("guards /a/c (DELETE)"));
    site.json(&[moved.as_slice(), &["--opens-guarded"]].concat());
    // The paths of a guard that goes.
    site.json(&add("public", "/{*rest}", "anonymous", &["--method", "GET"]));
    assert!(refused(site, &["resource", "disable", "guard"]).contains("guards /a (GET, HEAD)"));
    assert!(refused(site, &["resource", "delete", "guard", "--yes"]).contains("guards /a ("));
    site.json(&["resource", "disable", "guard", "--opens-guarded"]);
    site.json(&["resource", "enable", "guard"]);
    let gone = site.run(&["resource", "delete", "guard", "--yes", "--opens-guarded"]);
    assert!(gone.status.success(), "{gone:?}");

    // A file.
    site.json(&add("guard", "/f/{*rest}", "*", &["--method", "GET"]));
    let text = "version = 1\n\n[[resources]]\nid = \"file\"\nhandler = \"decide\"\npath = \"/f/x\"\n\
                methods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"anonymous\"]\n";
    std::fs::write(site.path().join("open.toml"), text).unwrap();
    for args in [["apply", "open.toml", "--dry-run"].as_slice(), &["apply", "open.toml"]] {
        let errors = refused(site, args);
        let expected = "line 6, column 1: resource file: path: The resource guard guards /f/x";
        assert!(errors.contains(expected) && errors.contains("--opens-guarded"), "{errors}");
    }
    site.json(&["apply", "open.toml", "--opens-guarded"]);
    site.json(&["apply", "open.toml"]);
    // The whole state, with both resources, can be applied again.
    let exported = site.run(&["export"]).stdout;
    std::fs::write(site.path().join("state.toml"), exported).unwrap();
    assert_eq!(site.json(&["apply", "state.toml"])["changes"], json!([]));
}

#[test]
fn options_of_hosts_methods_and_paths_reach_the_record_and_the_file() {
    let server = Server::new();
    let site = &server.site;
    let options = [
        "--host",
        "BÜCHER.example.",
        "--method",
        "get",
        "--method",
        "PROPFIND",
        "--encoded-slashes",
        "keep",
        "--semicolons",
        "keep",
    ];
    let added = site.json(&add("r", "/r/{*rest}", "*", &options));
    assert_eq!(added["host"], "xn--bcher-kva.example");
    assert_eq!(added["methods"], json!(["GET", "PROPFIND"]));
    assert_eq!((&added["encoded_slashes"], &added["semicolons"]), (&json!("keep"), &json!("keep")));
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    for line in ["encoded_slashes = \"keep\"", "semicolons = \"keep\"", "host = \"xn--bcher-"] {
        assert!(exported.contains(line), "{line} {exported}");
    }
    std::fs::write(site.path().join("state.toml"), &exported).unwrap();
    assert_eq!(site.json(&["apply", "state.toml"])["changes"], json!([]));
    let edited = site.json(&["resource", "edit", "r", "--semicolons", "refuse", "--method", "any"]);
    assert_eq!((&edited["semicolons"], &edited["methods"]), (&Value::Null, &json!(["any"])));
    let one = ["--method", "GET"];
    for host in ["a..b", "api.example:80", "http://api.example", "127.1", "[::1", "a b"] {
        let errors =
            refused(site, &add("x", "/x", "*", &[one.as_slice(), &["--host", host]].concat()));
        assert!(errors.contains("host: ") && errors.contains("cannot be a host"), "{errors}");
    }
    for method in ["TRACE", "connect", "A B", ""] {
        let errors = refused(site, &add("x", "/x", "*", &["--method", method]));
        assert!(errors.contains("methods: "), "{errors}");
    }
    let typo = [one.as_slice(), &["--permission", "GTE=read"]].concat();
    assert!(refused(site, &add("x", "/x", "*", &typo)).contains("does not have the method"));
    let twice = json!({
        "id": "x", "handler": "decide", "path": "/x", "granularity": "method",
        "methods": { "get": {}, "GET": {} },
    });
    let response = server.admin_api("POST", "/api/v1/resources").json(&twice).send();
    assert!(response.body.contains("The method GET is listed twice."), "{}", response.body);
    let treatment = json!({ "semicolons": "ignore" });
    let response = server.admin_api("PATCH", "/api/v1/resources/r").json(&treatment).send();
    assert_eq!(response.status, 422, "{}", response.body);
    let fixed = json!({ "semicolons": "keep" });
    let response = server.admin_api("PATCH", "/api/v1/resources/entity.user").json(&fixed).send();
    assert!(response.body.contains("has fixed paths"), "{}", response.body);
}

#[test]
fn known_method_of_the_admin_api_may_be_in_lower_case() {
    let server = Server::new();
    let role = json!({ "id": "r", "label": "R" });
    assert_eq!(server.admin_api("post", "/api/v1/roles").json(&role).send().status, 201);
    let change = json!({ "label": "S" });
    assert_eq!(server.admin_api("patch", "/api/v1/roles/r").json(&change).send().status, 200);
    assert_eq!(server.admin_api("delete", "/api/v1/roles/r").send().status, 204);
    let head = server.admin_api("head", "/api/v1/roles").send();
    assert_eq!((head.status, head.body.as_str()), (200, ""));
}

#[test]
fn store_without_resources_tells_the_operator_what_to_run() {
    let server = Server::new();
    let hint = "no resource is configured";
    let response = server.request_as_admin("GET", "/hello").send();
    let message = format!("No route found for \"GET http://{}/hello\"", server.public);
    assert_eq!((response.status, response.json()), (404, json!({ "message": message })));
    server.wait_for_log(hint);
    server.wait_for_log("keyward resource add all --handler decide");
    let headers = server.site.path().join("headers");
    std::fs::write(&headers, format!("API-KEY: {}\n", server.admin_credential())).unwrap();
    let explain = ["explain", "/hello", "--headers", headers.to_str().unwrap()];
    let explained = server.site.json(&explain);
    assert!(explained.to_string().contains(hint), "{explained}");
    assert!(!explained["response"].to_string().contains(hint), "{explained}");
    // The command of the hint, and then another path.
    server.site.json(&add("all", "/a/{*rest}", "*", &["--method", "any"]));
    let explained = server.site.json(&explain);
    assert!(!explained.to_string().contains(hint), "{explained}");
}

#[test]
fn explained_request_has_the_host_and_method_of_the_decision() {
    let server = Server::new();
    let more = ["--host", "api.example", "--method", "PATCH"];
    server.site.json(&add("a", "/a", "anonymous", &more));
    let explained =
        server.site.json(&["explain", "/a", "-X", "patch", "--host", "%41PI.Example.:80"]);
    assert_eq!(explained["allowed"], true, "{explained}");
    assert_eq!(explained["request"]["host"], "api.example");
    assert_eq!(explained["request"]["method"], "PATCH");
    let explained = server.site.json(&["explain", "/a", "--host", "127.1"]);
    assert_eq!(explained["response"]["status"], 400, "{explained}");
}

#[test]
fn health_path_is_off_by_default_and_answers_before_routing() {
    let probe = b"GET /healthz HTTP/1.0\r\n\r\n";
    let server = Server::new();
    assert_eq!(crate::harness::exchange(server.public, probe).status, 400);
    let server = Site::new().with_env("KEYWARD_SERVER__HEALTH_PATH", "/healthz").start();
    let response = crate::harness::exchange(server.public, probe);
    assert_eq!((response.status, response.body.as_str()), (200, "ok\n"));
    let wrong = Site::new().with_env("KEYWARD_SERVER__HEALTH_PATH", "healthz");
    let output = wrong.run(&["config", "check"]);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(errors.contains("KEYWARD_SERVER__HEALTH_PATH") && errors.contains("absolute path"));
}
