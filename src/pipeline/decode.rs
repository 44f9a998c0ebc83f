//! Phase 2, decode: splits the credential's text into user and secret. Later phases look up the
//! user and check the secret.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Denial, Phase, Presented, Request, RequestContext,
    credentials::hints,
    header::{PresentedCredential, PresentedText, malformed},
    scripts::script_views,
};
use crate::{
    directory::CompiledApplication,
    limits::Standing,
    model::{AuthType, KeyId, KeyShape, KeyText, Secret},
    scripting::{self, Function, Script},
};

/// The result of this phase, and the input of the lookup phase: a decoded credential, or an
/// anonymous request.
#[derive(Debug)]
pub struct Credential<'a> {
    decoded: Option<DecodedCredential<'a>>,
}

/// The content of a credential. Later phases check that the content is right.
#[derive(Debug)]
pub(super) struct DecodedCredential<'a> {
    pub application: &'a CompiledApplication,
    pub content: CredentialContent<'a>,
}

/// The user and the secret that a credential contains, depending on the authentication type.
#[derive(Debug)]
pub(super) enum CredentialContent<'a> {
    /// A user's name with one of the user's keys.
    NamedKey { pair: UserAndSecret, id: Option<KeyId> },
    /// A key alone.
    Key { text: PresentedSecret, id: Option<KeyId> },
    /// A user's name with the user's password.
    Password { pair: UserAndSecret },
    /// A credential of a scripted authentication type.
    Scripted(ScriptedCredential<'a>),
}

/// A credential of a scripted authentication type.
#[derive(Debug)]
pub(super) struct ScriptedCredential<'a> {
    pub script: &'a Script,
    /// The `credential` argument of the script's functions.
    pub claim: scripting::ScriptClaim,
}

impl ScriptedCredential<'_> {
    /// The key that the script has read from the credential, for the built-in check.
    pub fn key(&self) -> Option<Secret> {
        self.claim.text("key").or_else(|| self.claim.text("secret")).map(Secret::new)
    }
}

/// The text `user:secret` in a single allocation, which is wiped on drop.
#[derive(Debug)]
pub(super) struct UserAndSecret {
    text: Secret,
    colon: usize,
}

impl UserAndSecret {
    pub fn user(&self) -> &str {
        &self.text.expose()[..self.colon]
    }

    pub fn secret(&self) -> &str {
        &self.text.expose()[self.colon + 1..]
    }

    /// The secret, in the allocation of the whole text. A copy would also have to be wiped.
    pub fn into_secret(self) -> PresentedSecret {
        PresentedSecret { start: self.colon + 1, text: self.text }
    }
}

/// A secret that a client presented: the text from `start` on.
#[derive(Debug)]
pub(super) struct PresentedSecret {
    text: Secret,
    start: usize,
}

impl PresentedSecret {
    pub fn expose(&self) -> &str {
        &self.text.expose()[self.start..]
    }

    /// A copy, for tasks that outlive the request.
    pub fn to_secret(&self) -> Secret {
        Secret::new(self.expose())
    }
}

impl From<Secret> for PresentedSecret {
    fn from(text: Secret) -> Self {
        Self { text, start: 0 }
    }
}

impl<'a> Credential<'a> {
    pub(super) fn decoded(&self) -> Option<&DecodedCredential<'a>> {
        self.decoded.as_ref()
    }

    pub(super) fn into_decoded(self) -> Option<DecodedCredential<'a>> {
        self.decoded
    }
}

/// Reads `base64(user:key)`, `base64(user:password)` (RFC 7617), or a key alone.
///
/// # Errors
/// The base64 is invalid; the colon, the user's name or the key is missing; the text is not UTF-8
/// or contains control characters; a Keyward key has a wrong checksum; or the application's script
/// refuses the credential. The denial of a wrong checksum names the verify phase, as each denial of
/// a wrong key does.
pub async fn parse<'a>(
    context: &'a RequestContext,
    request: &Request<'a>,
    presented: Presented<'a>,
) -> Result<Credential<'a>, Denial> {
    let Some(PresentedCredential { application, script, text }) = presented.into_credential()
    else {
        return Ok(Credential { decoded: None });
    };
    let content = match script {
        Some(script) => {
            let claim = Box::pin(scripted(context, request, application, script, &text)).await?;
            CredentialContent::Scripted(ScriptedCredential { script, claim })
        }
        None => built_in(application, text.as_str())?,
    };
    Ok(Credential { decoded: Some(DecodedCredential { application, content }) })
}

/// Decodes a credential with the script's function `decode`. If the script does not define this
/// function, the credential must be `base64(user:secret)`.
async fn scripted(
    context: &RequestContext,
    request: &Request<'_>,
    application: &CompiledApplication,
    script: &Script,
    text: &PresentedText<'_>,
) -> Result<scripting::ScriptClaim, Denial> {
    if script.defines(Function::Decode) {
        context.wait_for_body(script, Function::Decode, Standing::Unknown).await?;
        let claim = script.decode(context.script_request(request), text.as_str()).await;
        return claim
            .map_err(|fault| script_views::denial_of(Phase::Decode, Some(application), fault));
    }
    let pair = decode_pair(application, text.as_str())?;
    if pair.user().is_empty() || pair.secret().is_empty() {
        return Err(malformed(application, "the user name or the secret is empty"));
    }
    Ok(scripting::ScriptClaim::of_pair(pair.user(), pair.secret()))
}

fn built_in<'a>(
    application: &CompiledApplication,
    text: &str,
) -> Result<CredentialContent<'a>, Denial> {
    Ok(match &application.record.auth_type {
        AuthType::ApiKey => {
            let pair = decode_pair(application, text)?;
            if pair.user().is_empty() {
                return Err(malformed(application, "the user name is empty"));
            }
            let id = key_id(application, pair.secret())?;
            CredentialContent::NamedKey { pair, id }
        }
        AuthType::Bearer => {
            let id = key_id(application, text)?;
            CredentialContent::Key { text: Secret::new(text).into(), id }
        }
        AuthType::Basic => {
            let pair = decode_pair(application, text)?;
            if pair.user().is_empty() {
                let code = "MISSING_USERNAME";
                let message = "Username Not Found";
                return Err(Denial::unauthorized(Phase::Decode, application, code, message));
            }
            CredentialContent::Password { pair }
        }
        // Unreachable: the header phase finds the script or refuses the request.
        AuthType::Script(_) => {
            return Err(malformed(application, "the application's script is missing"));
        }
    })
}

/// Decodes `base64(user:secret)` strictly: with canonical padding, and without white space or
/// trailing bits that are not zero (RFC 4648, section 3.5).
fn decode_pair(application: &CompiledApplication, text: &str) -> Result<UserAndSecret, Denial> {
    let presented = text;
    let reject = |message| {
        let hint = || hints::malformed_pair(application, presented);
        malformed(application, message).with_hint_of(application, hint)
    };
    let bytes = STANDARD.decode(text).map_err(|_| reject("the credential is not base64"))?;
    let text = String::from_utf8(bytes).map(Secret::new).map_err(|problem| {
        drop(zeroize::Zeroizing::new(problem.into_bytes()));
        reject("the credential is not UTF-8")
    })?;
    if has_control(text.expose()) {
        return Err(reject("the credential contains control characters"));
    }
    // User names are short, so this simple search is faster than a search that needs preparation.
    let colon = text.expose().bytes().position(|byte| byte == b':');
    let colon = colon.ok_or_else(|| reject("the credential has no colon"))?;
    Ok(UserAndSecret { text, colon })
}

/// Whether a text contains control characters. Has a fast path for ASCII, because almost all
/// credentials are ASCII.
fn has_control(text: &str) -> bool {
    if text.is_ascii() {
        // `fold` has no early exit, so the compiler can vectorize the loop.
        text.bytes().fold(false, |found, b| found | b.is_ascii_control())
    } else {
        text.chars().any(char::is_control)
    }
}

/// The id in a Keyward key; `None` means a key of another system.
fn key_id(application: &CompiledApplication, key: &str) -> Result<Option<KeyId>, Denial> {
    if key.is_empty() {
        return Err(malformed(application, "the key is empty"));
    }
    match KeyText::shape(key) {
        KeyShape::Ours(id) => Ok(Some(id)),
        KeyShape::Foreign => Ok(None),
        KeyShape::Damaged => Err(Denial::damaged_key(application)),
    }
}
