//! The Directory: the parts of all records that authorization decisions need, in memory.
//!
//! Reads never wait for the store, and lock one shard of a map for one look-up only.
//!
//! The Directory is a [`Subscriber`] of the store: a change is in effect here before its writer is
//! notified.

mod case_fold;
mod entries;
mod load;
mod maps;
mod policy;
mod policy_sources;
mod routes;
mod sharded_map;
mod slow_digests;
#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::BTreeMap,
    hash::RandomState,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
pub use entries::{CachedKey, CachedUser};
use maps::{UntrustedKeyMap, map};
use parking_lot::Mutex;
pub use policy::{Applications, CompiledApplication, Policy, RoleSet, RoleTable};
use policy_sources::PolicySources;
pub use routes::{RouteMatch, Routes, Rule};
use serde::Deserialize;
use slow_digests::SlowDigests;
pub use slow_digests::SlowKeys;

use case_fold::Folded;
use entries::{KeyFields, OPERATOR_UID, PackedKey, UserByName, UserByUid};
use sharded_map::ShardedMap;

use crate::{
    limits::Bounds,
    model::{
        Application, Borrowed, Credits, Digest, KeyId, PasswordDigest, Pepper, RateLimit, Resource,
        Role, Scheme, Timestamp,
    },
    store::{Commit, Snapshot, Store, StoreError, Subscriber, Table, Write, decode, table},
};

/// The records in memory.
pub struct Directory {
    /// Others choose the names, so they are hashed with SipHash: nobody can choose them to collide.
    names: ShardedMap<UserByName, RandomState>,
    users: ShardedMap<UserByUid, foldhash::quality::RandomState>,
    keys: ShardedMap<Box<PackedKey>, foldhash::quality::RandomState>,
    /// The keys of other systems, which are found by their digests: digest → key id.
    foreign: UntrustedKeyMap<[u8; 32], u64>,
    slow_digests: SlowDigests,
    policy: ArcSwap<Policy>,
    /// The records from which the policy is compiled. Locked by the threads that load or change
    /// records, never by a decision.
    sources: Mutex<PolicySources>,
    last_uid: AtomicU64,
}

/// The fields of a user's record that the Directory needs.
#[derive(Deserialize)]
struct UserFields<'a> {
    uid: u64,
    #[serde(borrow)]
    name: Cow<'a, str>,
    status: bool,
    #[serde(default, borrow)]
    roles: Vec<RoleId<'a>>,
    #[serde(default)]
    password: Option<PasswordDigest>,
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    #[serde(default)]
    rate_limit: Option<RateLimit>,
    #[serde(default)]
    credits: Option<Credits>,
}

/// The id of a role in a user's record.
#[derive(Deserialize)]
struct RoleId<'a>(#[serde(borrow)] Cow<'a, str>);

impl Directory {
    /// Loads all records of a store, and subscribes to its further commits.
    pub fn open(store: &dyn Store) -> Result<Arc<Self>, StoreError> {
        loop {
            let directory = Arc::new(Self::empty());
            let snapshot = store.snapshot()?;
            let sequence = snapshot.sequence();
            directory.load(&*snapshot)?;
            drop(snapshot);
            // If the store was changed too much in the meantime, load it again.
            if store.subscribe(sequence, directory.clone()).is_ok() {
                return Ok(directory);
            }
        }
    }

    fn empty() -> Self {
        Self {
            names: ShardedMap::new(),
            users: ShardedMap::new(),
            keys: ShardedMap::new(),
            foreign: map(),
            slow_digests: SlowDigests::new(),
            policy: ArcSwap::default(),
            sources: Mutex::new(PolicySources::new()),
            last_uid: AtomicU64::new(0),
        }
    }

    /// The user with this name, compared case-insensitively.
    pub fn user_by_name(&self, name: &str) -> Option<Arc<CachedUser>> {
        self.names.get(Folded(name), |user| user.0.clone())
    }

    /// The user with this uid.
    pub fn user(&self, uid: u64) -> Option<Arc<CachedUser>> {
        self.users.get(uid, |user| user.0.clone())
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<CachedKey> {
        self.keys.get(id.number(), |key| key.unpack())
    }

    /// The key of another system with this text. It is found by the digest of its text, so the
    /// secret is already verified. The caller must still check its owner and its restrictions.
    pub fn foreign_key(&self, pepper: &Pepper, text: &str) -> Option<(KeyId, CachedKey)> {
        if self.foreign.is_empty() {
            return None;
        }
        // Always tries all schemes, so that the time does not reveal which one matched.
        let foreign = self.foreign.pin();
        let found = Scheme::FOREIGN
            .map(|scheme| foreign.get(pepper.digest_as(scheme, text)?.as_bytes()).copied());
        let id = KeyId::from_number(found.into_iter().flatten().next()?);
        Some((id, self.key(id)?))
    }

    /// The id of the key of another system with this digest.
    pub fn foreign_key_id(&self, digest: &Digest) -> Option<KeyId> {
        self.foreign.pin().get(digest.as_bytes()).copied().map(KeyId::from_number)
    }

    /// The keys of a user with slow digests, and an example for a check that only takes time.
    /// `None` means that no user has such a key.
    pub fn slow_keys(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let mut keys = self.slow_digests.keys_of(uid)?;
        keys.ids.retain(|id| self.key(*id).is_some());
        Some(keys)
    }

    /// An example of an imported password digest. `None` means that all passwords have digests of
    /// ours.
    pub fn slow_password_example(&self) -> Option<PasswordDigest> {
        self.slow_digests.password()
    }

    /// The number of keys that are stored as HMAC-SHA-256.
    pub fn hmac_keys(&self) -> usize {
        self.slow_digests.hmac_keys()
    }

    /// The current roles, applications and resources.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The current policy, for the duration of a request. Unlike [`policy`](Self::policy), it
    /// changes no reference count that other cores use.
    pub fn borrow_policy(&self) -> Borrowed<Policy> {
        self.policy.load()
    }

    /// Adds the operator, who is in no store: a user with uid 0 and every permission, and a key
    /// that works with this application only.
    pub(crate) fn add_operator_key(&self, application: &str, id: KeyId, digest: Digest) {
        let operator = CachedUser::new(
            OPERATOR_UID,
            application,
            true,
            RoleTable::OPERATOR,
            None,
            BTreeMap::new(),
            None,
        );
        let key = CachedKey::for_application(application, OPERATOR_UID, digest);
        // Not in `names`: the operator is found by the key only.
        self.users.insert(UserByUid(Arc::new(operator)));
        self.keys.insert(PackedKey::new(id.number(), key));
    }

    /// The numbers of users and keys.
    pub fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.keys.len())
    }

    /// The uids of the active users with an administrator role, sorted. Looks at every user.
    pub fn administrators(&self) -> Vec<u64> {
        let policy = self.policy();
        let mut found = Vec::new();
        self.users.each(|UserByUid(user)| {
            let is_active_user = user.uid != OPERATOR_UID && user.is_active;
            if is_active_user && user.roles(&policy.roles).is_admin {
                found.push(user.uid);
            }
        });
        found.sort_unstable();
        found
    }

    /// Whether any user has this role. Looks at every user.
    pub fn has_user_with_role(&self, role: &str) -> bool {
        let policy = self.policy();
        self.users.any(|UserByUid(user)| {
            let ids = &user.roles(&policy.roles).ids;
            ids.iter().any(|id| id == role)
        })
    }

    /// The number of keys that work with this application only and are not revoked. Looks at every
    /// key.
    pub fn keys_bound_to(&self, application: &str) -> usize {
        let mut count = 0;
        self.keys.each(|key| {
            let is_bound = !key.is_revoked() && key.application() == Some(application);
            count += usize::from(is_bound);
        });
        count
    }

    /// Reserves a uid that no user has or had.
    pub fn next_uid(&self) -> u64 {
        self.last_uid.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The largest uid that any user has or had.
    pub fn last_uid(&self) -> u64 {
        self.last_uid.load(Ordering::Relaxed)
    }

    fn put_meta(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        if key == table::LAST_UID {
            let uid = decode(Table::Meta, key, json)?;
            self.last_uid.fetch_max(uid, Ordering::Relaxed);
        }
        Ok(())
    }

    fn put_user(&self, user: UserFields<'_>, roles: u32) {
        let user = self.cached_user(user, roles);
        self.last_uid.fetch_max(user.uid, Ordering::Relaxed);
        // The new name is inserted before the old one is removed, so readers find the user at any
        // time.
        self.names.insert(UserByName(user.clone()));
        self.slow_digests.add_password(&user);
        if let Some(UserByUid(before)) = self.users.insert(UserByUid(user.clone())) {
            self.slow_digests.remove_password(&before);
            if Folded(&before.name) != Folded(&user.name) {
                self.remove_name(&before);
            }
        }
    }

    /// Builds a user from the record. What was used of the limits so far stays used.
    fn cached_user(&self, user: UserFields<'_>, roles: u32) -> Arc<CachedUser> {
        let has_limits = user.rate_limit.is_some() || user.credits.is_some();
        let before = has_limits.then(|| self.user(user.uid)).flatten();
        let before = before.as_ref().and_then(|user| user.bounds());
        let bounds = Bounds::renewed(before, user.rate_limit, user.credits);
        Arc::new(CachedUser::new(
            user.uid,
            &user.name,
            user.status,
            roles,
            user.password,
            user.attributes,
            bounds,
        ))
    }

    /// The keys that expire at `from` or later and before `before`, without revoked ones. Looks at
    /// every key.
    pub fn keys_expiring(&self, from: Timestamp, before: Timestamp) -> Vec<KeyId> {
        let mut found = Vec::new();
        self.keys.each(|key| {
            let expires = key.expiry().is_some_and(|expiry| (from.0..before.0).contains(&expiry));
            if expires && !key.is_revoked() {
                found.push(KeyId::from_number(key.number()));
            }
        });
        found
    }

    /// Removes a user's name, unless another user has it by now.
    fn remove_name(&self, user: &CachedUser) {
        self.names.remove_if(Folded(&user.name), |entry| entry.0.uid == user.uid);
    }

    fn put_key(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let (number, key) = self.parse_key(key, json)?;
        let is_slow = key.slow_digest().is_some();
        let foreign = key.is_found_by_digest().then_some(*key.digest.as_bytes());
        if let Some(before) = self.keys.insert(PackedKey::new(number, key)) {
            let before = before.unpack();
            self.slow_digests.remove_key(number, &before, is_slow);
            // A key whose slow digest was replaced has another digest now.
            if before.is_found_by_digest() && foreign != Some(*before.digest.as_bytes()) {
                self.foreign.pin().remove(before.digest.as_bytes());
            }
        }
        Ok(())
    }

    /// Parses a key's record, and adds the key to the indexes `slow_digests` and `foreign`. What
    /// was used of the limits so far stays used.
    fn parse_key(&self, key: &[u8], json: &[u8]) -> Result<(u64, CachedKey), StoreError> {
        let fields: KeyFields = decode(Table::Keys, key, json)?;
        let number = fields.id.number();
        let before = fields.has_limits().then(|| self.key(fields.id)).flatten();
        let key = CachedKey::from_record(fields, before.as_ref().and_then(CachedKey::bounds));
        self.slow_digests.add_key(number, &key);
        if key.is_found_by_digest() {
            self.foreign.pin().insert(*key.digest.as_bytes(), number);
        }
        Ok((number, key))
    }

    /// Applies a write to the sources of the policy. `true` means that the policy must be compiled
    /// again.
    fn put_source(sources: &mut PolicySources, write: &Write) -> Result<bool, StoreError> {
        match (write.table, &write.json) {
            (Table::Roles | Table::Applications | Table::Resources, json) => {
                sources.put(write.table, &write.key, json.as_deref())?;
                Ok(true)
            }
            (Table::Users, Some(json)) => {
                let user: UserFields<'_> = decode(write.table, &write.key, json)?;
                Ok(sources.role_set_number(&user.roles).1)
            }
            _ => Ok(false),
        }
    }

    /// Applies any other write.
    fn put(&self, sources: &mut PolicySources, write: &Write) -> Result<(), StoreError> {
        match (write.table, &write.json) {
            (Table::Users, Some(json)) => {
                let user: UserFields<'_> = decode(write.table, &write.key, json)?;
                let (roles, _) = sources.role_set_number(&user.roles);
                self.put_user(user, roles);
                Ok(())
            }
            (Table::Keys, Some(json)) => self.put_key(&write.key, json),
            (Table::Meta, Some(json)) => self.put_meta(&write.key, json),
            (table, None) => {
                self.remove(table, &write.key);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn remove(&self, table: Table, key: &[u8]) {
        let Some(number) = table::parse_number(key) else { return };
        match table {
            Table::Users => {
                if let Some(UserByUid(removed)) = self.users.remove(number) {
                    self.slow_digests.remove_password(&removed);
                    self.remove_name(&removed);
                }
            }
            Table::Keys => {
                if let Some(removed) = self.keys.remove(number).map(|key| key.unpack()) {
                    self.slow_digests.remove_key(number, &removed, false);
                    self.foreign.pin().remove(removed.digest.as_bytes());
                }
            }
            _ => {}
        }
    }
}

impl Subscriber for Directory {
    fn apply(&self, commit: &Commit) {
        // Keyward itself wrote the record, so an unreadable record is a defect. It is removed: the
        // write may have been a revocation, so the previous record must not be trusted any longer.
        let report = |problem| {
            tracing::error!(
                "could not read a changed record, so it is ignored from now on: {problem}"
            );
        };
        let mut sources = self.sources.lock();
        let mut is_stale = false;
        for write in &commit.writes {
            match Self::put_source(&mut sources, write) {
                Ok(needs_compile) => is_stale |= needs_compile,
                Err(problem) => {
                    report(problem);
                    is_stale |= sources.remove(write.table, &write.key);
                }
            }
        }
        // Before the users are changed: a user may have a combination of roles that the old policy
        // does not contain.
        if is_stale {
            self.policy.store(Arc::new(sources.compile()));
        }
        for write in &commit.writes {
            if let Err(problem) = self.put(&mut sources, write) {
                report(problem);
                self.remove(write.table, &write.key);
            }
        }
    }
}
