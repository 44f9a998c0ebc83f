//! A host has one spelling in every face, so that no other spelling leads to other rules.

use http::Method;
use keyward::{ClientSource, GuardLayer};
use serde_json::{Value, json};

use super::{
    DIALECTS,
    corpus::TestRequest,
    fixture::Fixture,
    listen,
    records::{echo, merged, put, send, send_to_layer, served},
};

/// The guarded host.
const HOST: &str = "api.example";
/// Spellings of the guarded host.
const SAME: &[&str] = &[
    "api.example",
    "API.example",
    "Api.Example",
    "api.example.",
    "API.EXAMPLE.",
    "api.example:",
    "api.example.:",
    "api.example:80",
    "api.example:080",
    "api.example.:80",
    "api.example:8080",
    "api.example.:8080",
    "%61pi.example",
    "api%2eexample",
    "api.example%2E",
    "ａｐｉ.example",
    "api。example",
    "API．EXAMPLE",
    "api.exam\u{ad}ple",
    "𝐚pi.example",
];
/// Hosts that are refused, whatever the resources are.
const REFUSED: &[&str] = &[
    "",
    ".",
    "api.example..",
    "api..example",
    ".api.example",
    "api.example:65536",
    "api.example:80:80",
    "api.example:http",
    "user@api.example",
    "api.example%00",
    "api.example%2e.",
    "%2561pi.example",
    "api.ex%ffample",
    "xn--a.example",
    "127.1",
    "0x7f.0.0.1",
    "0177.0.0.1",
    "2130706433",
    "127.0.0.1.1",
    "[::1",
    "[::ffff:127.0.0.1]",
    "[fe80::1%25eth0]",
    "[::1].",
];
/// Other pairs of spellings: the host in the record, and the host in the request.
const PAIRS: &[(&str, &str)] = &[
    ("Bücher.example", "xn--bcher-kva.example"),
    ("xn--bcher-kva.example", "bücher.example"),
    ("bücher.example", "BU\u{308}CHER.example."),
    ("bücher.example", "b%C3%BCcher.example:80"),
    ("API.Example.", "api.example"),
    ("127.0.0.1", "127.0.0.1."),
    ("127.0.0.1", "１２７.0.0.1"),
    ("[0:0::1]", "[::1]"),
    ("[::1]", "[0:0:0:0:0:0:0:1]:80"),
    ("[2001:db8::1]", "[2001:DB8:0::1]"),
    ("a_b.example", "A_B.example"),
];

/// Stores a guarded resource for a host, and an open one for all hosts. A record may have its host
/// in any spelling, as older versions stored it.
async fn put_both(fixture: &Fixture, host: &str, handler: &Value) {
    let own = json!({ "id": "own", "path": "/w/{x}", "host": host });
    let open = json!({ "id": "open", "path": "/w/{x}", "authentication": ["anonymous"] });
    put(fixture, merged(&own, handler)).await;
    put(fixture, merged(&open, handler)).await;
}

/// Sends requests without a credential to every face, and compares the status.
async fn every_face_gives(cases: &[(&str, &str, u16)]) {
    let fixture = Fixture::new().await;
    let (address, verify) = listen(&fixture).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let upstream = echo().await;
    for (record, host, status) in cases {
        for handler in served(&upstream) {
            put_both(&fixture, record, &handler).await;
            let response = send(address, "GET", "/w/1", &[("host", host)]).await;
            assert_eq!(response.status(), *status, "{handler} {host:?}");
            let (response, _) = send_to_layer(&layer, "GET", "/w/1", &[("host", host)]).await;
            assert_eq!(response.status(), *status, "layer {host:?}");
        }
        put_both(&fixture, record, &json!({ "handler": "decide" })).await;
        for dialect in &DIALECTS {
            let request = TestRequest::new(Method::GET, "/w/1", &[("host", host)]);
            let (found, code) = dialect.verdict(&request, "127.0.0.1", verify).await;
            assert_eq!(found, *status, "{} {host:?} {code}", dialect.name);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_spelling_of_a_host_has_the_rules_of_the_host() {
    assert!(SAME.len() + PAIRS.len() >= 20);
    let mut cases: Vec<_> = SAME.iter().map(|host| (HOST, *host, 401)).collect();
    cases.extend(PAIRS.iter().map(|(record, host)| (*record, *host, 401)));
    // Another host has the rules for any host, and shows that the test can fail.
    cases.extend([(HOST, "api.example.org", 200), (HOST, "api-example", 200)]);
    every_face_gives(&cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ambiguous_host_is_refused_by_every_face() {
    let cases: Vec<_> = REFUSED.iter().map(|host| (HOST, *host, 400)).collect();
    every_face_gives(&cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn absolute_target_with_another_host_is_refused() {
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let upstream = echo().await;
    for handler in served(&upstream) {
        put_both(&fixture, HOST, &handler).await;
        for (target, host, status) in [
            ("http://api.example/w/1", "pub.example", 400),
            ("http://pub.example/w/1", "api.example", 400),
            ("http://api.example:81/w/1", "api.example", 400),
            ("http://API.example:80/w/1", "api.example.", 401),
            ("http://api.example/w/1", "api.example", 401),
        ] {
            let response = send(address, "GET", target, &[("host", host)]).await;
            assert_eq!(response.status(), status, "{target} {host}");
        }
        let twice = [("host", HOST), ("host", HOST)];
        assert_eq!(send(address, "GET", "/w/1", &twice).await.status(), 400);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn host_goes_on_as_it_was_decided_about() {
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let upstream = echo().await;
    let [_, proxy] = served(&upstream);
    put_both(&fixture, HOST, &proxy).await;
    let key = ("api-key", fixture.ada.as_str());
    for (host, normal) in [
        ("API.example.:80", "api.example"),
        ("%61pi.example:8080", "api.example:8080"),
        ("api.example", "api.example"),
    ] {
        let response = send(address, "GET", "/w/1", &[("host", host), key]).await;
        let seen: Value = serde_json::from_slice(response.body()).unwrap();
        assert_eq!(seen["headers"]["host"], normal, "{host}");
        assert_eq!(seen["headers"]["x-forwarded-host"], normal, "{host}");
        let forwarded = seen["headers"]["forwarded"].as_str().unwrap();
        assert!(forwarded.contains(&format!("host=\"{normal}\"")), "{forwarded}");

        let missing = send(address, "GET", "/nowhere", &[("host", host), key]).await;
        let text = String::from_utf8_lossy(missing.body()).into_owned();
        assert!(text.contains(&format!("GET http://{normal}/nowhere")), "{text}");

        let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
        let (_, seen) = send_to_layer(&layer, "GET", "/w/1", &[("host", host), key]).await;
        assert_eq!(seen, Some(("/w/1".into(), normal.into())), "{host}");
        let target = format!("http://{host}/w/1");
        if let Ok(uri) = target.parse::<http::Uri>() {
            let fields = [("host", host), key];
            let (_, seen) = send_to_layer(&layer, "GET", &uri.to_string(), &fields).await;
            assert_eq!(seen, Some((format!("http://{normal}/w/1"), normal.into())), "{host}");
        }
    }
}
