//! The guard of the layer wherever a program puts it: nested routers, several guards, middleware
//! around it. No place makes it decide less, twice, or about another request.

use std::convert::Infallible;

use axum::{
    Router,
    body::Body,
    extract::Request as AxumRequest,
    middleware::{Next, from_fn},
    routing::get,
};
use bytes::Bytes;
use http::{HeaderMap, Request, Uri};
use http_body_util::{BodyExt as _, Full};
use keyward::{
    ClientSource, GuardLayer,
    pipeline::{Action, Anonymous, EntryRules, Face, Gate, Request as GateRequest},
};
use tower::{Layer as _, ServiceBuilder, ServiceExt as _, service_fn};

use crate::{
    credentials::fixture::{Fixture as Signed, signature},
    faces::fixture::{Fixture, send_through},
};

pub fn guard(gate: &Gate) -> GuardLayer {
    GuardLayer::new(gate.clone(), ClientSource::unknown())
}

/// Sends a request to a router. Returns the status, the header fields and the body.
pub async fn send(app: &Router, path: &str, fields: &[(&str, &str)]) -> (u16, HeaderMap, String) {
    let mut request = Request::get(path).header("host", "api.example");
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts.status.as_u16(), parts.headers, String::from_utf8_lossy(&body).into_owned())
}

pub async fn status(app: &Router, path: &str, fields: &[(&str, &str)]) -> u16 {
    send(app, path, fields).await.0
}

#[tokio::test]
async fn every_hook_that_decides_runs_in_every_use_of_the_layer() {
    for (hook, code) in [
        ("fn on_request(req) { deny(403, \"NEVER\", \"x\"); }", "NEVER"),
        ("fn on_authenticated(req, identity) { deny(403, \"NEVER\", \"x\"); }", "NEVER"),
        ("fn on_permit(req, identity, resource) { deny(403, \"NEVER\", \"x\"); }", "NEVER"),
        ("fn on_permit(req, identity, resource) { false }", "You are not allowed"),
        ("fn on_permit(req, identity, resource) { throw \"broken\"; }", "SCRIPT_ERROR"),
        ("fn on_response(req, identity, response) { deny(403, \"NEVER\", \"x\"); }", "NEVER"),
    ] {
        let fixture = Fixture::with_hooks(hook).await;
        let base = guard(&fixture.gate);
        for layer in [
            base.clone(),
            base.clone().requires("read"),
            base.clone().requires_user(),
            base.clone().admits_anyone(),
        ] {
            let request = Request::get("/orders/7").header("host", "api.example");
            let request = request.header("api-key", &fixture.ada).body(Full::default()).unwrap();
            let (response, received) = send_through(&layer, request).await;
            let body = String::from_utf8_lossy(response.body()).into_owned();
            assert!(body.contains(code), "{layer:?} {hook} {body}");
            let reaches = usize::from(hook.contains("on_response"));
            assert_eq!(received.lock().unwrap().len(), reaches, "{layer:?} {hook}");
        }
        // The gate without a layer.
        if hook.contains("on_response") {
            continue;
        }
        let headers =
            HeaderMap::from_iter([("api-key".parse().unwrap(), fixture.ada.parse().unwrap())]);
        let request = GateRequest {
            method: &http::Method::GET,
            path: "/",
            query: None,
            headers: &headers,
            host: None,
            body: None,
            client: [127, 0, 0, 1].into(),
            face: Face::Public,
        };
        let context = fixture.gate.request_context();
        assert!(fixture.gate.authenticate(&context, &request).await.is_err(), "{hook}");
        let rules = EntryRules { permissions: &[], anonymous: Anonymous::Admitted };
        let granted = fixture.gate.authorize(&context, &request, &Action::Enter(rules)).await;
        assert!(granted.is_err(), "{hook}");
    }
}

#[tokio::test]
async fn hook_sees_a_program_as_a_resource_without_an_id() {
    let hook = r#"fn on_permit(req, identity, resource) {
        if resource.id == "" && resource.handler == "program" && req.path == "/closed" { return false; }
    }"#;
    let fixture = Fixture::with_hooks(hook).await;
    let app = Router::new().fallback(async || "in").layer(guard(&fixture.gate).requires("read"));
    let key = [("api-key", fixture.ada.as_str())];
    assert_eq!(status(&app, "/open", &key).await, 200);
    assert_eq!(status(&app, "/closed", &key).await, 403);
}

/// Routers in which the guard is at different depths. All serve `/internal/v1/x`.
fn nested(guard: &GuardLayer) -> Vec<(&'static str, Router)> {
    let leaf = || Router::new().route("/x", get(async || "in"));
    let pass = || from_fn(async |request: AxumRequest, next: Next| next.run(request).await);
    vec![
        (
            "around the whole",
            Router::new().nest("/internal", Router::new().nest("/v1", leaf())).layer(guard.clone()),
        ),
        (
            "in one nest",
            Router::new().nest("/internal", Router::new().nest("/v1", leaf()).layer(guard.clone())),
        ),
        (
            "in two nests",
            Router::new().nest("/internal", Router::new().nest("/v1", leaf().layer(guard.clone()))),
        ),
        (
            "in a nest with a parameter",
            Router::new().nest("/{area}/v1", leaf().layer(guard.clone())),
        ),
        (
            "on a route",
            Router::new().nest(
                "/internal/v1",
                Router::new().route("/x", get(async || "in").layer(guard.clone())),
            ),
        ),
        ("route_layer", Router::new().nest("/internal/v1", leaf().route_layer(guard.clone()))),
        (
            "nest_service",
            Router::new().nest_service("/internal", guard.layer(Router::new().nest("/v1", leaf()))),
        ),
        (
            "service builder",
            Router::new().nest(
                "/internal/v1",
                leaf()
                    .layer(ServiceBuilder::new().layer(pass()).layer(guard.clone()).layer(pass())),
            ),
        ),
        (
            "outside of the router",
            Router::new().fallback_service(guard.layer(Router::new().nest("/internal/v1", leaf()))),
        ),
    ]
}

#[tokio::test]
async fn policy_and_resources_see_the_whole_path_in_nested_routers() {
    let hook = r#"fn on_request(req) {
        if req.path.starts_with("/internal/") { deny(403, "INTERNAL", "x"); }
        deny(403, "OTHER", req.path);
    }"#;
    let fixture = Fixture::with_hooks(hook).await;
    for access in [guard(&fixture.gate), guard(&fixture.gate).requires_user()] {
        for (place, app) in nested(&access) {
            let (status, _, body) = send(&app, "/internal/v1/x", &[]).await;
            assert_eq!(status, 403, "{place} {body}");
            assert!(body.contains("INTERNAL"), "{place} {body}");
        }
    }
    let open = Fixture::with_hooks("fn on_request(req) {}").await;
    let key = [("api-key", open.ada.as_str())];
    for (place, app) in nested(&guard(&open.gate).requires("read")) {
        let (status, _, body) = send(&app, "/internal/v1/x", &key).await;
        assert_eq!((status, body.as_str()), (200, "in"), "{place}");
        assert_eq!(send(&app, "/internal/v1/x", &[]).await.0, 401, "{place}");
    }
    // The resource `orders` is `/orders/{id}`: the shortened path `/7` has no resource.
    let inner = Router::new().route("/7", get(async || "in")).layer(guard(&open.gate));
    assert_eq!(status(&Router::new().nest("/orders", inner.clone()), "/orders/7", &key).await, 200);
    assert_eq!(status(&Router::new().nest("/other", inner), "/other/7", &key).await, 404);
    let shortened = Router::new().route("/orders/7", get(async || "in")).layer(guard(&open.gate));
    assert_eq!(status(&Router::new().nest("/x", shortened), "/x/orders/7", &key).await, 404);
}

#[tokio::test]
async fn signature_holds_for_the_whole_path_only() {
    let fixture = Signed::new().await;
    let guard = guard(&fixture.gate).requires_user().buffer_body(1 << 20);
    for (index, (place, app)) in nested(&guard).into_iter().enumerate() {
        for (target, signed, expected) in [
            ("/internal/v1/x", "/internal/v1/x", 200),
            ("/internal/v1/x?a=1", "/internal/v1/x?a=1", 200),
            ("/internal/v1/x", "/x", 401),
            ("/internal/v1/x", "/v1/x", 401),
        ] {
            let nonce = format!("nonce-{index}-{expected}-{}-{}", signed.len(), target.len());
            let (authorization, created) = signature(signed, &nonce);
            let fields = [
                ("auth-method", "hmac"),
                ("authorization", authorization.as_str()),
                ("x-signature-created", created.as_str()),
            ];
            let (status, _, body) = send(&app, target, &fields).await;
            assert_eq!(status, expected, "{place} {target} {signed} {body}");
        }
    }
}

#[tokio::test]
async fn body_is_read_for_scripts_where_the_program_says_so() {
    let fixture = Signed::new().await;
    // The credential is in the body.
    let send = async |guard: &GuardLayer, body: &'static str| {
        let request = Request::post("/x").header("host", "a").header("auth-method", "body");
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        send_through(guard, request).await.0.status().as_u16()
    };
    let guard = guard(&fixture.gate).requires_user().keeping_credential();
    assert_eq!(send(&guard, "ada").await, 401);
    assert_eq!(send(&guard.clone().buffer_body(16), "ada").await, 200);
    assert_eq!(send(&guard.clone().buffer_body(4), "12345").await, 413);
}

#[tokio::test]
async fn path_that_was_changed_between_router_and_guard_is_refused() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let key = [("api-key", fixture.ada.as_str())];
    let rewrite = |to: &'static str| {
        from_fn(move |mut request: AxumRequest, next: Next| async move {
            *request.uri_mut() = to.parse().unwrap();
            next.run(request).await
        })
    };
    let guard = guard(&fixture.gate).requires("read");
    let routes = || Router::new().route("/x", get(async |uri: Uri| uri.to_string()));
    // Inside the router: the route was chosen by another path than the guard sees.
    for to in ["/y", "/x?admin=1", "/"] {
        let app = routes().layer(ServiceBuilder::new().layer(rewrite(to)).layer(guard.clone()));
        let (status, _, body) = send(&app, "/x", &key).await;
        assert_eq!(status, 500, "{to} {body}");
        assert!(body.contains("GUARD_MISPLACED") && !body.contains('x'), "{body}");
    }
    // A rewriter behind the guard, and one outside of the router, leave one reading.
    let app = routes().layer(ServiceBuilder::new().layer(guard.clone()).layer(rewrite("/y")));
    assert_eq!(send(&app, "/x", &key).await.2, "/y");
    let outside = Router::new().fallback_service(
        ServiceBuilder::new().layer(rewrite("/x")).service(routes().layer(guard.clone())),
    );
    assert_eq!(status(&outside, "/y", &key).await, 500, "the outer router has read /y");
    let outside = ServiceBuilder::new().layer(rewrite("/x")).service(routes().layer(guard.clone()));
    let request = Request::get("/y").header("api-key", &fixture.ada).body(Body::empty()).unwrap();
    assert_eq!(outside.oneshot(request).await.unwrap().status(), 200);
    // The program can name the target.
    let named = guard.target_from(|_| Some(Uri::from_static("/z")));
    let app = routes().layer(ServiceBuilder::new().layer(rewrite("/y")).layer(named.clone()));
    assert_eq!(status(&app, "/x", &key).await, 200);
    let unknown = named.target_from(|_| None);
    assert_eq!(status(&routes().layer(unknown), "/x", &key).await, 500);
}

#[tokio::test]
async fn path_between_two_guards_is_the_one_that_was_decided() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let guard = guard(&fixture.gate).requires("read");
    let change = |change: fn(&mut Request<Full<Bytes>>)| {
        let guard = guard.clone();
        let ada = fixture.ada.clone();
        async move {
            let inner = guard.layer(service_fn(async |request: Request<Full<Bytes>>| {
                drop(request);
                Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
            }));
            let between = service_fn(move |mut request: Request<Full<Bytes>>| {
                change(&mut request);
                inner.clone().oneshot(request)
            });
            let request = Request::get("/a/b").header("host", "h").header("api-key", &ada);
            let request = request.body(Full::default()).unwrap();
            guard.layer(between).oneshot(request).await.unwrap().status().as_u16()
        }
    };
    assert_eq!(change(|_| ()).await, 200);
    assert_eq!(change(|request| *request.uri_mut() = Uri::from_static("/b")).await, 200);
    assert_eq!(change(|request| *request.uri_mut() = Uri::from_static("/c")).await, 500);
    assert_eq!(change(|request| *request.method_mut() = http::Method::POST).await, 500);
    assert_eq!(change(|request| drop(request.headers_mut().remove("host"))).await, 500);
}

#[tokio::test]
async fn service_gets_the_body_type_of_the_request() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let guard = guard(&fixture.gate).requires_user();
    // axum's middleware on both sides needs no map.
    let pass = || from_fn(async |request: AxumRequest, next: Next| next.run(request).await);
    let layers = ServiceBuilder::new().layer(pass()).layer(guard.clone()).layer(pass());
    let app = Router::new().route("/", get(async |body: Bytes| body)).layer(layers);
    assert_eq!(status(&app, "/", &[("api-key", &fixture.ada)]).await, 200);
    // A body that cannot be made from bytes.
    let body = http_body_util::Empty::<Bytes>::new().boxed();
    let wrapping = guard.wrapping_bodies().layer(service_fn(
        async |request: Request<keyward::layer::LayerBody<_>>| {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            Ok::<_, Infallible>(http::Response::new(Full::new(body)))
        },
    ));
    let request = Request::get("/").header("api-key", &fixture.ada).body(body).unwrap();
    assert_eq!(wrapping.oneshot(request).await.unwrap().status(), 200);
}
