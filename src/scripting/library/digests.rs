//! Digests, signatures, and secrets that scripts can use but not see.

use std::{fmt, sync::Arc};

use hmac::{Hmac, KeyInit, Mac};
use rhai::{Blob, Dynamic, Module, NativeCallContext, exported_module};
use sha2::{Digest, Sha256, Sha512};
use zeroize::Zeroizing;

use super::{Checked, encodings::bytes};
use crate::{
    model::Secret,
    scripting::runtime::context::{CallContext, runtime_error},
};

pub(super) fn module() -> Module {
    exported_module!(functions)
}

/// A named secret, which scripts can use as a key but cannot convert into a text.
#[derive(Clone)]
pub struct SecretText(pub(in crate::scripting) Arc<Secret>);

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// The bytes of a key: a secret, a text or a blob.
pub(super) fn key(value: &Dynamic) -> Checked<Zeroizing<Vec<u8>>> {
    if let Some(secret) = value.read_lock::<SecretText>() {
        return Ok(Zeroizing::new(secret.0.expose().as_bytes().to_vec()));
    }
    bytes(value).map(Zeroizing::new)
}

fn hmac<M: Mac + KeyInit>(secret: &Dynamic, data: &Dynamic) -> Checked<Blob> {
    let secret = key(secret)?;
    if secret.is_empty() {
        return Err(runtime_error("the key of an HMAC is empty"));
    }
    let mut mac = <M as KeyInit>::new_from_slice(&secret)
        .map_err(|_| runtime_error("this value cannot be the key of an HMAC"))?;
    mac.update(&bytes(data)?);
    Ok(mac.finalize().into_bytes().as_slice().to_vec())
}

#[allow(clippy::unwrap_used, unused_qualifications, reason = "what the macro writes")]
#[rhai::export_module]
mod functions {
    use super::*;

    /// The SHA-256 digest of data, as a blob of 32 bytes.
    ///
    /// Example: `hex(sha256("abc")).sub_string(0, 8) == "ba7816bf"`
    #[rhai_fn(return_raw)]
    pub fn sha256(data: Dynamic) -> Checked<Blob> {
        Ok(Sha256::digest(bytes(&data)?).as_slice().to_vec())
    }

    /// The BLAKE3 digest of data, as a blob of 32 bytes.
    ///
    /// Example: `hex(blake3("abc")).len() == 64`
    #[rhai_fn(return_raw)]
    pub fn blake3(data: Dynamic) -> Checked<Blob> {
        Ok(::blake3::hash(&bytes(&data)?).as_bytes().to_vec())
    }

    /// The HMAC-SHA-256 (RFC 2104) of data, as a blob of 32 bytes. The key is a secret, a text or a
    /// blob, and not empty.
    ///
    /// Example: `hmac_sha256(secret("webhook"), req.method + "\n" + req.path)`
    #[rhai_fn(return_raw)]
    pub fn hmac_sha256(key: Dynamic, data: Dynamic) -> Checked<Blob> {
        hmac::<Hmac<Sha256>>(&key, &data)
    }

    /// The HMAC-SHA-512 (RFC 2104) of data, as a blob of 64 bytes. The key is a secret, a text or a
    /// blob, and not empty.
    ///
    /// Example: `base64_encode(hmac_sha512(secret("partner"), req.body))`
    #[rhai_fn(return_raw)]
    pub fn hmac_sha512(key: Dynamic, data: Dynamic) -> Checked<Blob> {
        hmac::<Hmac<Sha512>>(&key, &data)
    }

    /// Whether two texts, blobs or secrets are equal, compared in constant time. An empty value
    /// equals no value, not even another empty value.
    ///
    /// Example: `constant_time_eq(hex(mac), req.header("X-Signature"))`
    #[rhai_fn(return_raw)]
    pub fn constant_time_eq(a: Dynamic, b: Dynamic) -> Checked<bool> {
        // A comparison with an absent value is false, and not an error.
        if a.is_unit() || b.is_unit() {
            return Ok(false);
        }
        let (a, b) = (key(&a)?, key(&b)?);
        Ok(!a.is_empty() && ::constant_time_eq::constant_time_eq(&a, &b))
    }

    /// A named secret of the configuration. A script can use the secret as the key of an HMAC or a
    /// token, or compare it, but cannot read its text.
    ///
    /// Error: there is no secret with this name.
    ///
    /// Example: `hmac_sha256(secret("webhook"), req.body)`
    #[rhai_fn(return_raw)]
    pub fn secret(context: NativeCallContext, name: &str) -> Checked<SecretText> {
        let found = CallContext::current(&context)?.host.secret(name);
        // The message may contain the name, because the name comes from the script.
        found.map(SecretText).ok_or_else(|| {
            runtime_error(format!(
                "there is no secret {name:?}; write the secret into a file with this name in the folder scripts.secrets_dir"
            ))
        })
    }

    /// A secret as a text is always `Secret(…)`.
    ///
    /// Example: `secret("webhook").to_string() == "Secret(…)"`
    #[rhai_fn(name = "to_string", name = "to_debug", pure)]
    pub fn secret_shown(secret: &mut SecretText) -> String {
        format!("{secret:?}")
    }
}
