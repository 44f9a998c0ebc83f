//! The layer: whom it lets in, and what the service behind it learns. That it decides as the other faces do is in `faces`.

use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::Full;
use keyward::{
    Layer,
    accounts::{AccountError, NewKey},
    handlers::BodyLimits,
    layer::Client,
    model::{Actor, Application, RateLimit},
};
use tower::{Layer as _, ServiceExt as _};

use crate::faces::{
    corpus::Asked,
    rig::{House, PATIENCE, ask, user},
};

#[tokio::test]
async fn the_service_learns_who_asks_and_nothing_that_a_client_made_up() {
    let house = House::new().await;
    let layer = Layer::new(house.gate.clone()).rewriting_paths();
    let forged = [
        ("api-key", house.ada.as_str()),
        ("x-keyward-user", "root"),
        ("x_keyward_roles", "administrator"),
        ("x-mine", "kept"),
    ];
    let asked = Asked::new(Method::POST, "/x/../orders/%37?q=%2e", &forged);
    let (response, seen) = ask(&layer, Asked { body: "whole", ..asked }.request()).await;
    assert_eq!((response.status().as_u16(), &response.body()[..]), (200, b"in".as_slice()));
    let seen = seen.lock().unwrap();
    let (who, uri, headers, body) = &seen[0];
    assert_eq!((who.name(), who.roles()), (Some("ada"), ["reader".to_owned()].as_slice()));
    assert_eq!((who.application(), who.is_anonymous()), (Some("default"), false));
    assert!(who.key().is_some() && who.uid().is_some());
    assert!(who.has("read") && !who.has("write"));
    assert_eq!((uri.to_string().as_str(), &body[..]), ("/orders/7?q=%2e", b"whole".as_slice()));
    let names: Vec<_> = headers.keys().map(|name| name.as_str()).collect();
    assert_eq!(names, ["host", "api-key", "x-mine"]);
}

#[tokio::test]
async fn a_program_without_resources_says_itself_who_may() {
    let house = House::new().await;
    let known = Layer::new(house.gate.clone()).requires_user();
    let reads = Layer::new(house.gate.clone()).requires("read");
    let both = reads.clone().requires("write");
    let anyone = Layer::new(house.gate.clone()).admits_anyone();
    let none_reads = anyone.clone().requires("read");
    for (layer, who, status) in [
        (&known, "", 401),
        (&known, "!", 401),
        (&known, &house.bob, 200),
        (&reads, "", 401),
        (&reads, &house.bob, 403),
        (&reads, &house.ada, 200),
        (&both, &house.ada, 403),
        (&anyone, "", 200),
        (&anyone, "!", 401),
        (&anyone, &house.bob, 200),
        (&none_reads, "", 403),
        (&none_reads, &house.ada, 200),
    ] {
        // No resource describes this path, and no host is named.
        let mut request = Request::get("/anything/at/all");
        if !who.is_empty() {
            request = request.header("api-key", who);
        }
        let request = request.body(Full::default()).unwrap();
        let (response, seen) = ask(layer, request).await;
        assert_eq!(response.status(), status, "{layer:?} {who}");
        assert_eq!(seen.lock().unwrap().len(), usize::from(status == 200));
        if let Some((identity, ..)) = seen.lock().unwrap().first() {
            assert_eq!(identity.is_anonymous(), who.is_empty());
        }
    }
    // Switched off, the application's requests are anonymous: nobody is known by them.
    let acting = house.accounts.acting(Actor::Program);
    let off = acting.change("default", None, |one: &mut Application| {
        one.enabled = false;
        Ok::<_, AccountError>(())
    });
    off.await.unwrap();
    let request = Request::get("/").header("api-key", &house.ada).body(Full::default()).unwrap();
    assert_eq!(ask(&known, request).await.0.status(), 403);
}

#[tokio::test]
async fn a_route_that_was_chosen_by_another_spelling_is_not_entered() {
    use axum::{Router, routing::get};
    let house = House::with("fn on_request(req) {}").await;
    // The route is for somebody else, and the resource of the path that it would become is open.
    let routes = || Router::new().route("/orders/{*rest}", get(async || "orders"));
    let inside = routes().layer(Layer::new(house.gate.clone()));
    let outside = Layer::new(house.gate.clone()).rewriting_paths().layer(routes());
    let sneaky = || {
        let request = Request::get("/orders/../news").header("host", "api.example");
        request.body(axum::body::Body::empty()).unwrap()
    };
    assert_eq!(inside.oneshot(sneaky()).await.unwrap().status(), 400);
    // Outside, the router sees what was checked, and has nothing there.
    assert_eq!(outside.oneshot(sneaky()).await.unwrap().status(), 404);
}

#[tokio::test]
async fn keys_that_are_bound_to_networks_need_an_address() {
    let house = House::new().await;
    let key = NewKey { networks: vec!["203.0.113.0/24".parse().unwrap()], ..NewKey::default() };
    let eve = user(&house.accounts, "eve", &[], key).await;
    let layer = Layer::new(house.gate.clone()).requires_user();
    let peer: SocketAddr = "203.0.113.9:1".parse().unwrap();
    let found = layer.clone().client_from(|parts| Some(parts.extensions.get::<SocketAddr>()?.ip()));
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(ask(&layer, request()).await.0.status(), 401);
    for (layer, address, status) in [(&layer, "203.0.113.9", 200), (&layer, "127.0.0.1", 401)] {
        let mut request = request();
        request.extensions_mut().insert(Client(address.parse::<IpAddr>().unwrap()));
        assert_eq!(ask(layer, request).await.0.status(), status, "{address}");
    }
    let mut by_peer = request();
    by_peer.extensions_mut().insert(peer);
    assert_eq!(ask(&found, by_peer).await.0.status(), 200);
}

#[tokio::test]
async fn a_limit_is_kept_and_told_where_a_program_says_who_may() {
    let house = House::new().await;
    let rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
    let key = NewKey { rate_limit, ..NewKey::default() };
    let eve = user(&house.accounts, "eve", &[], key).await;
    let layer = Layer::new(house.gate.clone()).requires_user();
    let request = || {
        let request = Request::get("/").header("api-key", &eve);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    for status in [200, 429] {
        let (response, _) = ask(&layer, request()).await;
        assert_eq!(response.status(), status);
        assert_eq!(response.headers()["ratelimit-policy"], "\"key\";q=1;w=3600");
        assert_eq!(response.headers().contains_key("retry-after"), status == 429);
    }
}

#[tokio::test]
async fn only_a_body_that_scripts_are_to_see_is_bounded() {
    let house = House::new().await;
    let limits = BodyLimits { bytes: 4, read: PATIENCE };
    let layer = Layer::new(house.gate.clone()).body_limits(limits);
    for (path, status) in [("/said", 413), ("/orders/7", 200)] {
        let asked = Asked::new(Method::POST, path, &[("api-key", &house.ada)]);
        let (response, _) = ask(&layer, Asked { body: "please", ..asked }.request()).await;
        assert_eq!(response.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_program_can_ask_only_who_it_is() {
    use keyward::pipeline::{Face, Request as Asks};
    let house = House::new().await;
    let scene = house.gate.scene();
    for (credential, name) in [(&house.ada, Some("ada")), (&"!".to_owned(), None)] {
        let headers: HeaderMap =
            [(http::HeaderName::from_static("api-key"), credential.parse().unwrap())]
                .into_iter()
                .collect();
        let request = Asks {
            method: &Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            host: None,
            body: None,
            client: [127, 0, 0, 1].into(),
            face: Face::Public,
        };
        let found = house.gate.authenticate(&scene, &request).await;
        assert_eq!(found.ok().and_then(|who| who.name().map(str::to_owned)).as_deref(), name);
    }
}
