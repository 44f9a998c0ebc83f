//! Tests of what scripts return and throw: a checked value, a denial, or a failure.

use super::*;

#[tokio::test]
async fn on_permit_returns_true_false_or_nothing() {
    assert_eq!(permit("true").await.unwrap(), PermitResult::Granted);
    assert_eq!(permit("false").await.unwrap(), PermitResult::Refused);
    assert_eq!(permit("").await.unwrap(), PermitResult::NoObjection);
    for body in ["1", "\"true\"", "[]", "#{}", "identity", "|x| x", "1.5", "'t'"] {
        assert!(detail(permit(body).await).contains("it must return true, false or ()"), "{body}");
    }
}

#[tokio::test]
async fn thrown_denial_denies() {
    for body in [
        "throw #{ error: \"CLOSED\", status: 403, description: \"Closed.\" };",
        "deny(403, \"CLOSED\", \"Closed.\");",
        "deny(403, \"CLOSED\", \"Closed.\"); true",
        "let f = |x| deny(403, \"CLOSED\", x); f.call(\"Closed.\"); true",
        "try { deny(403, \"CLOSED\", \"Closed.\"); } catch (e) { throw e; } true",
    ] {
        let refusal = refusal(permit(body).await);
        assert_eq!(refusal.status, StatusCode::FORBIDDEN);
        assert_eq!((refusal.code.as_str(), refusal.description.as_str()), ("CLOSED", "Closed."));
        assert!(refusal.place.starts_with("hooks.rhai:1:"), "{}", refusal.place);
    }
    let body = "throw #{ error: \"A\", status: 429, headers: #{ \"Retry-After\": \"5\" } };";
    assert_eq!(refusal(permit(body).await).headers["retry-after"], "5");
}

#[tokio::test]
async fn every_other_throw_is_a_failure() {
    for body in [
        "throw;",
        "throw \"text\";",
        "throw 403;",
        "throw 1.5;",
        "throw true;",
        "throw ();",
        "throw 'c';",
        "throw [];",
        "throw #{};",
        "throw identity;",
        "throw req;",
        "throw |x| x;",
        "throw blob(3, 0);",
        "throw #{ error: \"A\", status: 200 };",
        "throw #{ error: \"A\", status: 302 };",
        "throw #{ error: \"A\", status: 399 };",
        "throw #{ error: \"A\", status: 600 };",
        "throw #{ error: \"A\", status: -1 };",
        "throw #{ error: \"A\", status: 65936 };",
        "throw #{ error: \"A\", status: \"403\" };",
        "throw #{ error: \"A\" };",
        "throw #{ status: 403 };",
        "throw #{ error: \"a\", status: 403 };",
        "throw #{ error: \"\", status: 403 };",
        "throw #{ error: 1, status: 403 };",
        "throw #{ error: \"A\", status: 403, description: 1 };",
        "throw #{ error: \"A\", status: 403, description: \"a\\r\\nb\" };",
        "throw #{ error: \"A\", status: 403, headers: 1 };",
        "throw #{ error: \"A\", status: 403, headers: #{ a: \"b\\r\\nc: d\" } };",
        "throw #{ error: \"A\", status: 403, headers: #{ a: 1 } };",
        "throw #{ error: \"A\", status: 403, headers: #{ \"content-length\": \"1\" } };",
        "throw #{ error: \"A\", status: 403, other: 1 };",
        "deny(200, \"A\", \"a\");",
        "deny(403, \"a b\", \"a\");",
        "deny(403, \"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\", \"a\");",
    ] {
        let message = detail(permit(body).await);
        assert!(message.starts_with("hooks.rhai:1:"), "{body}: {message}");
    }
    // exit() does not bypass the check, because its value is checked like a return value.
    assert!(detail(permit("exit(\"yes\");").await).contains("returned string"));
}

#[tokio::test]
async fn hook_that_returns_false_fails() {
    let text = "fn on_request(req) { req.param(\"r\") == () }
        fn on_authenticated(req, identity) { if req.param(\"r\") == () { \"no\" } }";
    let folder = Folder::of(&[("resources/orders.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    assert!(set.hooks(Function::OnRequest, None).next().is_none());
    let script = set.hooks(Function::OnRequest, Some("orders")).next().unwrap();
    let with = req().changed(|parts| parts.query = Some("r=1".into()));
    script.on_request(&req()).await.unwrap();
    assert!(detail(script.on_request(&with).await).contains("use deny()"));
    script.on_authenticated(&with, &llama_identity()).await.unwrap();
    assert!(
        detail(script.on_authenticated(&req(), &llama_identity()).await).contains("use deny()")
    );
    assert!(
        detail(script.on_permit(&req(), &llama_identity(), &resource()).await)
            .contains("not define")
    );
}

#[tokio::test]
async fn an_authentication_type_reads_decodes_looks_up_and_verifies() {
    let text = r#"
        const WHERE = "key";
        fn header(req) { req.param(WHERE) }
        fn decode(req, presented) {
            let parts = presented.split(":");
            #{ user: parts[0], secret: parts[1] }
        }
        fn lookup(req, credential) { user_by_name(credential.user) }
        fn verify(req, user, credential) {
            if credential.secret == "old" { return #{ scopes: ["graze"], adopt: credential.secret }; }
            user.name == "llama" && constant_time_eq(credential.secret, "right")
        }
        fn test_decode() { assert_eq(decode((), "a:b"), #{ user: "a", secret: "b" }); }"#;
    let folder = Folder::of(&[("auth/query.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.auth("query").unwrap();
    let with = |query: &str| req().changed(|parts| parts.query = Some(query.to_owned()));

    assert!(script.header(&with("")).await.unwrap().is_none());
    let presented = script.header(&with("key=llama:right")).await.unwrap().unwrap();
    let claim = script.decode(&req(), presented.expose()).await.unwrap();
    assert_eq!(claim.text("user").as_deref(), Some("llama"));
    assert_eq!(script.lookup(&req(), &claim).await.unwrap(), LookupResult::User(7));
    let verdict = script.verify(&req(), &llama(), &claim).await.unwrap();
    assert!(matches!(verdict, VerifyResult::Match(CredentialTerms { scopes: None, adopt: None })));

    let nobody = script.decode(&req(), "alpaca:wrong").await.unwrap();
    assert_eq!(script.lookup(&req(), &nobody).await.unwrap(), LookupResult::NoUser);
    assert!(matches!(
        script.verify(&req(), &llama(), &nobody).await.unwrap(),
        VerifyResult::NoMatch
    ));
    let old = script.decode(&req(), "llama:old").await.unwrap();
    let VerifyResult::Match(terms) = script.verify(&req(), &llama(), &old).await.unwrap() else {
        panic!("refused")
    };
    assert_eq!(terms.scopes.unwrap(), ["graze"]);
    assert_eq!(terms.adopt.unwrap().expose(), "old");
    // The script fails on a credential without a colon.
    assert!(detail(script.decode(&req(), "nothing").await).contains("index"));
}

#[tokio::test]
async fn wrong_types_from_an_authentication_type_are_failures() {
    let text = "fn header(req) { 1 } fn decode(req, presented) { presented }
        fn lookup(req, credential) { credential.a } fn verify(req, user, credential) { credential.a }";
    let folder = Folder::of(&[("auth/wrong.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.auth("wrong").unwrap();
    assert!(detail(script.header(&req()).await).contains("a text or ()"));
    assert!(detail(script.decode(&req(), "text").await).contains("a map"));

    let values =
        ["1", "\"a\"", "true", "()", "[]", "#{}", "#{ scopes: [1] }", "#{ ok: true }", "-1"];
    for value in values {
        let text = format!(
            "fn lookup(req, credential) {{ {value} }} fn verify(req, user, credential) {{ {value} }}"
        );
        let folder = Folder::of(&[("auth/wrong.rhai", &text)]);
        let scripts = folder.load().unwrap();
        let set = scripts.current();
        let script = set.auth("wrong").unwrap();
        let claim = ScriptClaim::of_pair("llama", "secret");
        let found = script.lookup(&req(), &claim).await;
        match value {
            "1" => assert_eq!(found.unwrap(), LookupResult::User(1)),
            "()" => assert_eq!(found.unwrap(), LookupResult::NoUser),
            _ => assert!(detail(found).contains("a user, a user's number, or ()"), "{value}"),
        }
        let verdict = script.verify(&req(), &llama(), &claim).await;
        match value {
            "true" => assert!(matches!(verdict, Ok(VerifyResult::Match(_)))),
            _ => assert!(detail(verdict).contains("it must return true, false, or"), "{value}"),
        }
    }
}

#[tokio::test]
async fn no_failure_contains_a_credential() {
    let text = "fn decode(req, presented) {
        if presented.contains(\"throw\") { throw presented; }
        if presented.contains(\"map\") { return #{}[presented].x; }
        #{ n: parse_int(presented) } }";
    let folder = Folder::of(&[("auth/leaky.rhai", text)]);
    let scripts = folder.load().unwrap();
    let set = scripts.current();
    let script = set.auth("leaky").unwrap();
    for secret in ["hunter2-throw", "hunter2-map", "hunter2"] {
        let outcome = script.decode(&req(), secret).await;
        let message = detail(outcome);
        assert!(!message.contains("hunter2"), "{message}");
    }
    let shown = format!("{:?} {:?}", req(), ScriptClaim::of_pair("llama", "hunter2"));
    assert_eq!(shown, "ScriptRequest(POST /orders) ScriptClaim(…)");
}

#[tokio::test]
async fn denial_can_change_but_stays_a_denial() {
    let denial = || {
        ScriptDenial::new(DenialParts {
            phase: "verify".into(),
            status: StatusCode::UNAUTHORIZED,
            code: "AUTHENTICATION_FAILED".into(),
            description: "No.".into(),
            body: None,
            content_type: None,
            headers: HeaderMap::new(),
        })
    };
    let run = async |body: &str| {
        let text = format!("fn on_denied(req, denial) {{ {body} }}");
        let folder = Folder::of(&[("hooks.rhai", &text)]);
        let scripts = folder.load().unwrap();
        let set = scripts.current();
        let denial = denial();
        let script = set.hooks(Function::OnDenied, None).next().unwrap();
        script.on_denied(&req(), &denial).await.map(|()| denial.take())
    };
    let parts = run("denial.status = 404; denial.body = json_text(#{ title: denial.error });
        denial.content_type = \"application/problem+json\"; denial.set_header(\"Retry-After\", \"1\");
        denial.description = \"Nothing here.\";")
    .await
    .unwrap();
    assert_eq!(parts.status, StatusCode::NOT_FOUND);
    assert_eq!(parts.body.as_deref(), Some("{\"title\":\"AUTHENTICATION_FAILED\"}"));
    assert_eq!(parts.content_type.as_deref(), Some("application/problem+json"));
    assert_eq!(parts.headers["retry-after"], "1");
    assert_eq!(parts.description, "Nothing here.");
    for status in ["200", "204", "302", "399", "600", "100", "0", "-1", "65736"] {
        assert!(detail(run(&format!("denial.status = {status};")).await).contains("400 to 599"));
    }
    for body in [
        "denial.set_header(\"a\", \"b\\r\\nSet-Cookie: c\");",
        "denial.set_header(\"a\\r\\nb\", \"c\");",
        "denial.set_header(\"a b\", \"c\");",
        "denial.set_header(\"\", \"c\");",
        "denial.set_header(\"a\", \"\\x00\");",
        "denial.set_header(\"Content-Length\", \"0\");",
        "denial.set_header(\"TRANSFER-ENCODING\", \"chunked\");",
        "denial.set_header(\"Connection\", \"close\");",
        "denial.set_header(\"Upgrade\", \"h2c\");",
        "denial.set_header(\"Host\", \"a\");",
        "denial.set_header(\"X-Keyward-User\", \"admin\");",
        "denial.content_type = \"a\\nb\";",
        "denial.room = \"permit\";",
        "for i in 0..100 { denial.set_header(`x-${i}`, \"a\"); }",
    ] {
        let message = detail(run(body).await);
        assert!(message.starts_with("hooks.rhai:1:"), "{body}: {message}");
    }
    // Even if Rust code sets an invalid status, the status is not sent.
    let mut wrong = denial().take();
    wrong.status = StatusCode::OK;
    assert_eq!(ScriptDenial::new(wrong).take().status, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn response_can_change_within_limits() {
    let run = async |body: &str, whole: Option<&'static str>| {
        let text = format!("fn on_response(req, identity, response) {{ {body} }}");
        let folder = Folder::of(&[("hooks.rhai", &text)]);
        let scripts = folder.load().unwrap();
        let set = scripts.current();
        let mut headers = HeaderMap::new();
        headers.insert("server", HeaderValue::from_static("apache"));
        let body = whole.map(|text| Bytes::from_static(text.as_bytes()));
        let response = ScriptResponse::new(ResponseParts { status: StatusCode::OK, headers, body });
        let script = set.hooks(Function::OnResponse, None).next().unwrap();
        script.on_response(&req(), &llama_identity(), &response).await.map(|()| response.take())
    };
    let parts = run(
        "response.set_header(\"X-Was\", response.header(\"server\")); response.remove_header(\"Server\");
        if response.header(\"Server\") == () { response.status = 202; }
        response.body = response.body + \"!\";",
        Some("hello"),
    )
    .await
    .unwrap();
    assert_eq!((parts.status.as_u16(), parts.body.as_deref()), (202, Some(&b"hello!"[..])));
    assert_eq!(parts.headers["x-was"], "apache");
    assert!(!parts.headers.contains_key("server"));
    assert_eq!(
        run("if response.body == () { response.status = 201; }", None).await.unwrap().status,
        201
    );
    for body in [
        "response.body = \"a\";",
        "response.status = 100;",
        "response.remove_header(\"Connection\");",
    ] {
        detail(run(body, None).await.map(|_| ()));
    }
}

#[tokio::test]
async fn handler_responds() {
    let run = async |body: &str| {
        let text = format!("fn handle(req, identity) {{ {body} }}");
        let folder = Folder::of(&[("handlers/hello.rhai", &text)]);
        let scripts = folder.load().unwrap();
        let set = scripts.current();
        set.handler("hello").unwrap().handle(&req(), &llama_identity()).await
    };
    for (body, status, content_type, sent) in [
        ("#{ hello: identity.name }", 200, "application/json", "{\"hello\":\"llama\"}"),
        ("[1, ()]", 200, "application/json", "[1,null]"),
        ("\"hello\"", 200, "text/plain; charset=utf-8", "hello"),
        ("respond(201, #{ a: 1 })", 201, "application/json", "{\"a\":1}"),
        ("respond(200, \"<p>\", \"text/html\")", 200, "text/html", "<p>"),
        ("respond(200, blob(2, 65), \"image/png\")", 200, "image/png", "AA"),
    ] {
        let reply = run(body).await.unwrap();
        assert_eq!(reply.status.as_u16(), status);
        assert_eq!(reply.headers["content-type"], content_type);
        assert_eq!(reply.body, sent);
    }
    let reply =
        run("let r = respond(302, ()); r.set_header(\"Location\", \"/new\"); r").await.unwrap();
    assert_eq!((reply.status.as_u16(), reply.headers["location"].to_str().unwrap()), (302, "/new"));
    assert!(reply.body.is_empty() && !reply.headers.contains_key("content-type"));
    for body in [
        "",
        "1",
        "true",
        "identity",
        "respond(99, \"\")",
        "respond(700, \"\")",
        "respond(200, \"\", \"a\\r\\nb: c\")",
        "respond(200, identity)",
        "[identity]",
        "let r = respond(200, \"\"); r.set_header(\"a\", \"b\\r\\nc: d\"); r",
    ] {
        detail(run(body).await);
    }
    assert_eq!(refusal(run("deny(404, \"NONE\", \"None.\")").await).status, 404);
}
