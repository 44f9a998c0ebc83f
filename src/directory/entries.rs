//! The in-memory form of users and keys. It contains only what an authorization decision needs,
//! because there can be millions of users and keys.

use std::{collections::BTreeMap, hash::BuildHasher, net::IpAddr, sync::Arc};

use compact_str::CompactString;
use ipnet::IpNet;
use serde::Deserialize;

use super::{RoleSet, RoleTable, case_fold::Folded, sharded_map::Keyed};
use crate::{
    limits::Bounds,
    model::{Credits, Digest, KeyId, PasswordDigest, RateLimit, Rotation, Scheme, Timestamp, ends},
};

/// The uid of the operator: the person at the server's machine, who has no record in the store.
pub(in crate::directory) const OPERATOR_UID: u64 = 0;

/// A user, as authorization decisions need it.
#[derive(Debug)]
pub struct CachedUser {
    /// The user's uid.
    pub uid: u64,
    /// The user's name. Names of up to 24 bytes are stored inline, so most users need only one
    /// allocation.
    pub name: CompactString,
    /// Whether the user is active. `false` means blocked.
    pub is_active: bool,
    /// The number of the user's combination of roles in the [`RoleTable`].
    roles: u32,
    /// Properties that few users have, in a separate allocation.
    extras: Option<Box<UserExtras>>,
}

#[derive(Debug)]
struct UserExtras {
    password: Option<PasswordDigest>,
    attributes: BTreeMap<String, String>,
    bounds: Option<Arc<Bounds>>,
}

static NO_ATTRIBUTES: BTreeMap<String, String> = BTreeMap::new();

/// An API key, as authorization decisions need it.
#[derive(Debug, Clone)]
pub struct CachedKey {
    /// The digest that the text of a presented key must have.
    pub digest: Digest,
    /// How the digest is computed; see [`Pepper::digest_as`](crate::model::Pepper::digest_as).
    pub scheme: Scheme,
    /// The uid of the key's owner.
    pub user: u64,
    /// Whether the key was revoked.
    pub is_revoked: bool,
    /// The first second in which the key is rejected, or [`CachedKey::NEVER`].
    expiry: i64,
    /// Properties that few keys have, in a separate allocation.
    extras: Option<Arc<KeyExtras>>,
}

#[derive(Debug, Default)]
struct KeyExtras {
    /// The expiry, if it does not fit into [`PackedKey`].
    expiry: Option<i64>,
    application: Option<String>,
    scopes: Option<Arc<[String]>>,
    networks: Vec<IpNet>,
    bounds: Option<Arc<Bounds>>,
    slow: Option<PasswordDigest>,
    is_universal: bool,
}

impl CachedUser {
    pub(in crate::directory) fn new(
        uid: u64,
        name: &str,
        is_active: bool,
        roles: u32,
        password: Option<PasswordDigest>,
        attributes: BTreeMap<String, String>,
        bounds: Option<Arc<Bounds>>,
    ) -> Self {
        let is_plain = password.is_none() && attributes.is_empty() && bounds.is_none();
        let extras = (!is_plain).then(|| Box::new(UserExtras { password, attributes, bounds }));
        Self { uid, name: name.into(), is_active, roles, extras }
    }

    /// The digest of the user's password, if there is one.
    pub fn password(&self) -> Option<&PasswordDigest> {
        self.extras.as_ref()?.password.as_ref()
    }

    /// The user's attributes, for scripts.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        self.extras.as_ref().map_or(&NO_ATTRIBUTES, |extras| &extras.attributes)
    }

    /// The limits that all credentials of the user share. `None` means no limits.
    pub fn bounds(&self) -> Option<&Arc<Bounds>> {
        self.extras.as_ref()?.bounds.as_ref()
    }

    /// Whether this is the operator: the person at the server's machine, who has no record in the
    /// store.
    pub fn is_operator(&self) -> bool {
        self.uid == OPERATOR_UID
    }

    /// The user's roles and their permissions.
    pub fn roles<'t>(&self, table: &'t RoleTable) -> &'t RoleSet {
        table.role_set(self.roles)
    }
}

impl CachedKey {
    const NEVER: i64 = i64::MAX;

    /// A key that never expires and works with one application only.
    pub(in crate::directory) fn for_application(
        application: &str,
        user: u64,
        digest: Digest,
    ) -> Self {
        let extras =
            KeyExtras { application: Some(application.to_owned()), ..KeyExtras::default() };
        Self {
            digest,
            scheme: Scheme::Own,
            user,
            is_revoked: false,
            expiry: Self::NEVER,
            extras: Some(Arc::new(extras)),
        }
    }

    /// A key with a slow digest.
    #[cfg(test)]
    pub(in crate::directory) fn with_slow_digest(
        user: u64,
        digest: Digest,
        slow: PasswordDigest,
    ) -> Self {
        let extras = KeyExtras { slow: Some(slow), ..KeyExtras::default() };
        let scheme = Scheme::Slow;
        let extras = Some(Arc::new(extras));
        Self { digest, scheme, user, is_revoked: false, expiry: Self::NEVER, extras }
    }

    /// Whether the key has expired: its own expiry, or the end of its rotation's overlap, has
    /// passed.
    pub fn is_expired(&self, now: Timestamp) -> bool {
        now.0 >= self.expiry
    }

    /// The first second in which the key is rejected, as seconds since 1970. `None` means that the
    /// key never expires.
    pub fn expiry(&self) -> Option<i64> {
        (self.expiry != Self::NEVER).then_some(self.expiry)
    }

    /// The only application that accepts the key. `None` means any application.
    pub fn application(&self) -> Option<&str> {
        self.extras.as_ref()?.application.as_deref()
    }

    /// The permissions that the key can use. `None` means all permissions of its owner.
    pub fn scopes(&self) -> Option<&Arc<[String]>> {
        self.extras.as_ref()?.scopes.as_ref()
    }

    /// The networks from which the key is accepted. Empty means any network.
    pub fn networks(&self) -> &[IpNet] {
        self.extras.as_ref().map_or(&[], |extras| &extras.networks)
    }

    /// The key's limits, if there are any.
    pub fn bounds(&self) -> Option<&Arc<Bounds>> {
        self.extras.as_ref()?.bounds.as_ref()
    }

    /// Whether the key is universal, or is bound to an application, scopes, networks or limits. The
    /// operator's key never counts as restricted.
    pub fn is_restricted(&self) -> bool {
        let is_restricted = |extras: &KeyExtras| {
            extras.application.is_some()
                || extras.scopes.is_some()
                || !extras.networks.is_empty()
                || extras.bounds.is_some()
                || extras.is_universal
        };
        self.user != OPERATOR_UID && self.extras.as_deref().is_some_and(is_restricted)
    }

    /// Whether the key acts as any user that the client names.
    pub fn is_universal(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.is_universal)
    }

    /// The slow digest with which the key was imported. `None` means that the key has no slow
    /// digest, or that a use has replaced it.
    pub fn slow_digest(&self) -> Option<&PasswordDigest> {
        self.extras.as_ref()?.slow.as_ref()
    }

    /// Whether the key is looked up by the digest of its text. This is true for imported keys,
    /// whose texts contain no [`KeyId`].
    pub(in crate::directory) fn is_found_by_digest(&self) -> bool {
        Scheme::FOREIGN.contains(&self.scheme)
    }

    /// Whether the key is accepted from an address.
    pub fn allows_address(&self, client: IpAddr) -> bool {
        let networks = self.networks();
        // An IPv4 client on an IPv6 socket has an IPv4-mapped address.
        let client = client.to_canonical();
        networks.is_empty() || networks.iter().any(|network| network.contains(&client))
    }
}

/// A key in the Directory, packed into 64 bytes, because there can be millions of keys.
pub(in crate::directory) struct PackedKey {
    number: u64,
    user: u64,
    digest: Digest,
    extras: Option<Arc<KeyExtras>>,
    /// The expiry in seconds since 1970, [`PackedKey::NEVER`] or [`PackedKey::IN_EXTRAS`].
    expiry: u32,
    scheme: Scheme,
    is_revoked: bool,
}

const _: () = assert!(size_of::<PackedKey>() == 64);

impl PackedKey {
    const NEVER: u32 = u32::MAX;
    /// The expiry is before 1970 or after 2106, so it is stored in [`KeyExtras`].
    const IN_EXTRAS: u32 = u32::MAX - 1;

    /// Whether the field `expiry` can hold an expiry, without [`PackedKey::IN_EXTRAS`].
    fn fits(expiry: i64) -> bool {
        expiry == CachedKey::NEVER || (0..i64::from(Self::IN_EXTRAS)).contains(&expiry)
    }

    pub fn new(number: u64, key: CachedKey) -> Box<Self> {
        let CachedKey { digest, scheme, user, is_revoked, expiry, extras } = key;
        let expiry = match u32::try_from(expiry) {
            Ok(expiry) if expiry < Self::IN_EXTRAS => expiry,
            _ if expiry == CachedKey::NEVER => Self::NEVER,
            _ => Self::IN_EXTRAS,
        };
        Box::new(Self { number, user, digest, extras, expiry, scheme, is_revoked })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn is_revoked(&self) -> bool {
        self.is_revoked
    }

    /// See [`CachedKey::expiry`].
    pub fn expiry(&self) -> Option<i64> {
        match self.expiry {
            Self::NEVER => None,
            // If the extras had no expiry, which is impossible, the key would count as expired.
            Self::IN_EXTRAS => {
                let extras = self.extras.as_ref();
                Some(extras.and_then(|extras| extras.expiry).unwrap_or(i64::MIN))
            }
            expiry => Some(i64::from(expiry)),
        }
    }

    /// See [`CachedKey::application`].
    pub fn application(&self) -> Option<&str> {
        self.extras.as_ref()?.application.as_deref()
    }

    /// The key, as authorization decisions need it.
    pub fn unpack(&self) -> CachedKey {
        CachedKey {
            digest: self.digest,
            scheme: self.scheme,
            user: self.user,
            is_revoked: self.is_revoked,
            expiry: self.expiry().unwrap_or(CachedKey::NEVER),
            extras: self.extras.clone(),
        }
    }
}

impl Keyed for Box<PackedKey> {
    type Key<'a> = u64;

    fn key(&self) -> u64 {
        self.number
    }

    fn has_key(&self, number: u64) -> bool {
        self.number == number
    }

    fn hash_key(number: u64, state: &impl BuildHasher) -> u64 {
        state.hash_one(number)
    }
}

/// A user in the map by uid.
pub(in crate::directory) struct UserByUid(pub Arc<CachedUser>);

impl Keyed for UserByUid {
    type Key<'a> = u64;

    fn key(&self) -> u64 {
        self.0.uid
    }

    fn has_key(&self, uid: u64) -> bool {
        self.0.uid == uid
    }

    fn hash_key(uid: u64, state: &impl BuildHasher) -> u64 {
        state.hash_one(uid)
    }
}

/// A user in the map by name.
pub(in crate::directory) struct UserByName(pub Arc<CachedUser>);

impl Keyed for UserByName {
    type Key<'a> = Folded<'a>;

    fn key(&self) -> Folded<'_> {
        Folded(&self.0.name)
    }

    fn has_key(&self, name: Folded<'_>) -> bool {
        Folded(&self.0.name) == name
    }

    fn hash_key(name: Folded<'_>, state: &impl BuildHasher) -> u64 {
        state.hash_one(name)
    }
}

/// The fields of a key's record that the Directory needs.
#[derive(Deserialize)]
pub(in crate::directory) struct KeyFields {
    pub id: KeyId,
    user: u64,
    digest: Digest,
    #[serde(default)]
    scheme: Scheme,
    #[serde(default)]
    slow: Option<PasswordDigest>,
    #[serde(default)]
    universal: bool,
    #[serde(default)]
    application: Option<String>,
    #[serde(default)]
    scopes: Option<Vec<String>>,
    #[serde(default)]
    expires: Option<Timestamp>,
    #[serde(default)]
    revoked: Option<Timestamp>,
    #[serde(default)]
    rotated: Option<Rotation>,
    #[serde(default)]
    networks: Vec<IpNet>,
    #[serde(default)]
    rate_limit: Option<RateLimit>,
    #[serde(default)]
    credits: Option<Credits>,
}

impl KeyFields {
    /// Whether the key has limits.
    pub fn has_limits(&self) -> bool {
        self.rate_limit.is_some() || self.credits.is_some()
    }
}

impl CachedKey {
    /// Builds a key from its record. The key keeps the counts of its previous limits, `before`.
    pub(in crate::directory) fn from_record(key: KeyFields, before: Option<&Arc<Bounds>>) -> Self {
        let bounds = Bounds::renewed(before, key.rate_limit, key.credits);
        let expiry = ends(key.expires, key.rotated.as_ref()).map_or(Self::NEVER, |end| end.0);
        let has_extras = key.application.is_some()
            || key.scopes.is_some()
            || key.universal
            || key.slow.is_some()
            || !PackedKey::fits(expiry)
            || !key.networks.is_empty()
            || bounds.is_some();
        Self {
            digest: key.digest,
            scheme: key.scheme,
            user: key.user,
            is_revoked: key.revoked.is_some(),
            expiry,
            extras: has_extras.then(|| {
                Arc::new(KeyExtras {
                    expiry: (!PackedKey::fits(expiry)).then_some(expiry),
                    application: key.application,
                    scopes: key.scopes.map(Arc::from),
                    networks: key.networks,
                    bounds,
                    slow: key.slow,
                    is_universal: key.universal,
                })
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacking_returns_the_packed_key() {
        let plain = CachedKey {
            digest: Digest::from_bytes([3; 32]),
            scheme: Scheme::Own,
            user: u64::MAX,
            is_revoked: false,
            expiry: CachedKey::NEVER,
            extras: None,
        };
        for scheme in [Scheme::Own, Scheme::Slow] {
            for is_revoked in [false, true] {
                let key = CachedKey { scheme, is_revoked, ..plain.clone() };
                let packed = PackedKey::new(7, key.clone());
                assert_eq!((packed.number(), packed.is_revoked()), (7, is_revoked));
                assert_eq!(format!("{:?}", packed.unpack()), format!("{key:?}"));
            }
        }
    }

    #[test]
    fn every_expiry_is_preserved() {
        let max = i64::from(u32::MAX);
        for expiry in [i64::MIN, -1, 0, 1, max - 2, max - 1, max, max + 1, i64::MAX - 1] {
            let json = serde_json::json!({
                "id": "00000001", "user": 1, "digest": "00".repeat(32), "expires": expiry
            });
            let key = CachedKey::from_record(serde_json::from_value(json).unwrap(), None);
            let packed = PackedKey::new(1, key);
            let key = packed.unpack();
            assert_eq!((packed.expiry(), key.expiry()), (Some(expiry), Some(expiry)));
            assert!(key.is_expired(Timestamp(expiry)) && !key.is_restricted(), "{expiry}");
            let just_before = Timestamp(expiry.saturating_sub(1));
            assert!(!key.is_expired(just_before) || expiry == i64::MIN, "{expiry}");
            // An expiry that fits into `PackedKey` needs no extras.
            let fits = (0..max - 1).contains(&expiry);
            assert_eq!(packed.extras.is_none(), fits, "{expiry}");
        }
        let unlimited = CachedKey::from_record(
            serde_json::from_value(serde_json::json!({
                "id": "00000001", "user": 1, "digest": "00".repeat(32)
            }))
            .unwrap(),
            None,
        );
        assert!(PackedKey::new(1, unlimited).expiry().is_none());
    }

    #[test]
    fn user_with_a_short_name_is_one_allocation() {
        let user = |name| CachedUser::new(1, name, true, 0, None, BTreeMap::new(), None);
        assert!(!user("somebody@mail.example.io").name.is_heap_allocated());
        assert_eq!(user("somebody.else@mail.example.io").name, "somebody.else@mail.example.io");
        // With the two counters of its `Arc`, a user takes 64 bytes.
        assert_eq!(size_of::<CachedUser>(), 48);
    }
}
