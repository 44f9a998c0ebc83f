//! Keys: nobody makes a key that may do more, or that works longer, than the credential in use.

use ipnet::IpNet;

use super::{Authority, Credential, forbidden};
use crate::{
    accounts::{AccountError, NewKey},
    model::{Credits, Key, RateLimit, Timestamp},
};

/// The bounds and limits of a key that an actor wants to create or change.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::accounts) struct RequestedBounds<'a> {
    pub scopes: Option<&'a [String]>,
    pub application: Option<&'a str>,
    pub networks: &'a [IpNet],
    pub expires: Option<Timestamp>,
    pub rate_limit: Option<RateLimit>,
    pub credits: Option<Credits>,
}

impl<'a> From<&'a NewKey> for RequestedBounds<'a> {
    fn from(new: &'a NewKey) -> Self {
        let NewKey { scopes, application, networks, expires, rate_limit, credits, .. } = new;
        Self {
            scopes: scopes.as_deref(),
            application: application.as_deref(),
            networks,
            expires: *expires,
            rate_limit: *rate_limit,
            credits: *credits,
        }
    }
}

impl<'a> From<&'a Key> for RequestedBounds<'a> {
    fn from(key: &'a Key) -> Self {
        let Key { scopes, application, networks, expires, rate_limit, credits, .. } = key;
        Self {
            scopes: scopes.as_deref(),
            application: application.as_deref(),
            networks,
            expires: *expires,
            rate_limit: *rate_limit,
            credits: *credits,
        }
    }
}

impl Authority {
    /// The latest end that a new key may have. `None` means that it need not have an end.
    pub fn latest_end(&self) -> Option<Timestamp> {
        self.end()
    }

    /// Refuses every new or changed key if the credential in use is a universal key. The new key
    /// would stay valid after the universal key is revoked.
    pub fn require_keys(&self) -> Result<(), AccountError> {
        if self.uses_universal_key() {
            return Err(forbidden("A universal key cannot create or change other keys."));
        }
        Ok(())
    }

    /// Refuses a wider bound of an existing key unless the actor is an administrator. Owners do not
    /// raise the limits of their keys either.
    pub fn check_key_change(&self, before: &Key, after: &Key) -> Result<(), AccountError> {
        if self.is_admin() {
            return Ok(());
        }
        let widened = widened_bound(before, after)
            .or_else(|| widened_limit(before, after).filter(|_| self.is_owner(before.user)));
        let Some(widened) = widened else { return Ok(()) };
        let rule = format!(
            "Only an administrator with an unbound credential can {widened} of a key. Without \
             that, a key can only be narrowed: fewer scopes, smaller networks, an earlier end."
        );
        Err(forbidden(rule))
    }

    /// Refuses a new or changed key whose bounds are wider than those of the credential in use,
    /// because the actor could escape from the bounds with it.
    pub fn check_key(&self, requested: RequestedBounds<'_>) -> Result<(), AccountError> {
        let Some(user) = self.user() else { return Ok(()) };
        self.require_keys()?;
        if let Credential::DeletedKey = user.credential {
            return Err(forbidden("The key of this request was deleted."));
        }
        let are_within = |allowed: &[String]| {
            let scopes = requested.scopes;
            scopes.is_some_and(|scopes| scopes.iter().all(|scope| allowed.contains(scope)))
        };
        if self.scopes().is_some_and(|allowed| !are_within(allowed)) {
            return Err(forbidden(
                "A key with scopes can only create keys with the same or fewer scopes. Send the \
                 field scopes.",
            ));
        }
        let Some(key) = self.key() else { return Ok(()) };
        if key.application().is_some_and(|allowed| requested.application != Some(allowed)) {
            return Err(forbidden(
                "A key for one application can only create keys for the same application. Send \
                 the field application.",
            ));
        }
        let networks = requested.networks;
        let is_inside =
            |network: &IpNet| key.networks().iter().any(|outer| outer.contains(network));
        if !key.networks().is_empty() && (networks.is_empty() || !networks.iter().all(is_inside)) {
            return Err(forbidden(
                "A key for some networks can only create keys for networks inside these networks. \
                 Send the field networks.",
            ));
        }
        let bounds = key.bounds();
        let rate = bounds.and_then(|bounds| bounds.rate());
        let credits = bounds.and_then(|bounds| bounds.credits());
        if rate.is_some_and(|max| requested.rate_limit.is_none_or(|rate| !rate.is_within(max)))
            || credits.is_some_and(|max| requested.credits.is_none_or(|new| !new.is_within(max)))
        {
            return Err(forbidden(
                "A key with a rate limit or credits can only create keys with the same or lower \
                 limits. Send the fields rate_limit and credits.",
            ));
        }
        if let Some(end) = self.end()
            && requested.expires.is_none_or(|expires| expires > end)
        {
            return Err(forbidden(format!(
                "A key that ends at {end} can only create keys that do not end later. Send the \
                 field expires."
            )));
        }
        Ok(())
    }
}

/// The bound that is wider after a change, as a part of a sentence.
fn widened_bound(before: &Key, after: &Key) -> Option<&'static str> {
    let has_more_scopes = before.scopes.as_ref().is_some_and(|old| {
        let new = after.scopes.as_ref();
        new.is_none_or(|new| new.iter().any(|scope| !old.contains(scope)))
    });
    if has_more_scopes {
        return Some("add scopes");
    }
    let is_inside = |network: &IpNet| before.networks.iter().any(|outer| outer.contains(network));
    if !before.networks.is_empty()
        && (after.networks.is_empty() || !after.networks.iter().all(is_inside))
    {
        return Some("add networks");
    }
    let is_later = before.expires.is_some_and(|old| after.expires.is_none_or(|new| new > old));
    is_later.then_some("move the end")
}

/// The limit that is higher after a change, as a part of a sentence.
fn widened_limit(before: &Key, after: &Key) -> Option<&'static str> {
    let rate = before
        .rate_limit
        .is_some_and(|max| after.rate_limit.is_none_or(|rate| !rate.is_within(max)));
    let credits = before
        .credits
        .is_some_and(|max| after.credits.is_none_or(|credits| !credits.is_within(max)));
    (rate || credits).then_some("raise the limits")
}
