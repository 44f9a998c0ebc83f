//! Shares of what scripts use together: one script cannot fill the table of `once` or take the
//! server's memory, and secrets can be added while the server runs.

use super::*;

#[test]
fn script_that_fills_the_table_of_once_leaves_the_shares_of_others() {
    let fill = "fn handle(req, identity) { let n = 0; while n < 4000 { once(req.query + n, 604800); n += 1; } \"ok\" }";
    let guard = "fn on_permit(req, identity, resource) { if !once(req.query, 60) { deny(401, \"REQUEST_REPLAYED\", \"No.\"); } }";
    let server = site(&[("handlers/fill.rhai", fill), ("resources/signed.rhai", guard)])
        .with_env("KEYWARD_SCRIPTS__REPLAY_IDS", "1000")
        .start();
    create_resource(&server, "fill", "/fill", json!({ "handler": "script:fill" }));
    create_resource(&server, "signed", "/signed", json!({}));
    for number in 0..10 {
        let response = server.request_as_admin("GET", &format!("/fill?{number}x")).send();
        assert_eq!(response.status, 200, "{}", response.body);
    }
    for number in 0..50 {
        let response = server.request_as_admin("GET", &format!("/signed?nonce{number}")).send();
        assert_eq!(response.status, 200, "{}", response.body);
    }
    let replayed = server.request_as_admin("GET", "/signed?nonce7").send();
    assert_eq!(status_and_code(&replayed), error(401, "REQUEST_REPLAYED"));
    let ready = Request::new(server.admin, "GET", "/health/ready").send().json();
    // The client has half of the script's quarter.
    assert_eq!(ready["script_tables"]["once"], 125 + 50, "{ready}");
}

#[test]
fn failed_call_takes_its_ids_back() {
    let spend = "fn on_permit(req, identity, resource) { once(req.query, 60); if req.query == \"no\" { deny(403, \"NO\", \"No.\"); } if req.query == \"spin\" { loop {} } }";
    let server =
        site(&[("hooks.rhai", spend)]).with_env("KEYWARD_SCRIPTS__OPERATIONS", "10000").start();
    create_resource(&server, "all", "/all", json!({}));
    for (query, status) in [("no", 403), ("spin", 503), ("yes", 200)] {
        let target = format!("/all?{query}");
        assert_eq!(server.request_as_admin("GET", &target).send().status, status, "{query}");
    }
    let ready = Request::new(server.admin, "GET", "/health/ready").send().json();
    assert_eq!(ready["script_tables"]["once"], 1, "{ready}");
}

#[test]
fn large_replacement_is_refused_and_the_server_lives() {
    let handle = "fn handle(req, identity) { let s = \"\"; s.pad(250000, \"a\"); s.replace(\"a\", s); s.len().to_string() }";
    let keys = "fn handle(req, identity) { let m = #{}; let k = \"\"; k.pad(200000, \"k\"); let n = 0; while n < 500 { m[k + n] = 1; n += 1; } \"ok\" }";
    let server = site(&[("handlers/large.rhai", handle), ("handlers/keys.rhai", keys)]).start();
    create_resource(&server, "large", "/large", json!({ "handler": "script:large" }));
    create_resource(&server, "keys", "/keys", json!({ "handler": "script:keys" }));
    for path in ["/large", "/keys"] {
        let response = server.request_as_admin("GET", path).send();
        assert_eq!(status_and_code(&response), error(400, "INPUT_TOO_LARGE"), "{path}");
    }
    server.wait_for_log("scripts.string_bytes");
    server.wait_for_log("scripts.call_bytes");
}

#[test]
fn secret_is_added_and_removed_while_the_server_runs() {
    let hook = "fn on_permit(req, identity, resource) { constant_time_eq(secret(\"partner\"), req.query) }";
    let site = site(&[("resources/all.rhai", hook)]);
    write_secret(&site, "other", "x");
    let server = site.start();
    create_resource(&server, "all", "/all", json!({}));
    let status = || server.request_as_admin("GET", "/all?a-partner").send().status;
    assert_eq!((status(), problem_count(&server)), (503, 1));
    write_secret(&server.site, "partner", "a-partner");
    reload_by_signal(&server);
    assert_eq!((status(), problem_count(&server)), (200, 0));
    // The watcher sees changes without a signal.
    fs::remove_file(server.site.path().join("secrets/partner")).unwrap();
    wait_until("the secret is gone", || status() == 503);
    server.forbid_in_log("a-partner");
}
