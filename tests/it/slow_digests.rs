//! Tests of imported slow digests (bcrypt, Argon2, and the formats of Apache). The first use of a
//! key or password replaces the imported digest with a digest in Keyward's format. The imported
//! digests come from `htpasswd`, OpenSSL and the `argon2` crate.

use std::{
    fs,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordHasher as _};
use serde_json::{Value, json};

use crate::harness::{Server, Site, TIMEOUT, credential};

/// Runs a program and returns its output. Debian has `htpasswd` in the package apache2-utils.
fn run_program(program: &str, args: &[&str]) -> String {
    let run = Command::new(program).args(args).output();
    let run = run.unwrap_or_else(|problem| {
        panic!("{program}: {problem}; apt-get install apache2-utils openssl")
    });
    assert!(run.status.success(), "{program} {args:?}");
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

/// A line of a password file, as Apache's tool `htpasswd` writes it.
fn htpasswd(flags: &str, name: &str, password: &str) -> String {
    run_program("htpasswd", &[flags, name, password])
}

fn argon2(text: &str) -> String {
    let params = argon2::Params::new(8192, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(text.as_bytes(), &[7; 16]).unwrap();
    hash.to_string()
}

/// Waits until the condition is true.
fn wait_until(description: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + TIMEOUT;
    while !condition() {
        assert!(Instant::now() < deadline, "timed out: {description}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// The status of a request with this credential.
fn status(server: &Server, name: &str, key: &str) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", credential(name, key)).send().status
}

/// The `scheme` field of the user's key with this label.
fn scheme(site: &Site, name: &str, label: &str) -> Value {
    let keys = site.json(&["key", "list", name]);
    let key = keys.as_array().unwrap().iter().find(|key| key["label"] == label).unwrap().clone();
    key["scheme"].clone()
}

#[test]
fn slow_key_is_rehashed_on_first_use() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    server.user_with_permissions("bob", &["access user profiles"]);
    let (first, second) = ("first-secret-of-ann-0123456789", "second-secret-of-ann-987654321");
    for text in [first, second, "$2y$", "$argon2id$"] {
        server.forbid_in_log(text);
    }
    let bcrypt = htpasswd("-nbB", "x", first)[2..].to_owned();
    fs::write(site.path().join("b.csv"), format!("ann,{bcrypt},first\n")).unwrap();
    fs::write(
        site.path().join("a.csv"),
        format!("username,key,label\nann,\"{}\",second\n", argon2(second)),
    )
    .unwrap();
    let import_bcrypt = ["key", "import", "b.csv", "--digest", "bcrypt"];
    let import_argon2 = ["key", "import", "a.csv", "--digest", "argon2"];
    let imported = json!({ "keys": 1, "users": 0, "known": 0 });
    assert_eq!(site.json(&import_bcrypt), imported);
    assert_eq!(site.json(&import_argon2), imported);
    assert_eq!(scheme(site, "ann", "first"), "slow");

    for (name, key) in [("ann", "another"), ("bob", first), ("ann", &bcrypt), ("nobody", first)] {
        assert!([401, 404].contains(&status(&server, name, key)), "{name}");
    }
    assert_eq!(scheme(site, "ann", "first"), "slow");
    assert_eq!(status(&server, "ann", second), 200);
    assert_eq!(status(&server, "ann", first), 200);
    for label in ["first", "second"] {
        wait_until(label, || scheme(site, "ann", label) == "text");
    }
    for (name, key, expected) in
        [("ann", first, 200), ("ann", second, 200), ("bob", first, 401), ("ann", &bcrypt, 401)]
    {
        assert_eq!(status(&server, name, key), expected, "{name}");
    }
    // A second import changes nothing, and the keys work after a restart.
    let known = json!({ "keys": 0, "users": 0, "known": 1 });
    assert_eq!(site.json(&import_bcrypt), known);
    let trail = site.json(&["audit", "list"]).to_string();
    assert!(trail.contains("key.quicken") && !trail.contains("$2y$"), "{trail}");
    let key = server.key.clone();
    let server = Server::start(server.kill(), key);
    let site = &server.site;
    assert_eq!(status(&server, "ann", first), 200);
    let first_id = site
        .json(&["key", "list", "ann"])
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["label"] == "first")
        .unwrap()["id"]
        .clone();
    site.json(&["key", "revoke", first_id.as_str().unwrap()]);
    assert_eq!(status(&server, "ann", first), 401);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    // When the user is deleted, both index entries of the key are removed, so that the key can be
    // imported again.
    assert!(site.run(&["user", "delete", "ann", "--yes"]).status.success());
    assert_eq!(
        site.json(&[&import_bcrypt[..], &["--create-users"]].concat()),
        json!({ "keys": 1, "users": 1, "known": 0 })
    );
}

#[test]
fn short_keys_stay_slow_and_invalid_digests_are_rejected() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    let digest = htpasswd("-nbB", "x", "chosen")[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{digest},short\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for _ in 0..2 {
        assert_eq!(status(&server, "ann", "chosen"), 200);
    }
    server.wait_for_log("ready");
    assert_eq!(scheme(site, "ann", "short"), "slow");
    // A digest with a high cost is rejected, because each check would be expensive for the server.
    let expensive = digest.replacen("$05$", "$20$", 1);
    assert_ne!(expensive, digest);
    let row = |number: u32| format!("eve,{}\n", &htpasswd("-nbB", "x", &number.to_string())[2..]);
    let five_keys: String = (0..5).map(row).collect();
    for (text, kind, location) in [
        (format!("ann,{expensive}\n"), "bcrypt", "line 1.key"),
        (format!("ann,{digest}\n"), "argon2", "line 1.key"),
        ("ann,ab,x\nann,$2y$05$short\n".to_owned(), "bcrypt", "line 1.key"),
        (five_keys, "bcrypt", "line 5.key"),
        (format!("ann,{}\n", "ab".repeat(32)), "hmac-sha256", "line 1.key"),
    ] {
        fs::write(site.path().join("bad.csv"), text).unwrap();
        let args =
            ["key", "import", "bad.csv", "--digest", kind, "--create-users", "--output", "json"];
        let run = site.run(&args);
        let problem: Value = serde_json::from_slice(&run.stderr).unwrap();
        assert_eq!(
            (run.status.code(), &problem["errors"][0]["location"]),
            (Some(4), &json!(location)),
            "{problem}"
        );
        assert!(!problem.to_string().contains("$2y$"), "{problem}");
    }
}

#[test]
fn uniform_detail_checks_slow_digests_for_every_user() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    server.user_with_permissions("bob", &[]);
    let digest = htpasswd("-nbB", "x", "a-key-of-another-system")[2..].to_owned();
    let explain = |name: &str, key: &str| {
        let headers = json!({ "API-KEY": credential(name, key) });
        let request = json!({ "target": "/user/1", "headers": headers });
        server.admin_api("POST", "/api/v1/explain").json(&request).send().body
    };
    let checks_slow_digests = |name, key| explain(name, key).contains("with slow digests");
    server.patch_application(json!({ "detail": "uniform" }));
    assert!(!checks_slow_digests("bob", "x"));
    fs::write(site.path().join("k.csv"), format!("ann,{digest},old\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for name in ["ann", "bob", "nobody"] {
        assert!(checks_slow_digests(name, "x"), "{name}");
    }
    // A text with the check digits of a Keyward key cannot be an imported key, so no slow digest is
    // checked.
    let keyward_key = server.generate_key("bob", &[]).text;
    assert!(!checks_slow_digests("bob", &keyward_key) && !checks_slow_digests("ann", &keyward_key));
    server.patch_application(json!({ "detail": "exact" }));
    assert!(checks_slow_digests("ann", "x") && !checks_slow_digests("bob", "x"));
    // `explain` does not rehash the key.
    let explained = explain("ann", "a-key-of-another-system");
    assert!(explained.contains("\"allowed\":true"), "{explained}");
    assert_eq!(scheme(site, "ann", "old"), "slow");
}

#[test]
fn hmac_sha256_keys_need_the_configured_hmac_key() {
    let site = Site::new().with_env("KEYWARD_STORE__HMAC_KEY_FILE", "other.key");
    let file = site.path().join("other.key");
    fs::write(&file, "the other system's key\n").unwrap();
    let failed = site.run(&["init"]);
    assert!(!failed.status.success());
    assert!(String::from_utf8_lossy(&failed.stderr).contains("chmod 600"));
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    let server = site.start();
    server.user_with_permissions("ann", &["access user profiles"]);
    server.forbid_in_log("the other system's key");
    let text = "a-key-that-they-keep-as-hmac";
    fs::write(server.site.path().join("text"), text).unwrap();
    let text_file = server.site.path().join("text");
    let args = ["dgst", "-sha256", "-hmac", "the other system's key", text_file.to_str().unwrap()];
    let digest = run_program("openssl", &args).rsplit(' ').next().unwrap().to_owned();
    fs::write(server.site.path().join("h.csv"), format!("ann,{digest}\n")).unwrap();
    let imported = server.site.json(&["key", "import", "h.csv", "--digest", "hmac-sha256"]);
    assert_eq!(imported["keys"], 1);
    assert_eq!(status(&server, "ann", text), 200);
    assert_eq!(status(&server, "ann", &digest), 401);
    // Without the HMAC key the imported key could not be checked, so the server does not start.
    let site = server.kill().with_env("KEYWARD_STORE__HMAC_KEY_FILE", "");
    let run = site.run(&["serve"]);
    let stderr = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && stderr.contains("store.hmac_key_file"), "{stderr}");
}

#[test]
fn imported_apache_passwords_work_and_are_rehashed() {
    let server = Server::new();
    let site = &server.site;
    let basic = json!({
        "id": "web", "name": "Web", "type": "basic", "header": "Authorization", "is_default": false,
    });
    assert_eq!(server.admin_api("POST", "/api/v1/applications").json(&basic).send().status, 201);
    site.json(&[
        "role",
        "add",
        "reader",
        "--label",
        "Reader",
        "--permission",
        "access user profiles",
    ]);
    server.add_user("old", &["--role", "reader"]);
    let passwords = [
        ("-nbm", "ann", "apr1-password"),
        ("-nbs", "bob", "sha1-password"),
        ("-nbB", "cid", "bcrypt-password"),
        ("-nb5", "dan", "sha512-pässword"),
        ("-nb2", "old", "sha256-password"),
    ];
    let lines: String = passwords
        .iter()
        .map(|(flags, name, password)| htpasswd(flags, name, password) + "\n")
        .collect();
    fs::write(site.path().join("users.htpasswd"), format!("# from Apache\n{lines}\n")).unwrap();
    passwords.iter().for_each(|(_, _, password)| server.forbid_in_log(password));
    server.forbid_in_log("$apr1$");

    let import = ["user", "import", "users.htpasswd", "--role", "reader"];
    let counts = |users: u64, passwords: u64, kept: u64| json!({ "users": users, "passwords": passwords, "kept": kept });
    assert_eq!(site.json(&[&import[..], &["--dry-run"]].concat()), counts(4, 1, 0));
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&import), counts(4, 1, 0));
    assert_eq!(site.json(&import), counts(0, 0, 5));

    let curl = |name: &str, password: &str| {
        let login = format!("{name}:{password}");
        let url = format!("http://{}/user/1", server.public);
        run_program(
            "curl",
            &[
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "-u",
                &login,
                "-H",
                "AUTH-METHOD: web",
                &url,
            ],
        )
    };
    let is_rehashed = |name: &str| {
        let object = format!("user/{}", site.json(&["user", "show", name])["uid"]);
        let trail = site.json(&["audit", "list"]);
        let is_rehash =
            |entry: &Value| entry["action"] == "user.renew_password" && entry["object"] == object;
        trail.as_array().unwrap().iter().any(is_rehash)
    };
    for (_, name, password) in passwords {
        assert_eq!(curl(name, "wrong"), "401", "{name}");
        assert_eq!(curl(name, ""), "401", "{name}");
        assert_eq!(curl(name, password), "200", "{name}");
        wait_until(name, || is_rehashed(name));
        assert_eq!(curl(name, password), "200", "{name}");
        assert_eq!(curl(name, "wrong"), "401", "{name}");
    }
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");

    for (text, location) in [
        ("eve:plain\n", "line 1.password_digest"),
        ("ok:{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\neve\n", "line 2"),
        ("eve:rqXexS6ZhobKA\n", "line 1.password_digest"),
        (
            "admin:{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\nev e:{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\nx\u{1}:{SHA}qZk+NkcGgWq6PiVxeFDCbJzQ2J0=\n",
            "line 3.username",
        ),
    ] {
        fs::write(site.path().join("bad"), text).unwrap();
        let run = site.run(&["user", "import", "bad", "--output", "json"]);
        let problem: Value = serde_json::from_slice(&run.stderr).unwrap();
        assert_eq!(
            (run.status.code(), &problem["errors"][0]["location"]),
            (Some(4), &json!(location)),
            "{problem}"
        );
        assert!(
            !problem.to_string().contains("plain") && !problem.to_string().contains("{SHA}q"),
            "{problem}"
        );
    }
}

#[test]
fn one_key_text_works_for_two_users() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    server.user_with_permissions("bob", &["access user profiles"]);
    let text = "one-text-that-two-users-have-brought";
    server.forbid_in_log(text);
    let digest = || htpasswd("-nbB", "x", text)[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{},x\nbob,{},x\n", digest(), digest()))
        .unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for name in ["ann", "bob", "ann", "bob"] {
        assert_eq!(status(&server, name, text), 200, "{name}");
        wait_until("ann's key is rehashed", || scheme(site, "ann", "x") == "text");
    }
    assert_eq!(scheme(site, "bob", "x"), "slow");
}

#[test]
fn key_longer_than_bcrypt_reads_is_not_rehashed() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    // bcrypt reads only the first 72 bytes, so both texts match the digest.
    let (real, other) = ("a".repeat(72) + "-the-rest", "a".repeat(72) + "-another");
    let digest = htpasswd("-nbB", "x", &real)[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{digest},x\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for text in [&other, &real, &other, &real] {
        assert_eq!(status(&server, "ann", text), 200);
    }
    assert_eq!(scheme(site, "ann", "x"), "slow");
}

#[test]
fn user_has_at_most_four_valid_slow_keys() {
    let server = Server::new();
    let site = &server.site;
    server.user_with_permissions("ann", &["access user profiles"]);
    let text = |number: usize| format!("a-text-of-another-system-{number}");
    let row =
        |number: usize| format!("ann,{},{number}\n", &htpasswd("-nbB", "x", &text(number))[2..]);
    let rows: String = (0..4).map(row).collect();
    fs::write(site.path().join("k.csv"), rows).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    // `apply` cannot add a fifth key with a slow digest.
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let table =
        exported.split("[[keys]]").find(|table| table.contains("scheme = \"slow\"")).unwrap();
    let pepper = exported.lines().find(|line| line.starts_with("pepper")).unwrap();
    let changed: Vec<String> = table
        .lines()
        .map(|line| match line.split(' ').next() {
            Some("id") => "id = \"0000aZ19\"".to_owned(),
            Some("digest") => format!("digest = \"{}\"", "ab".repeat(32)),
            _ => line.to_owned(),
        })
        .collect();
    fs::write(
        site.path().join("s.toml"),
        format!("version = 1\n{pepper}\n[[keys]]{}", changed.join("\n")),
    )
    .unwrap();
    let run = site.run(&["apply", "s.toml"]);
    let stderr = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && stderr.contains("at most 4 keys that are slow"), "{stderr}");
    // Revoked keys do not count for the limit, and a request with a revoked key is rejected.
    let keys = site.json(&["key", "list", "ann"]);
    for key in keys.as_array().unwrap().iter().filter(|key| key["scheme"] == "slow") {
        site.json(&["key", "revoke", key["id"].as_str().unwrap()]);
    }
    assert_eq!(status(&server, "ann", &text(0)), 401);
    site.json(&["apply", "s.toml"]);
    let row = format!("ann,{},new\n", &htpasswd("-nbB", "x", &text(9))[2..]);
    fs::write(site.path().join("k.csv"), row).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    assert_eq!(status(&server, "ann", &text(9)), 200);
}

#[test]
fn flood_of_wrong_slow_keys_keeps_no_right_password_out() {
    let server = Server::new();
    let site = &server.site;
    site.json(&["role", "edit", "authenticated", "--grant", "access user profiles"]);
    server.add_user("slow", &[]);
    let uid = server.add_user("bob", &[]);
    let change = json!({ "password": "bob's own password" });
    let target = format!("/api/v1/users/{uid}");
    assert_eq!(server.admin_api("PATCH", &target).json(&change).send().status, 200);
    site.json(&["app", "add", "people", "--type", "basic"]);
    let rows: String = (0..4)
        .map(|at| {
            let key = format!("the-key-{at}");
            format!("slow,{}\n", &run_program("htpasswd", &["-nbB", "-C", "8", "x", &key])[2..])
        })
        .collect();
    fs::write(site.path().join("slow.csv"), rows).unwrap();
    site.json(&["key", "import", "slow.csv", "--digest", "bcrypt"]);
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let flood = || {
            let mut statuses = Vec::new();
            while !is_over.load(Ordering::Relaxed) {
                statuses.push(status(&server, "slow", "a wrong key of this user"));
            }
            statuses
        };
        let clients: Vec<_> = (0..50).map(|_| scope.spawn(flood)).collect();
        let header = format!("Basic {}", credential("bob", "bob's own password"));
        let log_in = |_| {
            let request = server.request("GET", "/user/1").header("AUTH-METHOD", "people");
            request.header("Authorization", &header).send().status
        };
        let logins: Vec<u16> = (0..20).map(log_in).collect();
        is_over.store(true, Ordering::Relaxed);
        let statuses: Vec<u16> =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
        assert!(statuses.contains(&401), "{statuses:?}");
        assert_eq!(logins, [200; 20]);
    });
}
