//! Tests of the tower layer: the requests that the layer allows, and the requests that the service
//! behind the layer receives. (`faces` tests that the layer decides like the server.)

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use keyward::{
    ClientSource, GuardLayer,
    accounts::{AccountError, NewKey},
    handlers::BodyLimits,
    layer::ClientAddress,
    model::{Actor, Application, RateLimit},
};
use tower::{Layer as _, ServiceExt as _};

use crate::faces::{
    corpus::TestRequest,
    fixture::{Fixture, TIMEOUT, send_through, user},
};

#[tokio::test]
async fn service_gets_the_identity_and_no_forged_header_fields() {
    let fixture = Fixture::new().await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).rewriting_paths();
    let forged = [
        ("api-key", fixture.ada.as_str()),
        ("x-keyward-user", "root"),
        ("x_keyward_roles", "administrator"),
        ("x-mine", "kept"),
    ];
    let request = TestRequest::new(Method::POST, "/x/../orders/%37?q=%2e", &forged);
    let (response, received) =
        send_through(&layer, TestRequest { body: "whole", ..request }.request()).await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, b"in".as_slice()));
    let received = received.lock().unwrap();
    let (identity, uri, headers, body) = &received[0];
    assert_eq!(
        (identity.name(), identity.roles()),
        (Some("ada"), ["reader".to_owned()].as_slice())
    );
    assert_eq!((identity.application(), identity.is_anonymous()), (Some("default"), false));
    assert!(identity.key().is_some() && identity.uid().is_some());
    assert!(identity.has("read") && !identity.has("write"));
    assert_eq!((uri.to_string().as_str(), &body[..]), ("/orders/7?q=%2e", b"whole".as_slice()));
    let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["host", "x-mine"]);
}

#[tokio::test]
async fn layer_without_resources_uses_its_own_requirements() {
    let fixture = Fixture::new().await;
    let any_user = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let reader = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires("read");
    let reader_and_writer = reader.clone().requires("write");
    let anyone = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).admits_anyone();
    let anyone_with_read = anyone.clone().requires("read");
    for (layer, credential, status) in [
        (&any_user, "", 401),
        (&any_user, "!", 401),
        (&any_user, &fixture.bob, 200),
        (&reader, "", 401),
        (&reader, &fixture.bob, 403),
        (&reader, &fixture.ada, 200),
        (&reader_and_writer, &fixture.ada, 403),
        (&anyone, "", 200),
        (&anyone, "!", 401),
        (&anyone, &fixture.bob, 200),
        (&anyone_with_read, "", 403),
        (&anyone_with_read, &fixture.ada, 200),
    ] {
        // No resource matches this path, and the request has no Host field.
        let mut request = Request::get("/anything/at/all");
        if !credential.is_empty() {
            request = request.header("api-key", credential);
        }
        let request = request.body(Full::default()).unwrap();
        let (response, received) = send_through(layer, request).await;
        assert_eq!(response.status(), status, "{layer:?} {credential}");
        assert_eq!(received.lock().unwrap().len(), usize::from(status == 200));
        if let Some((identity, ..)) = received.lock().unwrap().first() {
            assert_eq!(identity.is_anonymous(), credential.is_empty());
        }
    }
    // A request through a disabled application is anonymous.
    let writer = fixture.accounts.as_actor(Actor::Program);
    let disabled = writer.change("default", None, |application: &mut Application| {
        application.enabled = false;
        Ok::<_, AccountError>(())
    });
    disabled.await.unwrap();
    let request = Request::get("/").header("api-key", &fixture.ada).body(Full::default()).unwrap();
    assert_eq!(send_through(&any_user, request).await.0.status(), 403);
}

#[tokio::test]
async fn path_that_is_not_normalized_does_not_reach_a_route() {
    use axum::{Router, routing::get};
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    // The path as it is sent has the route of a protected resource, but the normalized path belongs
    // to an open resource.
    let routes = || Router::new().route("/orders/{*rest}", get(async || "orders"));
    let inside = routes().layer(GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()));
    let outside = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown())
        .rewriting_paths()
        .layer(routes());
    let traversal = || {
        let request = Request::get("/orders/../news").header("host", "api.example");
        request.body(axum::body::Body::empty()).unwrap()
    };
    assert_eq!(inside.oneshot(traversal()).await.unwrap().status(), 400);
    // A layer around the router checks the normalized path and passes it on. This path has no
    // route.
    assert_eq!(outside.oneshot(traversal()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn network_bound_keys_need_a_client_address() {
    let fixture = Fixture::new().await;
    let key = NewKey { networks: vec!["203.0.113.0/24".parse().unwrap()], ..NewKey::default() };
    let eve = user(&fixture.accounts, "eve", &[], key).await;
    let new = |client| GuardLayer::new(fixture.gate.clone(), client).requires_user();
    let (layer, unknown) = (new(ClientSource::extension()), new(ClientSource::unknown()));
    let peer: SocketAddr = "203.0.113.9:1".parse().unwrap();
    let with_client =
        new(ClientSource::from_fn(|parts| Some(parts.extensions.get::<SocketAddr>()?.ip())));
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(send_through(&unknown, request()).await.0.status(), 401);
    for (layer, address, status) in [(&layer, "203.0.113.9", 200), (&layer, "127.0.0.1", 401)] {
        let mut request = request();
        request.extensions_mut().insert(ClientAddress(address.parse::<IpAddr>().unwrap()));
        assert_eq!(send_through(layer, request).await.0.status(), status, "{address}");
    }
    let mut by_peer = request();
    by_peer.extensions_mut().insert(peer);
    assert_eq!(send_through(&with_client, by_peer).await.0.status(), 200);
}

#[tokio::test]
async fn rate_limit_is_enforced_and_reported_without_resources() {
    let fixture = Fixture::new().await;
    let rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
    let key = NewKey { rate_limit, ..NewKey::default() };
    let eve = user(&fixture.accounts, "eve", &[], key).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).requires_user();
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    for status in [200, 429] {
        let (response, _) = send_through(&layer, request()).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["ratelimit-policy"], "\"key\";q=1;w=3600");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
}

#[tokio::test]
async fn body_limit_applies_to_buffered_bodies_only() {
    let fixture = Fixture::new().await;
    let limits = BodyLimits { bytes: 4, read: TIMEOUT };
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown()).body_limits(limits);
    for (path, status) in [("/buffered", 413), ("/orders/7", 200)] {
        let request = TestRequest::new(Method::POST, path, &[("api-key", &fixture.ada)]);
        let (response, _) =
            send_through(&layer, TestRequest { body: "please", ..request }.request()).await;
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn gate_authenticates_without_authorizing() {
    use keyward::pipeline::{Face, Request as GateRequest};
    let fixture = Fixture::new().await;
    let context = fixture.gate.request_context();
    for (credential, name) in [(&fixture.ada, Some("ada")), (&"!".to_owned(), None)] {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("api-key"), credential.parse().unwrap())]
                .into_iter()
                .collect();
        let request = GateRequest {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            host: None,
            body: None,
            client: [127, 0, 0, 1].into(),
            face: Face::Public,
        };
        let result = fixture.gate.authenticate(&context, &request).await;
        assert_eq!(
            result.ok().and_then(|identity| identity.name().map(str::to_owned)).as_deref(),
            name
        );
    }
}

/// The layer's rule is the server's: a report counts only if a trusted proxy sent it.
#[tokio::test]
async fn client_is_the_one_that_a_trusted_proxy_reports() {
    let fixture = Fixture::new().await;
    let networks = vec!["203.0.113.0/24".parse().unwrap()];
    let key = NewKey { networks, ..NewKey::default() };
    let bound = user(&fixture.accounts, "bound", &["reader"], key).await;
    let layer = GuardLayer::new(fixture.gate.clone(), ClientSource::extension());
    let trusting = layer.clone().trusting_proxies(["127.0.0.0/8".parse().unwrap()]);
    for (layer, peer, name, value, status) in [
        (&trusting, "127.0.0.1", "x-forwarded-for", "203.0.113.7", 200),
        (&trusting, "127.0.0.1", "forwarded", "for=203.0.113.7", 200),
        (&trusting, "127.0.0.1", "x-forwarded-for", "203.0.113.7, 198.51.100.1", 401),
        (&trusting, "127.0.0.1", "x-forwarded-for", "unknown", 400),
        (&trusting, "127.0.0.1", "x-forwarded-proto", "gopher", 400),
        (&trusting, "198.51.100.1", "x-forwarded-for", "203.0.113.7", 401),
        (&layer, "127.0.0.1", "x-forwarded-for", "203.0.113.7", 401),
        (&layer, "203.0.113.7", "x-forwarded-for", "junk", 200),
    ] {
        let fields = [("api-key", bound.as_str()), (name, value)];
        let mut request = TestRequest::new(Method::GET, "/orders/7", &fields).request();
        request.extensions_mut().insert(ClientAddress(peer.parse().unwrap()));
        let (response, _) = send_through(layer, request).await;
        assert_eq!(response.status().as_u16(), status, "{peer} {name}: {value}");
    }
    let fields = [
        ("api-key", bound.as_str()),
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-proto", "https"),
    ];
    let mut request = TestRequest::new(Method::GET, "/nowhere", &fields).request();
    request.extensions_mut().insert(ClientAddress("127.0.0.1".parse().unwrap()));
    let (response, _) = send_through(&trusting, request).await;
    let text = String::from_utf8_lossy(response.body()).into_owned();
    assert!(text.contains("https://api.example/nowhere"), "{text}");
}
