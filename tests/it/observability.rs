//! The metrics and the access log, through each listener.

use std::{fs, os::unix::fs::PermissionsExt as _, thread::sleep, time::Duration};

use serde_json::Value;

use crate::harness::{
    Server, Site,
    client::{Request, Response},
    credential,
};

fn metrics(server: &Server) -> Response {
    Request::new(server.admin, "GET", "/metrics").send()
}

/// The question of a proxy whose client sent a GET request.
fn asked(server: &Server, target: &str) -> Request {
    server
        .verify_request("GET", "/-/verify")
        .header("X-Original-Method", "GET")
        .header("X-Original-URI", target)
        .header("X-Original-Host", "api.example")
        .header("X-Forwarded-For", "203.0.113.7")
}

/// The value of the sample with this beginning; 0 if there is none.
fn sample(server: &Server, beginning: &str) -> f64 {
    let page = metrics(server);
    assert_eq!(page.status, 200);
    let line = page.body.lines().find(|line| line.starts_with(beginning));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[test]
fn each_request_is_counted_once_with_its_outcome() {
    let server = Server::new();
    let decided = |listener: &str, rest: &str| {
        let beginning = format!("keyward_decisions_total{{listener=\"{listener}\",{rest}}}");
        sample(&server, &beginning)
    };
    let allowed = r#"outcome="allowed",phase="",code="""#;
    let missing = r#"outcome="denied",phase="header",code="MISSING_API_KEY_HEADER""#;
    let wrong = r#"outcome="denied",phase="verify",code="AUTHENTICATION_FAILED""#;
    let before: Vec<f64> = [allowed, missing].map(|rest| decided("public", rest)).into();
    for _ in 0..3 {
        assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    }
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    assert_eq!(
        [allowed, missing].map(|rest| decided("public", rest)),
        [before[0] + 3.0, before[1] + 1.0]
    );

    let other = server.generate_key("admin", &[]);
    let mut text = other.text;
    let last = if text.ends_with('a') { 'b' } else { 'a' };
    text.pop();
    text.push(last);
    let before = decided("verify", wrong)
        + decided("verify", r#"outcome="denied",phase="decode",code="AUTHENTICATION_FAILED""#)
        + decided("verify", r#"outcome="denied",phase="decode",code="INVALID_API_KEY_FORMAT""#);
    let question = asked(&server, "/user/1").header("API-KEY", credential("admin", &text));
    assert!(question.send().status >= 400);
    let after = decided("verify", wrong)
        + decided("verify", r#"outcome="denied",phase="decode",code="AUTHENTICATION_FAILED""#)
        + decided("verify", r#"outcome="denied",phase="decode",code="INVALID_API_KEY_FORMAT""#);
    assert_eq!(after, before + 1.0);

    let question = asked(&server, "/user/1").header("API-KEY", server.admin_credential());
    assert_eq!(question.send().status, 200);
    assert_eq!(decided("verify", allowed), 1.0);
    assert_eq!(server.admin_api("GET", "/api/v1/users").send().status, 200);
    let requests = r#"http_server_request_duration_seconds_count{keyward_listener="admin",http_request_method="GET",http_response_status_code="200"}"#;
    assert!(sample(&server, requests) >= 1.0);
    let durations =
        r#"keyward_decision_duration_seconds_count{listener="verify",outcome="allowed"}"#;
    assert_eq!(sample(&server, durations), 1.0);
}

#[test]
fn metrics_show_the_state_and_no_name() {
    let server = Server::new();
    server.add_user("margarethe", &[]);
    let key = server.generate_key("margarethe", &["--label", "nightly-build"]);
    let request =
        server.request("GET", "/user/1").header("API-KEY", credential("margarethe", &key.text));
    assert_eq!(request.send().status, 403);
    let page = metrics(&server);
    assert_eq!(page.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
    for name in [
        "keyward_build_info{version=",
        "keyward_store_writable 1",
        "keyward_users 2",
        "keyward_keys 2",
        "keyward_script_problems 0",
        "keyward_connections_open{listener=\"admin\"} ",
        "process_resident_memory_bytes ",
        "process_open_fds ",
    ] {
        assert!(page.body.lines().any(|line| line.starts_with(name)), "{name}\n{}", page.body);
    }
    for secret in ["margarethe", "nightly", &key.text[..], &key.text[3..11], "127.0.0.1", "/user/1"]
    {
        assert!(!page.body.contains(secret), "{secret}");
    }
    let open = Request::new(server.admin, "GET", "/metrics")
        .header("Accept", "application/openmetrics-text; version=1.0.0")
        .send();
    assert!(open.body.ends_with("# EOF\n"));
    assert_eq!(Request::new(server.admin, "POST", "/metrics").send().status, 405);
    assert_eq!(server.request("GET", "/metrics").send().status, 401);
}

#[test]
fn metrics_can_need_a_token_and_a_network() {
    let site = Site::new();
    let token = site.path().join("token");
    fs::write(&token, "a-token-of-the-metrics\n").unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    let mut server = site.with_env("KEYWARD_METRICS__TOKEN_FILE", token.to_str().unwrap()).start();
    server.forbid_in_log("a-token-of-the-metrics");
    assert_eq!(metrics(&server).status, 401);
    for (value, status) in [
        ("Bearer a-token-of-the-metrics", 200),
        ("bearer a-token-of-the-metrics", 200),
        ("Bearer a-token-of-the-metric", 401),
        ("Bearer ", 401),
        ("Basic a-token-of-the-metrics", 401),
        ("a-token-of-the-metrics", 401),
    ] {
        let request = Request::new(server.admin, "GET", "/metrics").header("Authorization", value);
        assert_eq!(request.send().status, status, "{value}");
    }
    let key = server.key.clone();
    let site = server.kill().with_env("KEYWARD_METRICS__NETWORKS", "10.0.0.0/8");
    server = Server::start(site, key.clone());
    let request = Request::new(server.admin, "GET", "/metrics");
    let refused = request.header("Authorization", "Bearer a-token-of-the-metrics").send();
    assert_eq!(refused.status, 403);
    let site = server.kill().with_env("KEYWARD_METRICS__COUNTS", "off");
    server = Server::start(site, key);
    // Without metrics, the path is one that the API does not have.
    assert_eq!(metrics(&server).status, 401);
}

/// The lines about requests to the public and the verify listener, as soon as there are so many.
/// The test's harness asks the admin listener whether the server is ready.
fn lines(path: &std::path::Path, count: usize) -> Vec<Value> {
    let is_ours = |line: &Value| ["public", "verify"].contains(&line["listener"].as_str().unwrap());
    for _ in 0..400 {
        let text = fs::read_to_string(path).unwrap_or_default();
        // The last line may not be complete yet.
        let text = text.rfind('\n').map_or("", |end| &text[..end]);
        let all = text.lines().map(|line| serde_json::from_str(line).unwrap());
        let ours: Vec<Value> = all.filter(is_ours).collect();
        if ours.len() >= count {
            return ours;
        }
        sleep(Duration::from_millis(50));
    }
    panic!("{} lines are missing in {}", count, path.display());
}

#[test]
fn access_log_has_a_line_for_each_request_and_no_secret() {
    let site = Site::new();
    let path = site.path().join("access.log");
    let server = site.with_env("KEYWARD_ACCESS_LOG__OUTPUT", path.to_str().unwrap()).start();
    let admin = server.admin_credential();
    let target = format!("/user/1?secret=query&k={admin}");
    let allowed = server.request("GET", &target).header("API-KEY", &admin);
    let allowed = allowed.header("X-Request-Id", "forged-by-a-client");
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let allowed = allowed.header("traceparent", trace).send();
    assert_eq!(allowed.status, 200);
    let denied = server.request("DELETE", &format!("/user/{}", server.key)).send();
    assert_eq!(denied.status, 401);
    let question = asked(&server, "/user/1").header("API-KEY", &admin);
    let asked = question.header("X-Request-Id", "of-the-proxy-7").send();
    assert_eq!((asked.status, asked.header("x-request-id")), (200, Some("of-the-proxy-7")));
    let malformed = server.request("GET", "/a;b").send();
    assert_eq!(malformed.status, 400);

    let all = lines(&path, 4);
    let text = fs::read_to_string(&path).unwrap();
    for secret in [&admin, &server.key[12..], "secret=query", "forged-by-a-client"] {
        assert!(!text.contains(secret), "{secret}\n{text}");
    }
    let [first, second, third, fourth] = &all[..] else { panic!("{all:?}") };
    assert_eq!(first["outcome"], "allowed");
    assert_eq!((&first["user"], &first["uid"]), (&"admin".into(), &1.into()));
    assert_eq!(
        (&first["method"], &first["path"], &first["status"]),
        (&"GET".into(), &"/user/1".into(), &200.into())
    );
    assert_eq!((&first["listener"], &first["application"]), (&"public".into(), &"default".into()));
    assert!(first["key"].is_string() && first["resource"].is_string(), "{first}");
    assert_eq!(first["request_id"].as_str(), allowed.header("x-request-id"));
    assert_eq!(
        (&second["outcome"], &second["code"]),
        (&"denied".into(), &"MISSING_API_KEY_HEADER".into())
    );
    assert_eq!(first["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_eq!(second["request_id"].as_str(), denied.header("x-request-id"));
    assert_eq!(
        (&third["listener"], &third["request_id"]),
        (&"verify".into(), &"of-the-proxy-7".into())
    );
    assert_eq!((&fourth["phase"], &fourth["status"]), (&"edge".into(), &400.into()));
}

#[test]
fn access_log_is_opened_again_after_a_hangup_and_complete_after_a_stop() {
    let site = Site::new();
    let path = site.path().join("access.log");
    let mut server = site
        .with_env("KEYWARD_ACCESS_LOG__OUTPUT", path.to_str().unwrap())
        .with_env("KEYWARD_ACCESS_LOG__REQUESTS", "denied")
        .start();
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
    lines(&path, 1);
    let moved = path.with_extension("1");
    fs::rename(&path, &moved).unwrap();
    let pid = server.pid().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    for _ in 0..400 {
        if path.exists() {
            break;
        }
        sleep(Duration::from_millis(50));
    }
    for _ in 0..50 {
        assert_eq!(server.request("GET", "/user/1").send().status, 401);
    }
    assert!(server.stop().success());
    assert_eq!(fs::read_to_string(&moved).unwrap().lines().count(), 1);
    assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 50);
}

#[test]
fn output_that_cannot_be_opened_is_said_at_the_start() {
    let site = Site::new().with_env("KEYWARD_ACCESS_LOG__OUTPUT", "/nowhere/access.log");
    let output = site.run(&["serve"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("access_log.output") && text.contains("No such file"), "{text}");
}
