//! The corpus through the layer in each place of a program: one verdict everywhere, that of the
//! server.

use axum::{
    Router,
    body::Body,
    extract::Request as AxumRequest,
    middleware::{Next, from_fn},
    response::IntoResponse,
    routing::{any, get},
};
use bytes::Bytes;
use http::{Method, Response};
use http_body_util::{BodyExt as _, Full};
use keyward::{ClientSource, GuardLayer, Identity};
use tower::{Layer as _, Service, ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer};

use super::{
    WITHHELD_CODE,
    corpus::{TestRequest, client_view, corpus},
    fixture::Fixture,
    listen,
};

async fn inside(caller: Identity, body: Bytes) -> impl IntoResponse {
    drop((caller, body));
    ([("content-type", "text/plain")], "in")
}

/// The programs, each with a guard in another place.
fn places(guard: &GuardLayer) -> Vec<(&'static str, Router)> {
    let pass = || from_fn(async |request: AxumRequest, next: Next| next.run(request).await);
    let guarded = || Router::new().fallback(inside).layer(guard.clone());
    let areas = ["/orders", "/news", "/data", "/other", "/nowhere", "/buffered"];
    let nested = areas.into_iter().fold(guarded(), |app, area| app.nest(area, guarded()));
    let routes = ["/orders/{id}", "/news", "/data", "/other", "/nowhere", "/buffered"];
    let per_route = routes
        .into_iter()
        .fold(guarded(), |app, route| app.route(route, any(inside).layer(guard.clone())));
    let around = ServiceBuilder::new()
        .layer(pass())
        .layer(ConcurrencyLimitLayer::new(1))
        .layer(guard.clone())
        .layer(pass())
        .layer(ConcurrencyLimitLayer::new(1));
    let outer = guard.clone().rewriting_paths().layer(Router::new().fallback(inside));
    vec![
        ("outer", Router::new().fallback_service(outer)),
        ("nested", nested.clone()),
        ("nested twice", Router::new().fallback_service(nested).nest("/deep", guarded())),
        ("per route", per_route),
        ("service builder", Router::new().fallback(inside).layer(around)),
        ("two guards", Router::new().fallback(inside).layer(guard.clone()).layer(guard.clone())),
        ("open guard outside", guarded().layer(guard.clone().admits_anyone())),
    ]
}

async fn send<S, B>(service: &S, request: &TestRequest) -> Response<Bytes>
where
    S: Service<http::Request<Body>, Response = Response<B>> + Clone,
    S::Error: std::fmt::Debug,
    B: hyper::body::Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let request = request.request().map(|body: Full<Bytes>| Body::new(body));
    let (parts, body) = service.clone().oneshot(request).await.unwrap().into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layer_reaches_the_verdict_of_the_server_in_every_place() {
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let guard = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let places = places(&guard);
    let mut normal = 0;
    for request in &corpus(&fixture).await {
        let by_server = client_view(&request.send(address).await);
        for (place, app) in &places {
            let response = send(app, request).await;
            let by_layer = client_view(&response);
            let text = String::from_utf8_lossy(response.body()).into_owned();
            // A router outside of the guard has read the path as it was sent.
            let is_refused = response.status() == 400 && text.contains("normal form");
            if is_refused || request.method == Method::HEAD && response.status() == 400 {
                continue;
            }
            // The outer guard decides without the resource: it does not read the body for scripts,
            // and the limits of the key count before the resource is looked up.
            let is_open = place == &"open guard outside";
            if is_open && (request.path == "/buffered" || response.status() == 429) {
                continue;
            }
            normal += 1;
            if request.method == Method::HEAD {
                assert_eq!(by_layer[0], by_server[0], "{place} {request:?}");
            } else {
                assert_eq!(by_layer, by_server, "{place} {request:?}");
            }
        }
    }
    assert!(normal > 2000, "{normal}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn denial_after_the_service_withholds_its_response_in_every_place() {
    let fixture = Fixture::new().await;
    let guard = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    for (place, app) in places(&guard) {
        let request = TestRequest::new(Method::GET, "/orders/secret", &[("api-key", &fixture.ada)]);
        let response = send(&app, &request).await;
        let text = String::from_utf8_lossy(response.body()).into_owned();
        assert!(response.status() == 403 && text.contains(WITHHELD_CODE), "{place} {text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn preflight_is_answered_or_passed_on_in_every_place() {
    use super::records::{put, send as send_to};
    use serde_json::json;
    let fixture = Fixture::new().await;
    let (address, _) = listen(&fixture).await;
    let cors = |preflight: &str| {
        json!({
            "origins": ["https://page.example"], "methods": ["GET"], "preflight": preflight,
        })
    };
    for (id, path, mode) in [("orders", "/orders/{id}", "answer"), ("news", "/news", "pass")] {
        // Only a resource with an application can pass preflights on.
        let handler = if mode == "pass" { "decide" } else { "respond" };
        put(&fixture, json!({ "id": id, "path": path, "methods": ["GET", "OPTIONS"], "handler": handler, "cors": cors(mode) })).await;
    }
    let guard = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let fields = [
        ("host", "api.example"),
        ("origin", "https://page.example"),
        ("access-control-request-method", "GET"),
    ];
    for path in ["/orders/7", "/news"] {
        let by_server = send_to(address, "OPTIONS", path, &fields).await;
        for (place, app) in places(&guard) {
            let request = TestRequest::new(Method::OPTIONS, path, &fields);
            let response = send(&app, &request).await;
            let allowed = |response: &Response<Bytes>| {
                response.headers().get("access-control-allow-origin").cloned()
            };
            if place == "open guard outside" {
                // The outer guard knows no resource, so the inner one decides about the preflight.
                assert!(response.status().is_success() || response.status() == 401, "{place}");
                continue;
            }
            assert!(response.status().is_success(), "{place} {path} {}", response.status());
            // The server has no application for the resource with the handler decide.
            if path == "/orders/7" {
                assert_eq!(allowed(&response), allowed(&by_server), "{place} {path}");
            }
        }
        // A guard of the program behind a guard with resources lets such a preflight pass.
        let inner = guard.clone().requires("read");
        let app = Router::new().route("/news", get(async || "in").options(async || "passed"));
        let app = app.layer(inner).layer(guard.clone());
        let request = TestRequest::new(Method::OPTIONS, "/news", &fields);
        assert_eq!(&send(&app, &request).await.into_body()[..], b"passed");
    }
}
