//! Several guards around one service, and the resources that a guard holds: one request is decided
//! once, and a client without a credential holds nothing.

use std::{
    convert::Infallible,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::Router;
use bytes::Bytes;
use http::Request;
use http_body_util::Full;
use keyward::{
    ClientSource, GuardLayer, Identity, NewKey, accounts::Accounts, layer::ClientAddress,
    limits::FailureLimits, model::RateLimit, pipeline::Gate,
};
use tower::{
    Layer as _, ServiceBuilder, ServiceExt as _, limit::ConcurrencyLimitLayer, service_fn,
};

use crate::{
    faces::fixture::{Fixture, send_through, user},
    layer_places::{guard, send, status},
};

#[tokio::test]
async fn request_that_passes_several_guards_is_decided_once() {
    let hooks = r#"fn on_request(req) {
        if !once("request:" + req.header("x-nonce"), 60) { deny(403, "REPLAYED", "x"); }
    }
    fn on_response(req, identity, response) {
        let seen = response.header("x-seen");
        response.set_header("x-seen", if seen == () { "1" } else { "2" });
    }"#;
    let fixture = Fixture::with_hooks(hooks).await;
    let rate_limit = RateLimit::parse("rate_limit", "10/1h").ok();
    let key = NewKey { rate_limit, ..NewKey::default() };
    let carl = user(&fixture.accounts, "carl", &["reader"], key).await;
    let base = guard(&fixture.gate);
    let guards = [
        vec![base.clone().requires_user()],
        vec![
            base.clone().requires_user(),
            base.clone().requires("read"),
            base.clone().requires_user(),
        ],
        vec![base.clone(), base.clone()],
        vec![base.clone(), base.clone().requires("read")],
        vec![base.clone().requires("read"), base.clone()],
        vec![base.clone().admits_anyone(), base.clone().requires_user()],
    ];
    for (index, guards) in guards.into_iter().enumerate() {
        let mut app = Router::new().fallback(async |identity: axum::Extension<Identity>| {
            identity.name().unwrap_or("nobody").to_owned()
        });
        for guard in guards.into_iter().rev() {
            app = app.layer(guard);
        }
        let nonce = index.to_string();
        let fields = [("api-key", carl.as_str()), ("x-nonce", nonce.as_str())];
        let (status, headers, body) = send(&app, "/orders/7", &fields).await;
        assert_eq!((status, body.as_str()), (200, "carl"), "{index}");
        let quota: Vec<_> = headers.get_all("ratelimit").iter().collect();
        assert_eq!(quota.len(), 1, "{index} {quota:?}");
        let left = format!("\"key\";r={};", 9 - index);
        assert!(quota[0].to_str().unwrap().starts_with(&left), "{index} {quota:?}");
        assert_eq!(headers.get_all("ratelimit-policy").iter().count(), 1, "{index}");
        assert_eq!(headers["x-seen"], "1", "{index}");
    }
    let used = fixture.accounts.counters();
    let id = fixture.accounts.directory().user_by_name("carl").unwrap().uid;
    let key = fixture.accounts.keys_of(id, None, 1).unwrap().items[0].record.id;
    assert_eq!(used.unwritten(key).times, 6);
}

#[tokio::test]
async fn inner_guard_narrows_and_never_widens() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let base = guard(&fixture.gate);
    let verdict = async |outer: &GuardLayer, inner: &GuardLayer, path: &str, key: &str| {
        let app = Router::new().fallback(async || "in").layer(inner.clone()).layer(outer.clone());
        let fields: &[_] = if key.is_empty() { &[] } else { &[("api-key", key)] };
        let (status, _, body) = send(&app, path, fields).await;
        let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
        (status, crate::faces::corpus::code(&body))
    };
    let (resources, reader) = (base.clone(), base.clone().requires("read"));
    let (users, anyone) = (base.clone().requires_user(), base.clone().admits_anyone());
    for path in ["/orders/7", "/news", "/nowhere", "/buffered", "/data"] {
        for key in ["", "!", &fixture.ada, &fixture.bob] {
            for inner in [&resources, &reader, &users] {
                let alone = Router::new().fallback(async || "in").layer(inner.clone());
                let fields: &[_] = if key.is_empty() { &[] } else { &[("api-key", key)] };
                let (status, _, body) = send(&alone, path, fields).await;
                let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
                let alone = (status, crate::faces::corpus::code(&body));
                // A guard that admits anyone adds nothing to the guard behind it.
                assert_eq!(
                    verdict(&anyone, inner, path, key).await,
                    alone,
                    "{inner:?} {path} {key}"
                );
                // No order of two guards allows what one of them refuses.
                for other in [&resources, &reader, &users] {
                    let pair = verdict(other, inner, path, key).await;
                    assert!(pair.0 != 200 || alone.0 == 200, "{other:?} {inner:?} {path} {key}");
                }
            }
        }
    }
}

#[tokio::test]
async fn limit_of_an_inner_resource_is_reported_in_one_field() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let limit = |resource: &mut keyward::Resource| {
        resource.rate_limit = RateLimit::parse("rate_limit", "1/1h").ok();
        Ok::<_, keyward::AccountError>(())
    };
    let writer = fixture.accounts.as_actor(keyward::Actor::Program);
    writer.change("orders", None, limit).await.unwrap();
    let rate_limit = RateLimit::parse("rate_limit", "10/1h").ok();
    let key = NewKey { rate_limit, ..NewKey::default() };
    let carl = user(&fixture.accounts, "carl", &["reader"], key).await;
    let base = guard(&fixture.gate);
    let app = Router::new().fallback(async || "in").layer(base.clone()).layer(base.requires_user());
    for (status, left) in [(200, 9), (429, 8)] {
        let (found, headers, _) = send(&app, "/orders/7", &[("api-key", carl.as_str())]).await;
        let fields: Vec<_> = headers.get_all("ratelimit").iter().collect();
        assert_eq!((found, fields.len()), (status, 1), "{fields:?}");
        let text = fields[0].to_str().unwrap();
        assert!(text.starts_with(&format!("\"key\";r={left};")), "{text}");
        assert!(text.contains(", \"resource\";r=0;"), "{text}");
    }
}

#[tokio::test]
async fn two_sets_of_accounts_decide_each_for_itself() {
    let (one, two) = (Fixture::new().await, Fixture::new().await);
    let only_one = user(&one.accounts, "only-in-one", &["reader"], NewKey::default()).await;
    let only_two = user(&two.accounts, "only-in-two", &["reader"], NewKey::default()).await;
    let (a, b) = (guard(&one.gate).requires_user(), guard(&two.gate).requires_user());
    let app = Router::new().fallback(async || "in").layer(b).layer(a);
    for credential in [&only_one, &only_two] {
        assert_eq!(status(&app, "/x", &[("api-key", credential)]).await, 404);
    }
    // Both have this user, with the same key.
    assert_eq!(one.ada, two.ada);
    assert_eq!(status(&app, "/x", &[("api-key", &one.ada)]).await, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_without_a_credential_holds_nothing_of_the_service() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let guard = guard(&fixture.gate).requires_user();
    let inner = ServiceBuilder::new().layer(ConcurrencyLimitLayer::new(1)).service(service_fn(
        async |request: Request<Full<Bytes>>| {
            drop(request);
            Ok::<_, Infallible>(http::Response::new(Full::<Bytes>::default()))
        },
    ));
    let mut service = guard.layer(inner);
    // A ready guard holds no permit of the service, also if it is never called.
    let mut others: Vec<_> = std::iter::repeat_with(|| service.clone()).take(3).collect();
    for other in &mut others {
        tower::ServiceExt::<Request<Full<Bytes>>>::ready(other).await.unwrap();
    }
    let request = Request::get("/").header("api-key", &fixture.ada).body(Full::default()).unwrap();
    let call = tower::Service::call(&mut service, request);
    let response = tokio::time::timeout(Duration::from_secs(20), call).await.expect("no permit");
    assert_eq!(response.unwrap().status(), 200);
    // A denied request does not even ask the service.
    let asked = Arc::new(AtomicUsize::new(0));
    let denied = guard.layer(CountsReadiness(asked.clone()));
    let request = Request::get("/").body(Full::default()).unwrap();
    assert_eq!(denied.clone().oneshot(request).await.unwrap().status(), 401);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    let request = Request::get("/").header("api-key", &fixture.ada).body(Full::default()).unwrap();
    assert_eq!(denied.oneshot(request).await.unwrap().status(), 200);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

/// A service that counts how often it was asked whether it is ready.
#[derive(Clone)]
struct CountsReadiness(Arc<AtomicUsize>);

impl tower::Service<Request<Full<Bytes>>> for CountsReadiness {
    type Response = http::Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = std::future::Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(
        &mut self,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Result<(), Infallible>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Request<Full<Bytes>>) -> Self::Future {
        std::future::ready(Ok(http::Response::default()))
    }
}

#[tokio::test]
async fn failures_are_counted_or_the_request_is_refused() {
    let fixture = Fixture::with_hooks("fn on_request(req) {}").await;
    let limits = FailureLimits { per_address: 2, entries: 100, ..FailureLimits::none() };
    let accounts: Accounts = fixture.accounts.clone().with_failures(limits);
    let gate = Gate::new(&accounts, 4096);
    let ask = async |client: ClientSource, address: Option<&str>, key: &str| {
        let mut request = Request::get("/").header("api-key", key).body(Full::default()).unwrap();
        if let Some(address) = address {
            let address: IpAddr = address.parse().unwrap();
            request.extensions_mut().insert(ClientAddress(address));
        }
        let layer = GuardLayer::new(gate.clone(), client).requires_user();
        send_through(&layer, request).await.0.status().as_u16()
    };
    // A guard that cannot count refuses every request, also one with a valid key.
    assert_eq!(ask(ClientSource::unknown(), Some("192.0.2.1"), &fixture.ada).await, 500);
    assert_eq!(ask(ClientSource::extension(), None, &fixture.ada).await, 500);
    assert_eq!(ask(ClientSource::connect_info(), Some("192.0.2.1"), &fixture.ada).await, 500);
    let wrong = async |address| ask(ClientSource::extension(), Some(address), "!").await;
    let statuses = [wrong("192.0.2.1").await, wrong("192.0.2.1").await, wrong("192.0.2.1").await];
    assert_eq!(statuses, [401, 401, 429]);
    assert_eq!(wrong("192.0.2.2").await, 401);
}
