//! What a decision needs of all records, in memory. Reading never waits for the store, and takes no lock that is held for longer than a look-up.
//!
//! The Directory follows the store as a [`Subscriber`]: a change is in force here before its writer is answered.

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
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
pub use entries::{CachedKey, CachedUser};
use maps::{ByChoice, map};
pub use policy::{Applications, CompiledApplication, Policy, RoleSet, RoleTable};
use policy_sources::Sources;
pub use routes::{Found, Routes, Rule};
use serde::Deserialize;
use slow_digests::Slow;
pub use slow_digests::SlowKeys;

use case_fold::Folded;
use entries::{ByName, ByNumber, KeyPart, OPERATOR_UID, Packed};
use sharded_map::ShardedMap;

use crate::{
    limits::Bounds,
    model::{
        Application, Borrowed, Credits, Digest, KeyId, PasswordDigest, Pepper, RateLimit, Resource,
        Role, Scheme, Timestamp,
    },
    store::{Change, Snapshot, Store, StoreError, Subscriber, Table, Write, decode},
};

/// The records in memory.
pub struct Directory {
    /// Others choose the names, so they are hashed with SipHash, which nobody can foresee.
    names: ShardedMap<ByName, RandomState>,
    users: ShardedMap<ByNumber, foldhash::quality::RandomState>,
    keys: ShardedMap<Box<Packed>, foldhash::quality::RandomState>,
    /// The keys of other systems, which are found by their digests.
    foreign: ByChoice<[u8; 32], u64>,
    /// What other systems made slow to check.
    slow: Slow,
    policy: ArcSwap<Policy>,
    /// What the policy is compiled from. Locked by whoever applies changes, never by a decision.
    sources: Mutex<Sources>,
    last_uid: AtomicU64,
}

/// The part of a user's record that the Directory keeps.
#[derive(Deserialize)]
struct UserPart<'a> {
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

/// The id of a role, as it stands in a user's record.
#[derive(Deserialize)]
struct RoleId<'a>(#[serde(borrow)] Cow<'a, str>);

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
            names: ShardedMap::new(),
            users: ShardedMap::new(),
            keys: ShardedMap::new(),
            foreign: map(),
            slow: Slow::new(),
            policy: ArcSwap::default(),
            sources: Mutex::new(Sources::new()),
            last_uid: AtomicU64::new(0),
        }
    }

    /// The user with this name, without regard to case.
    pub fn user_by_name(&self, name: &str) -> Option<Arc<CachedUser>> {
        self.names.get(Folded(name), |member| member.0.clone())
    }

    /// The user with this number.
    pub fn user(&self, uid: u64) -> Option<Arc<CachedUser>> {
        self.users.get(uid, |member| member.0.clone())
    }

    /// The key with this id.
    pub fn key(&self, id: KeyId) -> Option<CachedKey> {
        self.keys.get(id.number(), |key| key.unpacked())
    }

    /// The key of another system with this text. The text alone finds it, so it has matched; whose it is, and whether it may be used, is
    /// still to be checked.
    pub fn foreign_key(&self, pepper: &Pepper, text: &str) -> Option<(KeyId, CachedKey)> {
        if self.foreign.is_empty() {
            return None;
        }
        // All of them, each time: how long it takes does not tell which one it was.
        let foreign = self.foreign.pin();
        let found = Scheme::FOREIGN
            .map(|scheme| foreign.get(pepper.digest_as(scheme, text)?.as_bytes()).copied());
        let id = KeyId::from_number(found.into_iter().flatten().next()?);
        Some((id, self.key(id)?))
    }

    /// The key of another system with this digest.
    pub fn key_of_digest(&self, digest: &Digest) -> Option<KeyId> {
        self.foreign.pin().get(digest.as_bytes()).copied().map(KeyId::from_number)
    }

    /// The keys of a user that are slow to check, or what a check is to look like where there are none; none: the whole store has no such key.
    pub fn slow_keys(&self, uid: Option<u64>) -> Option<SlowKeys> {
        let mut slow = self.slow.keys_of(uid)?;
        slow.ids.retain(|id| self.key(*id).is_some());
        Some(slow)
    }

    /// A password digest that is not made as ours are, while there is one.
    pub fn foreign_password(&self) -> Option<PasswordDigest> {
        self.slow.password()
    }

    /// How many keys are kept as HMAC-SHA-256.
    pub fn hmac_keys(&self) -> usize {
        self.slow.hmac_keys()
    }

    /// Roles, applications and resources as they are now.
    pub fn policy(&self) -> Arc<Policy> {
        self.policy.load_full()
    }

    /// The same for as long as a request takes. It counts nothing that other cores count.
    pub fn borrow_policy(&self) -> Borrowed<Policy> {
        self.policy.load()
    }

    /// Takes in a user and a key that no store knows: number 0, with every permission, only with this application.
    pub(crate) fn admit_operator(&self, application: &str, id: KeyId, digest: Digest) {
        let member = CachedUser::new(
            OPERATOR_UID,
            application,
            true,
            RoleTable::OPERATOR,
            None,
            BTreeMap::new(),
            None,
        );
        let key = CachedKey::bound_to(application, OPERATOR_UID, digest);
        // Not among the names: it is found by its key alone.
        self.users.put(ByNumber(Arc::new(member)));
        self.keys.put(Packed::of(id.number(), key));
    }

    /// How many users and keys there are.
    pub fn counts(&self) -> (usize, usize) {
        (self.users.len(), self.keys.len())
    }

    /// The active users who have an administrator's role, in the order of their numbers. Looks at every user.
    pub fn administrators(&self) -> Vec<u64> {
        let policy = self.policy();
        let mut found = Vec::new();
        self.users.each(|ByNumber(member)| {
            let is_one = member.uid != OPERATOR_UID && member.is_active;
            if is_one && member.roles(&policy.roles).is_admin {
                found.push(member.uid);
            }
        });
        found.sort_unstable();
        found
    }

    /// Whether a user has this role. Looks at every user.
    pub fn has_user_with_role(&self, role: &str) -> bool {
        let policy = self.policy();
        self.users.any(|ByNumber(member)| {
            let ids = &member.roles(&policy.roles).ids;
            ids.iter().any(|id| id == role)
        })
    }

    /// How many keys that were not taken back are bound to this application. Looks at every key.
    pub fn keys_bound_to(&self, application: &str) -> usize {
        let mut count = 0;
        self.keys.each(|key| {
            let is_bound = !key.is_revoked() && key.application() == Some(application);
            count += usize::from(is_bound);
        });
        count
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

    fn put_user(&self, user: UserPart<'_>, roles: u32) {
        let member = self.member(user, roles);
        self.last_uid.fetch_max(member.uid, Ordering::Relaxed);
        // The new name goes in before the old one goes out: a reader finds the user at every moment.
        self.names.put(ByName(member.clone()));
        self.slow.password_came(&member);
        if let Some(ByNumber(before)) = self.users.put(ByNumber(member.clone())) {
            self.slow.password_went(&before);
            if Folded(&before.name) != Folded(&member.name) {
                self.free_name(&before);
            }
        }
    }

    /// A user as the record says.
    fn member(&self, user: UserPart<'_>, roles: u32) -> Arc<CachedUser> {
        let is_bounded = user.rate_limit.is_some() || user.credits.is_some();
        let before = is_bounded.then(|| self.user(user.uid)).flatten();
        let before = before.as_ref().and_then(|member| member.bounds());
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

    /// The keys that are not taken back and end from one moment on and before another.
    pub fn keys_that_end(&self, from: Timestamp, before: Timestamp) -> Vec<KeyId> {
        let mut found = Vec::new();
        self.keys.each(|key| {
            let ends = key.ends().is_some_and(|end| (from.0..before.0).contains(&end));
            if ends && !key.is_revoked() {
                found.push(KeyId::from_number(key.number()));
            }
        });
        found
    }

    /// Takes a member's name out, unless it is another's by now.
    fn free_name(&self, member: &CachedUser) {
        self.names.take_if(Folded(&member.name), |held| held.0.uid == member.uid);
    }

    fn put_key(&self, key: &[u8], json: &[u8]) -> Result<(), StoreError> {
        let (number, held) = self.held(key, json)?;
        let is_slow = held.slow().is_some();
        let foreign = held.is_found_by_digest().then_some(*held.digest.as_bytes());
        if let Some(before) = self.keys.put(Packed::of(number, held)) {
            let before = before.unpacked();
            self.slow.key_went(number, &before, is_slow);
            // One that was slow, and is found by its text from now on, has another digest.
            if before.is_found_by_digest() && foreign != Some(*before.digest.as_bytes()) {
                self.foreign.pin().remove(before.digest.as_bytes());
            }
        }
        Ok(())
    }

    /// A key as the record says, which its text leads to from now on.
    fn held(&self, key: &[u8], json: &[u8]) -> Result<(u64, CachedKey), StoreError> {
        let key: KeyPart = decode(Table::Keys, key, json)?;
        let number = key.id.number();
        let before = key.is_bounded().then(|| self.key(key.id)).flatten();
        let held = CachedKey::of(key, before.as_ref().and_then(CachedKey::bounds));
        self.slow.key_came(number, &held);
        if held.is_found_by_digest() {
            self.foreign.pin().insert(*held.digest.as_bytes(), number);
        }
        Ok((number, held))
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
                Ok(sources.set_number(&user.roles).1)
            }
            _ => Ok(false),
        }
    }

    /// Takes in any other write.
    fn put(&self, sources: &mut Sources, write: &Write) -> Result<(), StoreError> {
        match (write.table, &write.json) {
            (Table::Users, Some(json)) => {
                let user: UserPart<'_> = decode(write.table, &write.key, json)?;
                let (roles, _) = sources.set_number(&user.roles);
                self.put_user(user, roles);
                Ok(())
            }
            (Table::Keys, Some(json)) => self.put_key(&write.key, json),
            (Table::Meta, Some(json)) => self.put_meta(&write.key, json),
            (table, None) => {
                self.forget(table, &write.key);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn forget(&self, table: Table, key: &[u8]) {
        let Ok(number) = key.try_into().map(u64::from_be_bytes) else { return };
        match table {
            Table::Users => {
                if let Some(ByNumber(gone)) = self.users.take(number) {
                    self.slow.password_went(&gone);
                    self.free_name(&gone);
                }
            }
            Table::Keys => {
                if let Some(gone) = self.keys.take(number).map(|gone| gone.unpacked()) {
                    self.slow.key_went(number, &gone, false);
                    self.foreign.pin().remove(gone.digest.as_bytes());
                }
            }
            _ => {}
        }
    }
}

/// The record in `meta` that keeps the largest number of a user that was deleted.
pub(crate) const LAST_UID: &[u8] = b"last-uid";

impl Subscriber for Directory {
    fn apply(&self, change: &Change) {
        // Our own commit path wrote the change, so one that cannot be read is a defect. Its record goes: what was written may have been a
        // revocation, so what was known before must not go on being trusted.
        let report = |problem| tracing::error!("a change could not be taken in: {problem}");
        let mut sources = self.sources();
        let mut is_stale = false;
        for write in &change.writes {
            match self.prepare(&mut sources, write) {
                Ok(stale) => is_stale |= stale,
                Err(problem) => {
                    report(problem);
                    is_stale |= sources.forget(write.table, &write.key);
                }
            }
        }
        // Before the users: a member may have a combination of roles that the old policy does not know.
        if is_stale {
            self.policy.store(Arc::new(sources.compile()));
        }
        for write in &change.writes {
            if let Err(problem) = self.put(&mut sources, write) {
                report(problem);
                self.forget(write.table, &write.key);
            }
        }
    }
}
