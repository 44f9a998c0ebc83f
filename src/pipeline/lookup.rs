//! The third room: whose the credential is. It reads the Directory and nothing else.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Credential, Denial, Gate, Request, Room, Scene,
    decode::{Claim, Proof, Scripted, Shown},
    failures,
    scripts::script_views,
};
use crate::{
    directory::{HeldApplication, HeldKey, Member, SlowKeys},
    limits::Attempt,
    model::{Detail, KeyId, KeyShape, KeyText, Secret},
    scripting::{Found, Function},
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
    pub evidence: Evidence<'a>,
}

#[derive(Debug)]
pub(super) enum Evidence<'a> {
    Key {
        text: Shown,
        held: Holding,
    },
    Password(Secret, Attempt),
    /// What the script says, and the key that the built-in room would check.
    Scripted(Scripted<'a>, Holding),
}

/// The key that a text may be.
#[derive(Debug)]
pub(super) enum Holding {
    /// By its id, or by what the text leads to.
    Held(Option<(KeyId, HeldKey)>),
    /// One of its user's, as far as the text says. They are slow to check, and may be none.
    Slow(SlowKeys),
}

impl<'a> Candidate<'a> {
    pub(super) fn suspect(&self) -> Option<&Suspect<'a>> {
        self.suspect.as_ref()
    }

    pub(super) fn into_suspect(self) -> Option<Suspect<'a>> {
        self.suspect
    }
}

/// Finds the user and the key.
///
/// # Errors
/// There were too many wrong passwords; no such user, or a blocked one, where the application tells exactly and the credential names its user; or the application's script refuses.
pub async fn find<'a>(
    gate: &Gate,
    scene: &'a Scene,
    request: &Request<'a>,
    credential: Credential<'a>,
) -> Result<Candidate<'a>, Denial> {
    let Some(Claim { application, proof }) = credential.into_claim() else {
        return Ok(Candidate { suspect: None });
    };
    let directory = &gate.0.directory;
    let held = |id: Option<KeyId>| id.and_then(|id| Some((id, directory.key(id)?)));
    // A key of another system names no id: its text alone finds it.
    let key = |id: Option<KeyId>, text: &str| match id {
        Some(_) => held(id),
        None => directory.foreign_key(&gate.0.pepper, text),
    };
    let (member, evidence) = match proof {
        Proof::NamedKey { pair, id } => {
            let member = told(application, directory.user_by_name(pair.user()))?;
            let held = match (id, key(id, pair.secret())) {
                (None, held) => slow_or(held, gate, application, member.as_deref()),
                (_, held) => Holding::Held(held),
            };
            (member, Evidence::Key { held, text: pair.into_secret() })
        }
        Proof::Password { pair } => {
            let attempt = failures::attempt(scene, request, pair.user())?;
            let member = told(application, directory.user_by_name(pair.user()));
            let member = member.inspect_err(|_| failures::failed(scene, attempt, None))?;
            (member, Evidence::Password(Secret::new(pair.secret()), attempt))
        }
        // A key alone names nobody until it has matched: nothing about its user is told before.
        Proof::Key { text, id } => {
            let held = key(id, text.expose());
            let member = held.as_ref().and_then(|(_, key)| directory.user(key.user));
            (member, Evidence::Key { held: Holding::Held(held), text })
        }
        Proof::Scripted(scripted) => {
            let held = key_of(gate, &scripted);
            let member = meant(gate, scene, request, application, &scripted, held.as_ref());
            let member = Box::pin(member).await?;
            let member = match names_its_user(&scripted) {
                // A script that names nobody has found nobody.
                true => told(application, member)?,
                // A key alone, as above.
                false => member,
            };
            let is_foreign = |text: Secret| KeyText::shape(text.expose()) == KeyShape::Foreign;
            let held = match scripted.key().is_some_and(is_foreign) {
                true => slow_or(held, gate, application, member.as_deref()),
                false => Holding::Held(held),
            };
            (member, Evidence::Scripted(scripted, held))
        }
    };
    Ok(Candidate { suspect: Some(Suspect { application, member, evidence }) })
}

/// The key that a text leads to, or else what may be the user's that is slow to check: two users may have brought the same text.
fn slow_or(
    held: Option<(KeyId, HeldKey)>,
    gate: &Gate,
    application: &HeldApplication,
    member: Option<&Member>,
) -> Holding {
    let is_theirs = |(_, key): &(KeyId, HeldKey)| member.is_some_and(|one| one.uid == key.user);
    if held.as_ref().is_some_and(|held| is_theirs(held) || held.1.is_universal()) {
        return Holding::Held(held);
    }
    match slow_keys(gate, application, member) {
        Holding::Held(None) => Holding::Held(held),
        slow => slow,
    }
}

/// The keys of a user that are slow to check. Where no details are told, somebody who has none, or is not there, is checked for as long.
fn slow_keys(gate: &Gate, application: &HeldApplication, member: Option<&Member>) -> Holding {
    match gate.0.directory.slow_keys(member.map(|member| member.uid)) {
        Some(slow) if !slow.ids.is_empty() || application.record.detail == Detail::Uniform => {
            Holding::Slow(slow)
        }
        _ => Holding::Held(None),
    }
}

/// The key that a script has found.
fn key_of(gate: &Gate, scripted: &Scripted<'_>) -> Option<(KeyId, HeldKey)> {
    let (text, directory) = (scripted.key()?, &gate.0.directory);
    match KeyText::shape(text.expose()) {
        KeyShape::Ours(id) => Some((id, directory.key(id)?)),
        KeyShape::Foreign => directory.foreign_key(&gate.0.pepper, text.expose()),
        KeyShape::Damaged => None,
    }
}

/// Whether a user is named beside the key.
fn names_its_user(Scripted { script, claim }: &Scripted<'_>) -> bool {
    let is_key_alone = claim.text("user").is_none() && claim.uid().is_none();
    script.defines(Function::Lookup) || !is_key_alone
}

/// The user whom a script means: by its function, or by the fields of what it has read.
async fn meant(
    gate: &Gate,
    scene: &Scene,
    request: &Request<'_>,
    application: &HeldApplication,
    Scripted { script, claim }: &Scripted<'_>,
    held: Option<&(KeyId, HeldKey)>,
) -> Result<Option<Arc<Member>>, Denial> {
    let directory = &gate.0.directory;
    let member = if script.defines(Function::Lookup) {
        let found = script.lookup(scene.asked(request), claim).await;
        match found.map_err(|fault| script_views::denied(Room::Lookup, Some(application), fault))? {
            Found::User(uid) => directory.user(uid),
            Found::Nobody => None,
        }
    } else if let Some(name) = claim.text("user") {
        directory.user_by_name(&name)
    } else {
        claim.uid().or(held.map(|(_, key)| key.user)).and_then(|uid| directory.user(uid))
    };
    // The person at the machine is in no store, and no script's to let in.
    Ok(member.filter(|member| !member.is_operator()))
}

/// The user whom a credential names, or what the client is told.
fn told(
    application: &HeldApplication,
    member: Option<Arc<Member>>,
) -> Result<Option<Arc<Member>>, Denial> {
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
        Some(member) if !member.is_active => Err(blocked(Room::Lookup).about(member.uid, None)),
        Some(member) => Ok(Some(member)),
    }
}

/// The refusal of a user who is known and blocked.
pub(super) fn blocked(room: Room) -> Denial {
    Denial::new(room, StatusCode::FORBIDDEN, "USER_BLOCKED", "The user is blocked or inactive.")
}
