//! What other systems made slow to check: keys get a fast digest at their first use, passwords one of our own. Made by Apache's `htpasswd`, OpenSSL and
//! Argon2 itself; asked by curl.

use std::{
    fs,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use argon2::{Argon2, PasswordHasher as _};
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, Site, credential};

/// What a program prints. In Debian `htpasswd` is in apache2-utils.
fn output(program: &str, args: &[&str]) -> String {
    let run = Command::new(program).args(args).output();
    let run = run.unwrap_or_else(|problem| {
        panic!("{program}: {problem}; apt-get install apache2-utils openssl")
    });
    assert!(run.status.success(), "{program} {args:?}");
    String::from_utf8(run.stdout).unwrap().trim().to_owned()
}

/// What Apache's own tool writes of a password.
fn htpasswd(flags: &str, name: &str, password: &str) -> String {
    output("htpasswd", &[flags, name, password])
}

fn argon2(text: &str) -> String {
    let params = argon2::Params::new(8192, 1, 1, None).unwrap();
    let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let hash: argon2::password_hash::phc::PasswordHash =
        argon2.hash_password_with_salt(text.as_bytes(), &[7; 16]).unwrap();
    hash.to_string()
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

fn asks(server: &Server, name: &str, key: &str) -> u16 {
    server.request("GET", "/user/1").header("API-KEY", credential(name, key)).send().status
}

fn scheme(site: &Site, name: &str, label: &str) -> Value {
    let keys = site.json(&["key", "list", name]);
    let key = keys.as_array().unwrap().iter().find(|key| key["label"] == label).unwrap().clone();
    key["scheme"].clone()
}

#[test]
fn a_slow_key_is_fast_after_its_first_use() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    server.user_with("bob", &["access user profiles"]);
    let (first, second) = ("first-secret-of-ann-0123456789", "second-secret-of-ann-987654321");
    for text in [first, second, "$2y$", "$argon2id$"] {
        server.hide(text);
    }
    let bcrypt = htpasswd("-nbB", "x", first)[2..].to_owned();
    fs::write(site.path().join("b.csv"), format!("ann,{bcrypt},first\n")).unwrap();
    fs::write(
        site.path().join("a.csv"),
        format!("username,key,label\nann,\"{}\",second\n", argon2(second)),
    )
    .unwrap();
    let b = ["key", "import", "b.csv", "--digest", "bcrypt"];
    let a = ["key", "import", "a.csv", "--digest", "argon2"];
    let one = json!({ "keys": 1, "users": 0, "known": 0 });
    assert_eq!(site.json(&b), one);
    assert_eq!(site.json(&a), one);
    assert_eq!(scheme(site, "ann", "first"), "slow");

    for (name, key) in [("ann", "another"), ("bob", first), ("ann", &bcrypt), ("nobody", first)] {
        assert!([401, 404].contains(&asks(&server, name, key)), "{name}");
    }
    assert_eq!(scheme(site, "ann", "first"), "slow");
    assert_eq!(asks(&server, "ann", second), 200);
    assert_eq!(asks(&server, "ann", first), 200);
    for label in ["first", "second"] {
        until(label, || scheme(site, "ann", label) == "text");
    }
    for (name, key, status) in
        [("ann", first, 200), ("ann", second, 200), ("bob", first, 401), ("ann", &bcrypt, 401)]
    {
        assert_eq!(asks(&server, name, key), status, "{name}");
    }
    // Once more it changes nothing, and after a start all is as it was.
    let known = json!({ "keys": 0, "users": 0, "known": 1 });
    assert_eq!(site.json(&b), known);
    let trail = site.json(&["audit", "list"]).to_string();
    assert!(trail.contains("key.quicken") && !trail.contains("$2y$"), "{trail}");
    let key = server.key.clone();
    let server = Server::start(server.kill(), key);
    let site = &server.site;
    assert_eq!(asks(&server, "ann", first), 200);
    let first_id = site
        .json(&["key", "list", "ann"])
        .as_array()
        .unwrap()
        .iter()
        .find(|key| key["label"] == "first")
        .unwrap()["id"]
        .clone();
    site.json(&["key", "revoke", first_id.as_str().unwrap()]);
    assert_eq!(asks(&server, "ann", first), 401);
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    // With the user both of its places go, and it may come again.
    assert!(site.run(&["user", "delete", "ann", "--yes"]).status.success());
    assert_eq!(
        site.json(&[&b[..], &["--create-users"]].concat()),
        json!({ "keys": 1, "users": 1, "known": 0 })
    );
}

#[test]
fn short_texts_stay_slow_and_bad_digests_are_refused() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    let digest = htpasswd("-nbB", "x", "chosen")[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{digest},short\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for _ in 0..2 {
        assert_eq!(asks(&server, "ann", "chosen"), 200);
    }
    server.tells("ready");
    assert_eq!(scheme(site, "ann", "short"), "slow");
    // The costs of what follows would be ours.
    let dear = digest.replacen("$05$", "$20$", 1);
    assert_ne!(dear, digest);
    let five: String = (0..5)
        .map(|at| format!("eve,{}\n", htpasswd("-nbB", "x", &at.to_string())[2..].to_owned()))
        .collect();
    for (text, kind, location) in [
        (format!("ann,{dear}\n"), "bcrypt", "line 1.key"),
        (format!("ann,{digest}\n"), "argon2", "line 1.key"),
        ("ann,ab,x\nann,$2y$05$short\n".to_owned(), "bcrypt", "line 1.key"),
        (five, "bcrypt", "line 5.key"),
        (format!("ann,{}\n", "ab".repeat(32)), "hmac-sha256", "line 1.key"),
    ] {
        fs::write(site.path().join("bad.csv"), text).unwrap();
        let args =
            ["key", "import", "bad.csv", "--digest", kind, "--create-users", "--output", "json"];
        let run = site.run(&args);
        let said: Value = serde_json::from_slice(&run.stderr).unwrap();
        assert_eq!(
            (run.status.code(), &said["errors"][0]["location"]),
            (Some(4), &json!(location)),
            "{said}"
        );
        assert!(!said.to_string().contains("$2y$"), "{said}");
    }
}

#[test]
fn who_has_no_slow_key_is_checked_for_as_long_where_nothing_is_told() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    server.user_with("bob", &[]);
    let digest = htpasswd("-nbB", "x", "a-key-of-another-system")[2..].to_owned();
    let looked_at = |name: &str, key: &str| {
        let headers = json!({ "API-KEY": credential(name, key) });
        let asked = json!({ "target": "/user/1", "headers": headers });
        server.manages("POST", "/api/v1/explain").json(&asked).send().body
    };
    let is_slow = |name, key| looked_at(name, key).contains("that are slow to check");
    server.application(json!({ "detail": "uniform" }));
    assert!(!is_slow("bob", "x"));
    fs::write(site.path().join("k.csv"), format!("ann,{digest},old\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for name in ["ann", "bob", "nobody"] {
        assert!(is_slow(name, "x"), "{name}");
    }
    // Of one of ours it is known that it is none of them.
    let ours = server.key("bob", &[]).text;
    assert!(!is_slow("bob", &ours) && !is_slow("ann", &ours));
    server.application(json!({ "detail": "exact" }));
    assert!(is_slow("ann", "x") && !is_slow("bob", "x"));
    // To look at it leaves it as it is.
    let told = looked_at("ann", "a-key-of-another-system");
    assert!(told.contains("\"allowed\":true"), "{told}");
    assert_eq!(scheme(site, "ann", "old"), "slow");
}

#[test]
fn keys_of_hmac_sha256_need_the_other_systems_key() {
    let site = Site::new().with("KEYWARD_STORE__HMAC_KEY_FILE", "theirs.key");
    let file = site.path().join("theirs.key");
    fs::write(&file, "the other system's key\n").unwrap();
    let exposed = site.run(&["init"]);
    assert!(!exposed.status.success());
    assert!(String::from_utf8_lossy(&exposed.stderr).contains("chmod 600"));
    let mode = <fs::Permissions as std::os::unix::fs::PermissionsExt>::from_mode(0o600);
    fs::set_permissions(&file, mode).unwrap();
    let server = site.start();
    server.user_with("ann", &["access user profiles"]);
    server.hide("the other system's key");
    let text = "a-key-that-they-keep-as-hmac";
    fs::write(server.site.path().join("text"), text).unwrap();
    let text_file = server.site.path().join("text");
    let args = ["dgst", "-sha256", "-hmac", "the other system's key", text_file.to_str().unwrap()];
    let digest = output("openssl", &args).rsplit(' ').next().unwrap().to_owned();
    fs::write(server.site.path().join("h.csv"), format!("ann,{digest}\n")).unwrap();
    let done = server.site.json(&["key", "import", "h.csv", "--digest", "hmac-sha256"]);
    assert_eq!(done["keys"], 1);
    assert_eq!(asks(&server, "ann", text), 200);
    assert_eq!(asks(&server, "ann", &digest), 401);
    // Without it nobody could tell why they are refused.
    let site = server.kill().with("KEYWARD_STORE__HMAC_KEY_FILE", "");
    let run = site.run(&["serve"]);
    let said = String::from_utf8_lossy(&run.stderr);
    assert!(!run.status.success() && said.contains("store.hmac_key_file"), "{said}");
}

#[test]
fn the_users_of_apache_go_on_with_their_passwords() {
    let server = Server::new();
    let site = &server.site;
    let basic = json!({
        "id": "web", "name": "Web", "type": "basic", "header": "Authorization", "is_default": false,
    });
    assert_eq!(server.manages("POST", "/api/v1/applications").json(&basic).send().status, 201);
    site.json(&[
        "role",
        "add",
        "reader",
        "--label",
        "Reader",
        "--permission",
        "access user profiles",
    ]);
    server.user("old", &["--role", "reader"]);
    let people = [
        ("-nbm", "ann", "apr1-password"),
        ("-nbs", "bob", "sha1-password"),
        ("-nbB", "cid", "bcrypt-password"),
        ("-nb5", "dan", "sha512-pässword"),
        ("-nb2", "old", "sha256-password"),
    ];
    let lines: String = people
        .iter()
        .map(|(flags, name, password)| htpasswd(flags, name, password) + "\n")
        .collect();
    fs::write(site.path().join("users.htpasswd"), format!("# of Apache\n{lines}\n")).unwrap();
    people.iter().for_each(|(_, _, password)| server.hide(password));
    server.hide("$apr1$");

    let import = ["user", "import", "users.htpasswd", "--role", "reader"];
    let counts = |users: u64, passwords: u64, kept: u64| json!({ "users": users, "passwords": passwords, "kept": kept });
    assert_eq!(site.json(&[&import[..], &["--dry-run"]].concat()), counts(4, 1, 0));
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 2);
    assert_eq!(site.json(&import), counts(4, 1, 0));
    assert_eq!(site.json(&import), counts(0, 0, 5));

    let curl = |name: &str, password: &str| {
        let login = format!("{name}:{password}");
        let url = format!("http://{}/user/1", server.public);
        output(
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
    let is_ours = |name: &str| {
        let object = format!("user/{}", site.json(&["user", "show", name])["uid"]);
        let trail = site.json(&["audit", "list"]);
        let is_it =
            |entry: &Value| entry["action"] == "user.renew_password" && entry["object"] == object;
        trail.as_array().unwrap().iter().any(is_it)
    };
    for (_, name, password) in people {
        assert_eq!(curl(name, "wrong"), "401", "{name}");
        assert_eq!(curl(name, ""), "401", "{name}");
        assert_eq!(curl(name, password), "200", "{name}");
        until(name, || is_ours(name));
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
        let said: Value = serde_json::from_slice(&run.stderr).unwrap();
        assert_eq!(
            (run.status.code(), &said["errors"][0]["location"]),
            (Some(4), &json!(location)),
            "{said}"
        );
        assert!(
            !said.to_string().contains("plain") && !said.to_string().contains("{SHA}q"),
            "{said}"
        );
    }
}

#[test]
fn two_users_with_one_text_both_go_on() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    server.user_with("bob", &["access user profiles"]);
    let text = "one-text-that-two-users-have-brought";
    server.hide(text);
    let digest = || htpasswd("-nbB", "x", text)[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{},x\nbob,{},x\n", digest(), digest()))
        .unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for name in ["ann", "bob", "ann", "bob"] {
        assert_eq!(asks(&server, name, text), 200, "{name}");
        until("ann's is fast", || scheme(site, "ann", "x") == "text");
    }
    assert_eq!(scheme(site, "bob", "x"), "slow");
}

#[test]
fn what_bcrypt_does_not_look_at_is_not_written_down() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    let (real, other) = ("a".repeat(72) + "-the-rest", "a".repeat(72) + "-another");
    let digest = htpasswd("-nbB", "x", &real)[2..].to_owned();
    fs::write(site.path().join("k.csv"), format!("ann,{digest},x\n")).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    for text in [&other, &real, &other, &real] {
        assert_eq!(asks(&server, "ann", text), 200);
    }
    assert_eq!(scheme(site, "ann", "x"), "slow");
}

#[test]
fn however_many_slow_keys_there_are_few_are_in_force() {
    let server = Server::new();
    let site = &server.site;
    server.user_with("ann", &["access user profiles"]);
    let text = |at: usize| format!("a-text-of-another-system-{at}");
    let rows: String =
        (0..4).map(|at| format!("ann,{},{at}\n", &htpasswd("-nbB", "x", &text(at))[2..])).collect();
    fs::write(site.path().join("k.csv"), rows).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    // The same by a file of the state.
    let exported = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let one = exported.split("[[keys]]").find(|one| one.contains("scheme = \"slow\"")).unwrap();
    let pepper = exported.lines().find(|line| line.starts_with("pepper")).unwrap();
    let changed: Vec<String> = one
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
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(!run.status.success() && said.contains("at most 4 keys that are slow"), "{said}");
    // Those that were taken back make room, and are known as what they are.
    let keys = site.json(&["key", "list", "ann"]);
    for key in keys.as_array().unwrap().iter().filter(|key| key["scheme"] == "slow") {
        site.json(&["key", "revoke", key["id"].as_str().unwrap()]);
    }
    assert_eq!(asks(&server, "ann", &text(0)), 401);
    site.json(&["apply", "s.toml"]);
    let row = format!("ann,{},new\n", &htpasswd("-nbB", "x", &text(9))[2..]);
    fs::write(site.path().join("k.csv"), row).unwrap();
    site.json(&["key", "import", "k.csv", "--digest", "bcrypt"]);
    assert_eq!(asks(&server, "ann", &text(9)), 200);
}
