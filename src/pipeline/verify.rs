//! The fourth room: whether the credential is theirs. The secret is checked before anything else about it is told.

use std::{collections::BTreeMap, sync::Arc};

use http::StatusCode;

use super::{
    Action, Candidate, Denial, Gate, Request, Room, Scene,
    decode::Scripted,
    failure,
    lookup::{Evidence, Suspect, blocked},
    scene::Traces,
    scripted,
};
use crate::{
    hooks::{Allows, Function, Terms, Verdict},
    limits::Bounds,
    model::{Detail, Digest, KeyId, KeyShape, KeyText, Role, Scheme, Secret},
    store::{HeldApplication, HeldKey, Member, RoleSet, RoleTable},
};

/// What a key is compared with when there is none. BLAKE3 gives this value for no text that anybody could find.
const NOBODY: Digest = Digest::from_bytes([0; 32]);

const INVALID_KEY: &str = "Sorry, you are using an invalid API Key.";

/// Somebody who is known, or nobody.
pub struct Identity<'a> {
    known: Option<Known<'a>>,
    roles: &'a RoleSet,
    table: &'a Arc<RoleTable>,
}

struct Known<'a> {
    member: Arc<Member>,
    key: Option<KeyId>,
    scopes: Option<Arc<[String]>>,
    /// The limits of the key.
    bounds: Option<Arc<Bounds>>,
    application: &'a HeldApplication,
}

impl std::fmt::Debug for Identity<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({:?}, key {:?})", self.uid(), self.key())
    }
}

impl<'a> Identity<'a> {
    /// Whether nobody stands behind the request.
    pub fn is_anonymous(&self) -> bool {
        self.known.is_none()
    }

    /// The user's number; none: anonymous.
    pub fn uid(&self) -> Option<u64> {
        self.known.as_ref().map(|known| known.member.uid)
    }

    /// The user's name.
    pub fn name(&self) -> Option<&str> {
        self.known.as_ref().map(|known| &*known.member.name)
    }

    /// The key that was used; none: another credential.
    pub fn key(&self) -> Option<KeyId> {
        self.known.as_ref()?.key
    }

    /// The application that it came through.
    pub fn application(&self) -> Option<&'a HeldApplication> {
        self.known.as_ref().map(|known| known.application)
    }

    /// The limits of its key and of its user.
    pub(super) fn bounds(&self) -> [Option<&Arc<Bounds>>; 2] {
        let known = self.known.as_ref();
        [known.and_then(|one| one.bounds.as_ref()), known.and_then(|one| one.member.bounds())]
    }

    /// The permissions that its key is bound to; none: all that its roles give.
    pub fn scopes(&self) -> Option<&[String]> {
        self.known.as_ref()?.scopes.as_deref()
    }

    /// The ids of its roles, sorted, without `authenticated`.
    pub fn roles(&self) -> &'a [String] {
        &self.roles.ids
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
        let known = self.known.as_ref();
        known.map(|known| known.member.attributes().clone()).unwrap_or_default()
    }

    /// [`Identity::has`], for whoever outlives this.
    pub(crate) fn allows(&self) -> Allows {
        let (table, roles) = (self.table.clone(), self.roles.clone());
        let scopes = self.known.as_ref().and_then(|known| known.scopes.clone());
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
    scene: &'a Scene,
    request: &Request<'a>,
    action: &Action<'a>,
    candidate: Candidate<'a>,
) -> Result<Identity<'a>, Denial> {
    let table = &scene.policy.roles;
    let Some(Suspect { application, member, evidence }) = candidate.into_suspect() else {
        return Ok(Identity { known: None, roles: table.anonymous(), table });
    };
    let (member, key, scopes, bounds) = match evidence {
        Evidence::Key { text, held } => {
            let (member, id, held) = matching(gate, application, member, &text, held)?;
            usable(gate, application, request, &member, &held)
                .map_err(|no| no.about(member.uid, Some(id)))?;
            (member, Some(id), held.scopes().cloned(), held.bounds().cloned())
        }
        Evidence::Password(password, attempt) => {
            let uid = member.as_ref().map(|member| member.uid);
            let matched = password_matches(gate, application, member, password).await;
            if matched.as_ref().is_err_and(|no| no.status == StatusCode::UNAUTHORIZED) {
                failure::failed(scene, attempt, uid);
            }
            (matched?, None, None, None)
        }
        Evidence::Scripted(scripted, held) => {
            let case = Case { gate, scene, request, application };
            case.scripted(scripted, member, held).await?
        }
    };
    let roles = member.roles(table);
    let identity =
        Identity { known: Some(Known { member, key, scopes, bounds, application }), roles, table };
    if let Some(hooked) = scene.hooks(Function::OnAuthenticated, request, action.rule()) {
        hooked.on_authenticated(&scripted::person(&identity)).await?;
    }
    Ok(identity)
}

type Proven = (Arc<Member>, Option<KeyId>, Option<Arc<[String]>>, Option<Arc<Bounds>>);

/// What a scripted check needs.
struct Case<'a, 'r> {
    gate: &'a Gate,
    scene: &'a Scene,
    request: &'a Request<'r>,
    application: &'a HeldApplication,
}

impl Case<'_, '_> {
    /// Whether the script has had this credential taken over before, for this application. From then on it is a key like any other.
    fn was_adopted(&self, text: &Secret, held: Option<&(KeyId, HeldKey)>) -> bool {
        let is_foreign = KeyText::shape(text.expose()) == KeyShape::Foreign;
        held.is_some_and(|(_, key)| {
            is_foreign
                && key.application() == Some(&self.application.record.id)
                && key.digest == self.gate.0.pepper.digest_as(key.scheme, text.expose())
        })
    }

    /// Checks a credential as the application's script says, or as the built-in room does where it says nothing.
    async fn scripted(
        &self,
        credential: Scripted<'_>,
        member: Option<Arc<Member>>,
        held: Option<(KeyId, HeldKey)>,
    ) -> Result<Proven, Denial> {
        let application = self.application;
        let text = credential.key().unwrap_or_else(|| Secret::new(""));
        let Scripted { script, claim } = credential;
        if !script.defines(Function::Verify) || self.was_adopted(&text, held.as_ref()) {
            let (member, id, held) = matching(self.gate, application, member, &text, held)?;
            usable(self.gate, application, self.request, &member, &held)
                .map_err(|no| no.about(member.uid, Some(id)))?;
            return Ok((member, Some(id), held.scopes().cloned(), held.bounds().cloned()));
        }
        let Some(member) = member else {
            return Err(wrong_key(application, "the script found no user"));
        };
        let view = scripted::user(&member, self.scene);
        let verdict = script.verify(self.scene.asked(self.request), &view, &claim).await;
        let verdict =
            verdict.map_err(|fault| scripted::denied(Room::Verify, Some(application), fault))?;
        let Verdict::Theirs(Terms { scopes, adopt }) = verdict else {
            return Err(wrong_key(application, "the script says that it is not theirs"));
        };
        // Whatever a script says.
        if !member.is_active {
            return Err(match application.record.detail {
                Detail::Exact => blocked(Room::Verify),
                Detail::Uniform => wrong_key(application, "the user is blocked"),
            });
        }
        if let Some(text) = adopt
            && self.scene.traces == Traces::Left
        {
            self.gate.adopt(member.uid, &application.record.id, text);
        }
        Ok((member, None, scopes.map(Arc::from), None))
    }
}

/// The key whose text was presented, if it is one and its user's own. Takes as long when it is not.
fn matching(
    gate: &Gate,
    application: &HeldApplication,
    member: Option<Arc<Member>>,
    text: &Secret,
    held: Option<(KeyId, HeldKey)>,
) -> Result<(Arc<Member>, KeyId, HeldKey), Denial> {
    // Where there is none, the work is the same as for one of ours.
    let scheme = held.as_ref().map_or(Scheme::Own, |(_, key)| key.scheme);
    let presented = gate.0.pepper.digest_as(scheme, text.expose());
    let expected = held.as_ref().map_or(NOBODY, |(_, key)| key.digest);
    let is_right = presented == expected;
    match (member, held) {
        (Some(member), Some((id, held))) if is_right && held.user == member.uid => {
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
    application: &HeldApplication,
    request: &Request<'_>,
    member: &Member,
    key: &HeldKey,
) -> Result<(), Denial> {
    let says = |said: &'static str, detail: &'static str| {
        let said = match application.record.detail {
            Detail::Exact => said,
            Detail::Uniform => INVALID_KEY,
        };
        Denial::unauthorized(Room::Verify, application, "AUTHENTICATION_FAILED", said)
            .with_detail(detail)
    };
    if !member.is_active {
        return Err(match application.record.detail {
            Detail::Exact => blocked(Room::Verify),
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
    if key.has_ended(gate.0.clock.now()) {
        return Err(says("The API key has expired.", "the key has expired"));
    }
    if !key.admits(request.client) {
        return Err(says(INVALID_KEY, "the key may not be used from the client's address"));
    }
    Ok(())
}

/// The user whose password was presented. Takes as long when there is none.
async fn password_matches(
    gate: &Gate,
    application: &HeldApplication,
    member: Option<Arc<Member>>,
    password: Secret,
) -> Result<Arc<Member>, Denial> {
    let digest = member.as_ref().and_then(|member| member.password().cloned());
    let checked = gate.0.passwords.verify(password, digest).await;
    let is_right = checked.map_err(|_| {
        Denial::new(
            Room::Verify,
            StatusCode::SERVICE_UNAVAILABLE,
            "TEMPORARILY_UNAVAILABLE",
            "Too many passwords are being checked. Try again in a moment.",
        )
        .with_retry_after(1)
    })?;
    let no = |detail: &'static str| {
        let said = "Invalid username or password";
        Denial::unauthorized(Room::Verify, application, "INVALID_CREDENTIALS", said)
            .with_detail(detail)
    };
    match member {
        Some(member) if is_right && member.is_active => Ok(member),
        Some(_) if is_right => Err(no("the user is blocked")),
        Some(_) => Err(no("the password is wrong, or the user has none")),
        None => Err(no("no such user")),
    }
}

fn wrong_key(application: &HeldApplication, detail: &'static str) -> Denial {
    Denial::unauthorized(Room::Verify, application, "AUTHENTICATION_FAILED", INVALID_KEY)
        .with_detail(detail)
}
