//! What is not in order is refused with its line and its reason, and nothing is changed.

use serde_json::Value;

use super::{Desk, file, pepper};

/// Applies files that must be refused: what each says, and where and what is told.
async fn refused(desk: &Desk, query: &str, files: &[(&str, &str, &str)]) {
    let before = (desk.export().await, desk.trail());
    for (text, location, says) in files {
        let (status, told) = desk.apply(&file(text), query).await;
        assert_eq!(status, 422, "{text}\n{told:#}");
        let errors = told["errors"].as_array().unwrap();
        let is_told = |one: &Value| {
            let (at, said) = (one["location"].as_str().unwrap(), one["message"].as_str().unwrap());
            at == *location && said.contains(says) && !one["fix"].as_str().unwrap().is_empty()
        };
        assert!(errors.iter().any(is_told), "{text}\n{location}: {says}\n{told:#}");
        assert_eq!((desk.export().await, desk.trail()), before, "{text}");
    }
}

#[tokio::test]
async fn what_is_not_the_form_is_told_with_its_line() {
    let (desk, _) = Desk::first().await;
    refused(
        &desk,
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
                "cannot be a user's number",
            ),
            (
                "[[users]]\nname = \"a\"\nuid = 9007199254740992\n",
                "line 4, column 1: user a: uid",
                "cannot be a user's number",
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
                "not a moment",
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
        let (status, told) = desk.apply(text, "").await;
        assert_eq!((status, told["errors"][0]["location"].as_str().unwrap()), (422, location));
    }
    for (query, status) in [("prune=yes", 400), ("purge=true", 400), ("dry_run=true", 200)] {
        assert_eq!(desk.apply(&file(""), query).await.0, status, "{query}");
    }
    let answer = desk.ask("POST", "/api/v1/state", "application/json", "version = 1").await;
    assert_eq!(answer.0, 415);
    let (status, body) = desk.ask("DELETE", "/api/v1/state", "", "").await;
    assert_eq!((status, body.is_empty()), (405, false));
}

#[tokio::test]
async fn what_the_rules_forbid_is_told_with_its_line() {
    let (desk, _) = Desk::first().await;
    desk.applies(&file("[[users]]\nname = \"anna\"\nuid = 5\nmail = \"a@x.example\"\n"), "").await;
    refused(
        &desk,
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
            ("[[users]]\nname = \"b\"\nuid = 8\n[[users]]\nname = \"c\"\nuid = 8\n", "line 7, column 1: user c: uid", "stands twice"),
            ("[[users]]\nname = \"b\"\nmail = \"b@x.example\"\n[[users]]\nname = \"c\"\nmail = \"B@x.example\"\n", "line 7, column 1: user c: mail", "Two users of the file"),
            ("[[roles]]\nid = \"r\"\nlabel = \"R\"\n[[roles]]\nid = \"r\"\nlabel = \"R\"\n", "line 6, column 1: role r: id", "stands twice"),
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
async fn what_is_wrong_with_a_key_is_told_with_its_line() {
    let (desk, _) = Desk::first().await;
    let ours = pepper().fingerprint().to_hex();
    let mine = |fields: &str| {
        let digest = "0".repeat(64);
        format!(
            "pepper = \"{ours}\"\n[[users]]\nname = \"anna\"\n[[keys]]\nid = \"0000aZ19\"\nuser = \"anna\"\ndigest = \"{digest}\"\n{fields}"
        )
    };
    let files: Vec<(String, &str, &str)> = [
        ("scopes = [\"fly\"]\n", "line 9, column 11: key 0000aZ19: scopes.0", "does not have the permission"),
        ("expires = 2020-01-01T00:00:00Z\n", "line 9, column 1: key 0000aZ19: expires", "expired already"),
        ("expires = \"90d\"\n", "line 9, column 1: key 0000aZ19: expires", "not a moment"),
        ("networks = [\"10.0.0.0/33\"]\n", "line 9, column 13: key 0000aZ19: networks.0", "not a network"),
        ("application = \"none\"\n", "line 9, column 1: key 0000aZ19: application", "no application"),
        ("credits = \"0/day\"\n", "line 9, column 1: key 0000aZ19: credits", ""),
        ("scheme = \"rot13\"\n", "line 9, column 1: key 0000aZ19: scheme", "no such scheme"),
        ("prefix = \"a b\"\n", "line 9, column 1: key 0000aZ19: prefix", ""),
        ("last_four = \"12345\"\n", "line 9, column 1: key 0000aZ19: last_four", ""),
        ("created = 2026-01-01T00:00:00Z\nrevoked = 2025-01-01T00:00:00Z\n", "line 10, column 1: key 0000aZ19: revoked", "before the key was made"),
        ("rotated = { to = \"x\", until = 2027-01-01T00:00:00Z }\n", "line 9, column 13: key 0000aZ19: rotated.to", "not the id"),
        ("rotated = { to = \"0000aZ18\" }\n", "line 9, column 1: key 0000aZ19: rotated.until", "required"),
        ("[[keys]]\nid = \"0000aZ19\"\nuser = \"anna\"\ndigest = \"0000000000000000000000000000000000000000000000000000000000000000\"\n", "line 10, column 1: key 0000aZ19: id", "stands twice"),
    ]
    .map(|(fields, at, says)| (mine(fields), at, says))
    .into();
    let files: Vec<(&str, &str, &str)> =
        files.iter().map(|(text, at, says)| (text.as_str(), *at, *says)).collect();
    refused(&desk, "", &files).await;
    let zeros = "0".repeat(64);
    let key = |fields: &str| format!("[[keys]]\nid = \"0000aZ19\"\nuser = \"admin\"\n{fields}");
    refused(
        &desk,
        "",
        &[
            (&key(&format!("digest = \"{zeros}\"\n")), "pepper", "does not say which pepper"),
            (
                &format!("pepper = \"{zeros}\"\n{}", key(&format!("digest = \"{zeros}\"\n"))),
                "line 2, column 1: pepper",
                "another pepper",
            ),
            (
                &format!("pepper = \"{ours}\"\n{}", key("")),
                "line 3, column 1: key 0000aZ19: digest",
                "digest alone",
            ),
            (
                &format!("pepper = \"{ours}\"\n{}", key("digest = \"00\"\n")),
                "line 6, column 1: key 0000aZ19: digest",
                "not a digest",
            ),
            (
                &format!(
                    "pepper = \"{ours}\"\n{}",
                    key(&format!("digest = \"{zeros}\"\n")).replace("admin", "eve")
                ),
                "line 5, column 1: key 0000aZ19: user",
                "no user \"eve\"",
            ),
            ("pepper = \"x\"\n", "line 2, column 1: pepper", "not a fingerprint"),
        ],
    )
    .await;
    // Without keys the pepper does not matter, and passwords have none.
    let text = format!("pepper = \"{zeros}\"\n[[users]]\nname = \"anna\"\n");
    assert_eq!(desk.applies(&file(&text), "").await["added"], 1);
}

#[tokio::test]
async fn a_key_stays_what_it_is_and_what_was_taken_back_stays_so() {
    let (desk, _) = Desk::first().await;
    let acting = desk.accounts.acting(keyward::model::Actor::Program);
    desk.applies(&file("[[users]]\nname = \"anna\"\n"), "").await;
    // The last of all keys, in the order of their ids.
    let mut issued = acting.issue_key(2, keyward::accounts::NewKey::default()).await.unwrap();
    while !desk.accounts.keys(Some(issued.key.record.id), 1).unwrap().items.is_empty() {
        issued = acting.issue_key(2, keyward::accounts::NewKey::default()).await.unwrap();
    }
    let id = issued.key.record.id;
    let before = desk.export().await;
    acting.revoke_key(id).await.unwrap();
    let (status, told) = desk.apply(&before, "").await;
    assert_eq!(status, 422);
    assert!(told["errors"][0]["message"].as_str().unwrap().contains("revoked"), "{told:#}");
    let now = desk.export().await;
    let digest = issued.key.record.digest.to_hex();
    for (from, to, says) in [
        (digest.as_str(), "1".repeat(64), "digest of a key cannot be changed"),
        ("user = \"anna\"", "user = \"admin\"".into(), "stays its user's"),
    ] {
        assert!(now.contains(from));
        let (status, told) = desk.apply(&now.replace(from, &to), "").await;
        assert_eq!(status, 422, "{told:#}");
        assert!(told.to_string().contains(says), "{told:#}");
    }
    // What is new about it has to be in order, what was so before has not.
    for (line, status) in [
        ("expires = 2020-01-01T00:00:00Z", 422),
        ("application = \"none\"", 422),
        ("scopes = [\"fly\"]", 422),
        ("label = \"x\"", 200),
    ] {
        let key = now.rfind("[[keys]]").unwrap();
        let (others, mine) = now.split_at(key);
        let mine = mine.replace("label = \"\"", "");
        let label = if line.starts_with("label") { "" } else { "label = \"\"\n" };
        assert!(mine.contains(&id.to_string()));
        let text = format!("{others}{mine}{label}{line}\n");
        let (told, said) = desk.apply(&text, "").await;
        assert_eq!(told, status, "{line}: {said:#}");
    }
}

#[tokio::test]
async fn of_many_faults_the_first_are_told() {
    let (desk, _) = Desk::first().await;
    for fault in ["activ = 1", "roles = [\"nobody\"]"] {
        let user = |at: usize| format!("[[users]]\nname = \"user{at}\"\n{fault}\n");
        let text: String = (0..250).map(user).collect();
        let (status, told) = desk.apply(&file(&text), "").await;
        let errors = told["errors"].as_array().unwrap();
        assert_eq!((status, errors.len()), (422, 101));
        assert!(errors[99]["location"].as_str().unwrap().contains("user user99"), "{told:#}");
        assert_eq!(errors[100]["message"], "There are 150 more faults.");
    }
}

#[tokio::test]
async fn what_comes_in_one_file_may_rest_on_each_other() {
    let (desk, _) = Desk::first().await;
    let (ours, digest) = (pepper().fingerprint().to_hex(), "0".repeat(64));
    let text = format!(
        "pepper = \"{ours}\"\n[[keys]]\nid = \"0000aZ19\"\nuser = \"Anna\"\ndigest = \"{digest}\"\napplication = \"mobile\"\nscopes = [\"fly\"]\n\
         [[users]]\nname = \"anna\"\nroles = [\"pilot\"]\n\
         [[resources]]\nid = \"r\"\nhandler = \"respond\"\npath = \"/r\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n\
         [[roles]]\nid = \"pilot\"\nlabel = \"P\"\npermissions = [\"fly\"]\n\
         [[applications]]\nid = \"mobile\"\nname = \"M\"\nkey_prefix = \"mob\"\n"
    );
    assert_eq!(desk.applies(&file(&text), "").await["added"], 5);
    let key = desk.accounts.keys_of(2, None, 9).unwrap().items.remove(0).record;
    assert_eq!((key.prefix.as_str(), key.created), ("mob", super::NOW));
    assert_eq!(desk.applies(&file(&text), "").await["unchanged"], 5);
}

#[tokio::test]
async fn too_much_at_once_is_refused_before_anything_else_is_asked() {
    let (desk, _) = Desk::first().await;
    let one = |at: usize| format!("[[roles]]\nid = \"r{at}\"\nlabel = \"R\"\n");
    let text: String = (0..=keyward::accounts::MOST_CHANGES).map(one).collect();
    let (status, told) = desk.apply(&file(&text), "").await;
    assert_eq!(status, 409, "{told:#}");
    let said = told["detail"].as_str().unwrap();
    assert!(said.contains("at most 100000") && said.contains("keyward restore"), "{said}");
    assert_eq!(desk.trail(), ["store.first-start"]);
}

#[tokio::test]
async fn a_user_gets_no_more_keys_than_there_may_be() {
    let (desk, _) = Desk::first().await;
    let ours = pepper().fingerprint().to_hex();
    let key = |at: usize| {
        format!("[[keys]]\nid = \"{at:08}\"\nuser = \"anna\"\ndigest = \"{}\"\n", "0".repeat(64))
    };
    let text = |count: usize| {
        let keys: String = (0..count).map(key).collect();
        file(&format!("pepper = \"{ours}\"\n[[users]]\nname = \"anna\"\n{keys}"))
    };
    let (status, told) = desk.apply(&text(101), "").await;
    assert_eq!(status, 422);
    assert!(told.to_string().contains("101 keys in force, and there may be 100"), "{told:#}");
    assert_eq!(desk.applies(&text(100), "").await["added"], 101);
    let more = text(100).replace("id = \"000000", "id = \"100000");
    assert_eq!(desk.apply(&more, "").await.0, 422);
    // In the place of others there are as many.
    assert_eq!(desk.apply(&more, "prune=true").await.0, 409, "the administrator goes");
    let kept = "[[users]]\nname = \"admin\"\nroles = [\"administrator\"]\n[[roles]]\nid = \"administrator\"\nlabel = \"A\"\nis_admin = true\n";
    let told = desk.applies(&format!("{more}{kept}"), "prune=true").await;
    assert_eq!((&told["added"], &told["removed"]), (&100.into(), &103.into()), "{told:#}");
}
