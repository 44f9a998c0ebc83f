//! Tests of denied requests in the audit trail. The servers and the layer record denials in the
//! same way, the entries contain no text from the client, and the number of entries is limited.

use std::{
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::Full;
use keyward::{
    ClientSource, GuardLayer,
    accounts::AuditOrder,
    limits::{DenialLimits, DenialLogging, SummaryDue},
    pipeline::{self, Gate},
};
use serde_json::{Value, json};

use crate::{
    faces::fixture::{Fixture, send_through},
    harness::{Site, TIMEOUT, credential},
};

/// The denial entries of the audit trail, oldest first.
fn denials(site: &Site) -> Vec<Value> {
    let entries = site.json(&["audit", "list"]);
    let mut found: Vec<Value> = entries.as_array().unwrap().clone();
    found.retain(|entry| entry["action"] == "request.deny");
    found.reverse();
    found
}

/// Waits until the audit trail has at least `count` denial entries.
fn wait_for_denials(site: &Site, count: usize) -> Vec<Value> {
    let start = Instant::now();
    loop {
        let found = denials(site);
        if found.len() >= count {
            return found;
        }
        assert!(start.elapsed() < TIMEOUT, "{found:#?}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// The number of denied requests, summed over all entries.
fn denied_requests(found: &[Value]) -> u64 {
    found.iter().map(|entry| entry["after"]["times"].as_u64().unwrap()).sum()
}

#[test]
fn a_denial_entry_names_the_client_and_contains_no_text_from_the_request() {
    let server = Site::new().with_env("KEYWARD_AUDIT__DENIALS", "all").start();
    let bob = server.user_with_permissions("bob", &[]);
    let revoked = server.generate_key("bob", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    let status = |credential: &str| {
        server.request("GET", "/user/1").header("API-KEY", credential).send().status
    };
    assert_eq!(server.request("GET", "/user/1?token=s3cret-in-the-query").send().status, 401);
    // An unknown user name may really be a password that was typed into the wrong field.
    assert_eq!(status(&credential("hunter2-as-a-name", "kw_nonsense")), 404);
    assert_eq!(status(&credential("bob", "hunter2-as-a-key")), 401);
    assert_eq!(status(&revoked.credential), 401);
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
    let request = server
        .verify_request("GET", "/-/verify/nginx")
        .header("X-Original-URI", "/user/1")
        .header("X-Forwarded-For", "192.0.2.7");
    assert_eq!(
        request.header("X-Original-Method", "GET").header("X-Original-Host", "x").send().status,
        401
    );
    assert_eq!(server.admin_api_as(&bob.credential, "GET", "/api/v1/keys").send().status, 403);
    assert_eq!(server.admin_api_as("!", "GET", "/api/v1/keys").send().status, 401);
    let count = 9;
    wait_for_denials(&server.site, count);
    // `keyward explain` is a dry run and writes no entry.
    let explained = server.site.run(&["explain", "/user/1"]);
    assert!(String::from_utf8_lossy(&explained.stdout).contains("MISSING_API_KEY_HEADER"));
    thread::sleep(Duration::from_millis(1500));
    let found = denials(&server.site);
    let shown: Vec<Value> = found
        .iter()
        .map(|entry| json!([entry["actor"], entry["object"], entry["after"]]))
        .collect();
    let anonymous = json!({ "kind": "anonymous", "client": "127.0.0.1" });
    // The client address is the address that the proxy forwarded.
    let forwarded = json!({ "kind": "anonymous", "client": "192.0.2.7" });
    let bob_actor = json!({ "kind": "user", "uid": 2, "name": "bob", "key": bob.id, "application": "default", "client": "127.0.0.1" });
    let user_resource = "resource/entity.user";
    let expected = [
        json!([anonymous, user_resource, { "error": "MISSING_API_KEY_HEADER", "status": 401, "times": 1 }]),
        json!([anonymous, user_resource, { "error": "USER_DOES_NOT_EXIST", "status": 404, "times": 1, "application": "default" }]),
        json!([anonymous, user_resource, { "error": "AUTHENTICATION_FAILED", "status": 401, "times": 1, "application": "default", "uid": 2, "user": "bob" }]),
        json!([anonymous, user_resource, { "error": "AUTHENTICATION_FAILED", "status": 401, "times": 1, "application": "default", "uid": 2, "user": "bob", "key": revoked.id }]),
        json!([bob_actor, user_resource, { "error": "ACCESS_DENIED", "status": 403, "times": 1 }]),
        json!([bob_actor, "nowhere", { "error": "ROUTE_NOT_FOUND", "status": 404, "times": 1 }]),
        json!([forwarded, user_resource, { "error": "MISSING_API_KEY_HEADER", "status": 401, "times": 1 }]),
        json!([bob_actor, "admin", { "error": "PERMISSION_REQUIRED", "status": 403, "times": 1 }]),
        json!([anonymous, "admin", { "error": "INVALID_API_KEY_FORMAT", "status": 401, "times": 1, "application": "default" }]),
    ];
    assert_eq!(shown, expected, "{shown:#?}");
    let text = json!(found).to_string();
    for text_from_request in ["hunter2", "s3cret", &revoked.text, &bob.credential] {
        assert!(!text.contains(text_from_request), "{text_from_request}");
    }
    assert_eq!(server.site.json(&["audit", "verify"])["state"], "intact");
    let exported = String::from_utf8(server.site.run(&["audit", "export"]).stdout).unwrap();
    assert_eq!(exported.matches("request.deny").count(), count);
}

#[test]
fn many_denials_are_summed_up_and_a_clean_stop_writes_the_rest() {
    let site = Site::new()
        .with_env("KEYWARD_AUDIT__DENIAL_SAMPLE", "50")
        .with_env("KEYWARD_AUDIT__DENIAL_ENTRIES", "4");
    let mut server = site.start();
    for _ in 0..70 {
        assert_eq!(server.request("GET", "/user/1").send().status, 401);
    }
    // The first denial is written at once, in a separate entry.
    assert_eq!(denied_requests(&wait_for_denials(&server.site, 1)), 1);
    assert_eq!(server.request("GET", "/user/1").header("API-KEY", "!").send().status, 401);
    assert!(server.stop().success());
    let site = std::mem::take(&mut server.site);
    let found = denials(&site);
    assert_eq!((found.len(), denied_requests(&found)), (2, 71), "{found:#?}");
    assert_eq!(found[1]["object"], "several");
    assert_eq!(
        found[1]["after"]["errors"],
        json!({ "INVALID_API_KEY_FORMAT": 1, "MISSING_API_KEY_HEADER": 69 })
    );
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

#[test]
fn no_denial_is_recorded_when_the_setting_is_none() {
    let mut server = Site::new().with_env("KEYWARD_AUDIT__DENIALS", "none").start();
    assert_eq!(server.request("GET", "/user/1").send().status, 401);
    assert!(server.stop().success());
    let site: Site = std::mem::take(&mut server.site);
    assert_eq!(denials(&site), Vec::<Value>::new());
}

#[tokio::test]
async fn the_layer_records_denials_like_the_servers() {
    let fixture = Fixture::new().await;
    let limits = DenialLimits { logging: DenialLogging::All, per_day: 100 };
    let accounts = fixture.accounts.clone().with_denials(limits);
    let layer =
        GuardLayer::new(Gate::new(&accounts, 4096), ClientSource::unknown()).requires("read");
    let request = |credential: &str| {
        let request = http::Request::get("/").header("api-key", credential);
        request.body(Full::<Bytes>::default()).unwrap()
    };
    assert_eq!(send_through(&layer, request(&fixture.bob)).await.0.status(), 403);
    assert_eq!(send_through(&layer, request(&fixture.ada)).await.0.status(), 200);
    // A dry run writes no entry.
    let gate = Gate::new(&accounts, 4096);
    let context = gate.dry_run_context();
    let headers = http::HeaderMap::new();
    let request = pipeline::Request {
        method: &http::Method::GET,
        path: "/",
        query: None,
        headers: &headers,
        host: None,
        body: None,
        client: [127, 0, 0, 1].into(),
        face: pipeline::Face::Public,
    };
    assert_eq!(gate.authenticate(&context, &request).await.unwrap_err().status, 401);
    accounts.write_denials(SummaryDue::WhenDue).await.unwrap();
    let entry = accounts.audit(AuditOrder::Newest, None, 1).unwrap().items.remove(0).entry;
    assert_eq!((entry.act.action.as_str(), entry.act.object.as_str()), ("request.deny", "program"));
    assert_eq!(serde_json::to_value(&entry.actor).unwrap()["name"], "bob");
    assert_eq!(entry.act.after.unwrap()["error"], "PERMISSION_REQUIRED");
}
