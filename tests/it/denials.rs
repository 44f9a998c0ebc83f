//! Refused requests in the audit trail: by every face alike, without anything that a client wrote, and bounded.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use keyward::{
    Layer,
    accounts::Order,
    limits::{DenialLimits, Rest, Telling},
    pipeline::{self, Gate},
};
use serde_json::{Value, json};

use crate::{
    faces::rig::{House, ask},
    harness::{PATIENCE, Site, credential},
};

/// The denials of the trail, the oldest first.
fn told(site: &Site) -> Vec<Value> {
    let entries = site.json(&["audit", "list"]);
    let mut found: Vec<Value> = entries.as_array().unwrap().clone();
    found.retain(|entry| entry["action"] == "request.deny");
    found.reverse();
    found
}

/// Waits until so many are told.
fn until(site: &Site, count: usize) -> Vec<Value> {
    let begun = Instant::now();
    loop {
        let found = told(site);
        if found.len() >= count {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{found:#?}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn all(found: &[Value]) -> u64 {
    found.iter().map(|entry| entry["after"]["times"].as_u64().unwrap()).sum()
}

#[test]
fn who_was_refused_is_told_and_nothing_that_a_client_wrote() {
    let server = Site::new().with("KEYWARD_AUDIT__DENIALS", "all").start();
    let bob = server.user_with("bob", &[]);
    let gone = server.key("bob", &[]);
    server.site.json(&["key", "revoke", &gone.id]);
    let ask = |credential: &str| {
        server.request("GET", "/user/1").header("API-KEY", credential).send().status
    };
    assert_eq!(server.request("GET", "/user/1?token=s3cret-in-the-query").send().status, 401);
    // A user who is not there: what stands in the place of the name may be a password.
    assert_eq!(ask(&credential("hunter2-as-a-name", "kw_nonsense")), 404);
    assert_eq!(ask(&credential("bob", "hunter2-as-a-key")), 401);
    assert_eq!(ask(&gone.credential), 401);
    assert_eq!(
        server.request("DELETE", "/user/1").header("API-KEY", &bob.credential).send().status,
        403
    );
    assert_eq!(
        server
            .request("GET", "/s3cret-in-the-path")
            .header("API-KEY", &bob.credential)
            .send()
            .status,
        404
    );
    let asked = server
        .request("GET", "/-/verify/nginx")
        .header("X-Original-URI", "/user/1")
        .header("X-Forwarded-For", "192.0.2.7");
    assert_eq!(
        asked.header("X-Original-Method", "GET").header("X-Original-Host", "x").send().status,
        401
    );
    assert_eq!(server.manages_as(&bob.credential, "GET", "/api/v1/keys").send().status, 403);
    assert_eq!(server.manages_as("!", "GET", "/api/v1/keys").send().status, 401);
    // Who only asks leaves nothing.
    let count = 9;
    until(&server.site, count);
    let explained = server.site.run(&["explain", "/user/1"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("MISSING_API_KEY_HEADER"));
    thread::sleep(Duration::from_millis(1500));
    let found = told(&server.site);
    let shown: Vec<Value> =
        found.iter().map(|one| json!([one["actor"], one["object"], one["after"]])).collect();
    let anonymous = json!({ "kind": "anonymous", "client": "127.0.0.1" });
    // The proxy says that the client is there.
    let far = json!({ "kind": "anonymous", "client": "192.0.2.7" });
    let own = json!({ "kind": "user", "uid": 2, "name": "bob", "key": bob.id, "application": "default", "client": "127.0.0.1" });
    let user = "resource/entity.user";
    let expected = [
        json!([anonymous, user, { "error": "MISSING_API_KEY_HEADER", "status": 401, "times": 1 }]),
        json!([anonymous, user, { "error": "USER_DOES_NOT_EXIST", "status": 404, "times": 1, "application": "default" }]),
        json!([anonymous, user, { "error": "AUTHENTICATION_FAILED", "status": 401, "times": 1, "application": "default", "uid": 2, "user": "bob" }]),
        json!([anonymous, user, { "error": "AUTHENTICATION_FAILED", "status": 401, "times": 1, "application": "default", "uid": 2, "user": "bob", "key": gone.id }]),
        json!([own, user, { "error": "ACCESS_DENIED", "status": 403, "times": 1 }]),
        json!([own, "nowhere", { "error": "ROUTE_NOT_FOUND", "status": 404, "times": 1 }]),
        json!([far, user, { "error": "MISSING_API_KEY_HEADER", "status": 401, "times": 1 }]),
        json!([own, "admin", { "error": "PERMISSION_REQUIRED", "status": 403, "times": 1 }]),
        json!([anonymous, "admin", { "error": "INVALID_API_KEY_FORMAT", "status": 401, "times": 1, "application": "default" }]),
    ];
    assert_eq!(shown, expected, "{shown:#?}");
    let text = json!(found).to_string();
    for written in ["hunter2", "s3cret", &gone.text, &bob.credential] {
        assert!(!text.contains(written), "{written}");
    }
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
    let exported = String::from_utf8(server.site.run(&["audit", "export"]).stdout).unwrap();
    assert_eq!(exported.matches("request.deny").count(), count);
}

#[test]
fn a_flood_is_counted_and_a_clean_stop_forgets_none() {
    let site = Site::new()
        .with("KEYWARD_AUDIT__DENIAL_SAMPLE", "50")
        .with("KEYWARD_AUDIT__DENIAL_ENTRIES", "4");
    let mut server = site.start();
    for _ in 0..70 {
        assert_eq!(server.request("GET", "/user/1").send().status, 401);
    }
    // The one entry that there is at once, for the first.
    assert_eq!(all(&until(&server.site, 1)), 1);
    assert_eq!(server.request("GET", "/user/1").header("API-KEY", "!").send().status, 401);
    assert!(server.stop().success());
    let site = std::mem::take(&mut server.site);
    let found = told(&site);
    assert_eq!((found.len(), all(&found)), (2, 71), "{found:#?}");
    assert_eq!(found[1]["object"], "several");
    assert_eq!(
        found[1]["after"]["errors"],
        json!({ "INVALID_API_KEY_FORMAT": 1, "MISSING_API_KEY_HEADER": 69 })
    );
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn none_is_told_where_none_is_asked_for() {
    let mut server = Site::new().with("KEYWARD_AUDIT__DENIALS", "none").start();
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    assert!(server.stop().success());
    let site: Site = std::mem::take(&mut server.site);
    assert_eq!(told(&site), Vec::<Value>::new());
}

#[tokio::test]
async fn the_layer_tells_as_servers_do() {
    let house = House::new().await;
    let limits = DenialLimits { telling: Telling::All, per_day: 100 };
    let accounts = house.accounts.clone().with_denials(limits);
    let layer = Layer::new(Gate::new(&accounts, 4096)).requires("read");
    let request = |credential: &str| {
        let asked = http::Request::get("/").header("api-key", credential);
        asked.body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(ask(&layer, request(&house.bob)).await.0.status(), 403);
    assert_eq!(ask(&layer, request(&house.ada)).await.0.status(), 200);
    // Who only looks leaves nothing.
    let gate = Gate::new(&accounts, 4096);
    let scene = gate.scene_to_look_at();
    let headers = http::HeaderMap::new();
    let asked = pipeline::Request {
        method: &http::Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        host: None,
        body: None,
        client: [127, 0, 0, 1].into(),
        face: pipeline::Face::Public,
    };
    assert_eq!(gate.authenticate(&scene, &asked).await.unwrap_err().status, 401);
    accounts.write_denials(Rest::InTime).await.unwrap();
    let entry = accounts.audit(Order::Newest, None, 1).unwrap().items.remove(0).entry;
    assert_eq!((entry.act.action.as_str(), entry.act.object.as_str()), ("request.deny", "program"));
    assert_eq!(serde_json::to_value(&entry.actor).unwrap()["name"], "bob");
    assert_eq!(entry.act.after.unwrap()["error"], "PERMISSION_REQUIRED");
}
