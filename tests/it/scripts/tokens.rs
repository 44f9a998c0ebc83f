//! Tests of `auth/jwt.rhai` with tokens from PyJWT.

use std::process::Command;

use crate::harness::Server;

use super::*;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// A Python interpreter that has the packages PyJWT and `cryptography`. RS256 needs `cryptography`.
fn python() -> &'static str {
    let has_packages = |python: &&&str| {
        let result = Command::new(python).args(["-c", "import jwt, cryptography"]).output();
        result.is_ok_and(|output| output.status.success())
    };
    let found = ["/usr/bin/python3", "python3"].iter().find(has_packages).copied();
    found.expect("this test needs PyJWT: apt-get install python3-jwt python3-cryptography")
}

/// Creates a token. `claims` and `expression` are Python code, in which `now` is the current time
/// in seconds.
fn create_token(server: &Server, claims: &str, expression: &str) -> String {
    let program = format!(
        "import jwt, time\nnow = int(time.time())\nS = {SECRET:?}\nclaims = dict(sub='llama', aud='keyward', iss='https://id.example.com', exp=now + 60)\nclaims.update({claims})\nclaims = {{k: v for k, v in claims.items() if v is not None}}\nprint({expression})"
    );
    let output = Command::new(python()).args(["-c", &program]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    server.forbid_in_log(&token);
    token
}

/// The Python expression for a correctly signed token.
const SIGNED: &str = "jwt.encode(claims, S, algorithm='HS256')";

fn send(server: &Server, token: &str) -> Response {
    server.request("GET", "/orders").header("Authorization", format!("Bearer {token}")).send()
}

fn token_server(script: &str, key: Option<&str>) -> Server {
    let site = site(&[("auth/jwt.rhai", script)]);
    if let Some(key) = key {
        write_secret(&site, "jwt", key);
    }
    let server = site.start();
    server.add_user("llama", &[]);
    server.add_user("blocked", &["--blocked"]);
    create_resource(&server, "orders", "/orders", json!({}));
    create_default_application(&server, "jwt");
    server
}

#[test]
fn valid_tokens_pass_and_invalid_or_forged_tokens_are_denied() {
    let server = token_server(&shipped("scripts/auth/jwt.rhai"), Some(SECRET));
    server.forbid_in_log(SECRET);
    let good = send(&server, &create_token(&server, "{}", SIGNED));
    assert_eq!((good.status, good.body.as_str()), (200, "passed"));
    let several_audiences =
        create_token(&server, "dict(aud=['x', 'keyward'], nbf=now - 5, iat=now)", SIGNED);
    assert_eq!(send(&server, &several_audiences).status, 200);
    for claims in [
        "dict(exp=now - 61)",
        "dict(exp=None)",
        "dict(nbf=now + 120)",
        "dict(aud='another')",
        "dict(aud=None)",
        "dict(iss='https://evil.example')",
        "dict(iss=None)",
        "dict(sub=None)",
        "dict(sub='')",
    ] {
        let response = send(&server, &create_token(&server, claims, SIGNED));
        assert_eq!(status_and_code(&response), error(401, "INVALID_TOKEN"), "{claims}");
        assert!(response.header("www-authenticate").is_some());
    }
    for forged in [
        "jwt.encode(claims, 'another secret of thirty-two bytes', algorithm='HS256')",
        "jwt.encode(claims, S, algorithm='HS384')",
        "jwt.encode(claims, None, algorithm='none')",
        "jwt.encode(claims, S, algorithm='HS256')[:-4] + 'AAAA'",
        "'a.b.c'",
    ] {
        let response = send(&server, &create_token(&server, "{}", forged));
        assert_eq!(status_and_code(&response), error(401, "INVALID_TOKEN"), "{forged}");
    }
    let unknown_user = send(&server, &create_token(&server, "dict(sub='nobody')", SIGNED));
    assert_eq!(status_and_code(&unknown_user), error(404, "USER_DOES_NOT_EXIST"));
    let blocked = send(&server, &create_token(&server, "dict(sub='blocked')", SIGNED));
    assert_eq!(status_and_code(&blocked), error(403, "USER_BLOCKED"));
    assert_eq!(status_and_code(&server.request("GET", "/orders").send()).0, 401);
    let basic = server.request("GET", "/orders").header("Authorization", "Basic eA==").send();
    assert_eq!(status_and_code(&basic), error(401, "INVALID_TOKEN"));
}

#[test]
fn rs256_token_limits_the_user_to_its_scopes() {
    let key_file = |part: &str| shipped(&format!("src/scripting/tests/keys/{part}"));
    let script = shipped("scripts/auth/jwt.rhai")
        .replace("ALGORITHM = \"HS256\"", "ALGORITHM = \"RS256\"")
        .replace("SCOPE_CLAIM = ()", "SCOPE_CLAIM = \"permissions\"");
    let server = token_server(&script, Some(&key_file("rsa.pub.pem")));
    let role = ["role", "add", "herd", "--label", "Herd", "--permission", "graze"];
    server.site.json(&role);
    server.add_user("alpaca", &["--role", "herd"]);
    create_resource(&server, "meadow", "/meadow", json!({ "permissions": { "GET": ["graze"] } }));
    let private = key_file("rsa.pem");
    let rs256 = format!("jwt.encode(claims, {private:?}, algorithm='RS256')");
    let status = |claims: &str| {
        let bearer = format!("Bearer {}", create_token(&server, claims, &rs256));
        server.request("GET", "/meadow").header("Authorization", bearer).send().status
    };
    assert_eq!(status("dict(sub='alpaca', permissions=['graze'])"), 200);
    assert_eq!(status("dict(sub='alpaca', permissions='eat graze')"), 200);
    // A token without the claim has no scopes and allows nothing that needs a permission. A scope
    // does not give the user a permission that the user's roles lack.
    assert_eq!(status("dict(sub='alpaca')"), 403);
    assert_eq!(status("dict(sub='alpaca', permissions=['other'])"), 403);
    assert_eq!(status("dict(sub='llama', permissions=['graze'])"), 403);
    // Algorithm confusion attack: the token is signed with HS256, and the secret is the public key.
    let public = key_file("rsa.pub.pem");
    let confused = format!(
        "(lambda h, b: h + '.' + b + '.' + __import__('base64').urlsafe_b64encode(__import__('hmac').new({public:?}.encode(), (h + '.' + b).encode(), 'sha256').digest()).decode().rstrip('='))(*jwt.encode(dict(claims, permissions=['graze'], sub='alpaca'), S, algorithm='HS256').split('.')[:2])"
    );
    let bearer = format!("Bearer {}", create_token(&server, "{}", &confused));
    let response = server.request("GET", "/meadow").header("Authorization", bearer).send();
    assert_eq!(status_and_code(&response), error(401, "INVALID_TOKEN"));
}

#[test]
fn missing_secret_denies_every_token() {
    let server = token_server(&shipped("scripts/auth/jwt.rhai"), None);
    let response = send(&server, &create_token(&server, "{}", SIGNED));
    assert_eq!(status_and_code(&response), error(503, "SCRIPT_ERROR"));
    assert!(
        !response.body.contains("jwt") && !response.body.contains("secret"),
        "{}",
        response.body
    );
    server.wait_for_log("auth/jwt.rhai:");
}
