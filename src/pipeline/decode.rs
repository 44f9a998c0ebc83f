//! The second room: what the credential says. Nothing is looked up here.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Denial, Phase, Presented, Request, RequestContext,
    header::{Given, Text, malformed},
    scripts::script_views,
};
use crate::{
    directory::CompiledApplication,
    model::{AuthType, KeyId, KeyShape, KeyText, Secret},
    scripting::{self, Function, Script},
};

/// A credential that could be read, or the fact that the request is anonymous.
#[derive(Debug)]
pub struct Credential<'a> {
    claim: Option<Claim<'a>>,
}

impl Scripted<'_> {
    /// The key in what the script has read: what the built-in room checks.
    pub fn key(&self) -> Option<Secret> {
        self.claim.text("key").or_else(|| self.claim.text("secret")).map(Secret::new)
    }
}

/// Who somebody says to be, and what is to prove it.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub application: &'a CompiledApplication,
    pub proof: DecodedProof<'a>,
}

#[derive(Debug)]
pub(super) enum DecodedProof<'a> {
    /// A user's name with one of the user's keys.
    NamedKey { pair: Pair, id: Option<KeyId> },
    /// A key alone.
    Key { text: Shown, id: Option<KeyId> },
    /// A user's name with the user's password.
    Password { pair: Pair },
    /// What a script has made of it, or will.
    Scripted(Scripted<'a>),
}

/// A credential of a scripted authentication type.
#[derive(Debug)]
pub(super) struct Scripted<'a> {
    pub script: &'a Script,
    /// What the script's functions get.
    pub claim: scripting::Claim,
}

/// `user:secret`, in one piece of memory that is wiped.
#[derive(Debug)]
pub(super) struct Pair {
    text: Secret,
    colon: usize,
}

impl Pair {
    pub fn user(&self) -> &str {
        &self.text.expose()[..self.colon]
    }

    pub fn secret(&self) -> &str {
        &self.text.expose()[self.colon + 1..]
    }

    /// The secret, in the same memory: there is no second copy to wipe.
    pub fn into_secret(self) -> Shown {
        Shown { from: self.colon + 1, text: self.text }
    }
}

/// A secret that was shown as proof.
#[derive(Debug)]
pub(super) struct Shown {
    text: Secret,
    from: usize,
}

impl Shown {
    pub fn expose(&self) -> &str {
        &self.text.expose()[self.from..]
    }

    /// A copy, for whoever outlives the request.
    pub fn to_secret(&self) -> Secret {
        Secret::new(self.expose())
    }
}

impl From<Secret> for Shown {
    fn from(text: Secret) -> Self {
        Self { text, from: 0 }
    }
}

impl<'a> Credential<'a> {
    pub(super) fn claim(&self) -> Option<&Claim<'a>> {
        self.claim.as_ref()
    }

    pub(super) fn into_claim(self) -> Option<Claim<'a>> {
        self.claim
    }
}

/// Reads `base64(user:key)`, `base64(user:password)` (RFC 7617), or a key alone.
///
/// # Errors
/// Wrong base64, no colon, an empty part, bytes that are not UTF-8, control characters, and a key of our form with a wrong checksum; or the
/// application's script refuses.
pub async fn parse<'a>(
    scene: &'a RequestContext,
    request: &Request<'a>,
    presented: Presented<'a>,
) -> Result<Credential<'a>, Denial> {
    let Some(Given { application, script, text }) = presented.into_given() else {
        return Ok(Credential { claim: None });
    };
    let proof = match script {
        Some(script) => {
            let claim = Box::pin(claim(scene, request, application, script, &text)).await?;
            DecodedProof::Scripted(Scripted { script, claim })
        }
        None => built_in(application, text.as_str())?,
    };
    Ok(Credential { claim: Some(Claim { application, proof }) })
}

/// What a script makes of the credential; one that does not define it leaves it to be `base64(user:secret)`.
async fn claim(
    scene: &RequestContext,
    request: &Request<'_>,
    application: &CompiledApplication,
    script: &Script,
    text: &Text<'_>,
) -> Result<scripting::Claim, Denial> {
    if script.defines(Function::Decode) {
        let claim = script.decode(scene.asked(request), text.as_str()).await;
        return claim
            .map_err(|fault| script_views::denied(Phase::Decode, Some(application), fault));
    }
    let pair = pair(application, text.as_str())?;
    if pair.user().is_empty() || pair.secret().is_empty() {
        return Err(malformed(application, "the user name or the secret is empty"));
    }
    Ok(scripting::Claim::of_pair(pair.user(), pair.secret()))
}

fn built_in<'a>(application: &CompiledApplication, text: &str) -> Result<DecodedProof<'a>, Denial> {
    Ok(match &application.record.auth_type {
        AuthType::ApiKey => {
            let pair = pair(application, text)?;
            if pair.user().is_empty() {
                return Err(malformed(application, "the user name is empty"));
            }
            let id = key_id(application, pair.secret())?;
            DecodedProof::NamedKey { pair, id }
        }
        AuthType::Bearer => {
            let id = key_id(application, text)?;
            DecodedProof::Key { text: Secret::new(text).into(), id }
        }
        AuthType::Basic => {
            let pair = pair(application, text)?;
            if pair.user().is_empty() {
                let code = "MISSING_USERNAME";
                let said = "Username Not Found";
                return Err(Denial::unauthorized(Phase::Decode, application, code, said));
            }
            DecodedProof::Password { pair }
        }
        // The header room has found its script, or refused.
        AuthType::Script(_) => return Err(malformed(application, "its script is missing")),
    })
}

/// Decodes strictly: canonical padding, no white space, no stray bits (RFC 4648, section 3.5).
fn pair(application: &CompiledApplication, text: &str) -> Result<Pair, Denial> {
    let no = |detail| malformed(application, detail);
    let bytes = STANDARD.decode(text).map_err(|_| no("the credential is not base64"))?;
    let text = String::from_utf8(bytes).map(Secret::new).map_err(|problem| {
        drop(zeroize::Zeroizing::new(problem.into_bytes()));
        no("the credential is not UTF-8")
    })?;
    if has_control(text.expose()) {
        return Err(no("the credential holds control characters"));
    }
    // Names are short: a search that warms up first is slower.
    let colon = text.expose().bytes().position(|byte| byte == b':');
    let colon = colon.ok_or_else(|| no("the credential has no colon"))?;
    Ok(Pair { text, colon })
}

/// Almost all credentials are ASCII, whose bytes can be looked at without making characters of them.
fn has_control(text: &str) -> bool {
    match text.is_ascii() {
        // All of them: many at a time are looked at sooner than the first that is one.
        true => text.bytes().fold(false, |found, b| found | b.is_ascii_control()),
        false => text.chars().any(char::is_control),
    }
}

/// The id that a key of ours names; none for the key of another system.
fn key_id(application: &CompiledApplication, key: &str) -> Result<Option<KeyId>, Denial> {
    if key.is_empty() {
        return Err(malformed(application, "the key is empty"));
    }
    match KeyText::shape(key) {
        KeyShape::Ours(id) => Ok(Some(id)),
        KeyShape::Foreign => Ok(None),
        KeyShape::Damaged => Err(malformed(application, "the key's checksum is wrong")),
    }
}
