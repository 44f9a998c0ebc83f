//! Tests of the Directory as a subscriber: after each change, it equals a Directory that is newly
//! opened from the store.

use super::*;
use crate::{
    model::{Entropy, Key, KeyText, Pepper, Timestamp, User},
    store::{Batch, MemoryStore, encode, table},
};

fn user(uid: u64, name: &str, roles: &[&str]) -> User {
    User {
        uid,
        uuid: uuid::Uuid::nil(),
        name: name.into(),
        mail: None,
        init: None,
        status: true,
        roles: roles.iter().map(|id| (*id).to_owned()).collect(),
        password: None,
        created: Timestamp(0),
        changed: Timestamp(0),
        access: Timestamp(0),
        login: Timestamp(0),
        langcode: "en".into(),
        preferred_langcode: None,
        preferred_admin_langcode: None,
        timezone: None,
        attributes: BTreeMap::new(),
        rate_limit: None,
        credits: None,
    }
}

fn role(id: &str, is_admin: bool, permissions: &[&str]) -> Role {
    let permissions = permissions.iter().map(|permission| (*permission).to_owned()).collect();
    Role { id: id.into(), label: id.into(), weight: 0, is_admin, permissions }
}

fn key(seed: u64, user: u64) -> Key {
    let text = KeyText::generate("kw", &Entropy::seeded(seed));
    Key {
        id: text.id,
        user,
        application: None,
        label: String::new(),
        prefix: "kw".into(),
        last_four: text.last_four().into(),
        digest: Pepper::from_bytes([0; 32]).digest(text.text.expose()),
        scheme: Scheme::Own,
        slow: None,
        former_digest: None,
        universal: false,
        scopes: None,
        created: Timestamp(0),
        expires: None,
        revoked: None,
        rotated: None,
        networks: Vec::new(),
        rate_limit: None,
        credits: None,
    }
}

/// A store with a Directory that subscribes to it.
struct Fixture {
    store: MemoryStore,
    directory: Arc<Directory>,
}

impl Fixture {
    fn new() -> Self {
        let store = MemoryStore::new();
        let directory = Directory::open(&store).unwrap();
        Self { store, directory }
    }

    async fn commit(&self, fill: impl FnOnce(&mut Batch)) {
        let mut batch = Batch::new();
        fill(&mut batch);
        self.store.commit(batch).await.unwrap();
    }

    async fn put_user(&self, user: &User) {
        self.commit(|batch| {
            batch.put(Table::Users, table::user(user.uid), encode(user));
        })
        .await;
    }

    async fn put_role(&self, role: &Role) {
        self.commit(|batch| {
            batch.put(Table::Roles, role.id.as_str(), encode(role));
        })
        .await;
    }

    async fn put_key(&self, key: &Key) {
        self.commit(|batch| {
            batch.put(Table::Keys, table::key(key.id), encode(key));
        })
        .await;
    }

    /// Reads from the subscribed Directory and from a newly opened Directory. Both results must be
    /// equal.
    fn both<T: PartialEq + std::fmt::Debug>(&self, read: impl Fn(&Directory) -> T) -> T {
        let subscribed = read(&self.directory);
        let opened = read(&Directory::open(&self.store).unwrap());
        assert_eq!(subscribed, opened);
        subscribed
    }

    fn uid(&self, name: &str) -> Option<u64> {
        self.both(|directory| directory.user_by_name(name).map(|user| user.uid))
    }

    fn allows(&self, uid: u64, permission: &str) -> bool {
        self.both(|directory| {
            let policy = directory.policy();
            let user = directory.user(uid).unwrap();
            policy.roles.allows(user.roles(&policy.roles), permission)
        })
    }
}

#[tokio::test]
async fn users_are_found_by_name_case_insensitively() {
    let fixture = Fixture::new();
    fixture.put_user(&user(7, "Jürgen", &[])).await;
    for name in ["Jürgen", "jürgen", "JÜRGEN"] {
        assert_eq!(fixture.uid(name), Some(7), "{name}");
    }
    assert_eq!(fixture.uid("jurgen"), None);
    assert_eq!(fixture.uid(""), None);
    assert_eq!(fixture.both(|directory| directory.user(7).unwrap().name.clone()), "Jürgen");
    // The last uid is the largest one, also after a restart, so the next uid is new.
    fixture.put_user(&user(3, "Eva", &[])).await;
    assert_eq!(fixture.both(Directory::last_uid), 7);
}

#[tokio::test]
async fn renamed_user_is_found_by_the_new_name_only() {
    let fixture = Fixture::new();
    fixture.put_user(&user(7, "before", &[])).await;
    fixture.put_user(&user(7, "after", &[])).await;
    assert_eq!((fixture.uid("before"), fixture.uid("after")), (None, Some(7)));
    // A change of case only.
    fixture.put_user(&user(7, "AFTER", &[])).await;
    assert_eq!(fixture.uid("after"), Some(7));
    assert_eq!(
        fixture.both(|directory| directory.user_by_name("after").unwrap().name.clone()),
        "AFTER"
    );
    assert_eq!(fixture.both(Directory::counts), (1, 0));
}

#[tokio::test]
async fn name_can_move_between_users_in_one_commit() {
    let put = |batch: &mut Batch, user: User| {
        batch.put(Table::Users, table::user(user.uid), encode(&user));
    };
    let fixture = Fixture::new();
    fixture.put_user(&user(1, "a", &[])).await;
    fixture.put_user(&user(2, "b", &[])).await;
    // The new owner of the name is written first.
    fixture
        .commit(|batch| {
            put(batch, user(2, "A", &[]));
            put(batch, user(1, "c", &[]));
        })
        .await;
    assert_eq!((fixture.uid("a"), fixture.uid("b"), fixture.uid("c")), (Some(2), None, Some(1)));
    fixture
        .commit(|batch| {
            put(batch, user(3, "c", &[]));
            batch.delete(Table::Users, table::user(1));
        })
        .await;
    assert_eq!(fixture.uid("c"), Some(3));
    assert_eq!(fixture.both(Directory::counts), (2, 0));
}

#[tokio::test]
async fn deleted_user_is_not_found_and_its_uid_is_not_reused() {
    let fixture = Fixture::new();
    fixture.put_user(&user(7, "bob", &[])).await;
    fixture
        .commit(|batch| {
            batch.delete(Table::Users, table::user(7));
            batch.put(Table::Meta, table::LAST_UID, encode(&7));
        })
        .await;
    assert_eq!(fixture.uid("bob"), None);
    assert!(fixture.both(|directory| directory.user(7).is_none()));
    assert_eq!(fixture.both(Directory::last_uid), 7);
    assert_eq!(fixture.both(Directory::next_uid), 8);
    assert_eq!(fixture.directory.next_uid(), 9);
}

#[tokio::test]
async fn changes_of_roles_apply_to_their_users() {
    let fixture = Fixture::new();
    fixture.put_role(&role("editor", false, &["write"])).await;
    fixture.put_user(&user(1, "a", &["editor"])).await;
    fixture.put_user(&user(2, "b", &[])).await;
    assert!(fixture.allows(1, "write") && !fixture.allows(2, "write"));
    // A new combination of roles.
    fixture.put_role(&role("boss", true, &[])).await;
    fixture.put_user(&user(2, "b", &["editor", "boss"])).await;
    assert!(fixture.allows(2, "anything") && !fixture.allows(1, "anything"));
    assert_eq!(fixture.both(Directory::administrators), [2]);
    assert!(fixture.both(|directory| directory.has_user_with_role("boss")));

    fixture.put_role(&role("editor", false, &["read"])).await;
    assert!(fixture.allows(1, "read") && !fixture.allows(1, "write"));
    fixture.put_role(&role("authenticated", false, &["look"])).await;
    assert!(fixture.allows(1, "look") && fixture.allows(2, "look"));
    fixture
        .commit(|batch| {
            batch.delete(Table::Roles, *b"boss");
        })
        .await;
    assert!(!fixture.allows(2, "anything") && fixture.allows(2, "read"));
    assert_eq!(fixture.both(Directory::administrators), [0_u64; 0]);

    fixture.put_user(&user(1, "a", &[])).await;
    assert!(!fixture.allows(1, "read"));
    assert!(!fixture.both(|directory| directory.has_user_with_role("nobody")));
}

#[tokio::test]
async fn blocked_user_is_inactive_at_once_and_no_administrator() {
    let fixture = Fixture::new();
    fixture.put_role(&role("boss", true, &[])).await;
    fixture.put_user(&user(1, "a", &["boss"])).await;
    assert_eq!(fixture.both(Directory::administrators), [1]);
    fixture.put_user(&User { status: false, ..user(1, "a", &["boss"]) }).await;
    assert!(!fixture.both(|directory| directory.user(1).unwrap().is_active));
    assert_eq!(fixture.both(Directory::administrators), [0_u64; 0]);
}

#[tokio::test]
async fn revocation_and_deletion_of_a_key_apply_at_once() {
    let fixture = Fixture::new();
    let key = key(1, 7);
    fixture.put_key(&key).await;
    let cached = fixture.directory.key(key.id).unwrap();
    assert!(cached.digest == key.digest && cached.user == 7);
    assert!(!fixture.both(|directory| directory.key(key.id).unwrap().is_revoked));
    fixture.put_key(&Key { revoked: Some(Timestamp(5)), ..key.clone() }).await;
    assert!(fixture.both(|directory| directory.key(key.id).unwrap().is_revoked));
    fixture
        .commit(|batch| {
            batch.delete(Table::Keys, table::key(key.id));
        })
        .await;
    assert!(fixture.both(|directory| directory.key(key.id).is_none()));
}

#[tokio::test]
async fn restrictions_and_expiry_of_a_key_are_kept() {
    let fixture = Fixture::new();
    let key = Key {
        application: Some("own".into()),
        scopes: Some(vec!["read".into()]),
        expires: Some(Timestamp(100)),
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..key(1, 7)
    };
    fixture.put_key(&key).await;
    let cached = fixture.directory.key(key.id).unwrap();
    assert_eq!(cached.application(), Some("own"));
    assert_eq!(cached.scopes().unwrap().as_ref(), ["read".to_owned()]);
    assert!(!cached.is_expired(Timestamp(99)) && cached.is_expired(Timestamp(100)));
    for (address, is_allowed) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("11.0.0.1", false),
        ("::ffff:11.0.0.1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(cached.allows_address(address.parse().unwrap()), is_allowed, "{address}");
    }
    let rotation = crate::model::Rotation { to: key.id, until: Timestamp(50) };
    fixture.put_key(&Key { rotated: Some(rotation), ..key.clone() }).await;
    assert!(fixture.both(|directory| directory.key(key.id).unwrap().is_expired(Timestamp(50))));
    let plain = Key { id: key.id, ..self::key(2, 7) };
    fixture.put_key(&plain).await;
    let cached = fixture.directory.key(key.id).unwrap();
    assert!(
        !cached.is_expired(Timestamp(i64::MAX - 1))
            && cached.allows_address("11.0.0.1".parse().unwrap())
    );
    assert!(cached.application().is_none() && cached.scopes().is_none());
}

#[tokio::test]
async fn policies_never_change_and_are_replaced_by_commits() {
    let fixture = Fixture::new();
    let before = fixture.directory.policy();
    let application = Application { is_default: true, ..Application::api_key("own", "Own") };
    let resource = Resource::entity_user();
    fixture
        .commit(|batch| {
            batch.put(Table::Applications, *b"own", encode(&application));
            batch.put(Table::Resources, resource.id.as_str(), encode(&resource));
        })
        .await;
    let after = fixture.directory.policy();
    assert!(before.applications.default().is_none() && before.routes.resources().count() == 0);
    assert_eq!(after.applications.default().unwrap().record, application);
    assert_eq!(after.routes.resources().count(), 1);
    // Changes of other records do not replace the policy.
    fixture.put_key(&key(1, 7)).await;
    fixture.put_user(&user(1, "a", &[])).await;
    assert!(Arc::ptr_eq(&after, &fixture.directory.policy()));

    fixture
        .commit(|batch| {
            batch.delete(Table::Applications, *b"own");
            batch.delete(Table::Resources, resource.id.as_str());
        })
        .await;
    assert!(fixture.both(|directory| directory.policy().applications.get("own").is_none()));
    assert_eq!(fixture.both(|directory| directory.policy().routes.resources().count()), 0);
}

#[tokio::test]
async fn unreadable_record_is_not_trusted_any_longer() {
    let fixture = Fixture::new();
    let key = key(1, 7);
    fixture.directory.add_operator_key("op", KeyId::from_number(5), key.digest);
    fixture.put_key(&key).await;
    fixture.put_role(&role("boss", true, &[])).await;
    fixture.put_user(&user(7, "bob", &["boss"])).await;
    fixture.put_user(&user(8, "eve", &["boss"])).await;
    let unreadable = || b"{".to_vec();
    fixture
        .commit(|batch| {
            batch.put(Table::Users, table::user(7), unreadable());
            batch.put(Table::Keys, table::key(key.id), unreadable());
            batch.put(Table::Roles, *b"boss", unreadable());
            batch.put(Table::Users, *b"no number", unreadable());
            batch.delete(Table::Users, *b"no number");
        })
        .await;
    assert!(fixture.directory.key(key.id).is_none());
    assert!(fixture.directory.user(7).is_none() && fixture.directory.user_by_name("bob").is_none());
    assert!(fixture.directory.policy().roles.role("boss").is_none());
    assert_eq!(fixture.directory.administrators(), [0_u64; 0]);
    assert!(fixture.directory.user(8).is_some() && fixture.directory.user(0).is_some());
    // A Directory cannot be opened from this store.
    assert!(matches!(Directory::open(&fixture.store), Err(StoreError::Damaged { .. })));
}

#[test]
fn user_is_found_while_it_is_renamed() {
    let directory = Directory::empty();
    let put = |name: &str| {
        let json = encode(&user(7, name, &[]));
        directory.put_user(serde_json::from_slice(&json).unwrap(), 0);
    };
    for _ in 0..300 {
        put("old");
        let start = std::sync::Barrier::new(2);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // Once the old name is removed, the new one must exist.
                while directory.user_by_name("old").is_some() {
                    assert!(directory.user(7).is_some());
                }
                assert!(directory.user_by_name("new").is_some());
            });
            start.wait();
            put("new");
        });
    }
}

#[tokio::test]
async fn deleted_foreign_key_is_not_found_by_its_text() {
    let store = MemoryStore::new();
    let directory = Directory::open(&store).unwrap();
    let pepper = Pepper::from_bytes([0; 32]);
    let foreign = Key {
        scheme: Scheme::Text,
        digest: pepper.digest_as(Scheme::Text, "foreign key").unwrap(),
        ..key(1, 1)
    };
    let mut batch = Batch::new();
    batch.put(Table::Keys, table::key(foreign.id), encode(&foreign));
    store.commit(batch).await.unwrap();
    assert_eq!(directory.foreign_key(&pepper, "foreign key").unwrap().0, foreign.id);
    let mut batch = Batch::new();
    batch.delete(Table::Keys, table::key(foreign.id));
    store.commit(batch).await.unwrap();
    assert!(directory.foreign_key(&pepper, "foreign key").is_none());
    assert!(directory.foreign.is_empty());
}

#[tokio::test]
async fn slow_digests_are_counted_until_the_last_is_removed() {
    let store = MemoryStore::new();
    let directory = Directory::open(&store).unwrap();
    let put = async |record: &Key| {
        let mut batch = Batch::new();
        batch.put(Table::Keys, table::key(record.id), encode(record));
        store.commit(batch).await.unwrap();
    };
    let digest = PasswordDigest::new("$2y$05$abc");
    let slow = |seed| Key { scheme: Scheme::Slow, slow: Some(digest.clone()), ..key(seed, 7) };
    let ids = |uid: u64| directory.slow_keys(Some(uid)).map(|keys| (keys.ids, keys.max_per_user));
    assert!(directory.slow_keys(None).is_none());
    let (first, second) = (slow(1), slow(2));
    put(&first).await;
    put(&second).await;
    assert_eq!(ids(7), Some((vec![first.id, second.id], 2)));
    assert_eq!(ids(8), Some((vec![], 2)));
    assert_eq!(directory.slow_keys(None).unwrap().example, digest);
    // The first key gets another label. A use of the second key replaces its slow digest.
    put(&Key { label: "x".into(), ..first.clone() }).await;
    put(&Key { scheme: Scheme::Text, slow: None, ..second.clone() }).await;
    assert_eq!(ids(7), Some((vec![first.id], 2)));
    assert_eq!(Directory::open(&store).unwrap().slow_keys(Some(7)).unwrap().ids, [first.id]);
    let mut batch = Batch::new();
    batch.delete(Table::Keys, table::key(first.id));
    store.commit(batch).await.unwrap();
    assert_eq!(ids(7), None);

    let example_after = async |password: Option<&str>| {
        let password = password.map(PasswordDigest::new);
        let mut batch = Batch::new();
        batch.put(Table::Users, table::user(3), encode(&User { password, ..user(3, "c", &[]) }));
        store.commit(batch).await.unwrap();
        directory.slow_password_example()
    };
    let ours = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$x";
    for (password, expected) in [
        (Some("$2y$05$abc"), Some("$2y$05$abc")),
        (Some("{SHA}abc"), Some("$2y$05$abc")),
        (Some(ours), None),
        (Some("{SHA}abc"), Some("{SHA}abc")),
        (None, None),
    ] {
        assert_eq!(
            example_after(password).await,
            expected.map(PasswordDigest::new),
            "{password:?}"
        );
    }
}
