//! Phase 4, verify: checks that the credential belongs to the user.
//!
//! The secret is checked first. Until the secret has matched, the response does not tell whether
//! the key is expired, revoked or restricted.

mod identity;

use std::sync::Arc;

use http::StatusCode;

pub use identity::Identity;
pub(super) use identity::KeptIdentity;

use super::{
    Action, Candidate, Denial, Gate, Phase, Request, RequestContext,
    credentials::hints,
    decode::{PresentedSecret, ScriptedCredential},
    denial::INVALID_KEY,
    failures::{self, PasswordOutcome},
    lookup::{KeyMatch, Proof, UnverifiedCredential, blocked},
    scripts::script_views,
    slow_digests,
};
use crate::{
    accounts::{AdoptedBounds, CheckTurn},
    directory::{CachedKey, CachedUser, CompiledApplication},
    limits::{PasswordAttempt, Standing},
    model::{Detail, Digest, KeyId, KeyShape, KeySource, KeyText, Mode, Scheme, Secret},
    scripting::{CredentialTerms, Function, VerifyResult},
};
use identity::VerifiedUser;

/// This digest stands in for the digest of the key if there is no key. Nobody can find a text whose
/// BLAKE3 digest has this value.
const NO_KEY: Digest = Digest::from_bytes([0; 32]);

/// Checks the credential.
///
/// # Errors
/// The credential is wrong, expired or revoked; the key is restricted to another application or
/// network; too many passwords are being checked at the same time; or a script refuses the request.
pub async fn check<'a>(
    gate: &Gate,
    context: &'a RequestContext,
    request: &Request<'a>,
    action: &Action<'a>,
    candidate: Candidate<'a>,
) -> Result<Identity<'a>, Denial> {
    let role_table = &context.policy.roles;
    let Some(UnverifiedCredential { application, user, proof }) = candidate.into_unverified()
    else {
        return Ok(Identity::anonymous(role_table));
    };
    let check = CredentialCheck { gate, context, request, application };
    let verified = match proof {
        Proof::Key { text, key } => check.key(&text, user, key).await?,
        Proof::Password { password, user_name, attempt } => {
            let password_check = check.password(user, password, &user_name, attempt);
            VerifiedUser::unrestricted(Box::pin(password_check).await?)
        }
        Proof::Scripted(scripted, key) => Box::pin(check.scripted(scripted, user, key)).await?,
    };
    let identity = Identity::authenticated(verified, application, role_table);
    context.authenticated();
    if let Some(hooks) = context.hooks(Function::OnAuthenticated, request, action.rule()) {
        let view = script_views::identity(&identity);
        Box::pin(hooks.on_authenticated(&view)).await?;
    }
    Ok(identity)
}

/// The values that all checks of a credential need.
struct CredentialCheck<'a, 'r> {
    gate: &'a Gate,
    context: &'a RequestContext,
    request: &'a Request<'r>,
    application: &'a CompiledApplication,
}

impl CredentialCheck<'_, '_> {
    /// Whether an earlier request has made this credential a key of this application (see
    /// [`CredentialTerms::adopt`]). An adopted credential is checked like any other key.
    fn was_adopted(&self, text: &PresentedSecret, key: &KeyMatch) -> bool {
        let KeyMatch::Indexed(Some((_, key))) = key else { return false };
        KeyText::shape(text.expose()) == KeyShape::Foreign
            && key.application() == Some(&self.application.record.id)
            && matches_key(self.gate, text.expose(), key)
    }

    /// Checks a key.
    async fn key(
        &self,
        text: &PresentedSecret,
        user: Option<Arc<CachedUser>>,
        key: KeyMatch,
    ) -> Result<VerifiedUser, Denial> {
        let (gate, context, application) = (self.gate, self.context, self.application);
        let (key, is_right) = match key {
            KeyMatch::Indexed(key) => {
                let is_right = matches_key_or_none(gate, text.expose(), key.as_ref());
                (key, is_right)
            }
            KeyMatch::Slow { keys, user_name } => {
                let find = slow_digests::find(gate, context, self.request, text, &user_name, keys);
                let key = Box::pin(find).await?;
                let is_right = key.is_some();
                (key, is_right)
            }
        };
        let (user, id, key) = matching_key(application, user, key, is_right).map_err(|denial| {
            denial.with_hint_of(application, || hints::wrong_key(application, text.expose()))
        })?;
        let usable = check_usable(gate, application, self.request, &user, &key);
        usable.map_err(|denial| denial.about(user.uid, Some(id)))?;
        if key.is_universal() {
            let may_act = self.may_act_as(&user, &key);
            may_act.map_err(|denial| denial.about(user.uid, Some(id)))?;
        }
        if key.scheme == Scheme::Slow && context.mode == Mode::Live {
            gate.rehash_key(id, text.to_secret());
        }
        Ok(VerifiedUser {
            user,
            key: Some(id),
            scopes: key.scopes().cloned(),
            bounds: key.bounds().cloned(),
            is_universal: key.is_universal(),
            is_restricted: key.is_restricted() || key.expiry().is_some(),
            is_bound_to_networks: !key.networks().is_empty(),
        })
    }

    /// The key in the store that the user has presented. `None` means that there is none.
    fn key_in_use<'k>(user: &CachedUser, key: &'k KeyMatch) -> Option<&'k CachedKey> {
        let KeyMatch::Indexed(Some((_, key))) = key else { return None };
        (key.user == user.uid).then_some(key)
    }

    /// Checks that a universal key may act as this user: the key's owner must be active, and acting
    /// as an administrator must be enabled in the application.
    fn may_act_as(&self, user: &CachedUser, key: &CachedKey) -> Result<(), Denial> {
        let reject = |message: &'static str| Err(Denial::wrong_key(self.application, message));
        let owner = self.gate.0.directory.user(key.user);
        if owner.is_none_or(|owner| !owner.is_active) {
            return reject("the owner of this universal key is blocked");
        }
        let is_admin = user.roles(&self.context.policy.roles).is_admin;
        if is_admin && !self.application.record.universal_administrators {
            return reject("universal keys of this application must not act as an administrator");
        }
        Ok(())
    }

    /// Checks a credential with the script's `verify`, or with the built-in check if the script
    /// does not define `verify`.
    async fn scripted(
        &self,
        credential: ScriptedCredential<'_>,
        user: Option<Arc<CachedUser>>,
        key: KeyMatch,
    ) -> Result<VerifiedUser, Denial> {
        let (application, context) = (self.application, self.context);
        let text = PresentedSecret::from(credential.key().unwrap_or_else(|| Secret::new("")));
        let ScriptedCredential { script, claim } = credential;
        if !script.defines(Function::Verify) || self.was_adopted(&text, &key) {
            return self.key(&text, user, key).await;
        }
        let Some(user) = user else {
            return Err(Denial::wrong_key(application, "the script found no user"));
        };
        context.wait_for_body(script, Function::Verify, Standing::Unknown).await?;
        let view = script_views::user(&user, &context.policy.roles);
        let verdict = script.verify(context.script_request(self.request), &view, &claim).await;
        let verdict = verdict
            .map_err(|fault| script_views::denial_of(Phase::Verify, Some(application), fault))?;
        let VerifyResult::Match(CredentialTerms { scopes, adopt }) = verdict else {
            return Err(Denial::wrong_key(
                application,
                "the script's verify rejected the credential",
            ));
        };
        // A blocked user is refused whatever the script returned.
        if !user.is_active {
            return Err(match application.record.detail {
                Detail::Exact => blocked(Phase::Verify),
                Detail::Uniform => Denial::wrong_key(application, "the user is blocked"),
            });
        }
        // An adopted key becomes a per-user key. An application with universal keys does not accept
        // per-user keys, so it adopts none.
        if let Some(text) = adopt
            && application.record.key_source == KeySource::PerUser
            && context.mode == Mode::Live
        {
            let in_use = Self::key_in_use(&user, &key);
            let bounds = AdoptedBounds::of(scopes.as_deref(), in_use);
            self.gate.adopt(user.uid, &application.record.id, text, bounds);
        }
        let is_restricted = scopes.is_some();
        let scopes = scopes.map(Arc::from);
        Ok(VerifiedUser { scopes, is_restricted, ..VerifiedUser::unrestricted(user) })
    }

    /// Checks a password when its turn has come. Until then, the failures of this client may have
    /// used up the limit.
    async fn password(
        &self,
        user: Option<Arc<CachedUser>>,
        password: Secret,
        user_name: &str,
        attempt: PasswordAttempt,
    ) -> Result<Arc<CachedUser>, Denial> {
        let turn = self.gate.0.passwords.turn(self.request.client, user_name).await;
        let turn = turn.map_err(|_| slow_digests::busy())?;
        failures::begin(self.context, attempt)?;
        let uid = user.as_ref().map(|user| user.uid);
        let result = self.password_in_turn(turn, user, password).await;
        let outcome = match &result {
            Err(denial) if denial.status == StatusCode::UNAUTHORIZED => PasswordOutcome::Wrong(uid),
            _ => PasswordOutcome::NotWrong,
        };
        failures::end(self.context, attempt, outcome);
        result
    }

    /// Checks a password. The check takes the same time if the user does not exist.
    async fn password_in_turn(
        &self,
        turn: CheckTurn,
        user: Option<Arc<CachedUser>>,
        password: Secret,
    ) -> Result<Arc<CachedUser>, Denial> {
        let (gate, application) = (self.gate, self.application);
        let is_key = KeyText::shape(password.expose()) != KeyShape::Foreign;
        let digest = user.as_ref().and_then(|user| user.password().cloned());
        // A digest of another system is replaced by a Keyward digest now, because only this request
        // brings the plaintext of the password.
        let foreign_digest = digest.clone().filter(|digest| !digest.is_ours());
        let plaintext = foreign_digest.is_some().then(|| password.clone());
        let example = gate.0.directory.slow_password_example();
        let result = turn.verify(password, digest, example).await;
        let is_right = result.map_err(|_| slow_digests::busy())?;
        let reject = |internal_message: &'static str| {
            let message = "Invalid username or password";
            Denial::unauthorized(Phase::Verify, application, "INVALID_CREDENTIALS", message)
                .with_internal_message(internal_message)
                .with_hint_of(application, || is_key.then_some(hints::KEY_AS_PASSWORD))
        };
        match user {
            Some(user) if is_right && user.is_active => {
                if let (Some(digest), Some(plaintext)) = (foreign_digest, plaintext)
                    && self.context.mode == Mode::Live
                {
                    gate.rehash_password(user.uid, digest, plaintext);
                }
                Ok(user)
            }
            Some(_) if is_right => Err(reject("the user is blocked")),
            Some(_) => Err(reject("the password is wrong, or the user has no password")),
            None => Err(reject("the user does not exist")),
        }
    }
}

/// Whether a text matches the key's digest.
fn matches_key(gate: &Gate, text: &str, key: &CachedKey) -> bool {
    gate.0.pepper.digest_as(key.scheme, text).is_some_and(|digest| digest == key.digest)
}

/// Whether a text matches the key's digest. The comparison takes the same time if there is no key.
fn matches_key_or_none(gate: &Gate, text: &str, key: Option<&(KeyId, CachedKey)>) -> bool {
    match key {
        Some((_, key)) => matches_key(gate, text, key),
        // This comparison takes the same time as the comparison with the digest of a Keyward key.
        None => gate.0.pepper.digest(text) == NO_KEY,
    }
}

/// Whether this user may use the key: the user's own key, or the application's universal key.
fn is_key_of(user: &CachedUser, application: &CompiledApplication, key: &CachedKey) -> bool {
    match (application.record.key_source, key.is_universal()) {
        (KeySource::PerUser, false) => key.user == user.uid,
        (KeySource::Universal, true) => key.application() == Some(&application.record.id),
        _ => false,
    }
}

/// The user and the key, if the secret is right and the user may use the key.
fn matching_key(
    application: &CompiledApplication,
    user: Option<Arc<CachedUser>>,
    key: Option<(KeyId, CachedKey)>,
    is_right: bool,
) -> Result<(Arc<CachedUser>, KeyId, CachedKey), Denial> {
    match (user, key) {
        (Some(user), Some((id, key))) if is_right && is_key_of(&user, application, &key) => {
            Ok((user, id, key))
        }
        (None, _) => Err(Denial::wrong_key(application, "no such user, or no such key")),
        (Some(_), None) => Err(Denial::wrong_key(application, "no such key")),
        (Some(_), Some(_)) => {
            Err(Denial::wrong_key(application, "the key is wrong or another user's"))
        }
    }
}

/// Checks that a key may be used for this request, after the secret has matched: the state of the
/// user and the key, the key's application, its expiry and its networks.
fn check_usable(
    gate: &Gate,
    application: &CompiledApplication,
    request: &Request<'_>,
    user: &CachedUser,
    key: &CachedKey,
) -> Result<(), Denial> {
    let reject = |exact_message: &'static str, internal_message: &'static str| {
        let message = match application.record.detail {
            Detail::Exact => exact_message,
            Detail::Uniform => INVALID_KEY,
        };
        Denial::unauthorized(Phase::Verify, application, "AUTHENTICATION_FAILED", message)
            .with_internal_message(internal_message)
    };
    if !user.is_active {
        return Err(match application.record.detail {
            Detail::Exact => blocked(Phase::Verify),
            Detail::Uniform => reject(INVALID_KEY, "the user is blocked"),
        });
    }
    // The operator's key works only with the operator's application, and this application accepts
    // no other key.
    let is_of_another_application = match key.application() {
        Some(id) => id != application.record.id,
        None => application.record.is_operator(),
    };
    if is_of_another_application {
        let denial = reject(INVALID_KEY, "the key is for another application");
        return Err(denial.with_hint_of(application, || Some(hints::OTHER_APPLICATION)));
    }
    if key.is_revoked {
        return Err(reject("The API key has been revoked.", "the key is revoked"));
    }
    // Most keys never expire. The clock is read only for keys that do.
    if key.expiry().is_some() && key.is_expired(gate.0.clock.now()) {
        return Err(reject("The API key has expired.", "the key has expired"));
    }
    if !key.allows_address(request.client) {
        return Err(reject(INVALID_KEY, "the key may not be used from the client's address"));
    }
    Ok(())
}
