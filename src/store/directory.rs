//! What a decision needs of all records, in memory. Reading takes no lock and never waits for the store.
//!
//! The Directory follows the store as a [`Sink`]: a change is in force here before its writer is answered.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap},
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use serde::{Deserialize, de::DeserializeOwned};

use super::{
    Applications, Change, Policy, RoleSet, RoleTable, Routes, Sink, Snapshot, Store, StoreError,
    Table, Write, decode,
};
use crate::model::{Application, Digest, Key, KeyId, PasswordDigest, Resource, Role, Timestamp};

/// The records in memory.
pub struct Directory {
    names: papaya::HashMap<ByName, Arc<Member>>,
    users: papaya::HashMap<u64, Arc<Member>>,
    keys: papaya::HashMap<u64, HeldKey>,
    policy: ArcSwap<Policy>,
    /// What the policy is compiled from. Locked by whoever applies changes, never by a decision.
    sources: Mutex<Sources>,
    last_uid: AtomicU64,
}

#[derive(Default)]
struct Sources {
    roles: HashMap<String, Role>,
    applications: HashMap<String, Application>,
    resources: BTreeMap<String, Resource>,
    /// Every combination of roles that a user has had; a member holds its place in this list.
    sets: Vec<Arc<[String]>>,
    set_numbers: HashMap<Arc<[String]>, u32>,
}

/// A user, as far as decisions go.
#[derive(Debug)]
pub struct Member {
    /// The user's number.
    pub uid: u64,
    /// The user's name.
    pub name: Box<str>,
    /// Active, or blocked.
    pub is_active: bool,
    roles: u32,
    /// What few users have, so that the many do not pay for it.
    rare: Option<Box<Rare>>,
}

#[derive(Debug)]
struct Rare {
    password: Option<PasswordDigest>,
}

/// A key, as far as decisions go.
#[derive(Debug, Clone)]
pub struct HeldKey {
    /// What the presented text is checked against.
    pub digest: Digest,
    /// The user whom it acts as.
    pub user: u64,
    /// Whether it was taken back.
    pub is_revoked: bool,
    /// The first second in which it is refused, or [`HeldKey::NEVER`].
    ends: i64,
    rare: Option<Arc<RareKey>>,
}

#[derive(Debug)]
struct RareKey {
    application: Option<String>,
    scopes: Option<Arc<[String]>>,
    networks: Vec<IpNet>,
}

impl Member {
    /// What its password is checked against, if it has one.
    pub fn password(&self) -> Option<&PasswordDigest> {
        self.rare.as_ref()?.password.as_ref()
    }

    /// What its roles give.
    pub fn roles<'t>(&self, table: &'t RoleTable) -> &'t RoleSet {
        table.set(self.roles)
    }
}

impl HeldKey {
    const NEVER: i64 = i64::MAX;

    /// Whether it is past its end.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        now.0 >= self.ends
    }

    /// The one application that it may be used with; none: any.
    pub fn application(&self) -> Option<&str> {
        self.rare.as_ref()?.application.as_deref()
    }

    /// The permissions that it may use; none: all of its user's.
    pub fn scopes(&self) -> Option<&Arc<[String]>> {
        self.rare.as_ref()?.scopes.as_ref()
    }

    /// Whether it may be used from an address.
    pub fn admits(&self, client: std::net::IpAddr) -> bool {
        let networks = self.rare.as_ref().map_or(&[][..], |rare| &rare.networks);
        // An IPv4 client on an IPv6 socket is an IPv4 client.
        let client = client.to_canonical();
        networks.is_empty() || networks.iter().any(|network| network.contains(&client))
    }
}

impl From<Key> for HeldKey {
    fn from(key: Key) -> Self {
        let ends = key.ends().map_or(Self::NEVER, |end| end.0);
        let is_plain = key.application.is_none() && key.scopes.is_none() && key.networks.is_empty();
        Self {
            digest: key.digest,
            user: key.user,
            is_revoked: key.revoked.is_some(),
            ends,
            rare: (!is_plain).then(|| {
                Arc::new(RareKey {
                    application: key.application,
                    scopes: key.scopes.map(Arc::from),
                    networks: key.networks,
                })
            }),
        }
    }
}

/// A member that is found by its folded name.
struct ByName(Arc<Member>);

/// A name, compared without regard to case.
#[repr(transparent)]
struct Folded<'a>(&'a str);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if self.0.is_ascii() {
            let mut chunk = [0; 64];
            for part in self.0.as_bytes().chunks(chunk.len()) {
                let lower = &mut chunk[..part.len()];
                lower.copy_from_slice(part);
                lower.make_ascii_lowercase();
                state.write(lower);
            }
        } else {
            state.write(self.0.to_lowercase().as_bytes());
        }
        state.write_u8(0xff);
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        if self.0.is_ascii() && other.0.is_ascii() {
            self.0.eq_ignore_ascii_case(other.0)
        } else {
            self.0.to_lowercase() == other.0.to_lowercase()
        }
    }
}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Folded(&self.0.name).hash(state);
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        Folded(&self.0.name) == Folded(&other.0.name)
    }
}

impl Eq for ByName {}

impl papaya::Equivalent<ByName> for Folded<'_> {
    fn equivalent(&self, key: &ByName) -> bool {
        *self == Folded(&key.0.name)
    }
}

/// The part of a user's record that the Directory keeps.
#[derive(Deserialize)]
struct UserPart<'a> {
    uid: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    status: bool,
    #[serde(default)]
    roles: Vec<String>,
    #[serde(default)]
    password: Option<PasswordDigest>,
}

impl Directory {
    /// Takes in all that the store holds, and follows it from there on.
    pub fn open(store: &dyn Store) -> Result<Arc<Self>, StoreError> {
        loop {
            let directory = Arc::new(Self::empty());
            let snapshot = store.snapshot()?;
            let sequence = snapshot.sequence();
            directory.load(&*snapshot)?;
            drop(snapshot);
            // When too much was written meanwhile, look again.
            if store.changes(sequence, directory.clone()).is_ok() {
                return Ok(directory);
            }
        }
    }

    fn empty() -> Self {
        Self {
            names: papaya::HashMap::new(),
            users: papaya::HashMap::new(),
            keys: papaya::HashMap::new(),
            policy: ArcSwap::default(),
            sources: Mutex::new(Sources::new()),
            last_uid: AtomicU64::new(0),
        }
    }

    /// Users on one thread, keys on another: they are the many.
    fn load(&self, snapshot: &dyn Snapshot) -> Result<(), StoreError> {
        std::thread::scope(|scope| {
            let keys = scope.spawn(|| {
                snapshot.each(Table::Keys, &mut |key, stored| self.put_key(key, &stored.json))
            });
            let mut sources = self.sources();
            snapshot.each(Table::Meta, &mut |key, stored| self.put_meta(key, &stored.json))?;
            for table in [Table::Roles, Table::Applications, Table::Resources] {
                snapshot
                    .each(table, &mut |key, stored| sources.put(table, key, Some(&stored.json)))?;
            }
            snapshot.each(Table::Users, &mut |key, stored| {
                self.put_user(&mut sources, key, &stored.json)
            })?;
            self.policy.store(Arc::new(sources.compile()));
            keys.join().expect("taking keys in does not panic")
        })
    }

    /// The user with this name, without regard to case.
    pub fn user_by_name(&self, name: &str) -> Option<Arc<Member>> {
        self.names.pin().get(&Folded(name)).cloned()
    }

    /// The user with this number.
    pub fn user(&self, uid: u64) -> Option<Arc<Member>> {
        self.users.pin().get(&uid).cloned()
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<HeldKey> {
        self.keys.pin().get(&id.number()).cloned()
    }

    /// Roles, applications and resources as they are now.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// Takes in a user and a key that no store knows: number 0, with every permission, only with this application.
    pub(crate) fn admit_operator(&self, application: &str, id: KeyId, digest: Digest) {
        let member = Member {
            uid: 0,
            name: application.into(),
            is_active: true,
            roles: RoleTable::OPERATOR,
            rare: None,
        };
        let key = HeldKey {
            digest,
            user: 0,
            is_revoked: false,
            ends: HeldKey::NEVER,
            rare: Some(Arc::new(RareKey {
                application: Some(application.to_owned()),
                scopes: None,
                networks: Vec::new(),
            })),
        };
        // Not among the names: it is found by its key alone.
        self.users.pin().insert(member.uid, Arc::new(member));
        self.keys.pin().insert(id.number(), key);
    }

    /// How many users and keys there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.keys.len())
    }

    /// Whether an active user other than `uid` has an administrator's role. Looks at every user.
    pub fn has_administrator_besides(&self, uid: u64) -> bool {
        let policy = self.policy();
        self.users.pin().values().any(|member| {
            ![0, uid].contains(&member.uid)
                && member.is_active
                && member.roles(&policy.roles).is_admin
        })
    }

    /// Whether a user has this role. Looks at every user.
    pub fn has_user_with_role(&self, role: &str) -> bool {
        let policy = self.policy();
        let users = self.users.pin();
        users.values().any(|member| {
            let ids = &member.roles(&policy.roles).ids;
            ids.iter().any(|id| id == role)
        })
    }

    /// A number that no user has or had.
    pub fn next_uid(&self) -> u64 {
        self.last_uid.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The largest number that any user has or had.
    pub fn last_uid(&self) -> u64 {
        self.last_uid.load(Ordering::Relaxed)
    }

    fn sources(&self) -> MutexGuard<'_, Sources> {
        self.sources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_meta(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        if key == LAST_UID {
            let uid = decode(Table::Meta, key, json)?;
            self.last_uid.fetch_max(uid, Ordering::Relaxed);
        }
        Ok(())
    }

    fn put_user(&self, sources: &mut Sources, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let user: UserPart<'_> = decode(Table::Users, key, json)?;
        let (roles, _) = sources.set_number(user.roles);
        let member = Arc::new(Member {
            uid: user.uid,
            name: user.name.into(),
            is_active: user.status,
            roles,
            rare: user.password.map(|password| Box::new(Rare { password: Some(password) })),
        });
        self.last_uid.fetch_max(user.uid, Ordering::Relaxed);
        let names = self.names.pin();
        // The new name goes in before the old one goes out: a reader finds the user at every moment.
        names.insert(ByName(member.clone()), member.clone());
        if let Some(before) = self.users.pin().insert(user.uid, member.clone())
            && Folded(&before.name) != Folded(&member.name)
        {
            names.remove(&Folded(&before.name));
        }
        Ok(())
    }

    fn put_key(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let record: Key = decode(Table::Keys, key, json)?;
        self.keys.pin().insert(record.id.number(), HeldKey::from(record));
        Ok(())
    }

    /// Takes in a write that belongs to the policy. True when the policy must be compiled anew.
    fn prepare(&self, sources: &mut Sources, write: &Write) -> Result<bool, StoreError> {
        match (write.table, &write.json) {
            (Table::Roles | Table::Applications | Table::Resources, json) => {
                sources.put(write.table, &write.key, json.as_deref())?;
                Ok(true)
            }
            (Table::Users, Some(json)) => {
                let user: UserPart<'_> = decode(write.table, &write.key, json)?;
                Ok(sources.set_number(user.roles).1)
            }
            _ => Ok(false),
        }
    }

    /// Takes in any other write.
    fn put(&self, sources: &mut Sources, write: &Write) -> Result<(), StoreError> {
        match (write.table, &write.json) {
            (Table::Users, Some(json)) => self.put_user(sources, &write.key, json)?,
            (Table::Users, None) => {
                let gone = self.users.pin().remove(&number(&write.key)).cloned();
                if let Some(gone) = gone {
                    self.names.pin().remove(&Folded(&gone.name));
                }
            }
            (Table::Keys, Some(json)) => self.put_key(&write.key, json)?,
            (Table::Keys, None) => {
                self.keys.pin().remove(&number(&write.key));
            }
            (Table::Meta, Some(json)) => self.put_meta(&write.key, json)?,
            _ => {}
        }
        Ok(())
    }
}

/// The record in `meta` that keeps the largest number of a user that was deleted.
pub(crate) const LAST_UID: &[u8] = b"last-uid";

fn number(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

impl Sink for Directory {
    fn apply(&self, change: &Change) {
        // Our own commit path wrote the change, so one that cannot be read is a defect: what it was to change stays as it was.
        let report = |problem| tracing::error!("a change could not be taken in: {problem}");
        let mut sources = self.sources();
        let mut is_stale = false;
        for write in &change.writes {
            match self.prepare(&mut sources, write) {
                Ok(stale) => is_stale |= stale,
                Err(problem) => report(problem),
            }
        }
        // Before the users: a member may have a combination of roles that the old policy does not know.
        if is_stale {
            self.policy.store(Arc::new(sources.compile()));
        }
        for write in &change.writes {
            if let Err(problem) = self.put(&mut sources, write) {
                report(problem);
            }
        }
    }
}

impl Sources {
    fn new() -> Self {
        let mut sources = Self::default();
        sources.set_number(Vec::new());
        sources
    }

    fn put(&mut self, table: Table, key: &[u8], json: Option<&[u8]>) -> Result<(), StoreError> {
        fn one<T: DeserializeOwned>(
            table: Table,
            key: &[u8],
            json: Option<&[u8]>,
        ) -> Result<(String, Option<T>), StoreError> {
            let id = String::from_utf8_lossy(key).into_owned();
            let record = json.map(|json| decode(table, key, json)).transpose()?;
            Ok((id, record))
        }
        match table {
            Table::Roles => match one(table, key, json)? {
                (id, Some(role)) => drop(self.roles.insert(id, role)),
                (id, None) => drop(self.roles.remove(&id)),
            },
            Table::Applications => match one(table, key, json)? {
                (id, Some(application)) => drop(self.applications.insert(id, application)),
                (id, None) => drop(self.applications.remove(&id)),
            },
            _ => match one(table, key, json)? {
                (id, Some(resource)) => drop(self.resources.insert(id, resource)),
                (id, None) => drop(self.resources.remove(&id)),
            },
        }
        Ok(())
    }

    fn set_number(&mut self, mut roles: Vec<String>) -> (u32, bool) {
        roles.sort_unstable();
        if let Some(number) = self.set_numbers.get(roles.as_slice()) {
            return (*number, false);
        }
        let number = self.sets.len() as u32;
        let ids: Arc<[String]> = roles.into();
        self.sets.push(ids.clone());
        self.set_numbers.insert(ids, number);
        (number, true)
    }

    fn compile(&self) -> Policy {
        let (routes, problems) = Routes::new(self.resources.values().cloned());
        for problem in problems {
            tracing::error!("a resource has no route: {}", problem.message);
        }
        Policy {
            roles: Arc::new(RoleTable::new(self.roles.clone(), &self.sets)),
            applications: Arc::new(Applications::new(self.applications.values().cloned())),
            routes: Arc::new(routes),
        }
    }
}
