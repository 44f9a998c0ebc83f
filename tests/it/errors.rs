//! The table of authentication errors, one test a row, against the real program.

use serde_json::json;

use crate::harness::{Request, Server, credential};

/// A request to the user entity, which everybody may try.
fn entity(server: &Server) -> Request {
    server.request("GET", "/user/1?_format=json")
}

/// A server whose default application reads `Authorization: Basic base64(user:key)`.
fn with_authorization() -> Server {
    let server = Server::new();
    server.application(json!({ "header": "Authorization" }));
    server
}

/// A server whose default application takes passwords, with a user who has one.
fn with_passwords() -> Server {
    let server = Server::new();
    let user = json!({ "name": "pia", "password": "correct horse", "roles": ["administrator"] });
    assert_eq!(server.manages("POST", "/api/v1/users").json(&user).send().status, 201);
    server.hide("correct horse");
    let passwords = json!({ "id": "passwords", "name": "Passwords", "type": "basic" });
    assert_eq!(server.manages("POST", "/api/v1/applications").json(&passwords).send().status, 201);
    server
}

#[test]
fn no_application() {
    let server = Server::new();
    server.application(json!({ "is_default": false }));
    entity(&server).header("API-KEY", server.administrator()).send().refuses(
        400,
        "MISSING_HEADER",
        "Missing required unique header. It should contain the application ID, or a default application must be configured.",
    );
}

#[test]
fn an_application_that_nobody_knows() {
    let server = Server::new();
    let said = "The provided application ID is not valid or not configured.";
    for id in
        ["", "nobody", "DEFAULT", "default2", "keyward.operator", "default, default", "\u{fe}"]
    {
        let asked =
            entity(&server).header("AUTH-METHOD", id).header("API-KEY", server.administrator());
        asked.send().refuses(400, "INVALID_APPLICATION_ID", said);
    }
    let twice = entity(&server).header("AUTH-METHOD", "default").header("AUTH-METHOD", "default");
    twice.header("API-KEY", server.administrator()).send().refuses(
        400,
        "INVALID_APPLICATION_ID",
        said,
    );
    let right = entity(&server).header("auth-method", "default");
    assert_eq!(right.header("API-KEY", server.administrator()).send().status, 200);
}

#[test]
fn no_api_key_header() {
    let server = Server::new();
    let answer = entity(&server).send();
    answer.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("ApiKey realm=\"Keyward\", header=\"API-KEY\"")
    );
}

#[test]
fn no_authorization_header() {
    let server = with_authorization();
    let answer = entity(&server).header("API-KEY", server.administrator()).send();
    answer.refuses(401, "MISSING_AUTHORIZATION_HEADER", "Authorization header not received");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("Basic realm=\"Keyward\", charset=\"UTF-8\"")
    );
    // The most common reason by far.
    assert!(answer.header("x-keyward-hint").unwrap().contains("proxy in between has dropped it"));
}

#[test]
fn another_scheme() {
    let server = with_authorization();
    let said = "Authorization header must be of type Basic.";
    let right = server.administrator();
    for value in [&format!("Bearer {right}"), &format!("Basic{right}"), "Digest x", &right] {
        let answer = entity(&server).header("Authorization", value).send();
        answer.refuses(401, "INVALID_AUTHORIZATION_HEADER_TYPE", said);
    }
    for scheme in ["Basic", "basic", "BASIC", "bAsIc"] {
        let answer = entity(&server).header("Authorization", format!("{scheme} {right}")).send();
        assert_eq!(answer.status, 200, "{scheme}");
    }
}

#[test]
fn a_bearer_application_asks_for_bearer() {
    let server = Server::new();
    server.application(json!({ "type": "bearer", "header": "Authorization" }));
    let answer = entity(&server).header("Authorization", "Basic eA==").send();
    let said = "Authorization header must be of type Bearer.";
    answer.refuses(401, "INVALID_AUTHORIZATION_HEADER_TYPE", said);
    assert_eq!(answer.header("www-authenticate"), Some("Bearer realm=\"Keyward\""));
    let right = entity(&server).header("Authorization", format!("bearer {}", server.key)).send();
    assert_eq!(right.status, 200, "{}", right.body);
    let unknown = "kw_00000000_000000000000000000000000000000Wrong1";
    let answer = entity(&server).header("Authorization", format!("Bearer {unknown}")).send();
    answer.refuses(401, "INVALID_AUTHORIZATION_HEADER", "Authorization header format is invalid.");
    let answer = entity(&server).header("Authorization", "Bearer some-other-systems-key").send();
    answer.refuses(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
}

/// Everything that a credential can be but a credential.
fn malformed(key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let encoded = |bytes: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(bytes).into_bytes()
    };
    let right = credential("admin", key);
    let last = key.chars().last().unwrap();
    let wrong = if last == '0' { '1' } else { '0' };
    let mistyped = format!("{}{wrong}", &key[..key.len() - 1]);
    vec![
        ("not base64", b"!!!!".to_vec()),
        ("no padding", right.trim_end_matches('=').as_bytes()[..right.len() - 5].to_vec()),
        ("white space inside", format!("{} {}", &right[..8], &right[8..]).into_bytes()),
        ("the URL alphabet", b"YWRtaW46-_-_".to_vec()),
        ("the clear text", format!("admin:{key}").into_bytes()),
        ("no colon", encoded(b"admin")),
        ("no user", encoded(format!(":{key}").as_bytes())),
        ("no key", encoded(b"admin:")),
        ("neither", encoded(b":")),
        ("not UTF-8", encoded(b"admin:\xff\xfe")),
        ("NUL", encoded(b"admin\0:x")),
        ("NUL in the key", encoded(format!("admin:{key}\0").as_bytes())),
        ("a line break", encoded(b"admin:x\r\ny")),
        ("a wrong checksum", encoded(format!("admin:{mistyped}").as_bytes())),
        ("an empty value", Vec::new()),
        ("not ASCII", "ÿÿÿÿ".into()),
        ("too long", vec![b'A'; 5000]),
    ]
}

#[test]
fn a_credential_that_cannot_be_read() {
    let server = Server::new();
    for (what, value) in malformed(&server.key) {
        println!("{what}");
        let answer = entity(&server).header("API-KEY", value).send();
        answer.refuses(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
    }
    let twice = entity(&server).header("API-KEY", server.administrator());
    let answer = twice.header("Api-Key", server.administrator()).send();
    answer.refuses(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
}

#[test]
fn a_credential_in_authorization_that_cannot_be_read() {
    let server = with_authorization();
    let said = "Authorization header format is invalid.";
    for (what, value) in malformed(&server.key) {
        println!("{what}");
        let value = [b"Basic ".as_slice(), &value].concat();
        let answer = entity(&server).header("Authorization", value).send();
        answer.refuses(401, "INVALID_AUTHORIZATION_HEADER", said);
    }
    let value = format!("Basic {}", server.administrator());
    let twice = entity(&server).header("Authorization", &value).header("Authorization", &value);
    twice.send().refuses(401, "INVALID_AUTHORIZATION_HEADER", said);
}

#[test]
fn a_password_without_a_user() {
    let server = with_passwords();
    let value = format!("Basic {}", credential("", "correct horse"));
    let asked = entity(&server).header("AUTH-METHOD", "passwords").header("Authorization", value);
    asked.send().refuses(401, "MISSING_USERNAME", "Username Not Found");
}

#[test]
fn a_user_who_does_not_exist() {
    let server = Server::new();
    let value = credential("nobody", &server.key);
    let answer = entity(&server).header("API-KEY", value).send();
    answer.refuses(404, "USER_DOES_NOT_EXIST", "The user does not exist.");
}

#[test]
fn a_user_who_is_blocked() {
    let server = Server::new();
    server.user("bob", &["--blocked"]);
    let key = server.key("bob", &[]);
    let answer = entity(&server).header("API-KEY", key.credential).send();
    answer.refuses(403, "USER_BLOCKED", "The user is blocked or inactive.");
}

#[test]
fn a_wrong_key() {
    let server = Server::new();
    server.user("bob", &[]);
    let key = server.key("bob", &[]);
    let said = "Sorry, you are using an invalid API Key.";
    // Bob's key with the administrator's name, and keys that are not ours at all.
    for wrong in [key.text.as_str(), "x", "0", "null", "password"] {
        let answer = entity(&server).header("API-KEY", credential("admin", wrong)).send();
        answer.refuses(401, "AUTHENTICATION_FAILED", said);
    }
}

#[test]
fn a_wrong_password() {
    let server = with_passwords();
    let attempt = |user: &str, password: &str| {
        let value = format!("Basic {}", credential(user, password));
        entity(&server).header("AUTH-METHOD", "passwords").header("Authorization", value).send()
    };
    for wrong in ["wrong", "", "correct horse "] {
        attempt("pia", wrong).refuses(401, "INVALID_CREDENTIALS", "Invalid username or password");
    }
    // The administrator has no password.
    attempt("admin", "").refuses(401, "INVALID_CREDENTIALS", "Invalid username or password");
    attempt("admin", &server.key).refuses(
        401,
        "INVALID_CREDENTIALS",
        "Invalid username or password",
    );
    assert_eq!(attempt("pia", "correct horse").status, 200);
    assert_eq!(attempt("PIA", "correct horse").status, 200);
}

#[test]
fn an_expired_and_a_revoked_key() {
    let server = Server::new();
    server.user("bob", &[]);
    let revoked = server.key("bob", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    let answer = entity(&server).header("API-KEY", &revoked.credential).send();
    answer.refuses(401, "AUTHENTICATION_FAILED", "The API key has been revoked.");

    let short = server.key("bob", &["--expires", "1s"]);
    let until = std::time::Instant::now() + crate::harness::PATIENCE;
    loop {
        let answer = entity(&server).header("API-KEY", &short.credential).send();
        if answer.status == 401 {
            answer.refuses(401, "AUTHENTICATION_FAILED", "The API key has expired.");
            break;
        }
        assert!(std::time::Instant::now() < until, "it never expires");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // Neither is told to somebody who has only the id.
    let guess = format!("{}{}", &revoked.text[..12], &server.key[12..]);
    let answer = entity(&server).header("API-KEY", credential("bob", &guess)).send();
    answer.refuses(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
}

#[test]
fn uniform_detail_tells_nothing() {
    let server = Server::new();
    server.user("bob", &[]);
    server.user("eve", &["--blocked"]);
    let (revoked, wrong) = (server.key("bob", &[]), server.key("admin", &[]));
    let blocked = server.key("eve", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    server.application(json!({ "detail": "uniform" }));
    let attempts = [
        credential("nobody", &wrong.text),
        credential("bob", &wrong.text),
        credential("bob", "a foreign key"),
        blocked.credential,
        revoked.credential,
    ];
    let mut answers = Vec::new();
    for value in attempts {
        let mut answer = entity(&server).header("API-KEY", value).send();
        let said = "Sorry, you are using an invalid API Key.";
        answer.refuses(401, "AUTHENTICATION_FAILED", said);
        answer.headers.retain(|(name, _)| name != "date");
        answers.push((answer.status, answer.headers, answer.body));
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]), "{answers:#?}");
}

#[test]
fn an_application_that_is_off_makes_requests_anonymous() {
    let server = Server::new();
    let key = server.administrator();
    server
        .manages("POST", "/api/v1/applications")
        .json(&json!({ "id": "spare", "name": "Spare", "enabled": false }))
        .send();
    let off = || entity(&server).header("AUTH-METHOD", "spare").header("API-KEY", &key);
    // The resource does not list anonymous.
    off().send().says(403, "The used authentication method is not allowed on this route.");
    server.resource(json!({ "authentication": ["*", "anonymous"] }));
    // It does now, and the permission check still stands.
    off().send().says(403, "The 'access user profiles' permission is required.");
    let grant = json!({ "permissions": ["access user profiles"] });
    let target = "/api/v1/roles/anonymous";
    assert_eq!(server.manages("PATCH", target).json(&grant).send().status, 200);
    let answer = off().send();
    assert_eq!(answer.status, 200, "{}", answer.body);
    // Anonymous sees the short form, whatever key lies beside it.
    assert!(answer.json().get("roles").is_none());
    // And who brings a wrong key is refused, not let in as nobody.
    let wrong = entity(&server).header("API-KEY", credential("admin", "x")).send();
    assert_eq!(wrong.status, 401);
}

#[test]
fn another_header() {
    let server = Server::new();
    server.application(json!({ "header": "X-Machine-Token", "realm": "Machines" }));
    let answer = entity(&server).header("API-KEY", server.administrator()).send();
    answer.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    assert_eq!(
        answer.header("www-authenticate"),
        Some("ApiKey realm=\"Machines\", header=\"X-Machine-Token\"")
    );
    let answer = entity(&server).header("x-machine-token", server.administrator()).send();
    assert_eq!(answer.status, 200);
}
