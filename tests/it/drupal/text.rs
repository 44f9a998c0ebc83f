//! Tests of the rules for texts: a text is kept as it was sent, and texts that look alike are
//! equal.

use serde_json::{Value, json};

use super::basic;
use crate::harness::{Server, credential};

/// Creates a user with the user entity, as an administrator.
fn create(server: &Server, body: &str) -> crate::harness::Response {
    let request = server.request_as_admin("POST", "/entity/user");
    request.header("Content-Type", "application/json").body(body).send()
}

/// The status of a request with a password.
fn log_in(server: &Server, name: &str, password: &str) -> u16 {
    let request = server.request("GET", "/user/1").header("AUTH-METHOD", "pw");
    request.header("Authorization", basic(name, password)).send().status
}

fn server_with_passwords() -> Server {
    let server = Server::new();
    server.site.json(&["app", "add", "pw", "--type", "basic", "--header", "Authorization"]);
    server
}

#[test]
fn digits_of_a_number_in_a_text_field_are_kept() {
    let server = server_with_passwords();
    for (name, number) in [
        ("n1", "100000000000000000000"),
        ("n2", "1e2"),
        ("n3", "-0"),
        ("n4", "1.10"),
        ("n5", "12345678901234567890"),
        ("n6", "1e999"),
    ] {
        let body = format!("{{\"name\":[\"{name}\"],\"status\":[1],\"pass\":[{number}]}}");
        assert_eq!(create(&server, &body).status, 201, "{number}");
        // The user has no permission for another user, but the password is right.
        assert_eq!(log_in(&server, name, number), 403, "{number}");
    }
    assert_eq!(log_in(&server, "n1", "1e+20"), 401);
    assert_eq!(log_in(&server, "n2", "100.0"), 401);
    let created = create(&server, "{\"name\":[18446744073709551616]}");
    assert_eq!(created.json()["name"], json!([{ "value": "18446744073709551616" }]));
    let body = "{\"name\":[{\"value\":1e400}],\"timezone\":[1.0]}";
    let refused = create(&server, body);
    assert_eq!(refused.status, 422, "{}", refused.body);
    for body in ["{1e2:[\"x\"]}", "{\"name\":[01]}", "{\"name\":[1e2}"] {
        let refused = create(&server, body);
        refused.assert_message(400, "Syntax error");
    }
    // The admin API refuses numbers.
    let refused = server.admin_api("POST", "/api/v1/users").json(&json!({ "name": 1e20 })).send();
    assert_eq!(refused.status, 422, "{}", refused.body);
    assert!(refused.body.contains("This is not text."), "{}", refused.body);
}

#[test]
fn names_that_look_alike_are_one_name_in_every_face() {
    let server = server_with_passwords();
    let site = &server.site;
    let decomposed = "rene\u{301}";
    let composed = "ren\u{e9}";
    let created = create(&server, &json!({ "name": [decomposed], "status": [1] }).to_string());
    assert_eq!(created.status, 201, "{}", created.body);
    assert_eq!(created.json()["name"], json!([{ "value": decomposed }]));
    for alike in [composed, "RENÉ", "Rene\u{301}"] {
        let refused = create(&server, &json!({ "name": [alike] }).to_string());
        let message = format!(
            "Unprocessable Entity: validation failed.\nname: The username {alike} is already taken.\n"
        );
        refused.assert_message(422, &message);
        let refused =
            server.admin_api("POST", "/api/v1/users").json(&json!({ "name": alike })).send();
        assert!(refused.body.contains("already taken"), "{}", refused.body);
        assert!(!site.run(&["user", "add", alike]).status.success());
        assert_eq!(site.json(&["user", "show", alike])["name"], json!(decomposed));
    }
    let key = server.generate_key(composed, &[]);
    let uid = site.json(&["user", "show", composed])["uid"].as_u64().unwrap();
    for alike in [composed, decomposed, "RENÉ"] {
        let response = server
            .request("GET", &format!("/user/{uid}"))
            .header("API-KEY", credential(alike, &key.text))
            .send();
        assert_eq!(response.status, 200, "{alike}: {}", response.body);
    }
    // A state file and an import name the user in another spelling.
    let state = format!("version = 1\n[[users]]\nname = \"{composed}\"\n");
    std::fs::write(site.path().join("state.toml"), state).unwrap();
    let applied = site.run(&["apply", "state.toml", "--dry-run"]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    std::fs::write(site.path().join("keys.csv"), format!("{composed},an-old-key-of-rene\n"))
        .unwrap();
    let imported = site.json(&["key", "import", "keys.csv", "--create-users"]);
    assert_eq!((&imported["keys"], &imported["users"]), (&json!(1), &json!(0)));
    assert!(site.run(&["user", "delete", composed, "--yes"]).status.success());
    assert_eq!(create(&server, &json!({ "name": [composed] }).to_string()).status, 201);
}

#[test]
fn passwords_match_in_every_form_of_their_letters() {
    let server = server_with_passwords();
    for (name, password) in [("p1", "pa\u{308}ss w"), ("p2", "p\u{e4}ss\u{a0}w")] {
        let body = json!({ "name": [name], "status": [1], "pass": [password] });
        assert_eq!(create(&server, &body.to_string()).status, 201);
        for typed in ["pa\u{308}ss w", "p\u{e4}ss w", "p\u{e4}ss\u{a0}w"] {
            assert_eq!(log_in(&server, name, typed), 403, "{name} {typed:?}");
        }
        for wrong in ["pass w", "P\u{e4}ss w", "p\u{e4}ssw"] {
            assert_eq!(log_in(&server, name, wrong), 401, "{name} {wrong:?}");
        }
    }
    // The digest of another system was made of the decomposed letters.
    let digest = {
        use base64::Engine as _;
        use sha1::Digest as _;
        let sum = sha1::Sha1::digest("pa\u{308}ss w");
        format!("{{SHA}}{}", base64::engine::general_purpose::STANDARD.encode(sum))
    };
    std::fs::write(server.site.path().join("users.htpasswd"), format!("p3:{digest}\n")).unwrap();
    server.site.json(&["user", "import", "users.htpasswd"]);
    assert_eq!(log_in(&server, "p3", "pa\u{308}ss w"), 403);
    // The digest was replaced by one of the prepared password.
    assert_eq!(log_in(&server, "p3", "pa\u{308}ss w"), 403);
}

#[test]
fn mail_addresses_of_all_scripts_are_accepted_and_compared() {
    let server = Server::new();
    let mail_of = |name: &str, mail: &str| {
        create(&server, &json!({ "name": [name], "mail": [mail] }).to_string())
    };
    for (name, mail) in [
        ("m1", "संपर्क@डाटामेल.भारत"),
        ("m2", "user@डाटामेल.भारत"),
        ("m3", "ทดสอบ้@ตัวอย่าง.ไทย"),
        ("m4", "用户@例子.公司"),
    ] {
        let created = mail_of(name, mail);
        assert_eq!(created.status, 201, "{mail}: {}", created.body);
        assert_eq!(created.json()["mail"], json!([{ "value": mail }]));
    }
    let created = mail_of("m5", "ju\u{308}rgen@example.com");
    assert_eq!(created.json()["mail"], json!([{ "value": "j\u{fc}rgen@example.com" }]));
    let taken = mail_of("m6", "J\u{dc}RGEN@example.com");
    let message = "Unprocessable Entity: validation failed.\nmail: The email address J\u{dc}RGEN@example.com is already taken.\n";
    taken.assert_message(422, message);
    for bad in ["a\u{a0}b@example.com", "a@\u{301}b", "a\u{200b}@b"] {
        let refused = mail_of("m7", bad);
        let message = "Unprocessable Entity: validation failed.\nmail.0.value: This value is not a valid email address.\n";
        refused.assert_message(422, message);
    }
    let _: Value = created.json();
}
