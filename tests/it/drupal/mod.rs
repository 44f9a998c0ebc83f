//! Tests of the move from Drupal: `keyward import drupal`, and the requests of its clients. The
//! databases are made here from the public facts about Drupal's tables.

mod database;
mod text;

use std::{fs, thread, time::Instant};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use self::database::{Database, PASSWORDS, key_of, name_of, password_of};
use crate::harness::{Response, Server, Site, TIMEOUT, credential};

/// The application for `API-KEY`, which is the default.
const BY_KEY: &str = "a1b2c3d4";
/// The application for `Authorization: Basic` with a key.
const BY_BASIC_KEY: &str = "b2c3d4e5";
/// The application for `Authorization: Basic` with a password.
const BY_PASSWORD: &str = "c3d4e5f6";

fn import(site: &Site, args: &[&str]) -> Value {
    site.json(&[&["import", "drupal"], args].concat())
}

/// Runs an import that must fail, and returns the problem.
fn failing_import(site: &Site, args: &[&str]) -> Value {
    let output = site.run(&[&["import", "drupal"], args, &["--output", "json"]].concat());
    assert!(!output.status.success());
    serde_json::from_slice(&output.stderr).unwrap()
}

fn write(site: &Site, name: &str, text: &str) {
    let path = site.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn basic(user: &str, secret: &str) -> String {
    format!("Basic {}", credential(user, secret))
}

fn get(server: &Server, uid: u64, fields: &[(&str, &str)]) -> Response {
    let request = server.request("GET", &format!("/user/{uid}"));
    fields.iter().fold(request, |request, (name, value)| request.header(name, value)).send()
}

#[test]
fn clients_of_a_drupal_site_pass_unchanged() {
    let server = Server::new();
    let site = &server.site;
    let database = Database::new(1000);
    write(site, "site.sql", &database.mysql());
    let dry_run = import(site, &["site.sql", "--dry-run"]);
    assert_eq!((&dry_run["users"], &dry_run["keys"]), (&json!(1000), &json!(999)), "{dry_run}");
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1);
    let imported = import(site, &["site.sql"]);
    let counts = ["users", "keys", "roles", "applications"].map(|name| imported[name].clone());
    assert_eq!(counts, [json!(1000), json!(999), json!(1), json!(3)], "{imported}");
    // The number of the server's first user is taken.
    let moved = imported["moved"].as_array().unwrap();
    assert_eq!(moved.len(), 1, "{imported}");
    assert!(moved[0].as_str().unwrap().ends_with("user root: 1 becomes 1001"), "{imported}");
    let root = site.json(&["user", "show", "root"]);
    assert_eq!((&root["uid"], &root["roles"]), (&json!(1001), &json!(["administrator"])));
    let editor = site.json(&["user", "show", "--uid", "3"]);
    assert_eq!(editor["roles"], json!(["editor"]), "{editor}");
    assert_eq!(editor["mail"], json!("user3@example.com"));
    assert_eq!(editor["created"], json!("2020-09-13T12:26:43+00:00"), "{editor}");
    assert_eq!(editor["uuid"], json!("00000000-0000-4000-8000-000000000003"));
    let role = site.json(&["role", "show", "editor"]);
    assert_eq!(
        (&role["label"], &role["permissions"]),
        (&json!("Éditeur"), &json!(["access user profiles"]))
    );

    for uid in 2..=1000 {
        let (name, key) = (name_of(uid), key_of(uid));
        server.forbid_in_log(&key);
        let api_key = get(&server, uid, &[("API-KEY", &credential(&name, &key))]);
        let fields = [("AUTH-METHOD", BY_BASIC_KEY), ("Authorization", &*basic(&name, &key))];
        let authorization = get(&server, uid, &fields);
        for response in [api_key, authorization] {
            if database.is_active(uid) {
                assert_eq!(response.status, 200, "{uid}: {}", response.body);
                assert_eq!(response.json()["name"], json!([{ "value": name }]));
                assert_eq!(response.json()["uid"], json!([{ "value": uid }]));
            } else {
                response.assert_error(403, "USER_BLOCKED", "The user is blocked or inactive.");
            }
        }
    }
    let with_password = |uid: u64, password: &str| {
        let authorization = basic(&name_of(uid), password);
        get(&server, uid, &[("AUTH-METHOD", BY_PASSWORD), ("Authorization", &authorization)])
    };
    let active: Vec<u64> = (2..=1000).filter(|uid| database.is_active(*uid)).take(40).collect();
    for uid in &active {
        let response = with_password(*uid, &password_of(*uid));
        assert_eq!(response.status, 200, "{uid}: {}", response.body);
    }
    // The imported digests are replaced.
    let renewed = || {
        let target = "/api/v1/audit?limit=100&order=newest";
        let entries = server.admin_api("GET", target).send().body;
        entries.matches("user.renew_password").count()
    };
    let deadline = Instant::now() + TIMEOUT;
    while renewed() < active.len() {
        assert!(Instant::now() < deadline, "{} of {} digests", renewed(), active.len());
        thread::sleep(std::time::Duration::from_millis(20));
    }
    for uid in active.iter().take(PASSWORDS) {
        assert_eq!(with_password(*uid, &password_of(*uid)).status, 200);
        assert_eq!(with_password(*uid, "wrong").status, 401);
    }
    wrong_requests_get_the_errors_of_the_module(&server, &active);

    // The import can be repeated.
    let again = import(site, &["site.sql"]);
    let counts =
        ["users", "known", "keys", "roles", "applications"].map(|name| again[name].clone());
    assert_eq!(counts, [json!(0), json!(1000), json!(0), json!(0), json!(0)], "{again}");
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
}

/// Sends 100 wrong requests.
fn wrong_requests_get_the_errors_of_the_module(server: &Server, active: &[u64]) {
    let invalid_key = "Sorry, you are using an invalid API Key.";
    for (number, uid) in active.iter().copied().take(10).enumerate() {
        let (name, key) = (name_of(uid), key_of(uid));
        let other = key_of(uid + 1);
        let sends = |fields: &[(&str, &str)], status: u16, code: &str, text: &str| {
            get(server, uid, fields).assert_error(status, code, text);
        };
        let id = ("AUTH-METHOD", "00000000");
        let text = "The provided application ID is not valid or not configured.";
        sends(&[id, ("API-KEY", &credential(&name, &key))], 400, "INVALID_APPLICATION_ID", text);
        sends(
            &[("AUTH-METHOD", BY_KEY)],
            401,
            "MISSING_API_KEY_HEADER",
            "API key header is missing.",
        );
        let plain = STANDARD.encode("no colon");
        for value in ["%%%", &plain] {
            let text = "API key format is invalid.";
            sends(&[("API-KEY", value)], 401, "INVALID_API_KEY_FORMAT", text);
        }
        let nobody = credential(&format!("nobody{number}"), &key);
        sends(&[("API-KEY", &nobody)], 404, "USER_DOES_NOT_EXIST", "The user does not exist.");
        // Keyward refuses an empty key before it looks the user up.
        let empty = credential(&name, "");
        let text = "API key format is invalid.";
        sends(&[("API-KEY", &empty)], 401, "INVALID_API_KEY_FORMAT", text);
        for wrong in [&*other, &key[1..]] {
            let value = credential(&name, wrong);
            sends(&[("API-KEY", &value)], 401, "AUTHENTICATION_FAILED", invalid_key);
        }
        let value = format!("Bearer {key}");
        let text = "Authorization header must be of type Basic.";
        let fields = [("AUTH-METHOD", BY_BASIC_KEY), ("Authorization", &*value)];
        sends(&fields, 401, "INVALID_AUTHORIZATION_HEADER_TYPE", text);
        // A key is not a password.
        let value = basic(&name, &key);
        let fields = [("AUTH-METHOD", BY_PASSWORD), ("Authorization", &*value)];
        sends(&fields, 401, "INVALID_CREDENTIALS", "Invalid username or password");
    }
}

#[test]
fn universal_key_of_the_module_acts_as_every_user_but_administrators() {
    let server = Server::new();
    let mut database = Database::new(5);
    database.has_keys = false;
    write(&server.site, "site.sql", &database.mysql());
    let imported = import(&server.site, &["site.sql"]);
    assert_eq!((&imported["users"], &imported["keys"]), (&json!(5), &json!(1)), "{imported}");
    let key = database::UNIVERSAL_KEY;
    server.forbid_in_log(key);
    for uid in 2..=5 {
        let response = get(&server, uid, &[("API-KEY", &credential(&name_of(uid), key))]);
        assert_eq!(response.status, 200, "{uid}: {}", response.body);
    }
    for name in ["root", "admin"] {
        let response = get(&server, 2, &[("API-KEY", &credential(name, key))]);
        response.assert_error(
            401,
            "AUTHENTICATION_FAILED",
            "Sorry, you are using an invalid API Key.",
        );
    }
    let again = import(&server.site, &["site.sql"]);
    assert_eq!((&again["known"], &again["keys"]), (&json!(5), &json!(0)), "{again}");
}

#[test]
fn dumps_of_other_databases_and_folders_of_csv_give_the_same_users() {
    let database = Database::new(12);
    let mut exported: Vec<(&str, String)> = Vec::new();
    for format in ["mysql", "postgresql", "sqlite", "csv"] {
        let site = Site::new();
        site.json(&["init"]);
        match format {
            "mysql" => write(&site, "dump", &database.mysql()),
            "postgresql" => write(&site, "dump", &database.postgresql()),
            "sqlite" => write(&site, "dump", &database.sqlite()),
            _ => {
                for (table, text) in database.csv() {
                    write(&site, &format!("dump/{table}.csv"), &text);
                }
            }
        }
        let imported = import(&site, &["dump"]);
        assert_eq!(
            (&imported["users"], &imported["keys"]),
            (&json!(12), &json!(11)),
            "{format}: {imported}"
        );
        let mut users = site.json(&["user", "list"]);
        for user in users.as_array_mut().unwrap() {
            user["changed"] = Value::Null;
        }
        let users = users.as_array().unwrap()[1..].to_vec();
        exported.push((format, json!(users).to_string()));
    }
    for (format, users) in &exported[1..] {
        assert_eq!(users, &exported[0].1, "{format}");
    }
}

#[test]
fn invalid_users_are_refused_with_their_lines_and_can_be_skipped() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["user", "add", "user5", "--mail", "mine@example.com"]);
    let mut database = Database::new(8);
    database.overrides = vec![
        (3, "name", "bad:name".into()),
        (4, "pass", "5f4dcc3b5aa765d61d8327deb882cf99".into()),
        (6, "mail", "not an address".into()),
        (7, "created", "yesterday".into()),
    ];
    write(&site, "site.sql", &database.mysql());
    let problem = failing_import(&site, &["site.sql"]);
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 4, "{problem}");
    for (user, expected) in [
        ("bad:name", "invalid character"),
        ("user4", "not a digest"),
        ("user6", "valid email address"),
        ("", "created is not a number"),
    ] {
        let found = errors.iter().any(|error| {
            error["location"].as_str().unwrap().contains(user)
                && error["message"].as_str().unwrap().contains(expected)
        });
        assert!(found, "{user} {expected}: {problem}");
    }
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&["role", "list"]).as_array().unwrap().len(), 3, "a role was written");

    let imported = import(&site, &["site.sql", "--skip-refused"]);
    assert_eq!((&imported["users"], &imported["keys"]), (&json!(3), &json!(2)), "{imported}");
    assert_eq!(imported["refused"].as_array().unwrap().len(), 4);
    // A user who only has the same name keeps everything, and gets no key.
    assert_eq!(imported["existing"].as_array().unwrap().len(), 1, "{imported}");
    let user = site.json(&["user", "show", "user5"]);
    assert_eq!((&user["mail"], &user["roles"]), (&json!("mine@example.com"), &json!([])));
    assert_eq!(site.json(&["key", "list", "user5"]), json!([]));

    let updated = import(&site, &["site.sql", "--skip-refused", "--update"]);
    assert_eq!(updated["updated"], json!(1), "{updated}");
    let user = site.json(&["user", "show", "user5"]);
    assert_eq!((&user["mail"], &user["uid"]), (&json!("user5@example.com"), &json!(2)), "{user}");
}

#[test]
fn keys_that_are_digests_are_not_imported_as_keys() {
    let site = Site::new();
    site.json(&["init"]);
    let mut database = Database::new(3);
    let digest = "ab".repeat(32);
    database.overrides = vec![(2, "api_key", digest)];
    write(&site, "site.sql", &database.mysql());
    let problem = failing_import(&site, &["site.sql"]);
    assert_eq!(
        problem["errors"][0]["message"], "The key looks like a SHA-256 digest.",
        "{problem}"
    );
    assert_eq!(import(&site, &["site.sql", "--clear-keys"])["keys"], json!(2));
}

#[test]
fn hostile_dumps_are_refused_without_a_change() {
    let site = Site::new();
    site.json(&["init"]);
    let head = "-- MySQL dump\nINSERT INTO `users_field_data` (`uid`,`name`) VALUES ";
    let long = format!("{head}(2,'{}');\n", "a".repeat(3 << 20));
    let deep = format!("{head}({}2{},'ann');\n", "(".repeat(1 << 20), ")".repeat(1 << 20));
    for (name, text) in [
        ("empty", String::new()),
        ("other", "INSERT INTO `x` VALUES (1);".into()),
        ("cut", format!("{head}(2,'ann")),
        ("long", long),
        ("deep", deep),
        ("binary", "\u{1}\u{2}(((;;'".into()),
    ] {
        write(&site, name, &text);
        let problem = failing_import(&site, &[name]);
        assert!(problem.is_object(), "{name}: {problem}");
        assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1, "{name}");
    }
    fs::write(site.path().join("site.sql.gz"), b"\x1F\x8B\x08\0").unwrap();
    assert!(failing_import(&site, &["site.sql.gz"]).to_string().contains("gunzip"));
    assert!(failing_import(&site, &["-"]).to_string().contains("give a file"));
}
