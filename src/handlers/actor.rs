//! Determines the actor of a request for the audit trail, and returns the [`Writer`] that changes
//! accounts for this actor.

use std::net::IpAddr;

use crate::{
    accounts::{Accounts, Writer},
    model::Actor,
    pipeline::Identity,
};

/// Returns the writer for the caller's changes of accounts. The writer has an administrator's
/// rights only if the caller is an administrator.
pub fn writer(accounts: &Accounts, identity: &Identity<'_>, client: IpAddr) -> Writer {
    let actor = actor(identity, client);
    let is_admin = identity.is_admin();
    let writer = if is_admin { accounts.as_admin(actor) } else { accounts.as_actor(actor) };
    // A script can restrict a credential that is no key.
    writer.with_scopes(identity.scopes())
}

fn actor(identity: &Identity<'_>, client: IpAddr) -> Actor {
    let client = client.to_canonical();
    let (Some(uid), Some(application)) = (identity.uid(), identity.application()) else {
        return Actor::Anonymous { client };
    };
    if application.record.is_operator() {
        return Actor::Operator { client };
    }
    Actor::User {
        uid,
        name: identity.name().unwrap_or_default().to_owned(),
        key: identity.key(),
        application: application.record.id.clone(),
        client,
    }
}
