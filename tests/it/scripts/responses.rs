//! Tests of the limits of scripts that change responses: no script can turn a denial into a success
//! or smuggle header fields.

use super::*;

#[test]
fn denial_never_becomes_a_pass() {
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
    create_resource(&server, "orders", "/orders", json!({}));
    for path_suffix in ["", "&caught=1", "&thrown=1"] {
        for status in [
            "100", "101", "200", "204", "299", "301", "302", "304", "399", "600", "0", "-200",
            "65936",
        ] {
            let response =
                server.request("GET", &format!("/orders?status={status}{path_suffix}")).send();
            assert_eq!(response.status, 401, "{status}{path_suffix}: {response:?}");
            assert!(!response.body.contains("passed"), "{response:?}");
        }
    }
    for status in [400, 404, 418, 503, 599] {
        let response = server.request("GET", &format!("/orders?status={status}")).send();
        assert_eq!((response.status, response.body.as_str()), (status, "passed"));
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
    let required = json!({ "GET": ["see orders"] });
    create_resource(&server, "records", "/records", json!({ "permissions": required }));
    let scripted = json!({ "permissions": required, "permission": "script" });
    create_resource(&server, "scripted", "/scripted", scripted);
    let (has, lacks) = (
        server.user_with_permissions("has", &["see orders"]),
        server.user_with_permissions("lacks", &[]),
    );
    let status = |path: &str, say: &str, credential: &str| {
        let request = server.request("GET", &format!("{path}?say={say}"));
        request.header("API-KEY", credential).send().status
    };
    for (path, say, status_with, status_without) in [
        ("/records", "true", 200, 403),
        ("/records", "nothing", 200, 403),
        ("/records", "false", 403, 403),
        ("/scripted", "true", 200, 200),
        ("/scripted", "nothing", 403, 403),
        ("/scripted", "false", 403, 403),
    ] {
        assert_eq!(status(path, say, &has.credential), status_with, "{path} {say}");
        assert_eq!(status(path, say, &lacks.credential), status_without, "{path} {say}");
    }
    // A script that decides about permissions cannot allow a request without a valid credential.
    assert_eq!(server.request("GET", "/scripted?say=true").send().status, 401);
    let unknown_user = crate::harness::credential("x", "y");
    assert_eq!(status("/scripted", "true", &unknown_user), 404);
}

#[test]
fn resource_with_script_permission_but_no_script_denies() {
    let server = server(&[]);
    create_resource(&server, "scripted", "/scripted", json!({ "permission": "script" }));
    assert_eq!(server.request_as_admin("GET", "/scripted").send().status, 403);
}

/// Header fields that would inject another field, or that belong to the connection.
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
    let set_each = |object: &str| -> String {
        let arms = SMUGGLED.iter().enumerate().map(|(index, (name, value))| {
            format!("if n == \"{index}\" {{ {object}.set_header(\"{name}\", \"{value}\"); }}\n")
        });
        arms.collect()
    };
    let thrown: String = SMUGGLED
        .iter()
        .enumerate()
        .map(|(index, (name, value))| {
            format!(
                "if n == \"{index}\" {{ throw #{{ error: \"NO\", status: 418, description: \"x\", headers: #{{ \"{name}\": \"{value}\" }} }}; }}\n"
            )
        })
        .collect();
    let hooks = format!(
        "fn on_response(req, identity, response) {{ let n = req.param(\"response\"); {} }}\nfn on_denied(req, denial) {{ let n = req.param(\"denied\"); {} }}\nfn on_request(req) {{ let n = req.param(\"thrown\"); {thrown} }}",
        set_each("response"),
        set_each("denial"),
    );
    let handler = format!(
        "fn handle(req, identity) {{ let n = req.param(\"reply\"); let reply = respond(200, \"passed\"); {} reply }}",
        set_each("reply")
    );
    let server = server(&[("hooks.rhai", &hooks), ("handlers/reply.rhai", &handler)]);
    create_resource(&server, "orders", "/orders", json!({}));
    create_resource(&server, "reply", "/reply", json!({ "handler": "script:reply" }));
    assert_eq!(server.request_as_admin("GET", "/orders").send().status, 200);
    assert_eq!(server.request_as_admin("GET", "/reply").send().status, 200);
    for (index, field) in SMUGGLED.iter().enumerate() {
        let responses = [
            (503, server.request_as_admin("GET", &format!("/orders?response={index}")).send()),
            (503, server.request_as_admin("GET", &format!("/reply?reply={index}")).send()),
            (503, server.request_as_admin("GET", &format!("/orders?thrown={index}")).send()),
            (401, server.request("GET", &format!("/orders?denied={index}")).send()),
        ];
        for (status, response) in responses {
            assert_eq!(response.status, status, "{field:?}: {response:?}");
            for name in ["x-evil", "x-a", "x-keyward-user", "transfer-encoding", "upgrade"] {
                assert!(response.header(name).is_none(), "{field:?}: {response:?}");
            }
            // The client reads to the end of the connection, so a smuggled second response would be
            // in the body.
            assert!(!response.body.contains("HTTP/1.1"), "{response:?}");
        }
    }
}

#[test]
fn on_response_can_change_status_body_and_header_fields() {
    let hooks = r#"
        fn on_response(req, identity, response) {
            response.status = 202;
            response.body = response.body + " for " + identity.name;
            response.set_header("X-Who", identity.name);
            response.remove_header("Content-Type");
        }
    "#;
    let server = server(&[("resources/orders.rhai", hooks)]);
    create_resource(&server, "orders", "/orders", json!({}));
    let response = server.request_as_admin("GET", "/orders").send();
    assert_eq!((response.status, response.body.as_str()), (202, "passed for admin"));
    assert_eq!(response.header("x-who"), Some("admin"));
    assert_eq!(response.header("content-type"), None);
}
