//! What the Directory holds of each user and key: as little as a decision needs, because there are many.

use std::{collections::BTreeMap, hash::BuildHasher, net::IpAddr, sync::Arc};

use compact_str::CompactString;
use ipnet::IpNet;
use serde::Deserialize;

use super::{RoleSet, RoleTable, case_fold::Folded, sharded_map::Keyed};
use crate::{
    limits::Bounds,
    model::{Credits, Digest, KeyId, PasswordDigest, RateLimit, Rotation, Scheme, Timestamp, ends},
};

/// The number of the person at the machine, whom no store knows.
pub(in crate::directory) const OPERATOR_UID: u64 = 0;

/// A user, as far as decisions go.
#[derive(Debug)]
pub struct CachedUser {
    /// The user's number.
    pub uid: u64,
    /// The user's name: up to 24 bytes of it lie here, so that most members are one piece of memory.
    pub name: CompactString,
    /// Active, or blocked.
    pub is_active: bool,
    roles: u32,
    /// What few users have, so that the many do not pay for it.
    rare: Option<Box<Extras>>,
}

#[derive(Debug)]
struct Extras {
    password: Option<PasswordDigest>,
    attributes: BTreeMap<String, String>,
    bounds: Option<Arc<Bounds>>,
}

static NO_ATTRIBUTES: BTreeMap<String, String> = BTreeMap::new();

/// A key, as far as decisions go.
#[derive(Debug, Clone)]
pub struct CachedKey {
    /// What the presented text is checked against.
    pub digest: Digest,
    /// What that is made of: [`Pepper::digest_as`](crate::model::Pepper::digest_as).
    pub scheme: Scheme,
    /// The user whom it acts as.
    pub user: u64,
    /// Whether it was taken back.
    pub is_revoked: bool,
    /// The first second in which it is refused, or [`CachedKey::NEVER`].
    ends: i64,
    rare: Option<Arc<RareKey>>,
}

#[derive(Debug, Default)]
struct RareKey {
    /// The end of one that [`Packed`] has no place for.
    ends: Option<i64>,
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
        let rare = (!is_plain).then(|| Box::new(Extras { password, attributes, bounds }));
        Self { uid, name: name.into(), is_active, roles, rare }
    }

    /// What its password is checked against, if it has one.
    pub fn password(&self) -> Option<&PasswordDigest> {
        self.rare.as_ref()?.password.as_ref()
    }

    /// Small facts about it, for scripts.
    pub fn attributes(&self) -> &BTreeMap<String, String> {
        self.rare.as_ref().map_or(&NO_ATTRIBUTES, |rare| &rare.attributes)
    }

    /// The limits of all its credentials together, if it has any.
    pub fn bounds(&self) -> Option<&Arc<Bounds>> {
        self.rare.as_ref()?.bounds.as_ref()
    }

    /// Whether this is the person at the machine, who is in no store.
    pub fn is_operator(&self) -> bool {
        self.uid == OPERATOR_UID
    }

    /// What its roles give.
    pub fn roles<'t>(&self, table: &'t RoleTable) -> &'t RoleSet {
        table.set(self.roles)
    }
}

impl CachedKey {
    const NEVER: i64 = i64::MAX;

    /// A key without an end that may be used with one application alone.
    pub(in crate::directory) fn bound_to(application: &str, user: u64, digest: Digest) -> Self {
        let rare = RareKey { application: Some(application.to_owned()), ..RareKey::default() };
        Self {
            digest,
            scheme: Scheme::Own,
            user,
            is_revoked: false,
            ends: Self::NEVER,
            rare: Some(Arc::new(rare)),
        }
    }

    /// A key whose text is slow to check.
    #[cfg(test)]
    pub(in crate::directory) fn slow_one(user: u64, digest: Digest, text: PasswordDigest) -> Self {
        let rare = RareKey { slow: Some(text), ..RareKey::default() };
        let scheme = Scheme::Slow;
        let rare = Some(Arc::new(rare));
        Self { digest, scheme, user, is_revoked: false, ends: Self::NEVER, rare }
    }

    /// Whether it is past its end.
    pub fn has_ended(&self, now: Timestamp) -> bool {
        now.0 >= self.ends
    }

    /// The first second in which it is refused, as seconds since 1970; none: never.
    pub fn ends(&self) -> Option<i64> {
        (self.ends != Self::NEVER).then_some(self.ends)
    }

    /// The one application that it may be used with; none: any.
    pub fn application(&self) -> Option<&str> {
        self.rare.as_ref()?.application.as_deref()
    }

    /// The permissions that it may use; none: all of its user's.
    pub fn scopes(&self) -> Option<&Arc<[String]>> {
        self.rare.as_ref()?.scopes.as_ref()
    }

    /// The networks that it may be used from; none: any.
    pub fn networks(&self) -> &[IpNet] {
        self.rare.as_ref().map_or(&[], |rare| &rare.networks)
    }

    /// Its limits, if it has any.
    pub fn bounds(&self) -> Option<&Arc<Bounds>> {
        self.rare.as_ref()?.bounds.as_ref()
    }

    /// Whether it is less than its user, who is somebody of the store.
    pub fn is_bound(&self) -> bool {
        let is_bound = |rare: &RareKey| {
            let is_free = rare.application.is_none() && rare.scopes.is_none();
            !is_free || !rare.networks.is_empty() || rare.bounds.is_some() || rare.is_universal
        };
        self.user != OPERATOR_UID && self.rare.as_deref().is_some_and(is_bound)
    }

    /// Whether it acts as any user whom its client names.
    pub fn is_universal(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.is_universal)
    }

    /// What its text is checked against where that is slow.
    pub fn slow(&self) -> Option<&PasswordDigest> {
        self.rare.as_ref()?.slow.as_ref()
    }

    /// Whether its text alone leads to it, and no id in it does.
    pub(in crate::directory) fn is_found_by_digest(&self) -> bool {
        Scheme::FOREIGN.contains(&self.scheme)
    }

    /// Whether it may be used from an address.
    pub fn admits(&self, client: IpAddr) -> bool {
        let networks = self.networks();
        // An IPv4 client on an IPv6 socket is an IPv4 client.
        let client = client.to_canonical();
        networks.is_empty() || networks.iter().any(|network| network.contains(&client))
    }
}

/// A key as it lies in the Directory: 64 bytes, of which there are millions.
pub(in crate::directory) struct Packed {
    number: u64,
    user: u64,
    digest: Digest,
    rare: Option<Arc<RareKey>>,
    /// As [`CachedKey::ends`], or [`Packed::NEVER`], or [`Packed::ELSEWHERE`].
    ends: u32,
    scheme: Scheme,
    is_revoked: bool,
}

const _: () = assert!(size_of::<Packed>() == 64);

impl Packed {
    const NEVER: u32 = u32::MAX;
    /// It is before 1970 or after 2106, and lies with what is rare.
    const ELSEWHERE: u32 = u32::MAX - 1;

    fn has_place(ends: i64) -> bool {
        ends == CachedKey::NEVER || (0..i64::from(Self::ELSEWHERE)).contains(&ends)
    }

    pub fn of(number: u64, key: CachedKey) -> Box<Self> {
        let CachedKey { digest, scheme, user, is_revoked, ends, rare } = key;
        let ends = match u32::try_from(ends) {
            Ok(ends) if ends < Self::ELSEWHERE => ends,
            _ if ends == CachedKey::NEVER => Self::NEVER,
            _ => Self::ELSEWHERE,
        };
        Box::new(Self { number, user, digest, rare, ends, scheme, is_revoked })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn is_revoked(&self) -> bool {
        self.is_revoked
    }

    /// As [`CachedKey::ends`].
    pub fn ends(&self) -> Option<i64> {
        match self.ends {
            Self::NEVER => None,
            // One that is not there, which cannot be, has ended.
            Self::ELSEWHERE => {
                Some(self.rare.as_ref().and_then(|rare| rare.ends).unwrap_or(i64::MIN))
            }
            ends => Some(i64::from(ends)),
        }
    }

    /// As [`CachedKey::application`].
    pub fn application(&self) -> Option<&str> {
        self.rare.as_ref()?.application.as_deref()
    }

    /// What decisions see of it.
    pub fn unpacked(&self) -> CachedKey {
        CachedKey {
            digest: self.digest,
            scheme: self.scheme,
            user: self.user,
            is_revoked: self.is_revoked,
            ends: self.ends().unwrap_or(CachedKey::NEVER),
            rare: self.rare.clone(),
        }
    }
}

impl Keyed for Box<Packed> {
    type By<'a> = u64;

    fn by(&self) -> u64 {
        self.number
    }

    fn is(&self, number: u64) -> bool {
        self.number == number
    }

    fn hash(number: u64, state: &impl BuildHasher) -> u64 {
        state.hash_one(number)
    }
}

/// A member that is found by its number.
pub(in crate::directory) struct ByNumber(pub Arc<CachedUser>);

impl Keyed for ByNumber {
    type By<'a> = u64;

    fn by(&self) -> u64 {
        self.0.uid
    }

    fn is(&self, uid: u64) -> bool {
        self.0.uid == uid
    }

    fn hash(uid: u64, state: &impl BuildHasher) -> u64 {
        state.hash_one(uid)
    }
}

/// A member that is found by its name.
pub(in crate::directory) struct ByName(pub Arc<CachedUser>);

impl Keyed for ByName {
    type By<'a> = Folded<'a>;

    fn by(&self) -> Folded<'_> {
        Folded(&self.0.name)
    }

    fn is(&self, name: Folded<'_>) -> bool {
        Folded(&self.0.name) == name
    }

    fn hash(name: Folded<'_>, state: &impl BuildHasher) -> u64 {
        state.hash_one(name)
    }
}

/// The part of a key's record that the Directory keeps.
#[derive(Deserialize)]
pub(in crate::directory) struct KeyPart {
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

impl KeyPart {
    /// Whether it has limits.
    pub fn is_bounded(&self) -> bool {
        self.rate_limit.is_some() || self.credits.is_some()
    }
}

impl CachedKey {
    /// A key as its record says. What was taken of its limits `before` is taken still.
    pub(in crate::directory) fn of(key: KeyPart, before: Option<&Arc<Bounds>>) -> Self {
        let bounds = Bounds::renewed(before, key.rate_limit, key.credits);
        let ends = ends(key.expires, key.rotated.as_ref()).map_or(Self::NEVER, |end| end.0);
        let is_free = key.application.is_none() && key.scopes.is_none();
        let is_free = is_free && !key.universal && key.slow.is_none() && Packed::has_place(ends);
        let is_plain = is_free && key.networks.is_empty() && bounds.is_none();
        Self {
            digest: key.digest,
            scheme: key.scheme,
            user: key.user,
            is_revoked: key.revoked.is_some(),
            ends,
            rare: (!is_plain).then(|| {
                Arc::new(RareKey {
                    ends: (!Packed::has_place(ends)).then_some(ends),
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
    fn a_key_is_the_same_after_it_was_packed() {
        let plain = CachedKey {
            digest: Digest::from_bytes([3; 32]),
            scheme: Scheme::Own,
            user: u64::MAX,
            is_revoked: false,
            ends: CachedKey::NEVER,
            rare: None,
        };
        for scheme in [Scheme::Own, Scheme::Slow] {
            for is_revoked in [false, true] {
                let key = CachedKey { scheme, is_revoked, ..plain.clone() };
                let packed = Packed::of(7, key.clone());
                assert_eq!((packed.number(), packed.is_revoked()), (7, is_revoked));
                assert_eq!(format!("{:?}", packed.unpacked()), format!("{key:?}"));
            }
        }
    }

    #[test]
    fn every_end_is_kept() {
        let most = i64::from(u32::MAX);
        for end in [i64::MIN, -1, 0, 1, most - 2, most - 1, most, most + 1, i64::MAX - 1] {
            let json = serde_json::json!({
                "id": "00000001", "user": 1, "digest": "00".repeat(32), "expires": end
            });
            let key = CachedKey::of(serde_json::from_value(json).unwrap(), None);
            let packed = Packed::of(1, key);
            let held = packed.unpacked();
            assert_eq!((packed.ends(), held.ends()), (Some(end), Some(end)));
            assert!(held.has_ended(Timestamp(end)) && !held.is_bound(), "{end}");
            assert!(!held.has_ended(Timestamp(end.saturating_sub(1))) || end == i64::MIN, "{end}");
            // In one piece, if it has a place there.
            let is_usual = (0..most - 1).contains(&end);
            assert_eq!(packed.rare.is_none(), is_usual, "{end}");
        }
        let free = CachedKey::of(
            serde_json::from_value(serde_json::json!({
                "id": "00000001", "user": 1, "digest": "00".repeat(32)
            }))
            .unwrap(),
            None,
        );
        assert!(Packed::of(1, free).ends().is_none());
    }

    #[test]
    fn a_member_with_a_usual_name_is_one_piece_of_memory() {
        let member = |name| CachedUser::new(1, name, true, 0, None, BTreeMap::new(), None);
        assert!(!member("somebody@mail.example.io").name.is_heap_allocated());
        assert_eq!(member("somebody.else@mail.example.io").name, "somebody.else@mail.example.io");
        // With what an `Arc` adds, 64.
        assert_eq!(size_of::<CachedUser>(), 48);
    }
}
