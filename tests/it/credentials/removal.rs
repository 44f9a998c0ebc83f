//! Tests that no upstream, and no service behind the layer, gets a credential.

use keyward::{ClientSource, GuardLayer};

use super::fixture::{Fixture, request, signature, token};
use crate::faces::fixture::send_through;

/// A request with a credential, and the target that the upstream gets.
struct Case {
    application: &'static str,
    /// The target without its first segment.
    target: String,
    expected_target: &'static str,
    fields: Vec<(&'static str, String)>,
    /// Texts that the upstream must not get.
    secrets: Vec<String>,
    /// Header fields that the upstream gets.
    kept: Vec<(&'static str, &'static str)>,
}

/// The cases of one face, whose paths begin with `prefix`. Each signature can be used once, so each
/// face needs cases of its own.
fn cases(fixture: &Fixture, prefix: &str) -> Vec<Case> {
    let token = token();
    let key = fixture.key.as_str();
    let target = "/x?page=2&q=%20a";
    let (signed, created) =
        signature(&format!("{prefix}{target}"), &format!("nonce-{}", &prefix[1..].repeat(8)));
    vec![
        Case {
            application: "jwt",
            target: target.into(),
            expected_target: target,
            fields: vec![("Authorization", format!("Bearer {token}")), ("X-Mine", "1".into())],
            secrets: vec![token],
            kept: vec![("x-mine", "1")],
        },
        Case {
            application: "hmac",
            target: target.into(),
            expected_target: target,
            fields: vec![
                ("Authorization", signed.clone()),
                ("X-Signature-Created", created.clone()),
                ("Date", "Mon, 05 Jan 2026 09:00:00 GMT".into()),
            ],
            secrets: vec![signed, created, "signature".into()],
            kept: vec![("date", "Mon, 05 Jan 2026 09:00:00 GMT")],
        },
        Case {
            application: "query_key",
            target: format!("/x?a=%20&api%5Fkey={key}&b&API-KEY=2"),
            expected_target: "/x?a=%20&b",
            fields: vec![("Referer", format!("https://a/?api_key={key}&c"))],
            secrets: vec![key.to_owned(), "api".to_owned() + "%5F"],
            kept: vec![("referer", "https://a/?c")],
        },
        Case {
            application: "query_key",
            target: format!("/x?api_key={key}"),
            expected_target: "/x",
            fields: vec![],
            secrets: vec![key.to_owned()],
            kept: vec![],
        },
        Case {
            application: "own",
            target: "/x?a=1".into(),
            expected_target: "/x?a=1",
            fields: vec![
                ("X-Client", "ada".into()),
                ("X_Client", "c0py".into()),
                ("x-proof", "pr00f".into()),
                ("X-PROOF.", "mine".into()),
                ("Cookie", "theme=dark; session=s3cret; lang=en".into()),
                ("X-Read-Later", "later".into()),
            ],
            secrets: vec!["s3cret".into(), "pr00f".into(), "c0py".into(), "x-client".into()],
            kept: vec![
                ("x-read-later", "later"),
                ("cookie", "theme=dark; lang=en"),
                ("x-proof.", "mine"),
            ],
        },
        Case {
            application: "whole_query",
            target: "/x?a=1&k=1".into(),
            expected_target: "/x",
            fields: vec![],
            secrets: vec!["k=1".into()],
            kept: vec![],
        },
        Case {
            application: "default",
            target: "/x?api_key=theirs".into(),
            expected_target: "/x?api_key=theirs",
            fields: vec![
                ("API-KEY", fixture.ada.clone()),
                ("Api_Key", "c0py".into()),
                ("Authorization", "Bearer theirs".into()),
            ],
            secrets: vec![fixture.ada.clone(), "c0py".into()],
            // The application default does not read this field, so it is for the upstream.
            kept: vec![("authorization", "Bearer theirs")],
        },
    ]
}

impl Case {
    fn fields(&self) -> Vec<(&str, &str)> {
        let fields = self.fields.iter().map(|(name, value)| (*name, value.as_str()));
        fields.chain([("AUTH-METHOD", self.application)]).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn upstream_gets_no_credential_wherever_it_was_read() {
    let fixture = Fixture::new().await;
    for case in cases(&fixture, "/p") {
        let seen = fixture.proxied(&format!("/p{}", case.target), &case.fields()).await;
        let context = format!("{} {seen:?}", case.application);
        assert_eq!(seen.target, format!("/p{}", case.expected_target), "{context}");
        assert_eq!(seen.get("x-keyward-user"), ["ada"], "{context}");
        assert_eq!(seen.get("auth-method"), [""; 0], "{context}");
        for secret in &case.secrets {
            assert!(!seen.text().contains(secret), "{secret} in {context}");
        }
        for (name, value) in &case.kept {
            assert_eq!(seen.get(name), [*value], "{context}");
        }
    }
    for case in cases(&fixture, "/k") {
        let seen = fixture.proxied(&format!("/k{}", case.target), &case.fields()).await;
        assert_eq!(seen.target, format!("/k{}", case.target));
        assert_eq!(seen.get("auth-method"), [case.application]);
        for (name, value) in &case.fields {
            assert!(seen.get(&name.to_lowercase()).contains(&value.as_str()), "{name} {seen:?}");
        }
    }
    for case in cases(&fixture, "/s") {
        let response = fixture.send(&format!("/s{}", case.target), &case.fields()).await;
        assert_eq!((response.status().as_u16(), &response.body()[..]), (200, b"in".as_slice()));
    }
}

#[tokio::test]
async fn service_behind_the_layer_gets_no_credential() {
    let fixture = Fixture::new().await;
    let program = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let resources = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for (prefix, layer) in [("/s", &program), ("/d", &resources)] {
        for case in cases(&fixture, prefix) {
            let seen =
                fixture.through(layer, &format!("{prefix}{}", case.target), &case.fields()).await;
            let context = format!("{} {seen:?}", case.application);
            assert_eq!(seen.target, format!("{prefix}{}", case.expected_target), "{context}");
            for secret in &case.secrets {
                assert!(!seen.text().contains(secret), "{secret} in {context}");
            }
            for (name, value) in &case.kept {
                assert_eq!(seen.get(name), [*value], "{context}");
            }
        }
    }
    let keeping = program.keeping_credential();
    for case in cases(&fixture, "/k") {
        let seen = fixture.through(&keeping, &format!("/k{}", case.target), &case.fields()).await;
        assert_eq!(seen.target, format!("/k{}", case.target));
        for (name, value) in &case.fields {
            assert!(seen.get(&name.to_lowercase()).contains(&value.as_str()), "{name} {seen:?}");
        }
    }
}

#[tokio::test]
async fn layer_inside_another_layer_decides_with_the_whole_request() {
    use tower::{Layer as _, ServiceExt as _, service_fn};
    let fixture = Fixture::new().await;
    let guard = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    for case in cases(&fixture, "/n") {
        let fields = case.fields();
        let target = format!("/n{}", case.target);
        let expected = format!("/n{}", case.expected_target);
        let secrets = case.secrets.clone();
        let inner = service_fn(move |request: http::Request<_>| {
            let seen = format!("{} {:?}", request.uri(), request.headers());
            assert_eq!(request.uri().to_string(), expected);
            assert!(!secrets.iter().any(|secret| seen.contains(secret)), "{seen}");
            let _: &http_body_util::Full<bytes::Bytes> = request.body();
            async { Ok::<_, std::convert::Infallible>(http::Response::new(String::new())) }
        });
        let nested = guard.layer(guard.layer(guard.layer(inner)));
        let response = nested.oneshot(request(&target, &fields)).await.unwrap();
        assert_eq!(response.status(), 200, "{}", case.application);
    }
}

#[tokio::test]
async fn proxy_in_front_is_told_the_target_without_the_credential() {
    let fixture = Fixture::new().await;
    for case in cases(&fixture, "/d") {
        let response = fixture.verify(&format!("/d{}", case.target), &case.fields()).await;
        assert_eq!(response.status(), 200, "{} {response:?}", case.application);
        let uri = response.headers()["x-keyward-uri"].to_str().unwrap();
        assert_eq!(uri, format!("/d{}", case.expected_target), "{}", case.application);
    }
    // The upstream of this resource gets the credential, so the proxy in front keeps it.
    let query = format!("/k/x?api_key={}", fixture.key);
    let response = fixture.verify(&query, &[("AUTH-METHOD", "query_key")]).await;
    assert_eq!(response.headers()["x-keyward-uri"], query.as_str());
}

#[tokio::test]
async fn anonymous_request_does_not_pass_on_a_credential_that_nobody_looked_at() {
    let fixture = Fixture::new().await;
    // The script finds no session, and so no credential. But it has looked at the field.
    let fields = [("AUTH-METHOD", "own"), ("X-Client", "ada"), ("Cookie", "a=1")];
    let seen = fixture.proxied("/o/x", &fields).await;
    assert_eq!((seen.get("x-keyward-user"), seen.get("x-client")), (vec![], vec![]));
    assert_eq!(seen.get("cookie"), ["a=1"]);
    let writer = fixture.accounts.as_actor(keyward::model::Actor::Program);
    for id in ["query_key", "jwt", "own", "default"] {
        let disable = |application: &mut keyward::model::Application| {
            application.enabled = false;
            Ok::<_, keyward::accounts::AccountError>(())
        };
        writer.change(id, None, disable).await.unwrap();
    }
    let key = fixture.key.as_str();
    let bearer = format!("Bearer {}", token());
    let target = format!("/o/x?api_key={key}&a");
    for (id, removed) in [("query_key", "/o/x?a"), ("jwt", &*target), ("default", &*target)] {
        let fields = [("AUTH-METHOD", id), ("Authorization", &bearer), ("API-KEY", &fixture.ada)];
        let seen = fixture.proxied(&target, &fields).await;
        assert_eq!(seen.target, removed, "{id}");
        assert_eq!(seen.get("x-keyward-user"), [""; 0]);
        assert_eq!(seen.get("api-key"), [""; 0], "{id}");
        assert_eq!(seen.get("authorization").is_empty(), id == "jwt", "{id}");
    }
}

#[tokio::test]
async fn credential_in_the_body_is_refused_unless_the_resource_keeps_it() {
    let fixture = Fixture::new().await;
    for (path, status) in [("/p/x", 401), ("/k/x", 401)] {
        let response = fixture.send(path, &[("AUTH-METHOD", "body")]).await;
        assert_eq!(response.status(), status, "{path} {:?}", response.body());
    }
    for (id, path, keeps, status) in [("b1", "/b1", false, 503), ("b2", "/b2", true, 502)] {
        let proxy =
            serde_json::json!({ "upstreams": ["http://127.0.0.1:1"], "keep_credential": keeps });
        fixture
            .add(serde_json::json!({ "id": id, "path": path, "handler": "proxy", "proxy": proxy, "buffer_body": true }))
            .await;
        let text = format!(
            "POST {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\nauth-method: body\r\ncontent-length: 3\r\n\r\nada"
        );
        let response = crate::faces::corpus::exchange(fixture.address, &text).await;
        assert_eq!(response.status(), status, "{path} {:?}", response.body());
    }
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let post = |path: &str| {
        let mut request = request(path, &[("auth-method", "body")]);
        *request.method_mut() = http::Method::POST;
        *request.body_mut() = "ada".into();
        request
    };
    assert_eq!(send_through(&layer, post("/b1")).await.0.status(), 503);
    assert_eq!(send_through(&layer, post("/b2")).await.0.status(), 200);
}

#[tokio::test]
async fn axums_copy_of_the_target_has_no_credential() {
    use crate::layer_places::send;
    use axum::{Router, extract::OriginalUri, routing::get};
    let fixture = Fixture::new().await;
    let guard = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let show =
        async |OriginalUri(original): OriginalUri, uri: http::Uri| format!("{original} {uri}");
    let app = Router::new().nest("/q", Router::new().route("/x", get(show)).layer(guard));
    let cases = cases(&fixture, "/q");
    let in_query = cases.iter().filter(|case| case.target.contains('?'));
    let mut count = 0;
    for case in in_query {
        let target = format!("/q/x?{}", case.target.split_once('?').unwrap().1);
        let (status, _, body) = send(&app, &target, &case.fields()).await;
        assert_eq!(status, 200, "{} {body}", case.application);
        for secret in &case.secrets {
            assert!(!body.contains(secret), "{secret} in {body}");
        }
        count += 1;
    }
    assert!(count > 0);
}
