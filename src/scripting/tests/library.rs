//! Tests of the library, called from scripts.

use super::*;

/// Expressions that are all true.
const TRUE: &[&str] = &[
    r#"req.method == "POST" && req.path == "/orders" && req.query == "a=1&b=x%20y&a=2""#,
    r#"req.param("a") == "1" && req.param("b") == "x y" && req.param("c") == ()"#,
    r#"req.header("X-One") == "1" && req.header("x-many") == "a, b" && req.header("none") == () && req.header("no name") == ()"#,
    r#"req.headers("X-Many") == ["a", "b"] && req.headers("none").len() == 0"#,
    r#"req.client == "10.1.2.3" && req.host == "api.example.com""#,
    r#"req.body == "{\"n\":1}" && req.body_bytes.len() == 7 && json_parse(req.body).n == 1"#,
    r#"req.body_sha256 == sha256(req.body)"#,
    r#"req.get("a") == () && { req.set("a", [1]); req.get("a") == [1] }"#,
    r#"req.to_string() == "POST /orders" && `${req}` == "POST /orders""#,
    r#"identity.uid == 7 && identity.name == "llama" && !identity.is_anonymous && "herd" in identity.roles"#,
    r#"identity.has_permission("graze") && !identity.has_permission("fly") && identity.has_role("herd")"#,
    r#"identity.key_id == "abcdefgh" && identity.application == "default" && identity.attributes.tenant == "andes""#,
    r#"user_by_name("llama").uid == 7 && user_by_name("x") == () && user_by_id(7).name == "llama" && user_by_id(-1) == ()"#,
    r#"let user = user_by_id(7); user.is_active && user.has_permission("graze") && user.has_role("herd") && user.attributes.tenant == "andes" && user.roles == ["herd"]"#,
    r#"let key = key_by_id("abcdefgh"); key.id == "abcdefgh" && key.user == 7 && !key.is_revoked && key.expires == 2000000000 && key.application == () && key.scopes == ["graze"] && key.networks == ["192.0.2.0/24"] && key_by_id("x") == ()"#,
    r#"role("herd").permissions == ["graze"] && !role("herd").is_admin && role("herd").label == "The herd" && role("herd").id == "herd" && role("x") == ()"#,
    r#"resource.id == "orders" && resource.handler == "proxy" && resource.path == "/orders" && resource.host == () && resource.method == "GET""#,
    r#"base64_encode("a:b") == "YTpi" && to_text(base64_decode("YTpi")) == "a:b" && base64_encode("a") == "YQ==""#,
    r#"base64url_encode("a?>") == "YT8-" && to_text(base64url_decode("YT8-")) == "a?>" && base64url_encode("a") == "YQ""#,
    r#"hex("ab") == "6162" && to_text(hex_decode("6162")) == "ab" && hex_decode("FF") == hex_decode("ff")"#,
    r#"json_text(#{ a: [1, true, ()] }) == "{\"a\":[1,true,null]}" && json_parse("{\"a\":null}").a == () && json_parse("[1.5]")[0] == 1.5"#,
    r#"url_encode("a b&c/é") == "a%20b%26c%2F%C3%A9" && url_decode("a%20b+c") == "a b+c""#,
    r#"hex(sha256("abc")) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#,
    r#"hex(blake3("")) == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262""#,
    // RFC 4231, test case 2.
    r#"hex(hmac_sha256("Jefe", "what do ya want for nothing?")) == "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843""#,
    r#"hex(hmac_sha512("Jefe", "what do ya want for nothing?")).starts_with("164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554")"#,
    r#"constant_time_eq("a", "a") && !constant_time_eq("a", "b") && !constant_time_eq("a", "ab") && !constant_time_eq("", "") && !constant_time_eq((), ()) && !constant_time_eq("a", ())"#,
    r#"constant_time_eq(secret("webhook"), "a secret that nobody sees") && !constant_time_eq(secret("webhook"), "b")"#,
    r#"hmac_sha256(secret("webhook"), "x") == hmac_sha256("a secret that nobody sees", "x")"#,
    r#"secret("webhook").to_string() == "Secret(…)" && `${secret("webhook")}` == "Secret(…)" && secret("webhook").to_debug() == "Secret(…)" && [secret("webhook")].to_string() != "a secret that nobody sees""#,
    r#"now() == 1767614400 && parse_time("2026-01-05T13:00:00+01:00") == now() && parse_time("x") == () && format_time(now()) == "2026-01-05T12:00:00+00:00""#,
    r#"parse_http_date("Mon, 05 Jan 2026 12:00:00 GMT") == now() && parse_http_date("2026") == () && parse_http_date("") == () && parse_http_date("Tue, 05 Jan 2026 12:00:00 GMT") == ()"#,
    r#"duration("15m") == 900 && duration("1h30m") == 5400 && duration("1w") == 604800 && duration("2d") == 172800 && duration("0s") == 0"#,
    r#"let t = local_time("Europe/Berlin"); t.hour == 13 && t.weekday == 1 && t.year == 2026 && t.month == 1 && t.day == 5 && t.minute == 0"#,
    r#"local_time("UTC", 0).year == 1970 && local_time("America/New_York", 1782000000).hour == 20"#,
    r#"in_network("10.1.2.3", "10.0.0.0/8") && in_network("::ffff:10.1.2.3", "10.0.0.0/8") && !in_network("11.0.0.1", "10.0.0.0/8")"#,
    r#"in_network("fd00::1", ["10.0.0.0/8", "fd00::/8"]) && in_network("1.2.3.4", "1.2.3.4") && !in_network("x", "0.0.0.0/0") && !in_network((), "0.0.0.0/0")"#,
    r#"let n = 0; for i in 0..5 { if rate_limit("b", 3, 60) { n += 1; } } n == 3"#,
    r#"once("a", 60) && !once("a", 60) && once("b", 60)"#,
    r#"matches("/tenants/a1/", "^/tenants/[a-z0-9]+/$") && !matches("/x", "^/tenants/") && matches("/x", "x")"#,
    r#"let s = ""; s.pad(8000, 'a'); !matches(s, "(a*)*(a*)*(a*)*b")"#,
    r#"log("a"); log("warn", "b"); true"#,
    r#"[1, [2, #{ a: "b" }]] == [1, [2, #{ a: "b" }]] && [1] != [2] && #{ a: 1 } != #{ a: 2 } && #{ a: 1 } == #{ a: 1 } && 1 in [1, 2] && [1, 2].index_of(2) == 1 && [[1]].contains([1])"#,
    r#"`${[1, "a"]}` == "[1, \"a\"]" && #{ a: 1 }.to_json() == "{\"a\":1}""#,
    r#"let ok = false; try { deny(403, "A", "b"); } catch (e) { ok = e.status == 403 && e.error == "A"; } ok"#,
    r#"secret("webhook") + "x" == "Secret(…)x""#,
    r#"let ok = false; try { base64_decode("?"); } catch { ok = true; } ok"#,
];

#[tokio::test]
async fn functions_return_the_documented_results() {
    let mut wrong = Vec::new();
    for body in TRUE {
        let outcome = permit(body).await;
        if !matches!(outcome, Ok(PermitResult::Granted)) {
            wrong.push(format!("{body}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Each expression is an error of the script. The second text is a part of the error message.
const WRONG: &[(&str, &str)] = &[
    (r#"base64_decode("YQ")"#, "not base64"),
    (r#"base64_decode("YTpi ")"#, "not base64"),
    (r#"base64url_decode("YQ==")"#, "not URL-safe base64"),
    (r#"hex_decode("0")"#, "not hexadecimal"),
    (r#"to_text(hex_decode("ff"))"#, "not UTF-8"),
    (r#"url_decode("%ff")"#, "not UTF-8"),
    (r#"json_parse("{")"#, "not JSON"),
    (r#"json_text(identity)"#, "plain data"),
    (r#"json_text([secret("webhook")])"#, "plain data"),
    (r#"sha256(1)"#, "a text or a blob"),
    (r#"sha256(secret("webhook"))"#, "a text or a blob"),
    (r#"hex(secret("webhook"))"#, "a text or a blob"),
    (r#"base64_encode(secret("webhook"))"#, "a text or a blob"),
    (r#"hmac_sha256("key", secret("webhook"))"#, "a text or a blob"),
    (r#"hmac_sha256("", "x")"#, "empty"),
    (r#"secret("nothing")"#, "no secret"),
    (r#"duration("5")"#, "a duration"),
    (r#"duration("")"#, "a duration"),
    (r#"duration("5y")"#, "a duration"),
    (r#"duration("99999999999999999999s")"#, "a duration"),
    (r#"duration("9223372036854775807w")"#, "a duration"),
    (r#"local_time("Europe/Atlantis")"#, "time zone"),
    (r#"local_time("UTC", 9223372036854775807)"#, "years 0 to 9999"),
    (r#"format_time(-9223372036854775807)"#, "years 0 to 9999"),
    (r#"in_network("1.2.3.4", "10.0.0.0/99")"#, "a network"),
    (r#"in_network("1.2.3.4", ["0.0.0.0/0", "x"])"#, "a network"),
    (r#"in_network("1.2.3.4", 1)"#, "a text or an array"),
    (r#"rate_limit("a", 0, 1)"#, "rate_limit"),
    (r#"rate_limit("a", 1, -1)"#, "rate_limit"),
    (r#"once("a", 0)"#, "once"),
    (r#"once("a", 604801)"#, "once"),
    (r#"log("loud", "a")"#, "levels"),
];

#[tokio::test]
async fn errors_of_functions_name_the_problem() {
    let mut wrong = Vec::new();
    for (body, expected) in WRONG {
        let outcome = permit(&format!("{body}; true")).await;
        match &outcome {
            Err(Fault::Failed { detail })
                if detail.contains(expected) && !detail.contains("nobody sees") => {}
            _ => wrong.push(format!("{body}: {outcome:?}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let unreadable = refusal(permit("req.header(\"x-bytes\"); true").await);
    assert_eq!((unreadable.status.as_u16(), unreadable.code.as_str()), (400, "INVALID_HEADER"));
}

#[tokio::test]
async fn counters_survive_a_reload_and_reject_when_full() {
    let text = "fn on_permit(req, identity, resource) { once(req.param(\"id\"), 60) && rate_limit(req.param(\"id\"), 1, 60) }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let limits = ScriptLimits { replay_ids: 16, ..limits() };
    let scripts = folder.load_with(limits, host()).unwrap();
    let ask = async |id: &str| {
        let set = scripts.current();
        let script = set.hooks(Function::OnPermit, None).next().unwrap();
        let req = req().changed(|parts| parts.query = Some(format!("id={id}")));
        script.on_permit(&req, &llama_identity(), &resource()).await.unwrap()
    };
    assert_eq!(ask("a").await, PermitResult::Granted);
    scripts.reload().unwrap();
    assert_eq!(ask("a").await, PermitResult::Refused, "a replayed id stays known after a reload");
    assert_eq!(ask("b").await, PermitResult::Granted);
    assert_eq!(ask("c").await, PermitResult::Refused, "the share is full");
}

#[tokio::test]
async fn panic_in_a_host_function_fails_only_the_call() {
    // The records are host code, which may panic.
    struct Panics;
    impl Records for Panics {
        fn user_by_name(&self, _: &str) -> Option<UserView> {
            panic!("this test causes the panic")
        }
        fn user_by_id(&self, _: u64) -> Option<UserView> {
            None
        }
        fn key_by_id(&self, _: &str) -> Option<KeyView> {
            None
        }
        fn role(&self, _: &str) -> Option<RoleView> {
            None
        }
    }
    let text = "fn on_permit(req, identity, resource) { if req.param(\"p\") != () { user_by_name(\"a\"); } true }
        fn on_authenticated(req, identity) { try { user_by_name(\"a\"); } catch { } }";
    let folder = Folder::of(&[("hooks.rhai", text)]);
    let host = ScriptHost { records: Arc::new(Panics), ..host() };
    let scripts = folder.load_with(limits(), host).unwrap();
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    let panics = req().changed(|parts| parts.query = Some("p".into()));
    assert!(
        detail(script.on_permit(&panics, &llama_identity(), &resource()).await)
            .contains("panicked")
    );
    assert!(detail(script.on_authenticated(&req(), &llama_identity()).await).contains("panicked"));
    let outcome = script.on_permit(&req(), &llama_identity(), &resource()).await;
    assert_eq!(outcome.unwrap(), PermitResult::Granted);
}

#[test]
fn generated_reference_equals_the_one_in_docs() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scripting-reference.md");
    let generated = reference();
    if std::env::var_os("KEYWARD_WRITE_DOCS").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &generated).unwrap();
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == generated,
        "docs/scripting-reference.md differs from the library's doc comments; run this test with KEYWARD_WRITE_DOCS=1"
    );
}

#[test]
fn every_function_is_documented_with_an_example() {
    let mut count = 0;
    for section in crate::scripting::library::SECTIONS {
        for entry in super::super::library::reference::entries((section.module)()) {
            count += 1;
            assert!(entry.text.contains("Example: `"), "{}: {}", entry.shape, entry.text);
        }
    }
    assert!(count > 90, "{count}");
    let definitions = definitions();
    for name in ["fn jwt_verify(", "fn get get$method(", "fn once(", "fn deny("] {
        assert!(definitions.contains(name) || name.contains("get$"), "{name} in {definitions}");
    }
}
