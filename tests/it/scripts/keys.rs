//! Tests of `auth/query_key.rhai` (keys in the query) and `auth/legacy_sha256.rhai` (keys of
//! another system) with curl.

use crate::harness::{Server, credential};

use super::*;

/// Runs curl with these arguments and returns the status. The body is written to the file `body`.
fn status(server: &Server, arguments: &str) -> String {
    run_client(
        server,
        &format!("command curl -sS --max-time 30 -o body -w '%{{http_code}}' {arguments}"),
    )
}

/// The body of the last response.
fn last_body(server: &Server) -> Value {
    let text = fs::read_to_string(server.site.path().join("body")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A well-formed key with the id of this key and another secret. A client that knows the id of a
/// key can create such a guess.
fn guess(key: &str) -> String {
    use keyward::model::{KeyShape, KeyText};
    const DIGITS: &[u8] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut body = key[..key.len() - 6].to_owned();
    body.replace_range(body.len() - 3.., "000");
    let mut check = crc32fast::hash(body.as_bytes());
    let mut digits = Vec::new();
    for _ in 0..6 {
        digits.insert(0, DIGITS[(check % 62) as usize]);
        check /= 62;
    }
    let guess = body + std::str::from_utf8(&digits).unwrap();
    assert!(matches!(KeyText::shape(&guess), KeyShape::Ours(_)), "the guess is not well-formed");
    guess
}

#[test]
fn key_in_the_query_authenticates() {
    require_program("curl", "curl");
    let server = server(&[("auth/query_key.rhai", &shipped("scripts/auth/query_key.rhai"))]);
    let key = server.user_with_permissions("llama", &[]);
    let bound = server.generate_key("llama", &["--network", "192.0.2.0/24"]);
    let blocked = server.user_with_permissions("blocked", &[]);
    server.site.json(&["user", "block", "blocked"]);
    let guess = guess(&blocked.text);
    create_resource(&server, "orders", "/orders", json!({}));
    create_default_application(&server, "query_key");
    let curl = |query: &str| status(&server, &format!("'http://{}/orders{query}'", server.public));
    let key = key.text.as_str();
    assert_eq!(curl(&format!("?api_key={key}")), "200");
    assert_eq!(curl(&format!("?page=2&api%5Fkey={key}")), "200");
    for (query, error) in [
        (String::new(), "MISSING_API_KEY_HEADER"),
        ("?api_key=".into(), "INVALID_API_KEY_FORMAT"),
        (format!("?api_key=x&api_key={key}"), "INVALID_API_KEY_FORMAT"),
        (format!("?api_key={key}&api%5fkey=x"), "INVALID_API_KEY_FORMAT"),
        ("?api_key=no-such-key".into(), "AUTHENTICATION_FAILED"),
        (format!("?api_key={}", &key[..key.len() - 1]), "AUTHENTICATION_FAILED"),
        (format!("?api_key={}", bound.text), "AUTHENTICATION_FAILED"),
        (format!("?API_KEY={key}"), "MISSING_API_KEY_HEADER"),
        // This guess has the id of a blocked user's key. The response must not show that the user
        // is blocked, because the secret is wrong.
        (format!("?api_key={guess}"), "AUTHENTICATION_FAILED"),
    ] {
        assert_eq!(curl(&query), "401", "{query}");
        assert_eq!(last_body(&server)["error"], error, "{query}");
    }
    // A wrong checksum is refused before any look-up, and the hint says so.
    let mistyped = format!("{}{}", &key[..47], if key.ends_with('x') { 'y' } else { 'x' });
    let response = server.request("GET", &format!("/orders?api_key={mistyped}")).send();
    assert!(response.header("x-keyward-hint").unwrap().contains("checksum"), "{}", response.body);
    // This authentication type ignores a key in a header field. The query must not be logged: at
    // the end of the test, the harness checks that the log does not contain the key.
    let header = credential("llama", key);
    let orders = format!("http://{}/orders", server.public);
    assert_eq!(status(&server, &format!("-H 'API-KEY: {header}' {orders}")), "401");
    server.wait_for_log("path=\"/orders\"");
}

#[test]
fn legacy_key_is_adopted_on_first_use() {
    require_program("curl", "curl");
    require_program("openssl", "openssl");
    let old = "the-old-systems-key-of-llama";
    let server =
        server(&[("auth/legacy_sha256.rhai", &shipped("scripts/auth/legacy_sha256.rhai"))]);
    server.forbid_in_log(old);
    let uid = server.add_user("llama", &[]);
    let stranger = server.add_user("stranger", &[]);
    create_resource(&server, "orders", "/orders", json!({}));
    create_default_application(&server, "legacy_sha256");
    // Compute the digest in the same way as the old system.
    let digest =
        run_client(&server, &format!("printf %s {old} | openssl dgst -sha256 -r | cut -d' ' -f1"));
    set_attributes(&server, uid, json!({ "legacy_sha256": digest }));
    set_attributes(&server, stranger, json!({ "legacy_sha256": "" }));
    let curl = |user: &str, key: &str| {
        let sent = credential(user, key);
        status(&server, &format!("-H 'API-KEY: {sent}' http://{}/orders", server.public))
    };
    let listed = || server.site.json(&["key", "list", "llama"]).as_array().unwrap().len();
    assert_eq!(listed(), 0);
    for (user, key) in [("llama", "another-key"), ("llama", digest.as_str()), ("stranger", old)] {
        assert_eq!(curl(user, key), "401", "{user}");
        assert_eq!(last_body(&server)["error"], "AUTHENTICATION_FAILED");
    }
    assert_eq!(listed(), 0);
    assert_eq!(curl("llama", old), "200");
    wait_until("the key is in the list", || listed() == 1);
    // The adopted key works only for its user, even after the attribute is removed.
    assert_eq!(curl("stranger", old), "401");
    set_attributes(&server, uid, json!({}));
    assert_eq!(curl("llama", old), "200");
    assert_eq!(curl("llama", "another-key"), "401");
    let change = json!({ "type": "api_key" });
    let target = "/api/v1/applications/scripted";
    assert_eq!(admin_request(&server, "PATCH", target).json(&change).send().status, 200);
    assert_eq!(curl("llama", old), "200");
    assert_eq!(listed(), 1);
    // The adopted key can be revoked like any other key.
    let keys = server.site.json(&["key", "list", "llama"]);
    server.site.json(&["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    assert_eq!(curl("llama", old), "401");
    assert_eq!(last_body(&server)["error_description"], "The API key has been revoked.");
}

#[test]
fn revoked_legacy_key_is_not_adopted_again() {
    let old = "the-old-systems-key-of-llama";
    let server =
        server(&[("auth/legacy_sha256.rhai", &shipped("scripts/auth/legacy_sha256.rhai"))]);
    server.forbid_in_log(old);
    let uid = server.add_user("llama", &[]);
    create_resource(&server, "orders", "/orders", json!({}));
    create_default_application(&server, "legacy_sha256");
    let digest = run_client(&server, &format!("printf %s {old} | sha256sum | cut -d' ' -f1"));
    set_attributes(&server, uid, json!({ "legacy_sha256": digest }));
    let send =
        || server.request("GET", "/orders").header("API-KEY", credential("llama", old)).send();
    assert_eq!(send().status, 200);
    let listed = || server.site.json(&["key", "list", "llama"]);
    wait_until("the key is in the list", || !listed()[0].is_null());
    server.site.json(&["key", "revoke", listed()[0]["id"].as_str().unwrap()]);
    // The user's attribute contains the digest, but the revoked key must not be adopted again.
    assert_eq!(status_and_code(&send()), error(401, "AUTHENTICATION_FAILED"));
}
