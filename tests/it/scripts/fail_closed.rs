//! Scripts fail closed: if any function of a script fails, the request is denied, and the response
//! shows nothing about the failure.

use crate::harness::Server;

use super::*;

/// Failures: the name, and the body of a function that fails in this way. Each failure must deny
/// the request, in each function of a script.
const FAILURES: &[(&str, &str)] = &[
    ("error", "let a = []; a[7]"),
    ("thrown text", "throw \"the secret reason\""),
    ("thrown number", "throw 7"),
    ("thrown pass", "throw #{ error: \"FINE\", status: 200, description: \"Come in.\" }"),
    ("thrown redirect", "throw #{ error: \"AWAY\", status: 302, description: \"Elsewhere.\" }"),
    ("endless", "loop {}"),
    ("deep", "deeper()"),
    ("large", "let s = \"x\"; loop { s += s; }"),
    ("wrong type", "3.5"),
];

const AUTH_FUNCTIONS: &[&str] = &[
    "header(req)",
    "decode(req, presented)",
    "lookup(req, credential)",
    "verify(req, user, credential)",
];

const HOOKS: &[&str] = &[
    "on_request(req)",
    "on_authenticated(req, identity)",
    "on_permit(req, identity, resource)",
    "on_response(req, identity, response)",
];

/// A server with this script. The server disables a script only after 1,000 strikes, so the script
/// stays enabled during the test.
fn start(file: &str, text: &str) -> Server {
    let site = site(&[(file, text)]).with_env("KEYWARD_SCRIPTS__STRIKES", "1000");
    site.with_env("KEYWARD_SCRIPTS__OPERATIONS", "20000").start()
}

fn failing_function(signature: &str) -> String {
    // The query parameter `how` contains the name of the failure.
    let arms: String = FAILURES
        .iter()
        .map(|(name, body)| format!("if how == {name:?} {{ {body} }} else "))
        .collect();
    format!(
        "fn {signature} {{ let how = req.param(\"how\"); {arms} {{ throw \"unknown\" }} }}\nfn deeper() {{ deeper() }}"
    )
}

#[track_caller]
fn assert_denies(server: &Server, path: &str, function: &str) {
    let key = server.admin_credential();
    for (name, _) in FAILURES {
        let target = format!("{path}?how={}", name.replace(' ', "%20"));
        let response = server.request("GET", &target).header("API-KEY", &key).send();
        if *name == "large" {
            // Values that are too large are the fault of the request.
            let message = "The request is too large or has too many parts.";
            response.assert_error(400, "INPUT_TOO_LARGE", message);
            continue;
        }
        response.assert_error(503, "SCRIPT_ERROR", "The request could not be decided.");
        for text in ["secret reason", "rhai", "passed", "FINE"] {
            assert!(!format!("{response:?}").contains(text), "{function}: {name}: {response:?}");
        }
    }
}

#[test]
fn failing_authentication_functions_deny() {
    for function in AUTH_FUNCTIONS {
        let server = start("auth/odd.rhai", &failing_function(function));
        create_resource(&server, "open", "/open", json!({ "authentication": ["*", "anonymous"] }));
        create_default_application(&server, "odd");
        assert_denies(&server, "/open", function);
    }
}

#[test]
fn failing_hooks_deny() {
    for hook in HOOKS {
        for file in ["hooks.rhai", "resources/open.rhai"] {
            let server = start(file, &failing_function(hook));
            create_resource(&server, "open", "/open", json!({}));
            assert_denies(&server, "/open", hook);
        }
    }
}

#[test]
fn failing_handler_denies() {
    let server = start("handlers/odd.rhai", &failing_function("handle(req, identity)"));
    create_resource(&server, "open", "/open", json!({ "handler": "script:odd" }));
    assert_denies(&server, "/open", "handle");
}

/// If `on_denied` fails, the original denial stays.
#[test]
fn failing_on_denied_keeps_the_original_denial() {
    let server = start("hooks.rhai", &failing_function("on_denied(req, denial)"));
    create_resource(&server, "open", "/open", json!({}));
    for (name, _) in FAILURES {
        let target = format!("/open?how={}", name.replace(' ', "%20"));
        let response = server.request("GET", &target).send();
        response.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    }
}

#[test]
fn script_that_times_out_repeatedly_is_disabled() {
    let hook =
        "const BLOCKING = true;\nfn on_request(req) { if req.path == \"/slow\" { loop {} } }";
    let site = site(&[("hooks.rhai", hook)])
        .with_env("KEYWARD_SCRIPTS__BLOCKING_MILLISECONDS", "200")
        .with_env("KEYWARD_SCRIPTS__BLOCKING_OPERATIONS", "1000000000")
        .with_env("KEYWARD_SCRIPTS__STRIKES", "2")
        .with_env("KEYWARD_SCRIPTS__STRIKE_CLIENTS", "1");
    let server = site.start();
    create_resource(&server, "slow", "/slow", json!({}));
    create_resource(&server, "other", "/other", json!({}));
    let error_of = |path: &str| status_and_code(&server.request_as_admin("GET", path).send());
    assert_eq!(server.request_as_admin("GET", "/other").send().status, 200);
    assert_eq!(problem_count(&server), 0);
    // After two timeouts the script is disabled. Until the script is reloaded, each request that
    // needs the script is denied.
    for _ in 0..2 {
        assert_eq!(error_of("/slow"), error(503, "SCRIPT_ERROR"));
    }
    assert_eq!(error_of("/other"), error(503, "SCRIPT_ERROR"));
    assert_eq!(problem_count(&server), 1);
    write_script(&server.site, "hooks.rhai", "fn on_request(req) {}");
    wait_until("the fixed script is active", || {
        server.request_as_admin("GET", "/slow").send().status == 200
    });
    assert_eq!(problem_count(&server), 0);
}
