//! The fourth room: whether the credential is theirs. The secret is checked before anything else about it is told.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock},
};

use http::{HeaderValue, StatusCode};

use super::{
    Action, Candidate, Denial, Gate, Phase, Request, RequestContext,
    decode::{Scripted, Shown},
    failures,
    lookup::{KeyMatch, Proof, Unverified, blocked},
    scripts::script_views,
    slow_digests,
};
use crate::{
    directory::{CachedKey, CachedUser, CompiledApplication, RoleSet, RoleTable},
    limits::Bounds,
    model::{Detail, Digest, KeyId, KeyShape, KeySource, KeyText, Mode, Role, Scheme, Secret},
    scripting::{Allows, Function, Person, Terms, Verdict},
};

/// What a key is compared with when there is none. BLAKE3 gives this value for no text that anybody could find.
const NOBODY: Digest = Digest::from_bytes([0; 32]);

const INVALID_KEY: &str = "Sorry, you are using an invalid API Key.";

/// Somebody who is known, or nobody.
pub struct Identity<'a> {
    known: Option<Known<'a>>,
    roles: &'a RoleSet,
    table: &'a Arc<RoleTable>,
    pub(super) person: OnceLock<Person>,
}

struct Known<'a> {
    proven: Proven,
    application: &'a CompiledApplication,
}

/// Somebody, and what the credential says of what they may do.
struct Proven {
    member: Arc<CachedUser>,
    key: Option<KeyId>,
    scopes: Option<Arc<[String]>>,
    /// The limits of the key.
    bounds: Option<Arc<Bounds>>,
    is_universal: bool,
    /// Whether the key is less than its user.
    is_bound: bool,
}

impl Proven {
    /// Somebody whose credential says nothing less of them.
    fn all_of(member: Arc<CachedUser>) -> Self {
        let (key, scopes, bounds) = (None, None, None);
        Self { member, key, scopes, bounds, is_universal: false, is_bound: false }
    }
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?}, key {:?})", self.uid(), self.key())
    }
}

impl<'a> Identity<'a> {
    fn proven(&self) -> Option<&Proven> {
        self.known.as_ref().map(|known| &known.proven)
    }

    /// Whether its client has a universal key, and has named the user itself.
    pub fn is_by_universal_key(&self) -> bool {
        self.proven().is_some_and(|proven| proven.is_universal)
    }

    /// Whether its credential is less than its user: a key that is bound to scopes, an application, networks or limits, or a universal one. What is made
    /// with it must not be more.
    pub fn is_bound(&self) -> bool {
        self.proven().is_some_and(|proven| proven.is_bound)
    }

    /// Whether nobody stands behind the request.
    pub fn is_anonymous(&self) -> bool {
        self.known.is_none()
    }

    /// The user's number; none: anonymous.
    pub fn uid(&self) -> Option<u64> {
        self.proven().map(|proven| proven.member.uid)
    }

    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        self.proven().map(|proven| &*proven.member.name)
    }

    /// The key that was used; none: another credential.
    pub fn key(&self) -> Option<KeyId> {
        self.proven()?.key
    }

    /// The application that it came through.
    pub fn application(&self) -> Option<&'a CompiledApplication> {
        self.known.as_ref().map(|known| known.application)
    }

    /// The limits of its key and of its user.
    pub(super) fn bounds(&self) -> [Option<&Arc<Bounds>>; 2] {
        let proven = self.proven();
        [proven.and_then(|one| one.bounds.as_ref()), proven.and_then(|one| one.member.bounds())]
    }

    /// The permissions that its key is bound to; none: all that its roles give.
    pub fn scopes(&self) -> Option<&[String]> {
        self.proven()?.scopes.as_deref()
    }

    /// The ids of its roles, sorted, without `authenticated`.
    pub fn roles(&self) -> &'a [String] {
        &self.roles.ids
    }

    /// The same with commas between them, as a header field's value; none: there are none.
    pub fn roles_field(&self) -> Option<&'a HeaderValue> {
        self.roles.field.as_ref()
    }

    /// Whether it has this permission: from a role, and within its key's scopes.
    pub fn has(&self, permission: &str) -> bool {
        self.in_scope(permission) && self.table.allows(self.roles, permission)
    }

    /// Whether it has every permission there is. A key with scopes never has.
    pub fn is_admin(&self) -> bool {
        self.roles.is_admin && self.scopes().is_none()
    }

    /// Small facts about the user, for scripts.
    pub(super) fn attributes(&self) -> BTreeMap<String, String> {
        self.proven().map(|proven| proven.member.attributes().clone()).unwrap_or_default()
    }

    /// [`Identity::has`], for whoever outlives this.
    pub(crate) fn allows(&self) -> Allows {
        let (table, roles) = (self.table.clone(), self.roles.clone());
        let scopes = self.proven().and_then(|proven| proven.scopes.clone());
        Arc::new(move |permission| {
            let in_scope =
                scopes.as_ref().is_none_or(|scopes| scopes.iter().any(|one| one == permission));
            in_scope && table.allows(&roles, permission)
        })
    }

    /// Whether it may give a role to somebody, as far as its key's scopes go: what it gave beyond them would be a way out of them.
    pub fn may_hand_on(&self, role: &Role) -> bool {
        let is_within = || role.permissions.iter().all(|permission| self.in_scope(permission));
        self.scopes().is_none() || !role.is_admin && is_within()
    }

    fn in_scope(&self, permission: &str) -> bool {
        self.scopes().is_none_or(|scopes| scopes.iter().any(|one| one == permission))
    }
}

/// Checks the credential.
///
/// # Errors
/// It is not theirs, has ended, was taken back, or may not be used here; too many passwords are being checked; or a script refuses.
pub async fn check<'a>(
    gate: &Gate,
    scene: &'a RequestContext,
    request: &Request<'a>,
    action: &Action<'a>,
    candidate: Candidate<'a>,
) -> Result<Identity<'a>, Denial> {
    let (table, person) = (&scene.policy.roles, OnceLock::new());
    let Some(Unverified { application, member, evidence }) = candidate.into_suspect() else {
        return Ok(Identity { known: None, roles: table.anonymous(), table, person });
    };
    let case = Case { gate, scene, request, application };
    let proven = match evidence {
        Proof::Key { text, held } => case.key(&text, member, held).await?,
        Proof::Password(password, attempt) => {
            let uid = member.as_ref().map(|member| member.uid);
            let matched = Box::pin(case.password(member, password)).await;
            if matched.as_ref().is_err_and(|no| no.status == StatusCode::UNAUTHORIZED) {
                failures::failed(scene, attempt, uid);
            }
            Proven::all_of(matched?)
        }
        Proof::Scripted(scripted, held) => Box::pin(case.scripted(scripted, member, held)).await?,
    };
    let roles = proven.member.roles(table);
    let identity = Identity { known: Some(Known { proven, application }), roles, table, person };
    if let Some(hooked) = scene.hooks(Function::OnAuthenticated, request, action.rule()) {
        let person = script_views::person(&identity);
        Box::pin(hooked.on_authenticated(&person)).await?;
    }
    Ok(identity)
}

/// What a check needs.
struct Case<'a, 'r> {
    gate: &'a Gate,
    scene: &'a RequestContext,
    request: &'a Request<'r>,
    application: &'a CompiledApplication,
}

impl Case<'_, '_> {
    /// Whether the script has had this credential taken over before, for this application. From then on it is a key like any other.
    fn was_adopted(&self, text: &Shown, found: &KeyMatch) -> bool {
        let KeyMatch::Held(Some((_, key))) = found else { return false };
        KeyText::shape(text.expose()) == KeyShape::Foreign
            && key.application() == Some(&self.application.record.id)
            && is_text_of(self.gate, text.expose(), key)
    }

    /// Checks a key.
    async fn key(
        &self,
        text: &Shown,
        member: Option<Arc<CachedUser>>,
        found: KeyMatch,
    ) -> Result<Proven, Denial> {
        let (gate, application) = (self.gate, self.application);
        let (held, is_right) = match found {
            KeyMatch::Held(held) => {
                let is_right = is_text_of_one(gate, text.expose(), held.as_ref());
                (held, is_right)
            }
            KeyMatch::Slow(keys) => {
                let held = Box::pin(slow_digests::find(gate, self.scene, self.request, text, keys))
                    .await?;
                let is_right = held.is_some();
                (held, is_right)
            }
        };
        let (member, id, held) = theirs(application, member, held, is_right)?;
        let usable = usable(gate, application, self.request, &member, &held);
        usable.map_err(|no| no.about(member.uid, Some(id)))?;
        if held.is_universal() {
            let may_act = self.may_act_as(&member, &held);
            may_act.map_err(|no| no.about(member.uid, Some(id)))?;
        }
        if held.scheme == Scheme::Slow && self.scene.mode == Mode::Live {
            gate.quicken(id, text.to_secret());
        }
        Ok(Proven {
            member,
            key: Some(id),
            scopes: held.scopes().cloned(),
            bounds: held.bounds().cloned(),
            is_universal: held.is_universal(),
            is_bound: held.is_bound(),
        })
    }

    /// Whether a universal key acts as this user: as an administrator only where its application says so, and no longer than whoever answers for it
    /// may come in.
    fn may_act_as(&self, member: &CachedUser, key: &CachedKey) -> Result<(), Denial> {
        let no = |detail: &'static str| Err(wrong_key(self.application, detail));
        let owner = self.gate.0.directory.user(key.user);
        if owner.is_none_or(|owner| !owner.is_active) {
            return no("the user who answers for this universal key is blocked");
        }
        let is_admin = member.roles(&self.scene.policy.roles).is_admin;
        if is_admin && !self.application.record.universal_administrators {
            return no("a universal key of this application does not act as an administrator");
        }
        Ok(())
    }

    /// Checks a credential as the application's script says, or as the built-in room does where it says nothing.
    async fn scripted(
        &self,
        credential: Scripted<'_>,
        member: Option<Arc<CachedUser>>,
        found: KeyMatch,
    ) -> Result<Proven, Denial> {
        let application = self.application;
        let text = Shown::from(credential.key().unwrap_or_else(|| Secret::new("")));
        let Scripted { script, claim } = credential;
        if !script.defines(Function::Verify) || self.was_adopted(&text, &found) {
            return self.key(&text, member, found).await;
        }
        let Some(member) = member else {
            return Err(wrong_key(application, "the script found no user"));
        };
        let view = script_views::user(&member, self.scene);
        let verdict = script.verify(self.scene.asked(self.request), &view, &claim).await;
        let verdict = verdict
            .map_err(|fault| script_views::denied(Phase::Verify, Some(application), fault))?;
        let Verdict::Theirs(Terms { scopes, adopt }) = verdict else {
            return Err(wrong_key(application, "the script says that it is not theirs"));
        };
        // Whatever a script says.
        if !member.is_active {
            return Err(match application.record.detail {
                Detail::Exact => blocked(Phase::Verify),
                Detail::Uniform => wrong_key(application, "the user is blocked"),
            });
        }
        // A key that was taken over is its user's own, and a universal application takes no such keys.
        if let Some(text) = adopt
            && application.record.key_source == KeySource::PerUser
            && self.scene.mode == Mode::Live
        {
            self.gate.adopt(member.uid, &application.record.id, text);
        }
        let is_bound = scopes.is_some();
        Ok(Proven { scopes: scopes.map(Arc::from), is_bound, ..Proven::all_of(member) })
    }

    /// The user whose password was presented. Takes as long when there is none.
    async fn password(
        &self,
        member: Option<Arc<CachedUser>>,
        password: Secret,
    ) -> Result<Arc<CachedUser>, Denial> {
        let (gate, application) = (self.gate, self.application);
        let digest = member.as_ref().and_then(|member| member.password().cloned());
        // Made anew while the text is there, if it is right.
        let renewed = digest.clone().filter(|digest| !digest.is_ours());
        let text = renewed.is_some().then(|| password.clone());
        let example = gate.0.directory.foreign_password();
        let checked = gate.0.passwords.verify(password, digest, example).await;
        let is_right = checked.map_err(|_| slow_digests::busy())?;
        let no = |detail: &'static str| {
            let said = "Invalid username or password";
            Denial::unauthorized(Phase::Verify, application, "INVALID_CREDENTIALS", said)
                .with_detail(detail)
        };
        match member {
            Some(member) if is_right && member.is_active => {
                if let (Some(digest), Some(text)) = (renewed, text)
                    && self.scene.mode == Mode::Live
                {
                    gate.renew_password(member.uid, digest, text);
                }
                Ok(member)
            }
            Some(_) if is_right => Err(no("the user is blocked")),
            Some(_) => Err(no("the password is wrong, or the user has none")),
            None => Err(no("no such user")),
        }
    }
}

/// Whether a text is this key's.
fn is_text_of(gate: &Gate, text: &str, key: &CachedKey) -> bool {
    gate.0.pepper.digest_as(key.scheme, text).is_some_and(|it| it == key.digest)
}

/// The same, for as long where there is no key.
fn is_text_of_one(gate: &Gate, text: &str, held: Option<&(KeyId, CachedKey)>) -> bool {
    match held {
        Some((_, key)) => is_text_of(gate, text, key),
        // The work is the same as for one of ours.
        None => gate.0.pepper.digest(text) == NOBODY,
    }
}

/// Whether a key is for this user: its own, or the application's universal one.
fn is_theirs(application: &CompiledApplication, member: &CachedUser, key: &CachedKey) -> bool {
    match (application.record.key_source, key.is_universal()) {
        (KeySource::PerUser, false) => key.user == member.uid,
        (KeySource::Universal, true) => key.application() == Some(&application.record.id),
        _ => false,
    }
}

/// The key that was found, if the text is its own and it is its user's own.
fn theirs(
    application: &CompiledApplication,
    member: Option<Arc<CachedUser>>,
    held: Option<(KeyId, CachedKey)>,
    is_right: bool,
) -> Result<(Arc<CachedUser>, KeyId, CachedKey), Denial> {
    match (member, held) {
        (Some(member), Some((id, held))) if is_right && is_theirs(application, &member, &held) => {
            Ok((member, id, held))
        }
        (None, _) => Err(wrong_key(application, "no such user, or no such key")),
        (Some(_), None) => Err(wrong_key(application, "no such key")),
        (Some(_), Some(_)) => Err(wrong_key(application, "the key is wrong or another user's")),
    }
}

/// Whether a key that has matched may be used, now and here.
fn usable(
    gate: &Gate,
    application: &CompiledApplication,
    request: &Request<'_>,
    member: &CachedUser,
    key: &CachedKey,
) -> Result<(), Denial> {
    let says = |said: &'static str, detail: &'static str| {
        let said = match application.record.detail {
            Detail::Exact => said,
            Detail::Uniform => INVALID_KEY,
        };
        Denial::unauthorized(Phase::Verify, application, "AUTHENTICATION_FAILED", said)
            .with_detail(detail)
    };
    if !member.is_active {
        return Err(match application.record.detail {
            Detail::Exact => blocked(Phase::Verify),
            Detail::Uniform => says(INVALID_KEY, "the user is blocked"),
        });
    }
    // The operator's application and key are for each other alone.
    let is_bound_elsewhere = match key.application() {
        Some(id) => id != application.record.id,
        None => application.record.is_operator(),
    };
    if is_bound_elsewhere {
        return Err(says(INVALID_KEY, "the key is for another application"));
    }
    if key.is_revoked {
        return Err(says("The API key has been revoked.", "the key was revoked"));
    }
    // Most keys have no end, and need no clock.
    if key.ends().is_some() && key.has_ended(gate.0.clock.now()) {
        return Err(says("The API key has expired.", "the key has expired"));
    }
    if !key.admits(request.client) {
        return Err(says(INVALID_KEY, "the key may not be used from the client's address"));
    }
    Ok(())
}

fn wrong_key(application: &CompiledApplication, detail: &'static str) -> Denial {
    Denial::unauthorized(Phase::Verify, application, "AUTHENTICATION_FAILED", INVALID_KEY)
        .with_detail(detail)
}
