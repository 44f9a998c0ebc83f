//! Who acts, as the audit trail names them.

use std::net::IpAddr;

use crate::{model::Actor, pipeline::Identity};

/// Whoever stands behind a request from `client`.
pub fn actor(identity: &Identity<'_>, client: IpAddr) -> Actor {
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
