//! `auth/query_key.rhai` and `auth/legacy_sha256.rhai` with curl: keys in another place, and keys of another system.

use crate::harness::{Server, credential};

use super::*;

fn status(server: &Server, arguments: &str) -> String {
    client(
        server,
        &format!("command curl -sS --max-time 30 -o answer -w '%{{http_code}}' {arguments}"),
    )
}

fn answered(server: &Server) -> Value {
    let text = fs::read_to_string(server.site.path().join("answer")).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// A well-formed key with the id of this one and another secret, as whoever has seen the id can make it.
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
    assert!(matches!(KeyText::shape(&guess), KeyShape::Ours(_)), "it is not well-formed");
    guess
}

#[test]
fn a_key_in_the_query() {
    needs("curl", "curl");
    let server = server(&[("auth/query_key.rhai", &shipped("scripts/auth/query_key.rhai"))]);
    let key = server.user_with("llama", &[]);
    let bound = server.key("llama", &["--network", "192.0.2.0/24"]);
    let blocked = server.user_with("blocked", &[]);
    server.site.json(&["user", "block", "blocked"]);
    let guess = guess(&blocked.text);
    resource(&server, "orders", "/orders", json!({}));
    application(&server, "query_key");
    let ask = |query: &str| status(&server, &format!("'http://{}/orders{query}'", server.public));
    let key = key.text.as_str();
    assert_eq!(ask(&format!("?api_key={key}")), "200");
    assert_eq!(ask(&format!("?page=2&api%5Fkey={key}")), "200");
    for (query, error) in [
        (String::new(), "MISSING_API_KEY_HEADER"),
        ("?api_key=".into(), "INVALID_API_KEY_FORMAT"),
        (format!("?api_key=x&api_key={key}"), "INVALID_API_KEY_FORMAT"),
        (format!("?api_key={key}&api%5fkey=x"), "INVALID_API_KEY_FORMAT"),
        ("?api_key=no-such-key".into(), "AUTHENTICATION_FAILED"),
        (format!("?api_key={}", &key[..key.len() - 1]), "AUTHENTICATION_FAILED"),
        (format!("?api_key={}", bound.text), "AUTHENTICATION_FAILED"),
        (format!("?API_KEY={key}"), "MISSING_API_KEY_HEADER"),
        // The id of a blocked user's key: nothing is told of the user before the key has matched.
        (format!("?api_key={guess}"), "AUTHENTICATION_FAILED"),
    ] {
        assert_eq!(ask(&query), "401", "{query}");
        assert_eq!(answered(&server)["error"], error, "{query}");
    }
    // A key in the header is not what this type reads; and the query is not in the log, which the end of this test searches for the key.
    let header = credential("llama", key);
    let orders = format!("http://{}/orders", server.public);
    assert_eq!(status(&server, &format!("-H 'API-KEY: {header}' {orders}")), "401");
    server.tells("path=\"/orders\"");
}

#[test]
fn a_key_of_the_old_system_becomes_one_of_ours() {
    needs("curl", "curl");
    needs("openssl", "openssl");
    let old = "the-old-systems-key-of-llama";
    let server =
        server(&[("auth/legacy_sha256.rhai", &shipped("scripts/auth/legacy_sha256.rhai"))]);
    server.hide(old);
    let uid = server.user("llama", &[]);
    let stranger = server.user("stranger", &[]);
    resource(&server, "orders", "/orders", json!({}));
    application(&server, "legacy_sha256");
    // As the old system made it.
    let digest =
        client(&server, &format!("printf %s {old} | openssl dgst -sha256 -r | cut -d' ' -f1"));
    attributes(&server, uid, json!({ "legacy_sha256": digest }));
    attributes(&server, stranger, json!({ "legacy_sha256": "" }));
    let ask = |user: &str, key: &str| {
        let sent = credential(user, key);
        status(&server, &format!("-H 'API-KEY: {sent}' http://{}/orders", server.public))
    };
    let listed = || server.site.json(&["key", "list", "llama"]).as_array().unwrap().len();
    assert_eq!(listed(), 0);
    for (user, key) in [("llama", "another-key"), ("llama", digest.as_str()), ("stranger", old)] {
        assert_eq!(ask(user, key), "401", "{user}");
        assert_eq!(answered(&server)["error"], "AUTHENTICATION_FAILED");
    }
    assert_eq!(listed(), 0);
    assert_eq!(ask("llama", old), "200");
    until("the key is in the list", || listed() == 1);
    // It is nobody else's, and the old system is not needed any more.
    assert_eq!(ask("stranger", old), "401");
    attributes(&server, uid, json!({}));
    assert_eq!(ask("llama", old), "200");
    assert_eq!(ask("llama", "another-key"), "401");
    let change = json!({ "type": "api_key" });
    let target = "/api/v1/applications/scripted";
    assert_eq!(manages(&server, "PATCH", target).json(&change).send().status, 200);
    assert_eq!(ask("llama", old), "200");
    assert_eq!(listed(), 1);
    // What can be listed can be taken back.
    let keys = server.site.json(&["key", "list", "llama"]);
    server.site.json(&["key", "revoke", keys[0]["id"].as_str().unwrap()]);
    assert_eq!(ask("llama", old), "401");
    assert_eq!(answered(&server)["error_description"], "The API key has been revoked.");
}

#[test]
fn a_key_that_was_taken_back_does_not_come_again_by_the_old_digest() {
    let old = "the-old-systems-key-of-llama";
    let server =
        server(&[("auth/legacy_sha256.rhai", &shipped("scripts/auth/legacy_sha256.rhai"))]);
    server.hide(old);
    let uid = server.user("llama", &[]);
    resource(&server, "orders", "/orders", json!({}));
    application(&server, "legacy_sha256");
    let digest = client(&server, &format!("printf %s {old} | sha256sum | cut -d' ' -f1"));
    attributes(&server, uid, json!({ "legacy_sha256": digest }));
    let ask =
        || server.request("GET", "/orders").header("API-KEY", credential("llama", old)).send();
    assert_eq!(ask().status, 200);
    let listed = || server.site.json(&["key", "list", "llama"]);
    until("the key is in the list", || !listed()[0].is_null());
    server.site.json(&["key", "revoke", listed()[0]["id"].as_str().unwrap()]);
    // The digest is still in the attribute.
    assert_eq!(code(&ask()), error(401, "AUTHENTICATION_FAILED"));
}
