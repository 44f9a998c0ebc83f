//! Tests of `auth/hmac.rhai` with curl and openssl: a correctly signed request passes once, and all
//! other requests are denied.

use crate::harness::{Server, Site};

use super::*;

const SECRET: &str = "a-secret-that-both-sides-know";

/// A client that signs requests as the first lines of the script describe, without code of Keyward.
/// `send METHOD TARGET BODY` prints the error code and the status. Variables that are set for the
/// call modify the request.
const CLIENT: &str = r#"
HOST=${SERVER%:*}
send() {
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
    command curl -sS --max-time 30 -X "$method" "http://$SERVER$target" "${fields[@]}" -w '\n%{http_code}' | summary
}
summary() {
    sed -n 's/.*"error": "\([A-Z_]*\)".*/\1/p; s/^\(passed\)$/\1/p; $p' | tr '\n' ' ' | sed 's/ $//'
    echo
}
"#;

fn signed_server(buffer: bool) -> Server {
    require_program("curl", "curl");
    require_program("openssl", "openssl");
    let site = site(&[("auth/hmac.rhai", &shipped("scripts/auth/hmac.rhai"))]);
    write_secret(&site, "hmac-Builder", SECRET);
    let server = site.start();
    server.forbid_in_log(SECRET);
    server.add_user("Builder", &[]);
    server.add_user("other", &[]);
    create_resource(&server, "orders", "/orders/{*rest}", json!({ "buffer_body": buffer }));
    create_default_application(&server, "hmac");
    server
}

fn run_requests(server: &Server, commands: &str) -> Vec<String> {
    let script = format!("{CLIENT}\nSECRET={SECRET}\nKEY_ID=builder\n{commands}");
    run_client(server, &script).lines().map(str::to_owned).collect()
}

#[test]
fn signed_request_passes_once() {
    let server = signed_server(true);
    let results = run_requests(
        &server,
        r#"
        send GET /orders/7 ''
        send GET '/orders/7?page=2&q=a%20b' ''
        send POST /orders/7 '{"n":1}'
        export LC_ALL=C
        TIME_FIELD=Date TIME=$(date -u '+%a, %d %b %Y %H:%M:%S GMT') send GET /orders/7 ''
        NONCE=nonce-0001 send GET /orders/7 ''
        NONCE=nonce-0001 send GET /orders/7 ''
        NONCE=nonce-0001 send GET /orders/8 ''
        "#,
    );
    let passed = "passed 200";
    let replayed = "REQUEST_REPLAYED 401";
    assert_eq!(results, [passed, passed, passed, passed, passed, replayed, replayed]);
}

#[test]
fn modified_request_is_denied() {
    let server = signed_server(true);
    let results = run_requests(
        &server,
        r#"
        SIGNED_METHOD=GET send POST /orders/7 ''
        SIGNED_TARGET=/orders/7 send GET /orders/8 ''
        SIGNED_TARGET='/orders/7?page=1' send GET '/orders/7?page=2' ''
        SIGNED_BODY='{"n":1}' send POST /orders/7 '{"n":2}'
        SIGNED_BODY='' send POST /orders/7 '{"n":1}'
        SECRET=another send GET /orders/7 ''
        KEY_ID=other send GET /orders/7 ''
        KEY_ID=nobody send GET /orders/7 ''
        HOST=elsewhere.example send GET /orders/7 ''
        "#,
    );
    let wrong = "AUTHENTICATION_FAILED 401";
    assert_eq!(
        results,
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
fn old_and_incomplete_requests_are_denied() {
    let server = signed_server(true);
    let results = run_requests(
        &server,
        r#"
        TIME=$(($(date +%s) - 400)) send GET /orders/7 ''
        TIME=$(($(date +%s) + 400)) send GET /orders/7 ''
        TIME_FIELD=X-Something-Else send GET /orders/7 ''
        NONCE=short send GET /orders/7 ''
        BARE=1 send GET /orders/7 ''
        "#,
    );
    assert_eq!(
        results,
        [
            "SIGNATURE_TIME_WRONG 401",
            "SIGNATURE_TIME_WRONG 401",
            "SIGNATURE_TIME_MISSING 401",
            "SIGNATURE_MALFORMED 401",
            "MISSING_AUTHORIZATION_HEADER 401",
        ]
    );
}

#[test]
fn body_that_is_not_buffered_is_denied() {
    let server = signed_server(false);
    let results = run_requests(&server, "send POST /orders/7 x\nsend GET /orders/7 ''");
    assert_eq!(results, ["SCRIPT_ERROR 503", "SCRIPT_ERROR 503"]);
    server.wait_for_log("set buffer_body = true");
}

/// A signature can name the id of a Keyward key as its key id. Such a signature needs another
/// secret than the key, but the restrictions and the revocation of the key apply.
#[test]
fn id_of_a_keyward_key_can_sign_within_its_restrictions() {
    let first = signed_server(true);
    let network_bound = first.generate_key("Builder", &["--network", "192.0.2.0/24"]);
    let unrestricted = first.generate_key("Builder", &[]);
    let (admin, site) = (first.key.clone(), first.kill());
    for id in [&network_bound.id, &unrestricted.id] {
        write_secret(&site, &format!("hmac-{id}"), SECRET);
    }
    // Start another server, because a server reads secrets only when it starts.
    let server = Server::start(Site::with_env(site, "KEYWARD_LOG__LEVEL", "trace"), admin);
    let run = |id: &str| run_requests(&server, &format!("KEY_ID={id} send POST /orders/7 x"));
    assert_eq!(run(&unrestricted.id), ["passed 200"]);
    assert_eq!(run(&network_bound.id), ["AUTHENTICATION_FAILED 401"]);
    server.site.json(&["key", "revoke", &unrestricted.id]);
    assert_eq!(run(&unrestricted.id), ["AUTHENTICATION_FAILED 401"]);
}
