//! `auth/hmac.rhai` with curl and openssl: what is signed passes once, and nothing else does.

use crate::harness::{Server, Site};

use super::*;

const SECRET: &str = "a-secret-that-both-sides-know";

/// A client that knows nothing of Keyward but what the script's first lines say. `ask METHOD TARGET BODY` prints the status and the error;
/// what it sends can be changed by the variables that stand before it.
const CLIENT: &str = r#"
HOST=${SERVER%:*}
ask() {
    local method=$1 target=$2 body=$3 time digest='' lines signature
    local nonce=${NONCE:-$(openssl rand -hex 8)} signed=${SIGNED_BODY-$3}
    time=${TIME:-$(date +%s)}
    if [ -n "$signed" ]; then digest="sha-256=:$(printf %s "$signed" | openssl dgst -sha256 -binary | base64 -w0):"; fi
    lines="keyward-hmac-sha256
${SIGNED_METHOD:-$method}
$HOST
${SIGNED_TARGET:-$target}
$KEY_ID
$nonce
$time
$digest"
    signature=$(printf %s "$lines" | openssl dgst -sha256 -hmac "$SECRET" -binary | base64 -w0)
    local fields=(-H "Authorization: HMAC-SHA256 $KEY_ID:$nonce:$signature" -H "${TIME_FIELD:-X-Signature-Created}: $time")
    if [ -n "$digest" ]; then fields+=(-H "Content-Digest: $digest"); fi
    if [ -n "${BARE-}" ]; then fields=(); fi
    if [ -n "$body" ]; then fields+=(--data-binary "$body"); fi
    command curl -sS --max-time 30 -X "$method" "http://$SERVER$target" "${fields[@]}" -w '\n%{http_code}' | said
}
said() {
    sed -n 's/.*"error": "\([A-Z_]*\)".*/\1/p; s/^\(passed\)$/\1/p; $p' | tr '\n' ' ' | sed 's/ $//'
    echo
}
"#;

fn signed_server(buffer: bool) -> Server {
    needs("curl", "curl");
    needs("openssl", "openssl");
    let site = site(&[("auth/hmac.rhai", &shipped("scripts/auth/hmac.rhai"))]);
    secret(&site, "hmac-Builder", SECRET);
    let server = site.start();
    server.hide(SECRET);
    server.user("Builder", &[]);
    server.user("other", &[]);
    resource(&server, "orders", "/orders/{*rest}", json!({ "buffer_body": buffer }));
    application(&server, "hmac");
    server
}

fn asks(server: &Server, commands: &str) -> Vec<String> {
    let script = format!("{CLIENT}\nSECRET={SECRET}\nKEY_ID=builder\n{commands}");
    client(server, &script).lines().map(str::to_owned).collect()
}

#[test]
fn what_is_signed_passes_once() {
    let server = signed_server(true);
    let said = asks(
        &server,
        r#"
        ask GET /orders/7 ''
        ask GET '/orders/7?page=2&q=a%20b' ''
        ask POST /orders/7 '{"n":1}'
        export LC_ALL=C
        TIME_FIELD=Date TIME=$(date -u '+%a, %d %b %Y %H:%M:%S GMT') ask GET /orders/7 ''
        NONCE=nonce-0001 ask GET /orders/7 ''
        NONCE=nonce-0001 ask GET /orders/7 ''
        NONCE=nonce-0001 ask GET /orders/8 ''
        "#,
    );
    let passed = "passed 200";
    let replayed = "REQUEST_REPLAYED 401";
    assert_eq!(said, [passed, passed, passed, passed, passed, replayed, replayed]);
}

#[test]
fn what_was_changed_on_the_way_is_refused() {
    let server = signed_server(true);
    let said = asks(
        &server,
        r#"
        SIGNED_METHOD=GET ask POST /orders/7 ''
        SIGNED_TARGET=/orders/7 ask GET /orders/8 ''
        SIGNED_TARGET='/orders/7?page=1' ask GET '/orders/7?page=2' ''
        SIGNED_BODY='{"n":1}' ask POST /orders/7 '{"n":2}'
        SIGNED_BODY='' ask POST /orders/7 '{"n":1}'
        SECRET=another ask GET /orders/7 ''
        KEY_ID=other ask GET /orders/7 ''
        KEY_ID=nobody ask GET /orders/7 ''
        HOST=elsewhere.example ask GET /orders/7 ''
        "#,
    );
    let wrong = "AUTHENTICATION_FAILED 401";
    assert_eq!(
        said,
        [
            wrong,
            wrong,
            wrong,
            "CONTENT_DIGEST_WRONG 401",
            "CONTENT_DIGEST_MISSING 401",
            wrong,
            wrong,
            "USER_DOES_NOT_EXIST 404",
            wrong
        ]
    );
}

#[test]
fn old_requests_and_missing_fields_are_refused() {
    let server = signed_server(true);
    let said = asks(
        &server,
        r#"
        TIME=$(($(date +%s) - 400)) ask GET /orders/7 ''
        TIME=$(($(date +%s) + 400)) ask GET /orders/7 ''
        TIME_FIELD=X-Something-Else ask GET /orders/7 ''
        NONCE=short ask GET /orders/7 ''
        BARE=1 ask GET /orders/7 ''
        "#,
    );
    assert_eq!(
        said,
        [
            "SIGNATURE_TIME_WRONG 401",
            "SIGNATURE_TIME_WRONG 401",
            "SIGNATURE_TIME_MISSING 401",
            "SIGNATURE_MALFORMED 401",
            "MISSING_API_KEY_HEADER 401",
        ]
    );
}

#[test]
fn a_body_that_cannot_be_checked_is_not_let_through() {
    let server = signed_server(false);
    let said = asks(&server, "ask POST /orders/7 x\nask GET /orders/7 ''");
    assert_eq!(said, ["SCRIPT_ERROR 503", "SCRIPT_ERROR 503"]);
    server.tells("set buffer_body = true");
}

/// A key id signs with a secret of its own, within what the key allows, until the key is taken back.
#[test]
fn one_of_keywards_keys_can_be_the_key_id() {
    let first = signed_server(true);
    let bound = first.key("Builder", &["--network", "192.0.2.0/24"]);
    let free = first.key("Builder", &[]);
    let (admin, site) = (first.key.clone(), first.kill());
    for id in [&bound.id, &free.id] {
        secret(&site, &format!("hmac-{id}"), SECRET);
    }
    // Secrets are read at the start.
    let server = Server::start(Site::with(site, "KEYWARD_LOG__LEVEL", "trace"), admin);
    let ask = |id: &str| asks(&server, &format!("KEY_ID={id} ask POST /orders/7 x"));
    assert_eq!(ask(&free.id), ["passed 200"]);
    assert_eq!(ask(&bound.id), ["AUTHENTICATION_FAILED 401"]);
    server.site.json(&["key", "revoke", &free.id]);
    assert_eq!(ask(&free.id), ["AUTHENTICATION_FAILED 401"]);
}
