//! Invalid files are rejected with the line and the reason of each error, and change nothing.

use serde_json::Value;

use super::{ApiClient, file, pepper, without_mark};

/// Applies each file, and asserts that one of the reported errors has the expected location and
/// message. An item of `files` is the file's text, the location, and a part of the message.
async fn assert_rejected(client: &ApiClient, query: &str, files: &[(&str, &str, &str)]) {
    let before = (client.export().await, client.trail());
    for (text, location, message) in files {
        let (status, result) = client.apply(&file(text), query).await;
        assert_eq!(status, 422, "{text}\n{result:#}");
        let errors = result["errors"].as_array().unwrap();
        let is_expected = |error: &Value| {
            let found = |name: &str| error[name].as_str().unwrap();
            found("location") == *location
                && found("message").contains(message)
                && !error["fix"].as_str().unwrap().is_empty()
        };
        assert!(errors.iter().any(is_expected), "{text}\n{location}: {message}\n{result:#}");
        assert_eq!((client.export().await, client.trail()), before, "{text}");
    }
}

#[tokio::test]
async fn format_errors_name_their_line() {
    let (client, _) = ApiClient::after_first_start().await;
    assert_rejected(
        &client,
        "",
        &[
            ("x", "line 2, column 2", "This is not TOML"),
            ("\n\n[[users]]\nname = anna\n", "line 5, column 8", "This is not TOML"),
            ("[[user]]\nname = \"a\"\n", "line 2, column 3: user", "There is no such field."),
            ("users = 7\n", "line 2, column 1: users", "This is not a list of records."),
            ("users = [7]\n", "line 2, column 10: users.0", "This is not an object."),
            ("[[users]]\nname = 7\n", "line 3, column 1: users.0.name", "This is not text."),
            (
                "[[users]]\nroles = [\"a\"]\n",
                "line 2, column 1: users.0.name",
                "This field is required.",
            ),
            (
                "[[users]]\nname = \"a\"\nactive = \"yes\"\n",
                "line 4, column 1: user a: active",
                "This is not true or false.",
            ),
            (
                "[[users]]\nname = \"a\"\nactiv = true\n",
                "line 4, column 1: user a: activ",
                "There is no such field.",
            ),
            ("[[users]]\nname = \"a\"\nuid = 1.5\n", "line 4, column 1: user a: uid", "number"),
            (
                "[[users]]\nname = \"a\"\nuid = -4\n",
                "line 4, column 1: user a: uid",
                "is not a valid uid",
            ),
            (
                "[[users]]\nname = \"a\"\nuid = 9007199254740992\n",
                "line 4, column 1: user a: uid",
                "is not a valid uid",
            ),
            (
                "[[users]]\nname = \"a\"\nuuid = \"x\"\n",
                "line 4, column 1: user a: uuid",
                "This is not a UUID.",
            ),
            (
                "[[users]]\nname = \"a\"\npassword = \"hunter2\"\n",
                "line 4, column 1: user a: password",
                "not the digest of a password",
            ),
            (
                "[[users]]\nname = \"a\"\ncreated = \"90d\"\n",
                "line 4, column 1: user a: created",
                "not a time",
            ),
            (
                "[[users]]\nname = \"a\"\nrate_limit = \"0/1m\"\n",
                "line 4, column 1: user a: rate_limit",
                "",
            ),
            (
                "[[users]]\nname = \"a\"\n[users.attributes]\nx = 7\n",
                "line 5, column 1: user a: attributes.x",
                "An attribute is text.",
            ),
            (
                "[[resources]]\nid = \"r\"\nhandler = \"nothing\"\n",
                "line 4, column 1: resource r: handler",
                "is not a handler",
            ),
            (
                "[[applications]]\nid = \"x\"\nname = \"X\"\ntype = \"!\"\n",
                "line 5, column 1: application x: type",
                "not an authentication type",
            ),
        ],
    )
    .await;
    for (text, location) in [
        ("", "version"),
        ("version = 2\n", "line 1, column 1: version"),
        ("version = \"1\"\n", "line 1, column 1: version"),
    ] {
        let (status, result) = client.apply(text, "").await;
        assert_eq!((status, result["errors"][0]["location"].as_str().unwrap()), (422, location));
    }
    for (query, status) in [("prune=yes", 400), ("purge=true", 400), ("dry_run=true", 200)] {
        assert_eq!(client.apply(&file(""), query).await.0, status, "{query}");
    }
    let response = client.send("POST", "/api/v1/state", "application/json", "version = 1").await;
    assert_eq!(response.0, 415);
    let (status, body) = client.send("DELETE", "/api/v1/state", "", "").await;
    assert_eq!((status, body.is_empty()), (405, false));
}

#[tokio::test]
async fn validation_errors_name_their_line() {
    let (client, _) = ApiClient::after_first_start().await;
    client
        .apply_ok(&file("[[users]]\nname = \"anna\"\nuid = 5\nmail = \"a@x.example\"\n"), "")
        .await;
    assert_rejected(
        &client,
        "",
        &[
            ("[[users]]\nname = \"b\"\nroles = [\"nobody\"]\n", "line 4, column 10: user b: roles.0", "does not exist"),
            ("[[users]]\nname = \"a  b\"\n", "line 3, column 1: user a  b: name", "multiple spaces"),
            ("[[users]]\nname = \"b\"\nmail = \"x\"\n", "line 4, column 1: user b: mail", "not a valid email"),
            ("[[users]]\nname = \"b\"\nmail = \"A@x.example\"\n", "line 4, column 1: user b: mail", "already taken"),
            ("[[users]]\nname = \"Anna\"\nuid = 6\n", "line 3, column 1: user Anna: name", "already taken"),
            ("[[users]]\nname = \"anna\"\nuuid = \"01a213c0-9188-7a03-b659-c069a79d9116\"\n", "line 4, column 1: user anna: uuid", "cannot be changed"),
            ("[[users]]\nname = \"b\"\ntimezone = \"Mars/North\"\n", "line 4, column 1: user b: timezone", "not a valid choice"),
            ("[[users]]\nname = \"b\"\n[[users]]\nname = \"B\"\n", "line 5, column 1: user B: name", "Two users of the file"),
            ("[[users]]\nname = \"b\"\nuid = 8\n[[users]]\nname = \"c\"\nuid = 8\n", "line 7, column 1: user c: uid", "is listed twice"),
            ("[[users]]\nname = \"b\"\nmail = \"b@x.example\"\n[[users]]\nname = \"c\"\nmail = \"B@x.example\"\n", "line 7, column 1: user c: mail", "Two users of the file"),
            ("[[roles]]\nid = \"r\"\nlabel = \"R\"\n[[roles]]\nid = \"r\"\nlabel = \"R\"\n", "line 6, column 1: role r: id", "is listed twice"),
            ("[[roles]]\nid = \"R!\"\nlabel = \"R\"\n", "line 3, column 1: role R!: id", "cannot be an id"),
            ("[[roles]]\nid = \"anonymous\"\nlabel = \"A\"\nis_admin = true\n", "line 5, column 1: role anonymous: is_admin", "cannot be an administrator"),
            ("[[applications]]\nid = \"a\"\nname = \"A\"\nis_default = true\n[[applications]]\nid = \"b\"\nname = \"B\"\nis_default = true\n", "line 9, column 1: application b: is_default", "Two applications"),
            ("[[applications]]\nid = \"a\"\nname = \"A\"\nheader = \"Host\"\n", "line 5, column 1: application a: header", "cannot carry"),
            ("[[resources]]\nid = \"r\"\nhandler = \"respond\"\npath = \"/r\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"nothing\"]\n", "line 8, column 1: resource r: authentication", "no application \"nothing\""),
            ("[[resources]]\nid = \"a\"\nhandler = \"respond\"\npath = \"/r\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"*\"]\n[[resources]]\nid = \"b\"\nhandler = \"respond\"\npath = \"/r\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"*\"]\n", "line 12, column 1: resource b: path", ""),
        ],
    )
    .await;
}

#[tokio::test]
async fn key_errors_name_their_line() {
    let (client, _) = ApiClient::after_first_start().await;
    let fingerprint = pepper().fingerprint().to_hex();
    let key_of_anna = |fields: &str| {
        let digest = "0".repeat(64);
        format!(
            "pepper = \"{fingerprint}\"\n[[users]]\nname = \"anna\"\n[[keys]]\nid = \"0000aZ19\"\nuser = \"anna\"\ndigest = \"{digest}\"\n{fields}"
        )
    };
    let files: Vec<(String, &str, &str)> = [
        ("scopes = [\"fly\"]\n", "line 9, column 11: key 0000aZ19: scopes.0", "does not have the permission"),
        ("expires = 2020-01-01T00:00:00Z\n", "line 9, column 1: key 0000aZ19: expires", "not in the future"),
        ("expires = \"90d\"\n", "line 9, column 1: key 0000aZ19: expires", "not a time"),
        ("networks = [\"10.0.0.0/33\"]\n", "line 9, column 13: key 0000aZ19: networks.0", "not a network"),
        ("application = \"none\"\n", "line 9, column 1: key 0000aZ19: application", "no application"),
        ("credits = \"0/day\"\n", "line 9, column 1: key 0000aZ19: credits", ""),
        ("scheme = \"rot13\"\n", "line 9, column 1: key 0000aZ19: scheme", "no such scheme"),
        ("prefix = \"a b\"\n", "line 9, column 1: key 0000aZ19: prefix", ""),
        ("last_four = \"12345\"\n", "line 9, column 1: key 0000aZ19: last_four", ""),
        ("created = 2026-01-01T00:00:00Z\nrevoked = 2025-01-01T00:00:00Z\n", "line 10, column 1: key 0000aZ19: revoked", "before the creation of the key"),
        ("rotated = { to = \"x\", until = 2027-01-01T00:00:00Z }\n", "line 9, column 13: key 0000aZ19: rotated.to", "not the id"),
        ("rotated = { to = \"0000aZ18\" }\n", "line 9, column 1: key 0000aZ19: rotated.until", "required"),
        ("[[keys]]\nid = \"0000aZ19\"\nuser = \"anna\"\ndigest = \"0000000000000000000000000000000000000000000000000000000000000000\"\n", "line 10, column 1: key 0000aZ19: id", "is listed twice"),
    ]
    .map(|(fields, location, message)| (key_of_anna(fields), location, message))
    .into();
    let files: Vec<(&str, &str, &str)> = files
        .iter()
        .map(|(text, location, message)| (text.as_str(), *location, *message))
        .collect();
    assert_rejected(&client, "", &files).await;
    let zeros = "0".repeat(64);
    let key = |fields: &str| format!("[[keys]]\nid = \"0000aZ19\"\nuser = \"admin\"\n{fields}");
    assert_rejected(
        &client,
        "",
        &[
            (&key(&format!("digest = \"{zeros}\"\n")), "pepper", "does not name the pepper"),
            (
                &format!("pepper = \"{zeros}\"\n{}", key(&format!("digest = \"{zeros}\"\n"))),
                "line 2, column 1: pepper",
                "another pepper",
            ),
            (
                &format!("pepper = \"{fingerprint}\"\n{}", key("")),
                "line 3, column 1: key 0000aZ19: digest",
                "needs its digest",
            ),
            (
                &format!("pepper = \"{fingerprint}\"\n{}", key("digest = \"00\"\n")),
                "line 6, column 1: key 0000aZ19: digest",
                "not a digest",
            ),
            (
                &format!(
                    "pepper = \"{fingerprint}\"\n{}",
                    key(&format!("digest = \"{zeros}\"\n")).replace("admin", "eve")
                ),
                "line 5, column 1: key 0000aZ19: user",
                "no user \"eve\"",
            ),
            ("pepper = \"x\"\n", "line 2, column 1: pepper", "not a fingerprint"),
        ],
    )
    .await;
    // `apply` only checks the pepper if the file contains keys, because passwords do not depend on
    // the pepper.
    let text = format!("pepper = \"{zeros}\"\n[[users]]\nname = \"anna\"\n");
    assert_eq!(client.apply_ok(&file(&text), "").await["added"], 1);
}

#[tokio::test]
async fn key_keeps_its_digest_and_user_and_a_revocation_is_final() {
    let (client, _) = ApiClient::after_first_start().await;
    let writer = client.accounts.as_actor(keyward::model::Actor::Program);
    client.apply_ok(&file("[[users]]\nname = \"anna\"\n"), "").await;
    // Issue keys until the newest key has the largest id and is the last key in the exported file.
    let mut issued = writer.issue_key(2, keyward::accounts::NewKey::default()).await.unwrap();
    while !client.accounts.keys(Some(issued.key.record.id), 1).unwrap().items.is_empty() {
        issued = writer.issue_key(2, keyward::accounts::NewKey::default()).await.unwrap();
    }
    let id = issued.key.record.id;
    let before = client.export().await;
    writer.revoke_key(id).await.unwrap();
    let (status, result) = client.apply(&before, "").await;
    assert_eq!(status, 422);
    assert!(result["errors"][0]["message"].as_str().unwrap().contains("revoked"), "{result:#}");
    let current = client.export().await;
    let digest = issued.key.record.digest.to_hex();
    for (from, to, message) in [
        (digest.as_str(), "1".repeat(64), "digest of a key cannot be changed"),
        ("user = \"anna\"", "user = \"admin\"".into(), "user of a key cannot be changed"),
    ] {
        assert!(current.contains(from));
        let (status, result) = client.apply(&current.replace(from, &to), "").await;
        assert_eq!(status, 422, "{result:#}");
        assert!(result.to_string().contains(message), "{result:#}");
    }
    // A field that the file changes must be valid. Unchanged fields are not validated.
    for (line, status) in [
        ("expires = 2020-01-01T00:00:00Z", 422),
        ("application = \"none\"", 422),
        ("scopes = [\"fly\"]", 422),
        ("label = \"x\"", 200),
    ] {
        let key = current.rfind("[[keys]]").unwrap();
        let (others, last_key) = current.split_at(key);
        let last_key = last_key.replace("label = \"\"", "");
        let label = if line.starts_with("label") { "" } else { "label = \"\"\n" };
        assert!(last_key.contains(&id.to_string()));
        let text = without_mark(&format!("{others}{last_key}{label}{line}\n"));
        let (found, body) = client.apply(&text, "").await;
        assert_eq!(found, status, "{line}: {body:#}");
    }
}

#[tokio::test]
async fn only_the_first_100_errors_are_listed() {
    let (client, _) = ApiClient::after_first_start().await;
    for fault in ["activ = 1", "roles = [\"nobody\"]"] {
        let user = |number: usize| format!("[[users]]\nname = \"user{number}\"\n{fault}\n");
        let text: String = (0..250).map(user).collect();
        let (status, result) = client.apply(&file(&text), "").await;
        let errors = result["errors"].as_array().unwrap();
        assert_eq!((status, errors.len()), (422, 101));
        assert!(errors[99]["location"].as_str().unwrap().contains("user user99"), "{result:#}");
        assert_eq!(errors[100]["message"], "There are 150 more faults.");
    }
}

#[tokio::test]
async fn records_of_one_file_can_reference_each_other() {
    let (client, _) = ApiClient::after_first_start().await;
    let (fingerprint, digest) = (pepper().fingerprint().to_hex(), "0".repeat(64));
    let text = format!(
        "pepper = \"{fingerprint}\"\n[[keys]]\nid = \"0000aZ19\"\nuser = \"Anna\"\ndigest = \"{digest}\"\napplication = \"mobile\"\nscopes = [\"fly\"]\n\
         [[users]]\nname = \"anna\"\nroles = [\"pilot\"]\n\
         [[resources]]\nid = \"r\"\nhandler = \"respond\"\npath = \"/r\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n\
         [[roles]]\nid = \"pilot\"\nlabel = \"P\"\npermissions = [\"fly\"]\n\
         [[applications]]\nid = \"mobile\"\nname = \"M\"\nkey_prefix = \"mob\"\n"
    );
    assert_eq!(client.apply_ok(&file(&text), "").await["added"], 5);
    let key = client.accounts.keys_of(2, None, 9).unwrap().items.remove(0).record;
    assert_eq!((key.prefix.as_str(), key.created), ("mob", super::NOW));
    assert_eq!(client.apply_ok(&file(&text), "").await["unchanged"], 5);
}

#[tokio::test]
async fn too_many_changes_are_rejected_before_they_are_validated() {
    let (client, _) = ApiClient::after_first_start().await;
    let role = |number: usize| format!("[[roles]]\nid = \"r{number}\"\nlabel = \"R\"\n");
    let text: String = (0..=keyward::accounts::MOST_CHANGES).map(role).collect();
    let (status, result) = client.apply(&file(&text), "").await;
    assert_eq!(status, 409, "{result:#}");
    let detail = result["detail"].as_str().unwrap();
    assert!(detail.contains("at most 100000") && detail.contains("keyward restore"), "{detail}");
    assert_eq!(client.trail(), ["store.first-start"]);
}

#[tokio::test]
async fn keys_per_user_limit_applies_to_files() {
    let (client, _) = ApiClient::after_first_start().await;
    let fingerprint = pepper().fingerprint().to_hex();
    let digest = "0".repeat(64);
    let key = |number: usize| {
        format!("[[keys]]\nid = \"{number:08}\"\nuser = \"anna\"\ndigest = \"{digest}\"\n")
    };
    let text = |count: usize| {
        let keys: String = (0..count).map(key).collect();
        file(&format!("pepper = \"{fingerprint}\"\n[[users]]\nname = \"anna\"\n{keys}"))
    };
    let (status, result) = client.apply(&text(101), "").await;
    assert_eq!(status, 422);
    assert!(result.to_string().contains("101 keys in force, and the limit is 100"), "{result:#}");
    assert_eq!(client.apply_ok(&text(100), "").await["added"], 101);
    let new_keys = text(100).replace("id = \"000000", "id = \"100000");
    assert_eq!(client.apply(&new_keys, "").await.0, 422);
    // With `prune` the new keys replace the old keys, so the user has no more keys than before.
    assert_eq!(
        client.apply(&new_keys, "prune=true").await.0,
        409,
        "the file would remove the administrator"
    );
    let kept = "[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\n[[roles]]\nid = \"administrator\"\nlabel = \"A\"\nis_admin = true\n";
    let result = client.apply_ok(&format!("{new_keys}{kept}"), "prune=true").await;
    assert_eq!((&result["added"], &result["removed"]), (&100.into(), &103.into()), "{result:#}");
}
