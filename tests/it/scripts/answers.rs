//! What scripts cannot make of an answer: a denial a pass, a no a yes, one header field two.

use super::*;

#[test]
fn a_denial_never_becomes_a_pass() {
    let hook = r#"
        fn on_denied(req, denial) {
            let wanted = req.param("status");
            if req.param("caught") != () {
                try { denial.status = parse_int(wanted); } catch { denial.description = "caught"; }
                return;
            }
            if req.param("thrown") != () { throw #{ error: "AWAY", status: parse_int(wanted), description: "x" }; }
            denial.status = parse_int(wanted);
            denial.body = "passed";
        }
    "#;
    let server = server(&[("hooks.rhai", hook)]);
    resource(&server, "orders", "/orders", json!({}));
    for how in ["", "&caught=1", "&thrown=1"] {
        for status in [
            "100", "101", "200", "204", "299", "301", "302", "304", "399", "600", "0", "-200",
            "65936",
        ] {
            let answer = server.request("GET", &format!("/orders?status={status}{how}")).send();
            assert_eq!(answer.status, 401, "{status}{how}: {answer:?}");
            assert!(!answer.body.contains("passed"), "{answer:?}");
        }
    }
    for status in [400, 404, 418, 503, 599] {
        let answer = server.request("GET", &format!("/orders?status={status}")).send();
        assert_eq!((answer.status, answer.body.as_str()), (status, "passed"));
    }
}

#[test]
fn on_permit_only_narrows() {
    let hook = r#"
        fn on_permit(req, identity, resource) {
            let say = req.param("say");
            if say == "true" { true } else if say == "false" { false } else { () }
        }
    "#;
    let server = server(&[("hooks.rhai", hook)]);
    let needed = json!({ "GET": ["see orders"] });
    resource(&server, "records", "/records", json!({ "permissions": needed }));
    let scripted = json!({ "permissions": needed, "permission": "script" });
    resource(&server, "scripted", "/scripted", scripted);
    let (has, lacks) = (server.user_with("has", &["see orders"]), server.user_with("lacks", &[]));
    let ask = |path: &str, say: &str, credential: &str| {
        let request = server.request("GET", &format!("{path}?say={say}"));
        request.header("API-KEY", credential).send().status
    };
    for (path, say, with, without) in [
        ("/records", "true", 200, 403),
        ("/records", "nothing", 200, 403),
        ("/records", "false", 403, 403),
        ("/scripted", "true", 200, 200),
        ("/scripted", "nothing", 403, 403),
        ("/scripted", "false", 403, 403),
    ] {
        assert_eq!(ask(path, say, &has.credential), with, "{path} {say}");
        assert_eq!(ask(path, say, &lacks.credential), without, "{path} {say}");
    }
    // A script that decides does not let anybody in whom nobody knows.
    assert_eq!(server.request("GET", "/scripted?say=true").send().status, 401);
    assert_eq!(ask("/scripted", "true", "eDp5"), 404);
}

#[test]
fn a_resource_that_leaves_it_to_a_script_that_is_not_there() {
    let server = server(&[]);
    resource(&server, "scripted", "/scripted", json!({ "permission": "script" }));
    assert_eq!(server.asks("GET", "/scripted").send().status, 403);
}

/// What would end a field and begin another, or speak of the connection.
const SMUGGLED: &[(&str, &str)] = &[
    ("X-A", "a\\r\\nX-Evil: 1"),
    ("X-A", "a\\nX-Evil: 1"),
    ("X-A", "a\\rX-Evil: 1"),
    ("X-A", "a\\x00b"),
    ("X-A\\r\\nX-Evil", "1"),
    ("X-A: 1\\r\\nX-Evil", "1"),
    ("X A", "1"),
    ("", "1"),
    ("Transfer-Encoding", "chunked"),
    ("Content-Length", "0"),
    ("Connection", "close, X-A"),
    ("Keep-Alive", "timeout=1"),
    ("Upgrade", "h2c"),
    ("Trailer", "X-Evil"),
    ("TE", "trailers"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Connection", "close"),
    ("HTTP2-Settings", "x"),
    ("X-Keyward-User", "admin"),
];

#[test]
fn header_fields_cannot_be_smuggled() {
    let sets = |object: &str| -> String {
        let arms = SMUGGLED.iter().enumerate().map(|(at, (name, value))| {
            format!("if n == \"{at}\" {{ {object}.set_header(\"{name}\", \"{value}\"); }}\n")
        });
        arms.collect()
    };
    let thrown: String = SMUGGLED
        .iter()
        .enumerate()
        .map(|(at, (name, value))| {
            format!(
                "if n == \"{at}\" {{ throw #{{ error: \"NO\", status: 418, description: \"x\", headers: #{{ \"{name}\": \"{value}\" }} }}; }}\n"
            )
        })
        .collect();
    let hooks = format!(
        "fn on_response(req, identity, response) {{ let n = req.param(\"response\"); {} }}\nfn on_denied(req, denial) {{ let n = req.param(\"denied\"); {} }}\nfn on_request(req) {{ let n = req.param(\"thrown\"); {thrown} }}",
        sets("response"),
        sets("denial"),
    );
    let handler = format!(
        "fn handle(req, identity) {{ let n = req.param(\"reply\"); let reply = respond(200, \"passed\"); {} reply }}",
        sets("reply")
    );
    let server = server(&[("hooks.rhai", &hooks), ("handlers/answer.rhai", &handler)]);
    resource(&server, "orders", "/orders", json!({}));
    resource(&server, "answer", "/answer", json!({ "handler": "script:answer" }));
    assert_eq!(server.asks("GET", "/orders").send().status, 200);
    assert_eq!(server.asks("GET", "/answer").send().status, 200);
    for (at, what) in SMUGGLED.iter().enumerate() {
        let answers = [
            (503, server.asks("GET", &format!("/orders?response={at}")).send()),
            (503, server.asks("GET", &format!("/answer?reply={at}")).send()),
            (503, server.asks("GET", &format!("/orders?thrown={at}")).send()),
            (401, server.request("GET", &format!("/orders?denied={at}")).send()),
        ];
        for (status, answer) in answers {
            assert_eq!(answer.status, status, "{what:?}: {answer:?}");
            for name in ["x-evil", "x-a", "x-keyward-user", "transfer-encoding", "upgrade"] {
                assert!(answer.header(name).is_none(), "{what:?}: {answer:?}");
            }
            // One answer and nothing behind it: the client reads to the end of the connection.
            assert!(!answer.body.contains("HTTP/1.1"), "{answer:?}");
        }
    }
}

#[test]
fn what_may_be_changed_is_changed() {
    let hooks = r#"
        fn on_response(req, identity, response) {
            response.status = 202;
            response.body = response.body + " for " + identity.name;
            response.set_header("X-Who", identity.name);
            response.remove_header("Content-Type");
        }
    "#;
    let server = server(&[("resources/orders.rhai", hooks)]);
    resource(&server, "orders", "/orders", json!({}));
    let answer = server.asks("GET", "/orders").send();
    assert_eq!((answer.status, answer.body.as_str()), (202, "passed for admin"));
    assert_eq!(answer.header("x-who"), Some("admin"));
    assert_eq!(answer.header("content-type"), None);
}
