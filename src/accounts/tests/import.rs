//! Tests of importing keys of other systems.

use super::*;
use crate::model::{Entropy, KeyId, KeyText, Mode, Scheme, Secret};

fn row(line: u64, username: &str, key: &str) -> KeyRow {
    KeyRow {
        line,
        username: username.into(),
        key: Secret::new(key),
        label: String::new(),
        expires: None,
        scopes: None,
    }
}

fn import(scheme: Scheme, rows: Vec<KeyRow>) -> KeyImport {
    let (unknown_users, mode) = (UnknownUsers::Create, Mode::Live);
    let digest = match scheme {
        Scheme::Text => ImportDigest::Clear,
        scheme => ImportDigest::Fast(scheme),
    };
    KeyImport { digest, unknown_users, mode, rows }
}

/// The id and the user of the key with this text.
fn owner(accounts: &Writer, text: &str) -> Option<(KeyId, u64)> {
    let (id, key) = accounts.directory().foreign_key(accounts.pepper(), text)?;
    assert!(accounts.pepper().digest_as(key.scheme, text) == Some(key.digest));
    Some((id, key.user))
}

/// The HMAC key of the system from which keys are imported.
const HMAC_KEY: &[u8] = b"a key of theirs";

/// The digest of a text in hexadecimal digits, as the other system stores it.
fn hex(scheme: Scheme, text: &str) -> String {
    scheme.kept(text, Some(HMAC_KEY)).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn imported_keys_are_found_by_their_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store");
    let open = || accounts_on(Arc::new(crate::store::SledStore::open(&path, 16).unwrap()));
    let accounts = open();
    accounts.first_start().await.unwrap().unwrap();
    accounts.create_user(new_user("bob")).await.unwrap();
    let clear_texts = import(
        Scheme::Text,
        vec![row(1, "BOB", "clear-text-of-bob"), row(2, "eve", "clear-text-of-eve!!!")],
    );
    let done = accounts.import_keys(&clear_texts).await.unwrap();
    assert_eq!((done.keys, done.users, done.known), (2, 1, 0));
    for scheme in [Scheme::Sha256, Scheme::Blake3] {
        let text = format!("secret of {scheme:?}");
        let rows = vec![row(1, "bob", &hex(scheme, &text)), row(2, "bob", &hex(scheme, &text))];
        assert_eq!(accounts.import_keys(&import(scheme, rows)).await.unwrap().keys, 1);
    }
    drop((clear_texts, accounts));
    // Check the keys after a restart.
    for accounts in [open()] {
        assert_eq!(owner(&accounts, "clear-text-of-bob").unwrap().1, 2);
        assert_eq!(owner(&accounts, "clear-text-of-eve!!!").unwrap().1, 3);
        assert_eq!(owner(&accounts, "secret of Sha256").unwrap().1, 2);
        assert_eq!(owner(&accounts, "secret of Blake3").unwrap().1, 2);
        // A lookup by the stored digest, or by any other text, finds no key.
        for text in ["", "clear", &hex(Scheme::Sha256, "secret of Sha256"), "secret of bob"] {
            assert_eq!(owner(&accounts, text), None, "{text}");
        }
        let (id, _) = owner(&accounts, "clear-text-of-eve!!!").unwrap();
        let key = accounts.key(id).unwrap().unwrap().record;
        assert_eq!((key.scheme, key.last_four.as_str()), (Scheme::Text, "e!!!"));
        // The last four characters of a short key are not shown.
        let (id, _) = owner(&accounts, "clear-text-of-bob").unwrap();
        assert_eq!(accounts.key(id).unwrap().unwrap().record.last_four, "");
        // Deleting a user deletes the user's keys, which can then be imported for another user.
        accounts.delete_user(2, None).await.unwrap();
        assert_eq!(owner(&accounts, "clear-text-of-bob"), None);
        let for_eve = import(Scheme::Text, vec![row(1, "eve", "clear-text-of-bob")]);
        assert_eq!(accounts.import_keys(&for_eve).await.unwrap().keys, 1);
        assert_eq!(owner(&accounts, "clear-text-of-bob").unwrap().1, 3);
        // Rotating an imported key creates a key in Keyward's format. The imported key can be
        // revoked.
        let (id, _) = owner(&accounts, "clear-text-of-bob").unwrap();
        let rotated = accounts.rotate_key(id, RotateOptions::default()).await.unwrap();
        assert_eq!(rotated.issued.key.record.scheme, Scheme::Own);
        accounts.revoke_key(id).await.unwrap();
        assert!(accounts.directory().key(id).unwrap().is_revoked);
    }
}

#[tokio::test]
async fn repeated_import_changes_nothing() {
    let accounts = accounts().await;
    let rows = || vec![row(1, "ann", "a-key-of-anns"), row(2, "Ann", "another-of-anns")];
    let done = accounts.import_keys(&import(Scheme::Text, rows())).await.unwrap();
    assert_eq!((done.keys, done.users), (2, 1));
    let count = accounts.audit(AuditOrder::Newest, None, 99).unwrap().items.len();
    let done = accounts.import_keys(&import(Scheme::Text, rows())).await.unwrap();
    assert_eq!((done.keys, done.users, done.known), (0, 0, 2));
    assert_eq!(accounts.audit(AuditOrder::Newest, None, 99).unwrap().items.len(), count);
    let trail = format!("{:?}", accounts.audit(AuditOrder::Newest, None, 99).unwrap());
    assert!(trail.contains("key.import") && !trail.contains("a-key-of-anns"));
}

#[tokio::test]
async fn each_violation_names_its_line_and_nothing_is_imported() {
    let accounts = with_key_limit(&accounts().await, 2);
    accounts.create_user(new_user("bob")).await.unwrap();
    let ours = KeyText::generate("kw", &Entropy::seeded(9)).text.expose().to_owned();
    let mut damaged = ours.clone();
    damaged.replace_range(20..21, if &ours[20..21] == "a" { "b" } else { "a" });
    let admin_key = import(Scheme::Text, vec![row(1, "admin", "the-admins-own")]);
    accounts.import_keys(&admin_key).await.unwrap();
    let before = accounts.keys(None, 99).unwrap().items.len();
    let mut expired = row(8, "bob", "in-the-past");
    expired.expires = Some(NOW);
    let mut scoped = row(9, "bob", "with-a-scope");
    scoped.scopes = Some(vec!["everything".into()]);
    let rows = vec![
        row(1, "bob", "a-good-one"),
        row(2, "bob", "short"),
        row(3, "bob", "two\nlines of it"),
        row(4, "bob", &damaged),
        row(5, "bob", "the-admins-own"),
        row(6, "eve", "a-good-one"),
        row(7, " eve", "for-a-bad-name"),
        expired,
        scoped,
        row(10, "zoe", "one-of-zoes"),
        row(11, "zoe", "two-of-zoes"),
        row(12, "zoe", "three-of-zoes"),
    ];
    for mode in [Mode::DryRun, Mode::Live] {
        let rows = rows.iter().map(|original| KeyRow {
            key: original.key.clone(),
            scopes: original.scopes.clone(),
            ..row(original.line, &original.username, "")
        });
        let mut rows: Vec<KeyRow> = rows.collect();
        rows[7].expires = Some(NOW);
        let problem = accounts
            .import_keys(&KeyImport { mode, ..import(Scheme::Text, rows) })
            .await
            .unwrap_err();
        for text in KEY_TEXTS {
            assert!(!problem.to_string().contains(text), "{problem}");
        }
        assert_eq!(
            invalid::<()>(Err(problem)),
            [
                "line 2.key",
                "line 3.key",
                "line 4.key",
                "line 5.key",
                "line 6.key",
                "line 7.username",
                "line 8.expires",
                "line 9.scopes.0",
                "line 12.username",
            ]
        );
    }
    assert_eq!(accounts.keys(None, 99).unwrap().items.len(), before);
    assert!(accounts.directory().user_by_name("eve").is_none());
    assert_eq!(owner(&accounts, "a-good-one"), None);

    let rows = vec![row(3, "bob", "nonsense"), row(4, "bob", "")];
    assert_eq!(
        invalid(accounts.import_keys(&import(Scheme::Sha256, rows)).await),
        ["line 3.key", "line 4.key"]
    );
    let rows = vec![row(1, "nobody", "a-key-of-nobody")];
    let refused = KeyImport { unknown_users: UnknownUsers::Reject, ..import(Scheme::Text, rows) };
    assert_eq!(invalid(accounts.import_keys(&refused).await), ["line 1.username"]);
    let rows = vec![row(1, "admin", "another-of-admin")];
    let limited = accounts.as_actor(Actor::Anonymous { client: [127, 0, 0, 1].into() });
    let import_admin = import(Scheme::Text, rows);
    let problem = limited.import_keys(&import_admin).await.unwrap_err().to_string();
    assert!(problem.starts_with("line 1.username: Only an administrator"), "{problem}");
    // An imported key in Keyward's format keeps its id.
    accounts.import_keys(&import(Scheme::Text, vec![row(1, "bob", &ours)])).await.unwrap();
    let crate::model::KeyShape::Ours(id) = KeyText::shape(&ours) else { panic!() };
    assert!(accounts.directory().key(id).unwrap().digest == accounts.pepper().digest(&ours));
}

/// Texts of keys, which no message may contain.
const KEY_TEXTS: [&str; 4] = ["the-admins-own", "a-good-one", "with-a-scope", "three-of-zoes"];

#[tokio::test]
async fn dry_run_writes_nothing_and_import_notices_a_simultaneous_import() {
    let store = InterruptedStore::new();
    let accounts = accounts_on(store.clone());
    accounts.first_start().await.unwrap().unwrap();
    let rows = || vec![row(1, "ann", "a-key-of-anns")];
    let dry_run = KeyImport { mode: Mode::DryRun, ..import(Scheme::Text, rows()) };
    assert_eq!(accounts.import_keys(&dry_run).await.unwrap().users, 1);
    assert!(accounts.directory().user_by_name("ann").is_none());
    assert_eq!(accounts.directory().last_uid(), 1);
    // Both users exist before the imports. The imports therefore conflict only because they contain
    // the same key.
    for name in ["ann", "eve"] {
        accounts.create_user(new_user(name)).await.unwrap();
    }
    store.before_commit(|others| async move {
        let other = import(Scheme::Text, vec![row(1, "eve", "a-key-of-anns")]);
        others.import_keys(&other).await.unwrap();
    });
    assert_eq!(invalid(accounts.import_keys(&import(Scheme::Text, rows())).await), ["line 1.key"]);
    assert_eq!(owner(&accounts, "a-key-of-anns").unwrap().1, 3);
}
