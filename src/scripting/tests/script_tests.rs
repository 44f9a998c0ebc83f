//! Tests of the `test_…` functions of scripts.

use super::*;

#[test]
fn each_test_runs_in_a_separate_sandbox() {
    let text = r#"
        fn verify(req, user, credential) {
            if !once(credential.nonce, 60) { deny(401, "REPLAYED", "Again."); }
            user.is_active && constant_time_eq(hmac_sha256(secret("key"), credential.nonce), hex_decode(credential.mac))
        }
        fn test_right() {
            test_secret("key", "of the test");
            let user = test_user(#{ name: "Alpaca", roles: ["herd"], permissions: ["graze"], attributes: #{ tenant: "a" } });
            assert_eq(user_by_name("alpaca").uid, user.uid);
            assert(user.has_permission("graze") && !user.has_permission("fly"), "permissions");
            assert(user_by_name("llama") == (), "the real directory is out of reach");
            let claim = #{ nonce: "n", mac: hex(hmac_sha256(secret("key"), "n")) };
            let req = test_request("GET", "/a?b=c").with_header("X", "y").with_client("10.0.0.1").with_body("{}").with_host("h");
            assert_eq([req.method, req.path, req.query, req.header("x"), req.client, req.body, req.host], ["GET", "/a", "b=c", "y", "10.0.0.1", "{}", "h"]);
            assert_eq(verify(req, user, claim), true);
            try { verify(req, user, claim); throw "no"; } catch (e) { assert_eq(e.error, "REPLAYED"); }
        }
        fn test_again() {
            test_at("2026-02-03T04:05:06Z");
            assert_eq(format_time(now()), "2026-02-03T04:05:06+00:00");
            assert(once("n", 60), "the other test's ids are not this one's");
            assert_denied(|| deny(404, "NONE", "None."), 404, "NONE");
            assert(test_anonymous().is_anonymous, "anonymous");
            assert_eq(test_identity(test_user(#{ name: "a" })).name, "a");
            let denial = test_denial(401, "A"); denial.set_header("B", "c");
            assert_eq(denial.header("b"), "c");
            assert_eq(test_response(200, "x").body, "x");
            assert_eq(test_resource("orders").id, "orders");
        }"#;
    let folder = Folder::of(&[("auth/a.rhai", text)]);
    let scripts = folder.load().unwrap_or_else(|found| panic!("{}", found[0]));
    assert_eq!(scripts.reload().unwrap(), LoadSummary { scripts: 1, tests: 2, is_new: false });
}

#[test]
fn failing_test_rejects_the_set_and_reports_its_position() {
    let hook = "fn on_request(req) {}\n";
    let mut wrong = Vec::new();
    for (test, expected) in [
        ("assert(false, \"it is wrong\");", "assertion failed: it is wrong"),
        ("assert_eq(1, 2);", "assertion failed: 1 is not 2"),
        ("assert_eq(\"1\", 1);", "assertion failed: \"1\" is not 1"),
        ("assert_denied(|| 1, 401, \"A\");", "the function did not deny"),
        ("assert_denied(|| deny(403, \"B\", \"\"), 403, \"A\");", "denied with 403 B"),
        ("assert_denied(|| deny(404, \"A\", \"\"), 403, \"A\");", "denied with 404 A"),
        ("assert_denied(|| 1 / 0, 403, \"A\");", "the function failed and did not deny"),
        ("throw \"x\";", "test_it failed: x"),
        ("deny(403, \"A\", \"b\");", "a value of type map was thrown"),
        ("decide(test_request(\"GET\", \"/\"));", "needs the whole pipeline"),
        ("test_user(#{ nam: \"a\" });", "no field nam"),
        ("test_user(#{ name: \"a\" }); test_user(#{ name: \"A\" });", "already"),
        ("test_request(\"GET\", \"a\");", "a path that begins with /"),
        ("test_at(\"noon\");", "a time like"),
        ("secret(\"webhook\");", "no secret"),
    ] {
        let text = format!("{hook}fn test_it() {{ {test} }}");
        let errors = Folder::of(&[("hooks.rhai", &text)]).load_errors();
        let has_position = errors.starts_with("hooks.rhai:2:") && errors.contains('^');
        if !(has_position && errors.contains(expected)) {
            wrong.push(format!("{test}: {errors}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A pipeline that only calls the script's `lookup`, and allows a request if the script finds one
/// of the test's users.
struct LookupGate;

impl ScriptTestGate for LookupGate {
    fn decide(&self, test: &TestRequest) -> Result<TestDecision, String> {
        assert_eq!((test.kind, test.name.as_str()), (ScriptKind::Auth, "a"));
        let script = test.set.auth(&test.name).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let found = runtime.block_on(script.lookup(&test.request, &ScriptClaim::of_text("x")));
        let user = match found {
            Ok(LookupResult::User(uid)) => test.users.iter().find(|user| user.uid == uid),
            _ => None,
        };
        Ok(TestDecision {
            allowed: user.is_some(),
            status: if user.is_some() { 200 } else { 401 },
            code: None,
            description: None,
            detail: None,
            user: user.map(|user| user.name.clone()),
            phase: None,
        })
    }
}

#[test]
fn decide_uses_the_scripts_under_test() {
    let text = |name: &str| {
        format!(
            "fn lookup(req, credential) {{ user_by_name(req.param(\"user\")) }}
            fn test_gate() {{
                test_user(#{{ name: \"alpaca\" }});
                let verdict = decide(test_request(\"GET\", \"/?user={name}\"));
                assert_eq(verdict.user, \"alpaca\");
                assert_eq([verdict.allowed, verdict.status, verdict.error], [true, 200, ()]);
            }}"
        )
    };
    let host = || ScriptHost { gate: Some(Arc::new(LookupGate)), ..host() };
    let folder = Folder::of(&[("auth/a.rhai", &text("alpaca"))]);
    let scripts = folder.load_with(limits(), host()).unwrap_or_else(|found| panic!("{}", found[0]));
    let first = Arc::downgrade(&scripts.current());
    folder.write("auth/a.rhai", text("llama"));
    let problems = scripts.reload().unwrap_err();
    assert!(problems[0].to_string().contains("() is not \"alpaca\""), "{}", problems[0]);
    folder.write("auth/a.rhai", text("ALPACA"));
    scripts.reload().unwrap();
    assert!(first.upgrade().is_none(), "the tests of a set hold the set");
}
