//! The Directory as a follower: the same after each change as after a new start.

use super::*;
use crate::{
    model::{Entropy, Key, KeyText, Pepper, Timestamp, User},
    store::{Batch, MemoryStore, encode},
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
    let permissions = permissions.iter().map(|one| (*one).to_owned()).collect();
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

/// A store with a Directory that follows it.
struct Followed {
    store: MemoryStore,
    directory: Arc<Directory>,
}

impl Followed {
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
            batch.put(Table::Users, user.uid.to_be_bytes(), encode(user));
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
        let at = key.id.number().to_be_bytes();
        self.commit(|batch| {
            batch.put(Table::Keys, at, encode(key));
        })
        .await;
    }

    /// Asks the Directory that followed, and one that is opened now.
    fn both<T: PartialEq + std::fmt::Debug>(&self, ask: impl Fn(&Directory) -> T) -> T {
        let followed = ask(&self.directory);
        let opened = ask(&Directory::open(&self.store).unwrap());
        assert_eq!(followed, opened);
        followed
    }

    fn uid(&self, name: &str) -> Option<u64> {
        self.both(|directory| directory.user_by_name(name).map(|member| member.uid))
    }

    fn allows(&self, uid: u64, permission: &str) -> bool {
        self.both(|directory| {
            let policy = directory.policy();
            let member = directory.user(uid).unwrap();
            policy.roles.allows(member.roles(&policy.roles), permission)
        })
    }
}

#[tokio::test]
async fn a_user_is_found_by_its_name_in_any_case() {
    let on = Followed::new();
    on.put_user(&user(7, "Jürgen", &[])).await;
    for name in ["Jürgen", "jürgen", "JÜRGEN"] {
        assert_eq!(on.uid(name), Some(7), "{name}");
    }
    assert_eq!(on.uid("jurgen"), None);
    assert_eq!(on.uid(""), None);
    assert_eq!(on.both(|directory| directory.user(7).unwrap().name.clone()), "Jürgen");
    // The next one gets another number, also after a restart.
    on.put_user(&user(3, "Eva", &[])).await;
    assert_eq!(on.both(Directory::last_uid), 7);
}

#[tokio::test]
async fn a_renamed_user_has_one_name() {
    let on = Followed::new();
    on.put_user(&user(7, "before", &[])).await;
    on.put_user(&user(7, "after", &[])).await;
    assert_eq!((on.uid("before"), on.uid("after")), (None, Some(7)));
    // In another case only.
    on.put_user(&user(7, "AFTER", &[])).await;
    assert_eq!(on.uid("after"), Some(7));
    assert_eq!(on.both(|directory| directory.user_by_name("after").unwrap().name.clone()), "AFTER");
    assert_eq!(on.both(Directory::counts), (1, 0));
}

#[tokio::test]
async fn a_name_can_go_from_one_user_to_another_in_one_commit() {
    let put = |batch: &mut Batch, user: User| {
        batch.put(Table::Users, user.uid.to_be_bytes(), encode(&user));
    };
    let on = Followed::new();
    on.put_user(&user(1, "a", &[])).await;
    on.put_user(&user(2, "b", &[])).await;
    // The one that takes the name is written first.
    on.commit(|batch| {
        put(batch, user(2, "A", &[]));
        put(batch, user(1, "c", &[]));
    })
    .await;
    assert_eq!((on.uid("a"), on.uid("b"), on.uid("c")), (Some(2), None, Some(1)));
    on.commit(|batch| {
        put(batch, user(3, "c", &[]));
        batch.delete(Table::Users, 1_u64.to_be_bytes());
    })
    .await;
    assert_eq!(on.uid("c"), Some(3));
    assert_eq!(on.both(Directory::counts), (2, 0));
}

#[tokio::test]
async fn a_deleted_user_is_gone_and_its_number_is_not_given_again() {
    let on = Followed::new();
    on.put_user(&user(7, "bob", &[])).await;
    on.commit(|batch| {
        batch.delete(Table::Users, 7_u64.to_be_bytes());
        batch.put(Table::Meta, LAST_UID, encode(&7));
    })
    .await;
    assert_eq!(on.uid("bob"), None);
    assert!(on.both(|directory| directory.user(7).is_none()));
    assert_eq!(on.both(Directory::last_uid), 7);
    assert_eq!(on.both(Directory::next_uid), 8);
    assert_eq!(on.directory.next_uid(), 9);
}

#[tokio::test]
async fn roles_give_what_they_give_now() {
    let on = Followed::new();
    on.put_role(&role("editor", false, &["write"])).await;
    on.put_user(&user(1, "a", &["editor"])).await;
    on.put_user(&user(2, "b", &[])).await;
    assert!(on.allows(1, "write") && !on.allows(2, "write"));
    // A combination of roles that nobody had before.
    on.put_role(&role("boss", true, &[])).await;
    on.put_user(&user(2, "b", &["editor", "boss"])).await;
    assert!(on.allows(2, "anything") && !on.allows(1, "anything"));
    assert_eq!(on.both(Directory::administrators), [2]);
    assert!(on.both(|directory| directory.has_user_with_role("boss")));

    on.put_role(&role("editor", false, &["read"])).await;
    assert!(on.allows(1, "read") && !on.allows(1, "write"));
    on.put_role(&role("authenticated", false, &["look"])).await;
    assert!(on.allows(1, "look") && on.allows(2, "look"));
    on.commit(|batch| {
        batch.delete(Table::Roles, *b"boss");
    })
    .await;
    assert!(!on.allows(2, "anything") && on.allows(2, "read"));
    assert_eq!(on.both(Directory::administrators), [0_u64; 0]);

    on.put_user(&user(1, "a", &[])).await;
    assert!(!on.allows(1, "read"));
    assert!(!on.both(|directory| directory.has_user_with_role("nobody")));
}

#[tokio::test]
async fn a_blocked_user_is_seen_at_once_and_is_no_administrator() {
    let on = Followed::new();
    on.put_role(&role("boss", true, &[])).await;
    on.put_user(&user(1, "a", &["boss"])).await;
    assert_eq!(on.both(Directory::administrators), [1]);
    on.put_user(&User { status: false, ..user(1, "a", &["boss"]) }).await;
    assert!(!on.both(|directory| directory.user(1).unwrap().is_active));
    assert_eq!(on.both(Directory::administrators), [0_u64; 0]);
}

#[tokio::test]
async fn a_revoked_key_is_seen_at_once_and_a_deleted_one_is_gone() {
    let on = Followed::new();
    let key = key(1, 7);
    on.put_key(&key).await;
    let held = on.directory.key(key.id).unwrap();
    assert!(held.digest == key.digest && held.user == 7);
    assert!(!on.both(|directory| directory.key(key.id).unwrap().is_revoked));
    on.put_key(&Key { revoked: Some(Timestamp(5)), ..key.clone() }).await;
    assert!(on.both(|directory| directory.key(key.id).unwrap().is_revoked));
    on.commit(|batch| {
        batch.delete(Table::Keys, key.id.number().to_be_bytes());
    })
    .await;
    assert!(on.both(|directory| directory.key(key.id).is_none()));
}

#[tokio::test]
async fn a_key_says_where_and_until_when_it_is_good() {
    let on = Followed::new();
    let key = Key {
        application: Some("own".into()),
        scopes: Some(vec!["read".into()]),
        expires: Some(Timestamp(100)),
        networks: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        ..key(1, 7)
    };
    on.put_key(&key).await;
    let held = on.directory.key(key.id).unwrap();
    assert_eq!(held.application(), Some("own"));
    assert_eq!(held.scopes().unwrap().as_ref(), ["read".to_owned()]);
    assert!(!held.has_ended(Timestamp(99)) && held.has_ended(Timestamp(100)));
    for (address, is_in) in [
        ("10.1.2.3", true),
        ("::ffff:10.1.2.3", true),
        ("fd00::1", true),
        ("11.0.0.1", false),
        ("::ffff:11.0.0.1", false),
        ("fe80::1", false),
    ] {
        assert_eq!(held.admits(address.parse().unwrap()), is_in, "{address}");
    }
    let rotation = crate::model::Rotation { to: key.id, until: Timestamp(50) };
    on.put_key(&Key { rotated: Some(rotation), ..key.clone() }).await;
    assert!(on.both(|directory| directory.key(key.id).unwrap().has_ended(Timestamp(50))));
    let plain = Key { id: key.id, ..self::key(2, 7) };
    on.put_key(&plain).await;
    let held = on.directory.key(key.id).unwrap();
    assert!(!held.has_ended(Timestamp(i64::MAX - 1)) && held.admits("11.0.0.1".parse().unwrap()));
    assert!(held.application().is_none() && held.scopes().is_none());
}

#[tokio::test]
async fn a_policy_is_one_moment_and_the_next_one_replaces_it() {
    let on = Followed::new();
    let before = on.directory.policy();
    let application = Application { is_default: true, ..Application::api_key("own", "Own") };
    let resource = Resource::entity_user();
    on.commit(|batch| {
        batch.put(Table::Applications, *b"own", encode(&application));
        batch.put(Table::Resources, resource.id.as_str(), encode(&resource));
    })
    .await;
    let after = on.directory.policy();
    assert!(before.applications.default().is_none() && before.routes.resources().count() == 0);
    assert_eq!(after.applications.default().unwrap().record, application);
    assert_eq!(after.routes.resources().count(), 1);
    // What has nothing to do with it leaves it alone.
    on.put_key(&key(1, 7)).await;
    on.put_user(&user(1, "a", &[])).await;
    assert!(Arc::ptr_eq(&after, &on.directory.policy()));

    on.commit(|batch| {
        batch.delete(Table::Applications, *b"own");
        batch.delete(Table::Resources, resource.id.as_str());
    })
    .await;
    assert!(on.both(|directory| directory.policy().applications.get("own").is_none()));
    assert_eq!(on.both(|directory| directory.policy().routes.resources().count()), 0);
}

#[tokio::test]
async fn what_cannot_be_read_is_not_trusted_any_more() {
    let on = Followed::new();
    let key = key(1, 7);
    on.directory.admit_operator("op", KeyId::from_number(5), key.digest);
    on.put_key(&key).await;
    on.put_role(&role("boss", true, &[])).await;
    on.put_user(&user(7, "bob", &["boss"])).await;
    on.put_user(&user(8, "eve", &["boss"])).await;
    let bad = || b"{".to_vec();
    on.commit(|batch| {
        batch.put(Table::Users, 7_u64.to_be_bytes(), bad());
        batch.put(Table::Keys, key.id.number().to_be_bytes(), bad());
        batch.put(Table::Roles, *b"boss", bad());
        batch.put(Table::Users, *b"no number", bad());
        batch.delete(Table::Users, *b"no number");
    })
    .await;
    assert!(on.directory.key(key.id).is_none());
    assert!(on.directory.user(7).is_none() && on.directory.user_by_name("bob").is_none());
    assert!(on.directory.policy().roles.role("boss").is_none());
    assert_eq!(on.directory.administrators(), [0_u64; 0]);
    assert!(on.directory.user(8).is_some() && on.directory.user(0).is_some());
    // A start does not pass over it.
    assert!(matches!(Directory::open(&on.store), Err(StoreError::Damaged { .. })));
}

#[test]
fn readers_find_a_user_while_it_is_being_renamed() {
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
                // When the old name is gone, the new one must be there already.
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
async fn a_key_of_another_system_goes_from_where_it_is_found_by_its_text() {
    let store = MemoryStore::new();
    let directory = Directory::open(&store).unwrap();
    let pepper = Pepper::from_bytes([0; 32]);
    let foreign = Key {
        scheme: Scheme::Text,
        digest: pepper.digest_as(Scheme::Text, "their key").unwrap(),
        ..key(1, 1)
    };
    let at = foreign.id.number().to_be_bytes();
    let mut batch = Batch::new();
    batch.put(Table::Keys, at, encode(&foreign));
    store.commit(batch).await.unwrap();
    assert_eq!(directory.foreign_key(&pepper, "their key").unwrap().0, foreign.id);
    let mut batch = Batch::new();
    batch.delete(Table::Keys, at);
    store.commit(batch).await.unwrap();
    assert!(directory.foreign_key(&pepper, "their key").is_none());
    assert!(directory.foreign.is_empty());
}

#[tokio::test]
async fn slow_keys_and_passwords_are_counted_until_the_last_has_gone() {
    let store = MemoryStore::new();
    let directory = Directory::open(&store).unwrap();
    let put = async |record: &Key| {
        let mut batch = Batch::new();
        batch.put(Table::Keys, record.id.number().to_be_bytes(), encode(record));
        store.commit(batch).await.unwrap();
    };
    let digest = PasswordDigest::new("$2y$05$abc");
    let slow = |seed| Key { scheme: Scheme::Slow, slow: Some(digest.clone()), ..key(seed, 7) };
    let ids = |uid: u64| directory.slow_keys(Some(uid)).map(|keys| (keys.ids, keys.most));
    assert!(directory.slow_keys(None).is_none());
    let (first, second) = (slow(1), slow(2));
    put(&first).await;
    put(&second).await;
    assert_eq!(ids(7), Some((vec![first.id, second.id], 2)));
    assert_eq!(ids(8), Some((vec![], 2)));
    assert_eq!(directory.slow_keys(None).unwrap().example, digest);
    // One is labelled, one is used.
    put(&Key { label: "x".into(), ..first.clone() }).await;
    put(&Key { scheme: Scheme::Text, slow: None, ..second.clone() }).await;
    assert_eq!(ids(7), Some((vec![first.id], 2)));
    assert_eq!(Directory::open(&store).unwrap().slow_keys(Some(7)).unwrap().ids, [first.id]);
    let mut batch = Batch::new();
    batch.delete(Table::Keys, first.id.number().to_be_bytes());
    store.commit(batch).await.unwrap();
    assert_eq!(ids(7), None);

    let put = async |password: Option<&str>| {
        let password = password.map(PasswordDigest::new);
        let mut batch = Batch::new();
        batch.put(
            Table::Users,
            3_u64.to_be_bytes(),
            encode(&User { password, ..user(3, "c", &[]) }),
        );
        store.commit(batch).await.unwrap();
        directory.foreign_password()
    };
    let ours = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$x";
    for (password, expected) in [
        (Some("$2y$05$abc"), Some("$2y$05$abc")),
        (Some("{SHA}abc"), Some("$2y$05$abc")),
        (Some(ours), None),
        (Some("{SHA}abc"), Some("{SHA}abc")),
        (None, None),
    ] {
        assert_eq!(put(password).await, expected.map(PasswordDigest::new), "{password:?}");
    }
}
