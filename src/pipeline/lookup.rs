//! Phase 3, lookup: finds the credential's user and key. This phase reads only the directory, which
//! is in memory.

use std::sync::Arc;

use http::StatusCode;

use super::{
    Credential, Denial, Gate, Phase, Request, RequestContext,
    credentials::hints,
    decode::{CredentialContent, DecodedCredential, PresentedSecret, ScriptedCredential},
    failures,
    scripts::script_views,
};
use crate::{
    directory::{CachedKey, CachedUser, CompiledApplication, SlowKeys},
    limits::{PasswordAttempt, Standing},
    model::{Detail, KeyId, KeyShape, KeyText, Secret},
    scripting::{Function, LookupResult},
};

/// The result of this phase, and the input of the verify phase: a user whose credential has not
/// been checked, or an anonymous request.
#[derive(Debug)]
pub struct Candidate<'a> {
    unverified: Option<UnverifiedCredential<'a>>,
}

/// The credential that the verify phase must check, with the user and the key that were found.
///
/// If the application gives no details ([`Detail::Uniform`]), the user may be missing or blocked.
/// The verify phase checks the credential even for such a user, so that the time of the response
/// does not tell whether the user exists.
#[derive(Debug)]
pub(super) struct UnverifiedCredential<'a> {
    pub application: &'a CompiledApplication,
    pub user: Option<Arc<CachedUser>>,
    pub proof: Proof<'a>,
}

/// The secret that proves the identity, with the record that the secret must match.
#[derive(Debug)]
pub(super) enum Proof<'a> {
    Key {
        text: PresentedSecret,
        key: KeyMatch,
    },
    Password {
        password: Secret,
        /// The name that the client presented. It need not be a user's.
        user_name: Box<str>,
        attempt: PasswordAttempt,
    },
    /// A scripted credential, and the key for the built-in check.
    Scripted(ScriptedCredential<'a>, KeyMatch),
}

/// The keys that the presented text may belong to.
#[derive(Debug)]
pub(super) enum KeyMatch {
    /// The key that was found by its id, or by the digest of its text; `None` means that there is
    /// no such key.
    Indexed(Option<(KeyId, CachedKey)>),
    /// The user's keys with slow digests. The verify phase must try each of these keys. The list
    /// may be empty.
    Slow {
        keys: SlowKeys,
        /// The name that the client presented. It need not be a user's.
        user_name: Box<str>,
    },
}

impl<'a> Candidate<'a> {
    pub(super) fn unverified(&self) -> Option<&UnverifiedCredential<'a>> {
        self.unverified.as_ref()
    }

    pub(super) fn into_unverified(self) -> Option<UnverifiedCredential<'a>> {
        self.unverified
    }
}

/// Finds the user and the key.
///
/// # Errors
/// The client's address has presented too many wrong passwords; the application gives exact details
/// and the named user does not exist or is blocked; or the application's script refuses the
/// credential.
pub async fn find<'a>(
    gate: &Gate,
    context: &'a RequestContext,
    request: &Request<'a>,
    credential: Credential<'a>,
) -> Result<Candidate<'a>, Denial> {
    let Some(DecodedCredential { application, content }) = credential.into_decoded() else {
        return Ok(Candidate { unverified: None });
    };
    let directory = &gate.0.directory;
    // A key of another system contains no id, so the directory finds the key by its text.
    let find_key = |id: Option<KeyId>, text: &str| match id {
        Some(id) => Some((id, directory.key(id)?)),
        None => directory.foreign_key(&gate.0.pepper, text),
    };
    let (user, proof) = match content {
        CredentialContent::NamedKey { pair, id } => {
            let user = user_or_denial(application, directory.user_by_name(pair.user()))?;
            let indexed = find_key(id, pair.secret());
            let key = match id {
                Some(_) => KeyMatch::Indexed(indexed),
                None => or_slow_keys(indexed, gate, application, user.as_deref(), pair.user()),
            };
            (user, Proof::Key { key, text: pair.into_secret() })
        }
        CredentialContent::Password { pair } => {
            let attempt = failures::attempt(context, request, pair.user())?;
            let user = user_or_denial(application, directory.user_by_name(pair.user()));
            let user = user.inspect_err(|_| failures::unknown_user(context, attempt))?;
            let (password, user_name) = (Secret::new(pair.secret()), pair.user().into());
            (user, Proof::Password { password, user_name, attempt })
        }
        // A key alone names no user. Until the key has matched, the client must learn nothing about
        // the key's user.
        CredentialContent::Key { text, id } => {
            let key = find_key(id, text.expose());
            let user = key.as_ref().and_then(|(_, key)| directory.user(key.user));
            (user, Proof::Key { key: KeyMatch::Indexed(key), text })
        }
        CredentialContent::Scripted(scripted) => {
            let indexed = scripted_key(gate, application, &scripted)?;
            let user =
                scripted_user(gate, context, request, application, &scripted, indexed.as_ref());
            let mut user = Box::pin(user).await?;
            // As above: a key alone names no user, and the client must learn nothing about the
            // user.
            if names_user(&scripted) {
                user = user_or_denial(application, user)?;
            }
            let is_foreign = |text: Secret| KeyText::shape(text.expose()) == KeyShape::Foreign;
            let key = if scripted.key().is_some_and(is_foreign) {
                let name = scripted.claim.text("user").unwrap_or_default();
                or_slow_keys(indexed, gate, application, user.as_deref(), &name)
            } else {
                KeyMatch::Indexed(indexed)
            };
            (user, Proof::Scripted(scripted, key))
        }
    };
    Ok(Candidate { unverified: Some(UnverifiedCredential { application, user, proof }) })
}

/// Returns the indexed key if the user may use this key, and otherwise the user's keys with slow
/// digests. `user_name` is the name that the client presented. The indexed key may be another
/// user's, because two users may have imported keys with the same text.
fn or_slow_keys(
    indexed: Option<(KeyId, CachedKey)>,
    gate: &Gate,
    application: &CompiledApplication,
    user: Option<&CachedUser>,
    user_name: &str,
) -> KeyMatch {
    let is_usable = |(_, key): &(KeyId, CachedKey)| {
        key.is_universal() || user.is_some_and(|user| user.uid == key.user)
    };
    if indexed.as_ref().is_some_and(is_usable) {
        return KeyMatch::Indexed(indexed);
    }
    match gate.0.directory.slow_keys(user.map(|user| user.uid)) {
        // An application that gives no details checks decoy digests even for a user without slow
        // keys, so that the response takes the same time for every user.
        Some(keys) if !keys.ids.is_empty() || application.record.detail == Detail::Uniform => {
            KeyMatch::Slow { keys, user_name: user_name.into() }
        }
        _ => KeyMatch::Indexed(indexed),
    }
}

/// The key in a scripted credential.
///
/// # Errors
/// The key has a wrong checksum, and the script has no check of its own, which decides what its
/// `key` means.
fn scripted_key(
    gate: &Gate,
    application: &CompiledApplication,
    scripted: &ScriptedCredential<'_>,
) -> Result<Option<(KeyId, CachedKey)>, Denial> {
    let directory = &gate.0.directory;
    let Some(text) = scripted.key() else { return Ok(None) };
    Ok(match KeyText::shape(text.expose()) {
        KeyShape::Ours(id) => directory.key(id).map(|key| (id, key)),
        KeyShape::Foreign => directory.foreign_key(&gate.0.pepper, text.expose()),
        KeyShape::Damaged if scripted.script.defines(Function::Verify) => None,
        KeyShape::Damaged => return Err(Denial::damaged_key(application)),
    })
}

/// Whether a scripted credential names a user, and not only a key.
fn names_user(ScriptedCredential { script, claim }: &ScriptedCredential<'_>) -> bool {
    let is_key_alone = claim.text("user").is_none() && claim.uid().is_none();
    script.defines(Function::Lookup) || !is_key_alone
}

/// Finds the user of a scripted credential with the script's `lookup`. If the script does not
/// define `lookup`, the fields that the script's `decode` returned name the user.
async fn scripted_user(
    gate: &Gate,
    context: &RequestContext,
    request: &Request<'_>,
    application: &CompiledApplication,
    ScriptedCredential { script, claim }: &ScriptedCredential<'_>,
    key: Option<&(KeyId, CachedKey)>,
) -> Result<Option<Arc<CachedUser>>, Denial> {
    let directory = &gate.0.directory;
    let user = if script.defines(Function::Lookup) {
        context.wait_for_body(script, Function::Lookup, Standing::Unknown).await?;
        let found = script.lookup(context.script_request(request), claim).await;
        match found
            .map_err(|fault| script_views::denial_of(Phase::Lookup, Some(application), fault))?
        {
            LookupResult::User(uid) => directory.user(uid),
            LookupResult::NoUser => None,
        }
    } else if let Some(name) = claim.text("user") {
        directory.user_by_name(&name)
    } else {
        claim.uid().or(key.map(|(_, key)| key.user)).and_then(|uid| directory.user(uid))
    };
    // The operator has no record in the store. No script may authenticate a client as the operator.
    Ok(user.filter(|user| !user.is_operator()))
}

/// The user that a credential names. If the application gives exact details, a missing or blocked
/// user is a denial.
fn user_or_denial(
    application: &CompiledApplication,
    user: Option<Arc<CachedUser>>,
) -> Result<Option<Arc<CachedUser>>, Denial> {
    if application.record.detail == Detail::Uniform {
        return Ok(user);
    }
    match user {
        None => Err(Denial::new(
            Phase::Lookup,
            StatusCode::NOT_FOUND,
            "USER_DOES_NOT_EXIST",
            "The user does not exist.",
        )
        .with_hint_of(application, || Some(hints::UNKNOWN_USER))),
        Some(user) if !user.is_active => Err(blocked(Phase::Lookup).about(user.uid, None)),
        Some(user) => Ok(Some(user)),
    }
}

/// The denial of a blocked user.
pub(super) fn blocked(phase: Phase) -> Denial {
    Denial::new(phase, StatusCode::FORBIDDEN, "USER_BLOCKED", "The user is blocked or inactive.")
}
