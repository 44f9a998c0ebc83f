//! The second room: what the credential says. Nothing is looked up here.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    Denial, Presented, Room,
    header::{Given, malformed},
};
use crate::{
    model::{AuthType, KeyId, KeyShape, KeyText, Secret},
    store::HeldApplication,
};

/// A credential that could be read, or the fact that the request is anonymous.
#[derive(Debug)]
pub struct Credential<'a> {
    claim: Option<Claim<'a>>,
}

/// Who somebody says to be, and what is to prove it.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    pub application: &'a HeldApplication,
    pub proof: Proof,
}

#[derive(Debug)]
pub(super) enum Proof {
    /// A user's name with one of the user's keys.
    NamedKey { pair: Pair, id: Option<KeyId> },
    /// A key alone.
    Key { text: Secret, id: Option<KeyId> },
    /// A user's name with the user's password.
    Password { pair: Pair },
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
}

impl<'a> Credential<'a> {
    pub(super) fn into_claim(self) -> Option<Claim<'a>> {
        self.claim
    }
}

/// Reads `base64(user:key)`, `base64(user:password)` (RFC 7617), or a key alone.
///
/// # Errors
/// Wrong base64, no colon, an empty part, bytes that are not UTF-8, control characters, and a key of our form with a wrong checksum.
pub fn parse(presented: Presented<'_>) -> Result<Credential<'_>, Denial> {
    let Some(Given { application, text }) = presented.into_given() else {
        return Ok(Credential { claim: None });
    };
    let proof = match application.record.auth_type {
        AuthType::ApiKey => {
            let pair = pair(application, text)?;
            if pair.user().is_empty() {
                return Err(malformed(application, "the user name is empty"));
            }
            let id = key_id(application, pair.secret())?;
            Proof::NamedKey { pair, id }
        }
        AuthType::Bearer => {
            let id = key_id(application, text)?;
            Proof::Key { text: Secret::new(text), id }
        }
        AuthType::Basic => {
            let pair = pair(application, text)?;
            if pair.user().is_empty() {
                let code = "MISSING_USERNAME";
                let said = "Username Not Found";
                return Err(Denial::unauthorized(Room::Decode, application, code, said));
            }
            Proof::Password { pair }
        }
    };
    Ok(Credential { claim: Some(Claim { application, proof }) })
}

/// Decodes strictly: canonical padding, no white space, no stray bits (RFC 4648, section 3.5).
fn pair(application: &HeldApplication, text: &str) -> Result<Pair, Denial> {
    let no = |detail| malformed(application, detail);
    let bytes = STANDARD.decode(text).map_err(|_| no("the credential is not base64"))?;
    let text = String::from_utf8(bytes).map(Secret::new).map_err(|problem| {
        drop(zeroize::Zeroizing::new(problem.into_bytes()));
        no("the credential is not UTF-8")
    })?;
    if text.expose().chars().any(char::is_control) {
        return Err(no("the credential holds control characters"));
    }
    let colon = text.expose().find(':').ok_or_else(|| no("the credential has no colon"))?;
    Ok(Pair { text, colon })
}

/// The id that a key of ours names; none for the key of another system.
fn key_id(application: &HeldApplication, key: &str) -> Result<Option<KeyId>, Denial> {
    if key.is_empty() {
        return Err(malformed(application, "the key is empty"));
    }
    match KeyText::shape(key) {
        KeyShape::Ours(id) => Ok(Some(id)),
        KeyShape::Foreign => Ok(None),
        KeyShape::Damaged => Err(malformed(application, "the key's checksum is wrong")),
    }
}
