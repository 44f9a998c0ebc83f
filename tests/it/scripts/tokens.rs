//! `auth/jwt.rhai` with tokens that PyJWT makes.

use std::process::Command;

use crate::harness::Server;

use super::*;

const SECRET: &str = "a secret of thirty-two bytes or more";

/// A Python that has PyJWT, with what it needs for RS256.
fn python() -> &'static str {
    let has_it = |python: &&&str| {
        let asked = Command::new(python).args(["-c", "import jwt, cryptography"]).output();
        asked.is_ok_and(|output| output.status.success())
    };
    let found = ["/usr/bin/python3", "python3"].iter().find(has_it).copied();
    found.expect("this test needs PyJWT: apt-get install python3-jwt python3-cryptography")
}

/// Prints a token. `claims` and `more` are Python; `now` is the time.
fn token(server: &Server, claims: &str, more: &str) -> String {
    let program = format!(
        "import jwt, time\nnow = int(time.time())\nS = {SECRET:?}\nclaims = dict(sub='llama', aud='keyward', iss='https://id.example.com', exp=now + 60)\nclaims.update({claims})\nclaims = {{k: v for k, v in claims.items() if v is not None}}\nprint({more})"
    );
    let output = Command::new(python()).args(["-c", &program]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let token = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    server.hide(&token);
    token
}

const SIGNED: &str = "jwt.encode(claims, S, algorithm='HS256')";

fn ask(server: &Server, token: &str) -> Answer {
    server.request("GET", "/orders").header("Authorization", format!("Bearer {token}")).send()
}

fn token_server(script: &str, key: Option<&str>) -> Server {
    let site = site(&[("auth/jwt.rhai", script)]);
    if let Some(key) = key {
        secret(&site, "jwt", key);
    }
    let server = site.start();
    server.user("llama", &[]);
    server.user("blocked", &["--blocked"]);
    resource(&server, "orders", "/orders", json!({}));
    application(&server, "jwt");
    server
}

#[test]
fn a_token_that_another_library_made() {
    let server = token_server(&shipped("scripts/auth/jwt.rhai"), Some(SECRET));
    server.hide(SECRET);
    let good = ask(&server, &token(&server, "{}", SIGNED));
    assert_eq!((good.status, good.body.as_str()), (200, "passed"));
    let several = token(&server, "dict(aud=['x', 'keyward'], nbf=now - 5, iat=now)", SIGNED);
    assert_eq!(ask(&server, &several).status, 200);
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
        let answer = ask(&server, &token(&server, claims, SIGNED));
        assert_eq!(code(&answer), error(401, "INVALID_TOKEN"), "{claims}");
        assert!(answer.header("www-authenticate").is_some());
    }
    for forged in [
        "jwt.encode(claims, 'another secret of thirty-two bytes', algorithm='HS256')",
        "jwt.encode(claims, S, algorithm='HS384')",
        "jwt.encode(claims, None, algorithm='none')",
        "jwt.encode(claims, S, algorithm='HS256')[:-4] + 'AAAA'",
        "'a.b.c'",
    ] {
        let answer = ask(&server, &token(&server, "{}", forged));
        assert_eq!(code(&answer), error(401, "INVALID_TOKEN"), "{forged}");
    }
    let gone = ask(&server, &token(&server, "dict(sub='nobody')", SIGNED));
    assert_eq!(code(&gone), error(404, "USER_DOES_NOT_EXIST"));
    let blocked = ask(&server, &token(&server, "dict(sub='blocked')", SIGNED));
    assert_eq!(code(&blocked), error(403, "USER_BLOCKED"));
    assert_eq!(code(&server.request("GET", "/orders").send()).0, 401);
    let basic = server.request("GET", "/orders").header("Authorization", "Basic eA==").send();
    assert_eq!(code(&basic), error(401, "INVALID_TOKEN"));
}

#[test]
fn a_public_key_and_scopes() {
    let pair = |part: &str| shipped(&format!("src/hooks/tests/keys/{part}"));
    let script = shipped("scripts/auth/jwt.rhai")
        .replace("ALGORITHM = \"HS256\"", "ALGORITHM = \"RS256\"")
        .replace("SCOPE_CLAIM = ()", "SCOPE_CLAIM = \"permissions\"");
    let server = token_server(&script, Some(&pair("rsa.pub.pem")));
    let role = ["role", "add", "herd", "--label", "Herd", "--permission", "graze"];
    server.site.json(&role);
    server.user("alpaca", &["--role", "herd"]);
    resource(&server, "meadow", "/meadow", json!({ "permissions": { "GET": ["graze"] } }));
    let private = pair("rsa.pem");
    let rs256 = format!("jwt.encode(claims, {private:?}, algorithm='RS256')");
    let ask = |claims: &str| {
        let bearer = format!("Bearer {}", token(&server, claims, &rs256));
        server.request("GET", "/meadow").header("Authorization", bearer).send().status
    };
    assert_eq!(ask("dict(sub='alpaca', permissions=['graze'])"), 200);
    assert_eq!(ask("dict(sub='alpaca', permissions='eat graze')"), 200);
    // Without the claim a token is bound to nothing; it gives nothing that the user does not have.
    assert_eq!(ask("dict(sub='alpaca')"), 403);
    assert_eq!(ask("dict(sub='alpaca', permissions=['other'])"), 403);
    assert_eq!(ask("dict(sub='llama', permissions=['graze'])"), 403);
    // Signed with what everybody knows.
    let public = pair("rsa.pub.pem");
    let confused = format!(
        "(lambda h, b: h + '.' + b + '.' + __import__('base64').urlsafe_b64encode(__import__('hmac').new({public:?}.encode(), (h + '.' + b).encode(), 'sha256').digest()).decode().rstrip('='))(*jwt.encode(dict(claims, permissions=['graze'], sub='alpaca'), S, algorithm='HS256').split('.')[:2])"
    );
    let bearer = format!("Bearer {}", token(&server, "{}", &confused));
    let answer = server.request("GET", "/meadow").header("Authorization", bearer).send();
    assert_eq!(code(&answer), error(401, "INVALID_TOKEN"));
}

#[test]
fn without_its_secret_the_server_starts_and_nobody_is_let_in() {
    let server = token_server(&shipped("scripts/auth/jwt.rhai"), None);
    let answer = ask(&server, &token(&server, "{}", SIGNED));
    assert_eq!(code(&answer), error(503, "SCRIPT_ERROR"));
    assert!(!answer.body.contains("jwt") && !answer.body.contains("secret"), "{}", answer.body);
    server.tells("auth/jwt.rhai:");
}
