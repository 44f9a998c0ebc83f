//! Resources: what a user may do who has the permission `administer rest resources` and is not an
//! administrator.
//!
//! Such a user adds resources beside those that exist, and changes only those that this user has
//! added. Otherwise a resource could receive the credentials of others, open what another resource
//! guards, or lead into this machine.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use super::{Authority, forbidden};
use crate::{
    accounts::{AccountError, Accounts},
    model::{Handler, Resource, Target},
    store::{Batch, Expected, Table, encode},
};

/// The paths that Keyward's own handlers serve on some listener.
const RESERVED: &[&str] = &[
    "/user/{*rest}",
    "/entity/user/{*rest}",
    "/me/{*rest}",
    "/account/{*rest}",
    "/api/v1/me/{*rest}",
    "/health/{*rest}",
    "/-/{*rest}",
];

/// The beginning of the rows in `Meta` with the uid of the user who added a resource.
const OWNER: &str = "resource-owner/";

impl Authority {
    /// Checks a new, changed or deleted resource. `before` is `None` for a new resource, `after` is
    /// `None` for a deletion.
    pub fn check_resource(
        &self,
        before: Option<&Resource>,
        after: Option<&Resource>,
        accounts: &Accounts,
    ) -> Result<(), AccountError> {
        if self.is_admin() {
            return Ok(());
        }
        if let Some(before) = before
            && !self.owns(&before.id, accounts)?
        {
            return Err(forbidden(format!(
                "Only an administrator can change or delete the resource {}: without an \
                 administrator's role and an unbound credential, you can only change resources \
                 that you added and that no administrator has changed since.",
                before.id
            )));
        }
        let Some(after) = after else { return Ok(()) };
        if after.handler == Handler::EntityUser {
            return Err(forbidden("Only an administrator can add a resource for the user entity."));
        }
        check_path(after, accounts)?;
        check_handler(after, accounts)
    }

    /// The record of a resource's owner for the batch that writes the resource. The owner of a
    /// resource that an administrator writes is nobody.
    pub fn put_resource_owner(
        &self,
        id: &str,
        is_deleted: bool,
        accounts: &Accounts,
        batch: &mut Batch,
    ) -> Result<(), AccountError> {
        let uid = self.user().filter(|_| !is_deleted && !self.is_admin()).map(|user| user.uid);
        let Some(uid) = uid else { return delete_resource_owner(id, accounts, batch) };
        let row = owner_row(id);
        let stored = accounts.store().get(Table::Meta, row.as_bytes())?;
        let state = stored.map_or(Expected::Missing, |row| Expected::Revision(row.revision));
        batch.expect(Table::Meta, row.clone(), state);
        batch.put(Table::Meta, row, encode(&uid));
        Ok(())
    }

    /// Whether this actor added a resource, and no administrator has changed it since.
    fn owns(&self, id: &str, accounts: &Accounts) -> Result<bool, AccountError> {
        let row = owner_row(id);
        let Some(stored) = accounts.store().get(Table::Meta, row.as_bytes())? else {
            return Ok(false);
        };
        Ok(self.is_owner(stored.read::<u64>(Table::Meta, row.as_bytes())?))
    }
}

/// Adds the deletion of the record of a resource's owner, if there is one.
pub(in crate::accounts) fn delete_resource_owner(
    id: &str,
    accounts: &Accounts,
    batch: &mut Batch,
) -> Result<(), AccountError> {
    let row = owner_row(id);
    if accounts.store().get(Table::Meta, row.as_bytes())?.is_some() {
        batch.delete(Table::Meta, row);
    }
    Ok(())
}

fn owner_row(id: &str) -> String {
    format!("{OWNER}{id}")
}

/// Refuses a path that another resource or a handler of Keyward serves, at a host that overlaps.
fn check_path(after: &Resource, accounts: &Accounts) -> Result<(), AccountError> {
    let Some(path) = after.path.as_deref() else { return Ok(()) };
    if let Some(reserved) = RESERVED.iter().find(|reserved| overlap(path, reserved)) {
        let reserved = reserved.trim_end_matches("/{*rest}");
        return Err(forbidden(format!(
            "Only an administrator can add a resource for {path}: Keyward serves paths that begin \
             with {reserved} itself."
        )));
    }
    let policy = accounts.directory().policy();
    let mut others: Vec<_> = policy.routes.resources().filter(|one| one.id != after.id).collect();
    others.sort_by(|a, b| a.id.cmp(&b.id));
    for other in others {
        let served = other.paths().into_iter().find(|served| overlap(path, served));
        if let Some(served) = served
            && hosts_overlap(after.host.as_deref(), other.host.as_deref())
        {
            return Err(forbidden(format!(
                "Only an administrator can add a resource for {path}: it would take requests for \
                 {served} from the resource {}, or serve what that resource does not.",
                other.id
            )));
        }
    }
    Ok(())
}

/// Refuses a handler that gives the requests, or access, to somebody who should not have it.
fn check_handler(after: &Resource, accounts: &Accounts) -> Result<(), AccountError> {
    let policy = accounts.directory().policy();
    let others = || policy.routes.resources().filter(|one| one.id != after.id);
    if let Some(script) = after.handler.script()
        && let Some(other) = others().find(|other| other.handler == after.handler)
    {
        return Err(forbidden(format!(
            "Only an administrator can add another resource for the script {script}, which the \
             resource {} guards.",
            other.id
        )));
    }
    let Some(proxy) = &after.proxy else { return Ok(()) };
    if proxy.keep_credential {
        return Err(forbidden(
            "Only an administrator can set keep_credential: the upstream gets the credentials of \
             all clients.",
        ));
    }
    for target in proxy.upstreams.iter().filter_map(|url| Target::parse(url).ok()) {
        let shown = &target.authority;
        if let Some(special) = target.special() {
            return Err(forbidden(format!(
                "Only an administrator can forward to {shown}, which is {}.",
                special.name()
            )));
        }
        if target.address().is_some_and(|ip| accounts.is_own_listener((ip, target.port).into())) {
            return Err(forbidden(format!(
                "Only an administrator can forward to {shown}, which is a listener of Keyward."
            )));
        }
        let is_same = |url: &String| {
            Target::parse(url).is_ok_and(|used| {
                used.port == target.port
                    && (used.host_name() == target.host_name()
                        || used.address().is_some() && used.address() == target.address())
            })
        };
        let mut guards = others().filter(|other| {
            other.proxy.as_ref().is_some_and(|proxy| proxy.upstreams.iter().any(is_same))
        });
        if let Some(other) = guards.next() {
            return Err(forbidden(format!(
                "Only an administrator can add another resource for {shown}, to which the resource \
                 {} forwards.",
                other.id
            )));
        }
    }
    Ok(())
}

/// Whether a request can match both patterns. A parameter matches every segment, and `{*rest}`
/// matches every rest, also none.
fn overlap(one: &str, other: &str) -> bool {
    let segments = |path: &str| -> Vec<String> {
        path.trim_matches('/').split('/').filter(|s| !s.is_empty()).map(str::to_owned).collect()
    };
    let (one, other) = (segments(one), segments(other));
    let (mut one, mut other) = (one.iter().peekable(), other.iter().peekable());
    loop {
        let is_rest = |segment: Option<&&String>| segment.is_some_and(|s| s.starts_with("{*"));
        if is_rest(one.peek()) || is_rest(other.peek()) {
            return true;
        }
        match (one.next(), other.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) if a == b || a.contains('{') || b.contains('{') => {}
            _ => return false,
        }
    }
}

/// Whether a request can match both hosts. `None` means any host.
fn hosts_overlap(one: Option<&str>, other: Option<&str>) -> bool {
    let (Some(one), Some(other)) = (one, other) else { return true };
    let name = |host: &str| host.to_ascii_lowercase().trim_end_matches('.').to_owned();
    // A pattern with a wildcard is taken for one that matches.
    one.contains('*') || other.contains('*') || name(one) == name(other)
}

impl Accounts {
    /// Sets the addresses of the server's listeners, which only administrators may use as
    /// upstreams. The first call counts.
    pub fn set_own_listeners(&self, listeners: Vec<SocketAddr>) {
        let _ = self.0.own_listeners.set(listeners);
    }

    /// Whether this address leads to a listener of the server.
    pub fn is_own_listener(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        self.0.own_listeners.get().into_iter().flatten().any(|listener| {
            let own = listener.ip().to_canonical();
            listener.port() == address.port()
                && (own == ip || own.is_unspecified() && is_of_this_machine(ip))
        })
    }
}

/// Whether the machine has this address: only then can a socket be bound to it.
fn is_of_this_machine(ip: IpAddr) -> bool {
    ip.is_loopback() || ip.is_unspecified() || UdpSocket::bind((ip, 0)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_overlap_if_a_request_can_match_both() {
        for (one, other) in [
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a/{id}", "/a/b"),
            ("/a/{*rest}", "/a"),
            ("/a/{*rest}", "/a/b/c"),
            ("/{*rest}", "/"),
            ("/{x}/b", "/a/{y}"),
            ("/a{x}", "/ab"),
        ] {
            assert!(overlap(one, other) && overlap(other, one), "{one} {other}");
        }
        for (one, other) in [("/a", "/b"), ("/a/{id}", "/a"), ("/a/b", "/a/b/c"), ("/a", "/A")] {
            assert!(!overlap(one, other) && !overlap(other, one), "{one} {other}");
        }
        assert!(hosts_overlap(None, Some("a")) && hosts_overlap(Some("A."), Some("a")));
        assert!(!hosts_overlap(Some("a"), Some("b")));
    }
}
