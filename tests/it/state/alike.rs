//! A store that was put back from a file, or from a backup, decides as the one that it was made of.

use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    Layer,
    accounts::{
        Accounts, Format, Import, ImportDigest, ImportMode, ImportRow, NewKey, Passwords, Rotate,
        Strangers, restore,
    },
    model::{Actor, Entropy, Scheme, Secret},
    store::{MemoryStore, SledStore, Store},
};
use serde_json::{Value, json};

use super::{Desk, file, pepper};
use crate::faces::{
    corpus::{Asked, corpus, shown},
    rig::{House, ask},
};

/// What each request of a corpus is answered.
async fn answers(layer: &Layer, corpus: &[Asked]) -> Vec<Value> {
    let mut all = Vec::with_capacity(corpus.len());
    for asked in corpus {
        all.push(shown(&ask(layer, asked.request()).await.0));
    }
    all
}

/// Asks the corpus of two sets of accounts.
async fn decide_alike(house: &House, corpus: &[Asked], other: &Accounts) {
    // What was counted since the start is no record: the key that is spent there is spent here first.
    let begins = STANDARD.encode("spent:kw_");
    let spent = corpus.iter().find(|one| {
        one.path == "/orders/7" && one.headers.iter().any(|(_, v)| v.starts_with(&begins))
    });
    let here = Layer::new(house.gate.clone());
    let there = Layer::new(house.beside(other));
    assert_eq!(ask(&there, spent.unwrap().request()).await.0.status(), 200);
    let (here, there) = (answers(&here, corpus).await, answers(&there, corpus).await);
    assert!(corpus.len() >= 1000, "{}", corpus.len());
    for (asked, (here, there)) in corpus.iter().zip(here.iter().zip(&there)) {
        assert_eq!(here, there, "{asked:?}");
    }
    for status in [200, 400, 401, 403, 404, 405, 429] {
        assert!(there.iter().any(|one| one[0] == status), "{status}");
    }
}

fn at_the_same_time(house: &House, store: Arc<dyn Store>) -> Accounts {
    let (passwords, clock) = (Passwords::new(1), house.accounts.clock().clone());
    Accounts::with(store, pepper(), passwords, clock, Entropy::seeded(2)).unwrap()
}

#[tokio::test]
async fn what_is_exported_and_applied_decides_alike() {
    let house = House::new().await;
    let corpus = corpus(&house).await;
    let text = Desk::of(house.accounts.clone()).export().await;
    let other = Desk::of(at_the_same_time(&house, Arc::new(MemoryStore::new())));
    other.applies(&text, "").await;
    assert_eq!(other.export().await, text);
    decide_alike(&house, &corpus, &other.accounts).await;
}

#[tokio::test]
async fn what_is_backed_up_and_restored_decides_alike() {
    let house = House::new().await;
    let corpus = corpus(&house).await;
    let folder = tempfile::tempdir().unwrap();
    let [backup, store, secret] =
        ["all.backup", "store", "pepper"].map(|name| folder.path().join(name));
    house.accounts.backup(backup.clone()).await.unwrap();
    std::fs::write(&secret, pepper().to_hex().as_bytes()).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    restore(&backup, &store, &secret, 16).await.unwrap();
    let store = Arc::new(SledStore::open(&store, 16).unwrap());
    decide_alike(&house, &corpus, &at_the_same_time(&house, store)).await;
}

/// Records with everything that there is to say.
const ALL: &str = r#"
[[roles]]
id = "editor"
label = "Éditeurs \"x\""
weight = -7
permissions = ["a b", "c"]

[[applications]]
id = "mobile"
name = "Mobile"
enabled = false
type = "bearer"
header = "Authorization"
realm = "R"
detail = "uniform"
key_prefix = "mob"
rate_limit = "100/1m burst 20"

[[resources]]
id = "each"
handler = "proxy"
path = "/each/{*rest}"
host = "api.example"
granularity = "method"
permission = "script"
buffer_body = true
enabled = false
rate_limit = "7/1s"
[resources.proxy]
upstreams = ["http://127.0.0.1:9000/base"]
protocol = "http2"
strip_prefix = "/each"
preserve_host = true
keep_credential = true
upgrades = []
connect_seconds = 3
response_seconds = 4
idle_seconds = 5
eject_after = 6
eject_seconds = 7
[resources.methods.GET]
formats = ["any"]
authentication = ["mobile", "anonymous"]
permissions = ["a b"]

[[resources]]
id = "said"
handler = "respond"
path = "/said"
methods = ["GET", "POST"]
formats = ["json", "xml"]
authentication = ["*"]
[resources.permissions]
POST = ["c"]
[resources.respond]
status = 201
content_type = "text/plain"
body = """
a
"b" \\ \u0001"""

[[users]]
name = "Änna O'Neil"
uid = 77
uuid = "01a213c0-9188-7a03-b659-c069a79d9116"
mail = "anna@x.example"
init = "first@x.example"
active = false
roles = ["editor", "administrator"]
password = "$argon2id$v=19$m=19456,t=2,p=1$Wn0yO1vVEX1Xc3T3VQkJ5w$pX3m1mA1z0m0L5v1Yk6c2Jr1eQ0C7m3D8y9Yy1m4b1o"
created = 2001-02-03T04:05:06+01:00
langcode = "de"
preferred_langcode = "pt-br"
preferred_admin_langcode = "en"
timezone = "Europe/Berlin"
rate_limit = "5/1h"
credits = "10/month"
[users.attributes]
"odd name." = "x\ny"
plan = "gold"
"#;

/// Of bcrypt, made by Apache's htpasswd.
const SLOW: [&str; 2] = [
    "$2y$05$EcbjZRfjPRIOEznwBEp73.LBUYKbsrpYLOboMja3s07q0HF2/quWK",
    "$2y$05$fthhypYC1iJE8lE9g4DOa.orllvM8PkeZPqHgMsn1NFbj6/.NUu1S",
];

#[tokio::test]
async fn everything_there_is_to_say_goes_round() {
    let (desk, _) = Desk::first().await;
    desk.applies(&file(ALL), "").await;
    let acting = desk.accounts.acting(Actor::Program);
    let new = NewKey {
        label: "ci \"x\"".into(),
        application: Some("mobile".into()),
        universal: false,
        scopes: Some(vec!["a b".into()]),
        expires: Some(super::NOW.plus(500)),
        networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::/32".parse().unwrap()],
        rate_limit: keyward::model::RateLimit::parse("r", "3/1m").ok(),
        credits: keyward::model::Credits::parse("c", "9/week").ok(),
    };
    let issued = acting.issue_key(77, new).await.unwrap();
    let rotated = acting.rotate_key(issued.key.record.id, Rotate::default()).await.unwrap();
    acting.revoke_key(rotated.issued.key.record.id).await.unwrap();
    for (digest, key) in [
        (ImportDigest::Clear, "a-foreign-key".to_owned()),
        (ImportDigest::Fast(Scheme::Sha256), "ab".repeat(32)),
        (ImportDigest::Slow(Format::Bcrypt), SLOW[0].to_owned()),
        (ImportDigest::Slow(Format::Bcrypt), SLOW[1].to_owned()),
    ] {
        let rows = vec![ImportRow {
            line: 1,
            username: "Änna O'Neil".into(),
            key: Secret::new(key),
            label: String::new(),
            expires: None,
            scopes: Some(vec![]),
        }];
        let (strangers, mode) = (Strangers::Refused, ImportMode::Write);
        let import = Import { digest, strangers, includes_administrators: true, mode, rows };
        assert_eq!(acting.import_keys(&import).await.unwrap().keys, 1);
    }
    // One of the slow ones was used, and is fast now.
    let slow = desk.accounts.directory().slow_keys(Some(77)).unwrap().ids;
    let text = Secret::new("what it was made of, for all we know");
    acting.quicken_key(slow[0], &text).await.unwrap();
    desk.applies(&file("[[applications]]\nid = \"portal\"\nname = \"P\"\nkey_source = \"universal\"\nuniversal_administrators = true\n"), "").await;
    let (application, universal) = (Some("portal".to_owned()), true);
    acting.issue_key(77, NewKey { application, universal, ..NewKey::default() }).await.unwrap();
    // One that acted as others in an application that takes no such keys any more.
    let former = |source: &str| {
        file(&format!(
            "[[applications]]\nid = \"former\"\nname = \"F\"\nkey_source = \"{source}\"\n"
        ))
    };
    desk.applies(&former("universal"), "").await;
    let (application, universal) = (Some("former".to_owned()), true);
    acting.issue_key(77, NewKey { application, universal, ..NewKey::default() }).await.unwrap();
    desk.applies(&former("per_user"), "").await;
    // What a user has lost since, and an application that is gone.
    desk.applies(&file("[[roles]]\nid = \"editor\"\nlabel = \"E\"\n"), "").await;
    acting
        .change_user::<keyward::accounts::AccountError>(77, None, |user| {
            user.roles = vec!["editor".into()];
            Ok(())
        })
        .await
        .unwrap();
    desk.accounts.clock().set(super::NOW.plus(10_000));
    let text = desk.export().await;
    for said in [
        "[resources.methods.GET]",
        "odd name.",
        "rotated",
        "revoked",
        "sha256",
        "scopes = []",
        "scheme = \"slow\"",
        "former_digest",
        "universal = true",
        "universal_administrators = true",
    ] {
        assert!(text.contains(said), "{said}\n{text}");
    }
    let other = Desk::empty();
    let told = other.applies(&text, "").await;
    assert_eq!((&told["changed"], &told["removed"]), (&json!(0), &json!(0)));
    assert_eq!(other.export().await, text);
    assert_eq!(other.applies(&text, "prune=true").await["changes"], json!([]));
    // No secret is told of what comes.
    let digest = issued.key.record.digest.to_hex();
    assert!(text.contains(&digest) && !told.to_string().contains(&digest));
    assert!(text.contains("$argon2id$") && !told.to_string().contains("argon2id"));
}
