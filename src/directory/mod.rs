//! The Directory: the parts of all records that authorization decisions need, in memory.
//!
//! A read never waits for the store. Each look-up locks one shard of one map.
//!
//! The Directory is a [`Subscriber`] of the store: a change is in effect here before its writer is
//! notified.

mod case_fold;
mod colliding_names;
mod cors;
mod entries;
mod load;
mod maps;
mod openings;
mod patterns;
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
pub use cors::CompiledCors;
pub use entries::{CachedKey, CachedUser};
use maps::{UntrustedKeyMap, map};
pub(crate) use openings::find_opened_guards;
pub use openings::{OpenedGuard, opened_guards};
use parking_lot::Mutex;
pub use policy::{Applications, CompiledApplication, Policy, RoleSet, RoleTable};
use policy_sources::PolicySources;
#[cfg(test)]
pub(crate) use routes::COMPILED;
pub(crate) use routes::RouteConflict;
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
    /// Users by name. The names are hashed with SipHash, because people could choose names that
    /// collide with a weaker hash.
    names: ShardedMap<UserByName, RandomState>,
    /// Users by the exact spelling of their names ([`colliding_names`]).
    colliding: UntrustedKeyMap<String, Arc<CachedUser>>,
    users: ShardedMap<UserByUid, foldhash::quality::RandomState>,
    keys: ShardedMap<Box<PackedKey>, foldhash::quality::RandomState>,
    /// The imported keys that are looked up by their digests: digest → key number.
    foreign: UntrustedKeyMap<[u8; 32], u64>,
    slow_digests: SlowDigests,
    policy: ArcSwap<Policy>,
    /// The records from which the policy is compiled. Only threads that load or change records lock
    /// them; a decision never does.
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
    /// Loads all records of a store, and subscribes to the further commits of the store.
    pub fn open(store: &dyn Store) -> Result<Arc<Self>, StoreError> {
        loop {
            let directory = Arc::new(Self::empty());
            let snapshot = store.snapshot()?;
            let sequence = snapshot.sequence();
            directory.load(&*snapshot)?;
            drop(snapshot);
            // `subscribe` fails if the store no longer has all commits since the snapshot. Then all
            // records are loaded again.
            if store.subscribe(sequence, directory.clone()).is_ok() {
                return Ok(directory);
            }
        }
    }

    fn empty() -> Self {
        Self {
            names: ShardedMap::new(),
            colliding: map(),
            users: ShardedMap::new(),
            keys: ShardedMap::new(),
            foreign: map(),
            slow_digests: SlowDigests::new(),
            policy: ArcSwap::default(),
            sources: Mutex::new(PolicySources::new()),
            last_uid: AtomicU64::new(0),
        }
    }

    /// The user with this uid.
    pub fn user(&self, uid: u64) -> Option<Arc<CachedUser>> {
        self.users.get(uid, |user| user.0.clone())
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<CachedKey> {
        self.keys.get(id.number(), |key| key.unpack())
    }

    /// The imported key with this text. The key is found by the digest of the whole text, so its
    /// secret is verified. The caller must check the owner and the restrictions of the key.
    pub fn foreign_key(&self, pepper: &Pepper, text: &str) -> Option<(KeyId, CachedKey)> {
        if self.foreign.is_empty() {
            return None;
        }
        // All schemes are tried in any case, so that the time does not reveal which scheme matched.
        let foreign = self.foreign.pin();
        let found = Scheme::FOREIGN
            .map(|scheme| foreign.get(pepper.digest_as(scheme, text)?.as_bytes()).copied());
        let id = KeyId::from_number(found.into_iter().flatten().next()?);
        Some((id, self.key(id)?))
    }

    /// The id of the imported key with this digest.
    pub fn foreign_key_id(&self, digest: &Digest) -> Option<KeyId> {
        self.foreign.pin().get(digest.as_bytes()).copied().map(KeyId::from_number)
    }

    /// The keys with slow digests of a user, and an example of a slow digest for a dummy check.
    /// `None` means that no user at all has a key with a slow digest.
    pub fn slow_keys(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let mut keys = self.slow_digests.keys_of(uid)?;
        keys.ids.retain(|id| self.key(*id).is_some());
        Some(keys)
    }

    /// An example of an imported password digest. `None` means that no imported password digest is
    /// left.
    pub fn slow_password_example(&self) -> Option<PasswordDigest> {
        self.slow_digests.password()
    }

    /// The number of imported keys with the scheme [`Scheme::HmacSha256`].
    pub fn hmac_keys(&self) -> usize {
        self.slow_digests.hmac_keys()
    }

    /// The current roles, applications and resources.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The current policy, for the duration of a request. Unlike [`policy`](Self::policy), this
    /// method changes no reference count that other cores use.
    pub fn borrow_policy(&self) -> Borrowed<Policy> {
        self.policy.load()
    }

    /// Adds the operator, who has no record in the store: a user with uid 0 and every permission,
    /// and a key that works only with this application.
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
        // The operator is not inserted into `names`, because only the key leads to the operator.
        self.users.insert(UserByUid(Arc::new(operator)));
        self.keys.insert(PackedKey::new(id.number(), key));
    }

    /// The number of users and the number of keys.
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

    /// Reserves all uids up to this one, so that [`Directory::next_uid`] does not return them.
    pub fn reserve_uids(&self, largest: u64) {
        self.last_uid.fetch_max(largest, Ordering::Relaxed);
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
        // The new name is inserted before the old name is removed, so readers find the user at any
        // time.
        self.put_name(&user);
        self.slow_digests.add_password(&user);
        if let Some(UserByUid(before)) = self.users.insert(UserByUid(user.clone())) {
            self.slow_digests.remove_password(&before);
            if Folded(&before.name) != Folded(&user.name) {
                self.remove_name(&before);
            } else if before.name != user.name {
                self.forget_spelling(&before);
            }
        }
    }

    /// Builds a user from the record. The user keeps the counts of its previous limits.
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

    /// The keys that are not revoked, and expire at `from` or later but earlier than `before`.
    /// Looks at every key.
    pub fn keys_expiring(&self, from: Timestamp, before: Timestamp) -> Vec<KeyId> {
        let mut found = Vec::new();
        self.keys.each(|key| {
            let is_expiring =
                key.expiry().is_some_and(|expiry| (from.0..before.0).contains(&expiry));
            if is_expiring && !key.is_revoked() {
                found.push(KeyId::from_number(key.number()));
            }
        });
        found
    }

    fn put_key(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let (number, key) = self.parse_key(key, json)?;
        let is_slow = key.slow_digest().is_some();
        let foreign = key.is_found_by_digest().then_some(*key.digest.as_bytes());
        if let Some(before) = self.keys.insert(PackedKey::new(number, key)) {
            let before = before.unpack();
            self.slow_digests.remove_key(number, &before, is_slow);
            // The digest of a key changes when a use of the key replaces a slow digest.
            if before.is_found_by_digest() && foreign != Some(*before.digest.as_bytes()) {
                self.foreign.pin().remove(before.digest.as_bytes());
            }
        }
        Ok(())
    }

    /// Parses a key's record, and adds the key to the indexes `slow_digests` and `foreign`. The key
    /// keeps the counts of its previous limits.
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

    /// Applies a write to users, keys or the last uid.
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
        // Keyward itself wrote the record, so an unreadable record is a defect. The previous record
        // is removed and not trusted any longer, because the write may have been a revocation.
        let report = |problem| {
            tracing::error!(
                "could not read a changed record; Keyward acts as if the record were deleted: {problem}"
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
        // The policy is replaced before the users are changed, because a changed user may have a
        // combination of roles that the old policy does not contain.
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
