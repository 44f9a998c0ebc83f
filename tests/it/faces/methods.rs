//! Methods beyond the usual ones, and methods in another case, in every face.

use http::{Method, Response};
use keyward::{ClientSource, GuardLayer};
use serde_json::{Value, json};

use super::{
    DIALECTS,
    corpus::{TestRequest, verdict},
    fixture::Fixture,
    listen,
    records::{echo, merged, put, send, send_to_layer, served},
};

const HOST: (&str, &str) = ("host", "api.example");

/// Sends requests with a key that lacks all permissions to every face, and compares the status.
async fn every_face_gives(record: Value, cases: &[(&str, u16)]) {
    let fixture = Fixture::new().await;
    let (address, verify) = listen(&fixture).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let upstream = echo().await;
    let fields = [HOST, ("api-key", fixture.bob.as_str())];
    for handler in served(&upstream) {
        put(&fixture, merged(&record, &handler)).await;
        for (method, status) in cases {
            let response = send(address, method, "/m", &fields).await;
            assert_eq!(response.status(), *status, "{handler} {method}");
            if handler["handler"] == "proxy"
                && *status == 200
                && !method.eq_ignore_ascii_case("head")
            {
                let seen: Value = serde_json::from_slice(response.body()).unwrap();
                let known = keyward::model::known_method(method).unwrap_or(method);
                assert_eq!(seen["method"], known);
            }
            let (response, seen) = send_to_layer(&layer, method, "/m", &fields).await;
            assert_eq!(response.status(), *status, "layer {method}");
            assert_eq!(seen.is_some(), *status == 200, "layer {method}");
        }
    }
    put(&fixture, merged(&record, &json!({ "handler": "decide" }))).await;
    for dialect in &DIALECTS {
        for (method, status) in cases {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let request = TestRequest::new(method, "/m", &fields);
            let (found, code) = dialect.verdict(&request, "127.0.0.1", verify).await;
            assert_eq!(found, *status, "{} {} {code}", dialect.name, request.method);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_method_can_be_listed() {
    let methods = ["GET", "OPTIONS", "PROPFIND", "PURGE", "QUERY", "M-SEARCH"];
    let record = json!({ "id": "m", "path": "/m", "methods": methods });
    let listed = methods.map(|method| (method, 200));
    let others = [("POST", 405), ("MKCOL", 405), ("TRACE", 405), ("propfind", 405), ("HEAD", 200)];
    every_face_gives(record, &[listed.as_slice(), &others].concat()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn query_needs_a_content_type_of_the_resource() {
    let methods = ["QUERY", "PROPFIND", "POST"];
    let record = json!({ "id": "m", "path": "/m", "methods": methods, "formats": ["json"] });
    every_face_gives(record, &[("QUERY", 415), ("POST", 415), ("PROPFIND", 200)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_method_is_allowed_with_its_permissions() {
    let record = json!({
        "id": "m", "path": "/m", "methods": ["any"],
        "permissions": { "DELETE": ["delete"], "PURGE": ["purge"] },
    });
    let cases = [
        ("GET", 200),
        ("HEAD", 200),
        ("POST", 200),
        ("OPTIONS", 200),
        ("REPORT", 200),
        ("report", 200),
        ("DELETE", 403),
        ("delete", 403),
        ("Delete", 403),
        ("PURGE", 403),
        // Another case of a method with a rule does not get the rule for any method.
        ("purge", 405),
        ("TRACE", 405),
        ("trace", 405),
    ];
    every_face_gives(record, &cases).await;
    let record = json!({
        "id": "m", "path": "/m", "methods": ["any"], "permissions": { "any": ["use"] },
    });
    let cases = ["GET", "POST", "PURGE", "OPTIONS", "HEAD"].map(|method| (method, 403));
    every_face_gives(record, &cases).await;
    let open = json!({ "formats": ["any"], "authentication": ["*"] });
    let closed = merged(&open, &json!({ "permissions": ["p"] }));
    let record = json!({
        "id": "m", "path": "/m", "granularity": "method",
        "methods": { "any": closed, "GET": open, "QUERY": open },
    });
    every_face_gives(record, &[("GET", 200), ("QUERY", 200), ("POST", 403), ("LOCK", 403)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn known_method_in_another_case_is_read_as_upper_case() {
    let methods = ["GET", "POST", "PATCH", "PUT", "OPTIONS"];
    let record = json!({ "id": "m", "path": "/m", "methods": methods });
    let cases = [
        ("patch", 200),
        ("Patch", 200),
        ("get", 200),
        ("post", 200),
        ("put", 200),
        ("options", 200),
        ("delete", 405),
        ("propfind", 405),
    ];
    every_face_gives(record, &cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn head_in_lower_case_gets_a_complete_response() {
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let upstream = echo().await;
    let fields = [HOST, ("api-key", fixture.ada.as_str())];
    for handler in served(&upstream) {
        put(&fixture, merged(&json!({ "id": "m", "path": "/m" }), &handler)).await;
        let response = send(address, "head", "/m", &fields).await;
        let length = response.headers().get("content-length").map(|value| value.to_str().unwrap());
        assert_eq!((response.status().as_u16(), response.body().len()), (200, 0), "{handler}");
        assert!(matches!(length, None | Some("0")), "{handler} {length:?}");
    }
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let (response, seen) = send_to_layer(&layer, "head", "/m", &fields).await;
    assert_eq!((response.status().as_u16(), response.body().len()), (200, 0));
    assert!(seen.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_method_names_the_listed_one_in_another_case() {
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let record = json!({
        "id": "m", "path": "/m", "handler": "respond", "methods": ["GET", "PROPFIND"],
    });
    put(&fixture, record).await;
    let fields = [HOST, ("api-key", fixture.ada.as_str())];
    let message = |response: &Response<bytes::Bytes>| verdict(response).1;
    let exact = "Method Not Allowed (Allow: GET, PROPFIND, HEAD)";
    let other_case = send(address, "PropFind", "/m", &fields).await;
    assert_eq!(other_case.headers()["allow"], "GET, PROPFIND, HEAD");
    assert_eq!(
        message(&other_case),
        format!(
            "No route found for \"PropFind http://api.example/m\": {exact}. Methods are \
             case-sensitive: send PROPFIND."
        )
    );
    let other = send(address, "POST", "/m", &fields).await;
    assert_eq!(
        message(&other),
        format!("No route found for \"POST http://api.example/m\": {exact}")
    );
}
