//! The third room: whose the credential is. It reads the Directory and nothing else.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Credential, Denial, Gate, Phase, Request, RequestContext,
    decode::{Claim, DecodedProof, Scripted, Shown},
    failures,
    scripts::script_views,
};
use crate::{
    directory::{CachedKey, CachedUser, CompiledApplication, SlowKeys},
    limits::Attempt,
    model::{Detail, KeyId, KeyShape, KeyText, Secret},
    scripting::{Found, Function},
};

/// Somebody whose credential has still to be checked, or the fact that the request is anonymous.
#[derive(Debug)]
pub struct Candidate<'a> {
    suspect: Option<Unverified<'a>>,
}

/// What the next room checks. Where an application tells no details, the user may be missing or blocked and is checked all the same, so
/// that the answer takes as long.
#[derive(Debug)]
pub(super) struct Unverified<'a> {
    pub application: &'a CompiledApplication,
    pub member: Option<Arc<CachedUser>>,
    pub evidence: Proof<'a>,
}

#[derive(Debug)]
pub(super) enum Proof<'a> {
    Key {
        text: Shown,
        held: KeyMatch,
    },
    Password(Secret, Attempt),
    /// What the script says, and the key that the built-in room would check.
    Scripted(Scripted<'a>, KeyMatch),
}

/// The key that a text may be.
#[derive(Debug)]
pub(super) enum KeyMatch {
    /// By its id, or by what the text leads to.
    Held(Option<(KeyId, CachedKey)>),
    /// One of its user's, as far as the text says. They are slow to check, and may be none.
    Slow(SlowKeys),
}

impl<'a> Candidate<'a> {
    pub(super) fn suspect(&self) -> Option<&Unverified<'a>> {
        self.suspect.as_ref()
    }

    pub(super) fn into_suspect(self) -> Option<Unverified<'a>> {
        self.suspect
    }
}

/// Finds the user and the key.
///
/// # Errors
/// There were too many wrong passwords; no such user, or a blocked one, where the application tells exactly and the credential names its user; or the application's script refuses.
pub async fn find<'a>(
    gate: &Gate,
    scene: &'a RequestContext,
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
        DecodedProof::NamedKey { pair, id } => {
            let member = told(application, directory.user_by_name(pair.user()))?;
            let held = match (id, key(id, pair.secret())) {
                (None, held) => slow_or(held, gate, application, member.as_deref()),
                (_, held) => KeyMatch::Held(held),
            };
            (member, Proof::Key { held, text: pair.into_secret() })
        }
        DecodedProof::Password { pair } => {
            let attempt = failures::attempt(scene, request, pair.user())?;
            let member = told(application, directory.user_by_name(pair.user()));
            let member = member.inspect_err(|_| failures::failed(scene, attempt, None))?;
            (member, Proof::Password(Secret::new(pair.secret()), attempt))
        }
        // A key alone names nobody until it has matched: nothing about its user is told before.
        DecodedProof::Key { text, id } => {
            let held = key(id, text.expose());
            let member = held.as_ref().and_then(|(_, key)| directory.user(key.user));
            (member, Proof::Key { held: KeyMatch::Held(held), text })
        }
        DecodedProof::Scripted(scripted) => {
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
                false => KeyMatch::Held(held),
            };
            (member, Proof::Scripted(scripted, held))
        }
    };
    Ok(Candidate { suspect: Some(Unverified { application, member, evidence }) })
}

/// The key that a text leads to, or else what may be the user's that is slow to check: two users may have brought the same text.
fn slow_or(
    held: Option<(KeyId, CachedKey)>,
    gate: &Gate,
    application: &CompiledApplication,
    member: Option<&CachedUser>,
) -> KeyMatch {
    let is_theirs = |(_, key): &(KeyId, CachedKey)| member.is_some_and(|one| one.uid == key.user);
    if held.as_ref().is_some_and(|held| is_theirs(held) || held.1.is_universal()) {
        return KeyMatch::Held(held);
    }
    match slow_keys(gate, application, member) {
        KeyMatch::Held(None) => KeyMatch::Held(held),
        slow => slow,
    }
}

/// The keys of a user that are slow to check. Where no details are told, somebody who has none, or is not there, is checked for as long.
fn slow_keys(
    gate: &Gate,
    application: &CompiledApplication,
    member: Option<&CachedUser>,
) -> KeyMatch {
    match gate.0.directory.slow_keys(member.map(|member| member.uid)) {
        Some(slow) if !slow.ids.is_empty() || application.record.detail == Detail::Uniform => {
            KeyMatch::Slow(slow)
        }
        _ => KeyMatch::Held(None),
    }
}

/// The key that a script has found.
fn key_of(gate: &Gate, scripted: &Scripted<'_>) -> Option<(KeyId, CachedKey)> {
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
    scene: &RequestContext,
    request: &Request<'_>,
    application: &CompiledApplication,
    Scripted { script, claim }: &Scripted<'_>,
    held: Option<&(KeyId, CachedKey)>,
) -> Result<Option<Arc<CachedUser>>, Denial> {
    let directory = &gate.0.directory;
    let member = if script.defines(Function::Lookup) {
        let found = script.lookup(scene.asked(request), claim).await;
        match found
            .map_err(|fault| script_views::denied(Phase::Lookup, Some(application), fault))?
        {
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
    application: &CompiledApplication,
    member: Option<Arc<CachedUser>>,
) -> Result<Option<Arc<CachedUser>>, Denial> {
    if application.record.detail == Detail::Uniform {
        return Ok(member);
    }
    match member {
        None => Err(Denial::new(
            Phase::Lookup,
            StatusCode::NOT_FOUND,
            "USER_DOES_NOT_EXIST",
            "The user does not exist.",
        )),
        Some(member) if !member.is_active => Err(blocked(Phase::Lookup).about(member.uid, None)),
        Some(member) => Ok(Some(member)),
    }
}

/// The refusal of a user who is known and blocked.
pub(super) fn blocked(room: Phase) -> Denial {
    Denial::new(room, StatusCode::FORBIDDEN, "USER_BLOCKED", "The user is blocked or inactive.")
}
