//! Tests of the real program, with one test for each row of the table of authentication errors in
//! `docs/authentication.md`.

use serde_json::json;

use crate::harness::{Request, Server, credential};

/// A request for a user entity, without a credential.
fn get_user(server: &Server) -> Request {
    server.request("GET", "/user/1?_format=json")
}

/// A server whose default application reads `Authorization: Basic base64(user:key)`.
fn server_with_authorization() -> Server {
    let server = Server::new();
    server.patch_application(json!({ "header": "Authorization" }));
    server
}

/// A server with an application for passwords and a user with a password.
fn server_with_passwords() -> Server {
    let server = Server::new();
    let user = json!({ "name": "pia", "password": "correct horse", "roles": ["administrator"] });
    assert_eq!(server.admin_api("POST", "/api/v1/users").json(&user).send().status, 201);
    server.forbid_in_log("correct horse");
    let passwords = json!({ "id": "passwords", "name": "Passwords", "type": "basic" });
    assert_eq!(
        server.admin_api("POST", "/api/v1/applications").json(&passwords).send().status,
        201
    );
    server
}

#[test]
fn a_request_without_an_application_gets_missing_header() {
    let server = Server::new();
    server.patch_application(json!({ "is_default": false }));
    get_user(&server).header("API-KEY", server.admin_credential()).send().assert_error(
        400,
        "MISSING_HEADER",
        "Missing required unique header. It should contain the application ID, or a default application must be configured.",
    );
}

#[test]
fn an_unknown_application_id_gets_invalid_application_id() {
    let server = Server::new();
    let message = "The provided application ID is not valid or not configured.";
    for id in
        ["", "nobody", "DEFAULT", "default2", "keyward.operator", "default, default", "\u{fe}"]
    {
        let request = get_user(&server)
            .header("AUTH-METHOD", id)
            .header("API-KEY", server.admin_credential());
        request.send().assert_error(400, "INVALID_APPLICATION_ID", message);
    }
    let twice = get_user(&server).header("AUTH-METHOD", "default").header("AUTH-METHOD", "default");
    twice.header("API-KEY", server.admin_credential()).send().assert_error(
        400,
        "INVALID_APPLICATION_ID",
        message,
    );
    let right = get_user(&server).header("auth-method", "default");
    assert_eq!(right.header("API-KEY", server.admin_credential()).send().status, 200);
}

#[test]
fn a_missing_api_key_header_gets_missing_api_key_header() {
    let server = Server::new();
    let response = get_user(&server).send();
    response.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    assert_eq!(
        response.header("www-authenticate"),
        Some("ApiKey realm=\"Keyward\", header=\"API-KEY\"")
    );
}

#[test]
fn a_missing_authorization_header_gets_missing_authorization_header() {
    let server = server_with_authorization();
    let response = get_user(&server).header("API-KEY", server.admin_credential()).send();
    response.assert_error(401, "MISSING_AUTHORIZATION_HEADER", "Authorization header not received");
    assert_eq!(
        response.header("www-authenticate"),
        Some("Basic realm=\"Keyward\", charset=\"UTF-8\"")
    );
    // The hint names the most common cause of this error: a proxy dropped the header field.
    assert!(response.header("x-keyward-hint").unwrap().contains("proxy in between has dropped it"));
}

#[test]
fn another_authentication_scheme_is_rejected() {
    let server = server_with_authorization();
    let message = "Authorization header must be of type Basic.";
    let right = server.admin_credential();
    for value in [&format!("Bearer {right}"), &format!("Basic{right}"), "Digest x", &right] {
        let response = get_user(&server).header("Authorization", value).send();
        response.assert_error(401, "INVALID_AUTHORIZATION_HEADER_TYPE", message);
    }
    for scheme in ["Basic", "basic", "BASIC", "bAsIc"] {
        let response =
            get_user(&server).header("Authorization", format!("{scheme} {right}")).send();
        assert_eq!(response.status, 200, "{scheme}");
    }
}

#[test]
fn a_bearer_application_requires_the_scheme_bearer() {
    let server = Server::new();
    server.patch_application(json!({ "type": "bearer", "header": "Authorization" }));
    let response = get_user(&server).header("Authorization", "Basic eA==").send();
    let message = "Authorization header must be of type Bearer.";
    response.assert_error(401, "INVALID_AUTHORIZATION_HEADER_TYPE", message);
    assert_eq!(response.header("www-authenticate"), Some("Bearer realm=\"Keyward\""));
    let right = get_user(&server).header("Authorization", format!("bearer {}", server.key)).send();
    assert_eq!(right.status, 200, "{}", right.body);
    let unknown = "kw_00000000_000000000000000000000000000000Wrong1";
    let response = get_user(&server).header("Authorization", format!("Bearer {unknown}")).send();
    response.assert_error(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
    let response =
        get_user(&server).header("Authorization", "Bearer some-other-systems-key").send();
    response.assert_error(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
}

/// Malformed credentials of every kind, each with a description.
fn malformed_credentials(key: &str) -> Vec<(&'static str, Vec<u8>)> {
    let encoded = |bytes: &[u8]| {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        STANDARD.encode(bytes).into_bytes()
    };
    let right = credential("admin", key);
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
        ("an empty value", Vec::new()),
        ("not ASCII", "ÿÿÿÿ".into()),
        ("too long", vec![b'A'; 5000]),
    ]
}

#[test]
fn a_malformed_credential_gets_invalid_api_key_format() {
    let server = Server::new();
    for (description, value) in malformed_credentials(&server.key) {
        println!("{description}");
        let response = get_user(&server).header("API-KEY", value).send();
        response.assert_error(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
    }
    let twice = get_user(&server).header("API-KEY", server.admin_credential());
    let response = twice.header("Api-Key", server.admin_credential()).send();
    response.assert_error(401, "INVALID_API_KEY_FORMAT", "API key format is invalid.");
}

#[test]
fn a_malformed_credential_in_authorization_gets_invalid_authorization_header() {
    let server = server_with_authorization();
    let message = "Authorization header format is invalid.";
    for (description, value) in malformed_credentials(&server.key) {
        println!("{description}");
        let value = [b"Basic ".as_slice(), &value].concat();
        let response = get_user(&server).header("Authorization", value).send();
        response.assert_error(401, "INVALID_AUTHORIZATION_HEADER", message);
    }
    let value = format!("Basic {}", server.admin_credential());
    let twice = get_user(&server).header("Authorization", &value).header("Authorization", &value);
    twice.send().assert_error(401, "INVALID_AUTHORIZATION_HEADER", message);
}

#[test]
fn a_password_without_a_user_name_gets_missing_username() {
    let server = server_with_passwords();
    let value = format!("Basic {}", credential("", "correct horse"));
    let request =
        get_user(&server).header("AUTH-METHOD", "passwords").header("Authorization", value);
    request.send().assert_error(401, "MISSING_USERNAME", "Username Not Found");
}

#[test]
fn an_unknown_user_gets_user_does_not_exist() {
    let server = Server::new();
    let value = credential("nobody", &server.key);
    let response = get_user(&server).header("API-KEY", value).send();
    response.assert_error(404, "USER_DOES_NOT_EXIST", "The user does not exist.");
}

#[test]
fn a_blocked_user_gets_user_blocked() {
    let server = Server::new();
    server.add_user("bob", &["--blocked"]);
    let key = server.generate_key("bob", &[]);
    let response = get_user(&server).header("API-KEY", key.credential).send();
    response.assert_error(403, "USER_BLOCKED", "The user is blocked or inactive.");
}

#[test]
fn a_wrong_key_gets_authentication_failed() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let key = server.generate_key("bob", &[]);
    let message = "Sorry, you are using an invalid API Key.";
    // The wrong keys are Bob's key, sent with the administrator's name, and texts that are not
    // Keyward keys.
    for wrong in [key.text.as_str(), "x", "0", "null", "password"] {
        let response = get_user(&server).header("API-KEY", credential("admin", wrong)).send();
        response.assert_error(401, "AUTHENTICATION_FAILED", message);
    }
}

#[test]
fn a_wrong_password_gets_invalid_credentials() {
    let server = server_with_passwords();
    let attempt = |user: &str, password: &str| {
        let value = format!("Basic {}", credential(user, password));
        get_user(&server).header("AUTH-METHOD", "passwords").header("Authorization", value).send()
    };
    for wrong in ["wrong", "", "correct horse "] {
        attempt("pia", wrong).assert_error(
            401,
            "INVALID_CREDENTIALS",
            "Invalid username or password",
        );
    }
    // The administrator has no password, so no password is accepted.
    attempt("admin", "").assert_error(401, "INVALID_CREDENTIALS", "Invalid username or password");
    attempt("admin", &server.key).assert_error(
        401,
        "INVALID_CREDENTIALS",
        "Invalid username or password",
    );
    assert_eq!(attempt("pia", "correct horse").status, 200);
    assert_eq!(attempt("PIA", "correct horse").status, 200);
}

#[test]
fn an_expired_or_revoked_key_is_reported_only_to_the_holder_of_the_secret() {
    let server = Server::new();
    server.add_user("bob", &[]);
    let revoked = server.generate_key("bob", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    let response = get_user(&server).header("API-KEY", &revoked.credential).send();
    response.assert_error(401, "AUTHENTICATION_FAILED", "The API key has been revoked.");

    let short = server.generate_key("bob", &["--expires", "1s"]);
    let deadline = std::time::Instant::now() + crate::harness::TIMEOUT;
    loop {
        let response = get_user(&server).header("API-KEY", &short.credential).send();
        if response.status == 401 {
            response.assert_error(401, "AUTHENTICATION_FAILED", "The API key has expired.");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "the key should expire");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    // A client that knows only the id of a revoked key does not learn that the key is revoked.
    let prefix_and_id = "kw_12345678_".len();
    let guess = format!("{}{}", &revoked.text[..prefix_and_id], &server.key[prefix_and_id..]);
    let response = get_user(&server).header("API-KEY", credential("bob", &guess)).send();
    response.assert_error(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
}

#[test]
fn uniform_detail_makes_all_failures_look_the_same() {
    let server = Server::new();
    server.add_user("bob", &[]);
    server.add_user("eve", &["--blocked"]);
    let (revoked, admin_key) = (server.generate_key("bob", &[]), server.generate_key("admin", &[]));
    let blocked = server.generate_key("eve", &[]);
    server.site.json(&["key", "revoke", &revoked.id]);
    server.patch_application(json!({ "detail": "uniform" }));
    let attempts = [
        credential("nobody", &admin_key.text),
        credential("bob", &admin_key.text),
        credential("bob", "not a Keyward key"),
        blocked.credential,
        revoked.credential,
    ];
    let mut responses = Vec::new();
    for value in attempts {
        let mut response = get_user(&server).header("API-KEY", value).send();
        let message = "Sorry, you are using an invalid API Key.";
        response.assert_error(401, "AUTHENTICATION_FAILED", message);
        response.headers.retain(|(name, _)| name != "date");
        responses.push((response.status, response.headers, response.body));
    }
    assert!(responses.windows(2).all(|pair| pair[0] == pair[1]), "{responses:#?}");
}

#[test]
fn a_disabled_application_makes_requests_anonymous() {
    let server = Server::new();
    let key = server.admin_credential();
    server
        .admin_api("POST", "/api/v1/applications")
        .json(&json!({ "id": "spare", "name": "Spare", "enabled": false }))
        .send();
    let send_to_disabled =
        || get_user(&server).header("AUTH-METHOD", "spare").header("API-KEY", &key);
    // The resource does not list `anonymous`, so the anonymous request is rejected.
    send_to_disabled()
        .send()
        .assert_message(403, "The used authentication method is not allowed on this route.");
    server.patch_resource(json!({ "authentication": ["*", "anonymous"] }));
    // When the resource lists `anonymous`, the request still needs the permission.
    send_to_disabled()
        .send()
        .assert_message(403, "The 'access user profiles' permission is required.");
    let grant = json!({ "permissions": ["access user profiles"] });
    let target = "/api/v1/roles/anonymous";
    assert_eq!(server.admin_api("PATCH", target).json(&grant).send().status, 200);
    let response = send_to_disabled().send();
    assert_eq!(response.status, 200, "{}", response.body);
    // Although the request has an administrator's key, the response has only the fields that
    // anonymous clients see.
    assert!(response.json().get("roles").is_none());
    // With an enabled application, a request with a wrong key is rejected instead of becoming
    // anonymous.
    let wrong = get_user(&server).header("API-KEY", credential("admin", "x")).send();
    assert_eq!(wrong.status, 401);
}

#[test]
fn an_application_can_read_the_key_from_another_header_field() {
    let server = Server::new();
    server.patch_application(json!({ "header": "X-Machine-Token", "realm": "Machines" }));
    let response = get_user(&server).header("API-KEY", server.admin_credential()).send();
    response.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    assert_eq!(
        response.header("www-authenticate"),
        Some("ApiKey realm=\"Machines\", header=\"X-Machine-Token\"")
    );
    let response = get_user(&server).header("x-machine-token", server.admin_credential()).send();
    assert_eq!(response.status, 200);
}
