//! The third room: whose the credential is. It reads the Directory and nothing else.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Credential, Denial, Gate, Room,
    decode::{Claim, Pair, Proof},
};
use crate::{
    model::{Detail, KeyId, Secret},
    store::{HeldApplication, HeldKey, Member},
};

/// Somebody whose credential has still to be checked, or the fact that the request is anonymous.
#[derive(Debug)]
pub struct Candidate<'a> {
    suspect: Option<Suspect<'a>>,
}

/// What the next room checks. Where an application tells no details, the user may be missing or blocked and is checked all the same, so
/// that the answer takes as long.
#[derive(Debug)]
pub(super) struct Suspect<'a> {
    pub application: &'a HeldApplication,
    pub member: Option<Arc<Member>>,
    pub evidence: Evidence,
}

#[derive(Debug)]
pub(super) enum Evidence {
    Key { text: Secret, held: Option<(KeyId, HeldKey)> },
    Password(Secret),
}

impl<'a> Candidate<'a> {
    pub(super) fn into_suspect(self) -> Option<Suspect<'a>> {
        self.suspect
    }
}

/// Finds the user and the key.
///
/// # Errors
/// No such user, or a blocked one, where the application tells exactly and the credential names its user.
pub fn find<'a>(gate: &Gate, credential: Credential<'a>) -> Result<Candidate<'a>, Denial> {
    let Some(Claim { application, proof }) = credential.into_claim() else {
        return Ok(Candidate { suspect: None });
    };
    let directory = &gate.0.directory;
    let held = |id: Option<KeyId>| id.and_then(|id| Some((id, directory.key(id)?)));
    let (member, evidence) = match proof {
        Proof::NamedKey { pair, id } => {
            let member = named(gate, application, &pair)?;
            (member, Evidence::Key { held: held(id), text: Secret::new(pair.secret()) })
        }
        Proof::Password { pair } => {
            let member = named(gate, application, &pair)?;
            (member, Evidence::Password(Secret::new(pair.secret())))
        }
        // A key alone names nobody until it has matched: nothing about its user is told before.
        Proof::Key { text, id } => {
            let held = held(id);
            let member = held.as_ref().and_then(|(_, key)| directory.user(key.user));
            (member, Evidence::Key { held, text })
        }
    };
    Ok(Candidate { suspect: Some(Suspect { application, member, evidence }) })
}

/// The user whom a credential names.
fn named(
    gate: &Gate,
    application: &HeldApplication,
    pair: &Pair,
) -> Result<Option<Arc<Member>>, Denial> {
    let member = gate.0.directory.user_by_name(pair.user());
    if application.record.detail == Detail::Uniform {
        return Ok(member);
    }
    match member {
        None => Err(Denial::new(
            Room::Lookup,
            StatusCode::NOT_FOUND,
            "USER_DOES_NOT_EXIST",
            "The user does not exist.",
        )),
        Some(member) if !member.is_active => Err(blocked(Room::Lookup)),
        Some(member) => Ok(Some(member)),
    }
}

/// The refusal of a user who is known and blocked.
pub(super) fn blocked(room: Room) -> Denial {
    Denial::new(room, StatusCode::FORBIDDEN, "USER_BLOCKED", "The user is blocked or inactive.")
}
