//! A store that was restored from an exported file or a backup decides like the original store.

use keyward::model::Mode;
use std::{os::unix::fs::PermissionsExt as _, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    ClientSource, GuardLayer,
    accounts::{
        Accounts, DigestFormat, ImportDigest, KeyImport, KeyRow, LaterChanges, NewKey, Passwords,
        RotateOptions, UnknownUsers, restore,
    },
    model::{Actor, Entropy, Scheme, Secret},
    store::{EngineKind, MemoryStore, SledStore, Store},
};
use serde_json::{Value, json};

use super::{ApiClient, file, pepper};
use crate::faces::{
    corpus::{TestRequest, client_view, corpus},
    fixture::{Fixture, send_through},
};

/// The response to each request of a corpus.
async fn responses(layer: &GuardLayer, corpus: &[TestRequest]) -> Vec<Value> {
    let mut all = Vec::with_capacity(corpus.len());
    for request in corpus {
        all.push(client_view(&send_through(layer, request.request()).await.0));
    }
    all
}

/// Asserts that `other` and the accounts of the fixture give the same response to each request of
/// the corpus.
async fn assert_same_decisions(fixture: &Fixture, corpus: &[TestRequest], other: &Accounts) {
    // The original store has counted one use of the rate-limited key. Exports and backups contain
    // no usage counts, so use this key once with the restored store too.
    let prefix = STANDARD.encode("spent:kw_");
    let rate_limited = corpus.iter().find(|request| {
        request.path == "/orders/7" && request.headers.iter().any(|(_, v)| v.starts_with(&prefix))
    });
    let original = GuardLayer::new(fixture.gate.clone(), ClientSource::unknown());
    let restored = GuardLayer::new(fixture.gate_for(other), ClientSource::unknown());
    assert_eq!(send_through(&restored, rate_limited.unwrap().request()).await.0.status(), 200);
    let (original, restored) =
        (responses(&original, corpus).await, responses(&restored, corpus).await);
    assert!(corpus.len() >= 1000, "{}", corpus.len());
    for (request, (original, restored)) in corpus.iter().zip(original.iter().zip(&restored)) {
        assert_eq!(original, restored, "{request:?}");
    }
    for status in [200, 400, 401, 403, 404, 405, 429] {
        assert!(restored.iter().any(|response| response[0] == status), "{status}");
    }
}

/// Accounts on this store, with the clock of the fixture.
fn accounts_with_same_clock(fixture: &Fixture, store: Arc<dyn Store>) -> Accounts {
    let (passwords, clock) = (Passwords::new(1), fixture.accounts.clock().clone());
    Accounts::with(store, pepper(), passwords, clock, Entropy::seeded(2)).unwrap()
}

#[tokio::test]
async fn exported_and_applied_store_decides_the_same() {
    let fixture = Fixture::new().await;
    let corpus = corpus(&fixture).await;
    let text = ApiClient::operator(fixture.accounts.clone()).export().await;
    let other =
        ApiClient::operator(accounts_with_same_clock(&fixture, Arc::new(MemoryStore::new())));
    other.apply_ok(&text, "").await;
    assert_eq!(other.export().await, text);
    assert_same_decisions(&fixture, &corpus, &other.accounts).await;
}

#[tokio::test]
async fn restored_backup_decides_the_same() {
    let fixture = Fixture::new().await;
    let corpus = corpus(&fixture).await;
    let folder = tempfile::tempdir().unwrap();
    let [backup, store, secret] =
        ["all.backup", "store", "pepper"].map(|name| folder.path().join(name));
    fixture
        .accounts
        .as_actor(Actor::Program)
        .operator()
        .unwrap()
        .backup(backup.clone())
        .await
        .unwrap();
    std::fs::write(&secret, pepper().to_hex().as_bytes()).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    restore(&backup, &store, &secret, EngineKind::Sled, 16, LaterChanges::Refuse).await.unwrap();
    let store = Arc::new(SledStore::open(&store, 16).unwrap());
    assert_same_decisions(&fixture, &corpus, &accounts_with_same_clock(&fixture, store)).await;
}

/// Records in which every field is set.
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
body_bytes = 12345
body_read_seconds = 67
enabled = false
rate_limit = "7/1s"
[resources.proxy]
upstreams = ["http://127.0.0.1:9000/base"]
protocol = "http2"
strip_prefix = "/each"
preserve_host = true
keep_credential = true
upgrades = []
forwarded = ["x-forwarded-for", "forwarded"]
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
id = "stream"
handler = "proxy"
path = "/stream"
methods = ["POST"]
formats = ["any"]
authentication = ["*"]
body_bytes = "none"
body_read_seconds = "none"
[resources.proxy]
upstreams = ["http://127.0.0.1:9000"]

[[resources]]
id = "fixed"
handler = "respond"
path = "/fixed"
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

/// bcrypt digests from Apache's htpasswd.
const SLOW: [&str; 2] = [
    "$2y$05$EcbjZRfjPRIOEznwBEp73.LBUYKbsrpYLOboMja3s07q0HF2/quWK",
    "$2y$05$fthhypYC1iJE8lE9g4DOa.orllvM8PkeZPqHgMsn1NFbj6/.NUu1S",
];

#[tokio::test]
async fn every_field_survives_export_and_apply() {
    let (client, _) = ApiClient::after_first_start().await;
    client.apply_ok(&file(ALL), "").await;
    let writer = client.accounts.as_actor(Actor::Program);
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
    let issued = writer.issue_key(77, new).await.unwrap();
    let rotated = writer.rotate_key(issued.key.record.id, RotateOptions::default()).await.unwrap();
    writer.revoke_key(rotated.issued.key.record.id).await.unwrap();
    for (digest, key) in [
        (ImportDigest::Clear, "a-foreign-key".to_owned()),
        (ImportDigest::Fast(Scheme::Sha256), "ab".repeat(32)),
        (ImportDigest::Slow(DigestFormat::Bcrypt), SLOW[0].to_owned()),
        (ImportDigest::Slow(DigestFormat::Bcrypt), SLOW[1].to_owned()),
    ] {
        let rows = vec![KeyRow {
            line: 1,
            username: "Änna O'Neil".into(),
            key: Secret::new(key),
            label: String::new(),
            expires: None,
            scopes: Some(vec![]),
        }];
        let (unknown_users, mode) = (UnknownUsers::Reject, Mode::Live);
        let import = KeyImport { digest, unknown_users, mode, rows };
        assert_eq!(writer.import_keys(&import).await.unwrap().keys, 1);
    }
    // After the first use of a key with a bcrypt digest, the record also has a fast digest.
    let slow = client.accounts.directory().slow_keys(Some(77)).unwrap().ids;
    let text = Secret::new("any text: nothing compares it with the digest");
    writer.rehash_key(slow[0], &text).await.unwrap();
    client.apply_ok(&file("[[applications]]\nid = \"portal\"\nname = \"P\"\nkey_source = \"universal\"\nuniversal_administrators = true\n"), "").await;
    let (application, universal) = (Some("portal".to_owned()), true);
    writer.issue_key(77, NewKey { application, universal, ..NewKey::default() }).await.unwrap();
    // Create a universal key whose application no longer accepts universal keys.
    let former = |source: &str| {
        file(&format!(
            "[[applications]]\nid = \"former\"\nname = \"F\"\nkey_source = \"{source}\"\n"
        ))
    };
    client.apply_ok(&former("universal"), "").await;
    let (application, universal) = (Some("former".to_owned()), true);
    writer.issue_key(77, NewKey { application, universal, ..NewKey::default() }).await.unwrap();
    client.apply_ok(&former("per_user"), "").await;
    // The user loses a permission that is in the scopes of the user's key.
    client.apply_ok(&file("[[roles]]\nid = \"editor\"\nlabel = \"E\"\n"), "").await;
    writer
        .change_user::<keyward::accounts::AccountError>(77, None, |user| {
            user.roles = vec!["editor".into()];
            Ok(())
        })
        .await
        .unwrap();
    client.accounts.clock().set(super::NOW.plus(10_000));
    let text = client.export().await;
    for expected in [
        "[resources.methods.GET]",
        "body_bytes = 12345",
        "body_read_seconds = \"none\"",
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
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    let other = ApiClient::on_empty_store();
    let result = other.apply_ok(&text, "").await;
    assert_eq!((&result["changed"], &result["removed"]), (&json!(0), &json!(0)));
    assert_eq!(other.export().await, text);
    assert_eq!(other.apply_ok(&text, "prune=true").await["changes"], json!([]));
    // The exported file contains digests, but the result of `apply` does not.
    let digest = issued.key.record.digest.to_hex();
    assert!(text.contains(&digest) && !result.to_string().contains(&digest));
    assert!(text.contains("$argon2id$") && !result.to_string().contains("argon2id"));
}
