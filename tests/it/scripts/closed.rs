//! A script fails closed: whatever goes wrong in it, in whichever room, nobody is let in by it, and the client is told nothing of it.

use crate::harness::Server;

use super::*;

/// What goes wrong in a function. Each is a body that no room takes for a yes.
const WRONG: &[(&str, &str)] = &[
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

const ROOMS: &[&str] = &[
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

/// Strikes are counted elsewhere; here each failure is to be seen itself.
fn start(file: &str, text: &str) -> Server {
    let site = site(&[(file, text)]).with("KEYWARD_SCRIPTS__STRIKES", "1000");
    site.with("KEYWARD_SCRIPTS__OPERATIONS", "20000").start()
}

fn function(signature: &str) -> String {
    // One function that does what the request asks for: each way of going wrong by its name.
    let arms: String =
        WRONG.iter().map(|(name, body)| format!("if how == {name:?} {{ {body} }} else ")).collect();
    format!(
        "fn {signature} {{ let how = req.param(\"how\"); {arms} {{ throw \"unknown\" }} }}\nfn deeper() {{ deeper() }}"
    )
}

#[track_caller]
fn is_closed(server: &Server, path: &str, what: &str) {
    let key = server.administrator();
    for (name, _) in WRONG {
        let target = format!("{path}?how={}", name.replace(' ', "%20"));
        let answer = server.request("GET", &target).header("API-KEY", &key).send();
        answer.refuses(503, "SCRIPT_ERROR", "The request could not be decided.");
        for told in ["secret reason", "rhai", "passed", "FINE"] {
            assert!(!format!("{answer:?}").contains(told), "{what}: {name}: {answer:?}");
        }
    }
}

#[test]
fn the_rooms_of_an_authentication_type() {
    for room in ROOMS {
        let server = start("auth/odd.rhai", &function(room));
        resource(&server, "open", "/open", json!({ "authentication": ["*", "anonymous"] }));
        application(&server, "odd");
        is_closed(&server, "/open", room);
    }
}

#[test]
fn the_hooks() {
    for hook in HOOKS {
        for file in ["hooks.rhai", "resources/open.rhai"] {
            let server = start(file, &function(hook));
            resource(&server, "open", "/open", json!({}));
            is_closed(&server, "/open", hook);
        }
    }
}

#[test]
fn a_handler() {
    let server = start("handlers/odd.rhai", &function("handle(req, identity)"));
    resource(&server, "open", "/open", json!({ "handler": "script:odd" }));
    is_closed(&server, "/open", "handle");
}

/// A refusal stays the refusal that it was when the hook that would dress it fails.
#[test]
fn a_hook_of_refusals() {
    let server = start("hooks.rhai", &function("on_denied(req, denial)"));
    resource(&server, "open", "/open", json!({}));
    for (name, _) in WRONG {
        let target = format!("/open?how={}", name.replace(' ', "%20"));
        let answer = server.request("GET", &target).send();
        answer.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    }
}

#[test]
fn a_call_that_takes_too_long() {
    let hook =
        "const BLOCKING = true;\nfn on_request(req) { if req.path == \"/slow\" { loop {} } }";
    let site = site(&[("hooks.rhai", hook)])
        .with("KEYWARD_SCRIPTS__BLOCKING_MILLISECONDS", "200")
        .with("KEYWARD_SCRIPTS__BLOCKING_OPERATIONS", "1000000000")
        .with("KEYWARD_SCRIPTS__STRIKES", "2");
    let server = site.start();
    resource(&server, "slow", "/slow", json!({}));
    resource(&server, "other", "/other", json!({}));
    let ask = |path: &str| code(&server.asks("GET", path).send());
    assert_eq!(server.asks("GET", "/other").send().status, 200);
    assert_eq!(problems(&server), 0);
    // Twice out of its time, and it is switched off: then all that it decides about is refused, until it is loaded again.
    for _ in 0..2 {
        assert_eq!(ask("/slow"), error(503, "SCRIPT_ERROR"));
    }
    assert_eq!(ask("/other"), error(503, "SCRIPT_ERROR"));
    assert_eq!(problems(&server), 1);
    write(&server.site, "hooks.rhai", "fn on_request(req) {}");
    until("the better script is in force", || server.asks("GET", "/slow").send().status == 200);
    assert_eq!(problems(&server), 0);
}
