//! Schemes of key digests: for keys that Keyward created, and for keys from other systems.

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// The origin of a key, which decides how the key's digest is computed. A digest that another
/// system made is digested again with the pepper. Otherwise a thief of the store could guess a
/// short key from its plain SHA-256.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Created by Keyward: the digest of the text.
    #[default]
    Own,
    /// Imported as text: the digest of the text.
    Text,
    /// Imported as SHA-256 (FIPS 180-4): the digest of the text's SHA-256.
    Sha256,
    /// Imported as BLAKE3: the digest of the text's BLAKE3.
    Blake3,
    /// Imported as HMAC-SHA-256 (RFC 2104): the digest of the text's HMAC with the other system's
    /// HMAC key.
    HmacSha256,
    /// Imported with a digest that is slow to check, such as bcrypt. This digest is in
    /// [`Key::slow`](crate::model::Key::slow). The key cannot be looked up by its text, so the
    /// client must name the user. A use that replaces the slow digest changes the scheme to
    /// [`Scheme::Text`].
    Slow,
}

impl Scheme {
    /// The schemes of imported keys that can be looked up by their text.
    pub const FOREIGN: [Self; 4] = [Self::Text, Self::Sha256, Self::Blake3, Self::HmacSha256];

    /// Whether Keyward created the key.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// The bytes that the other system keeps for a key with this text: a digest, or the text
    /// itself. `hmac_key` is the other system's HMAC key. `None` means that the bytes cannot be
    /// computed.
    pub fn kept(self, text: &str, hmac_key: Option<&[u8]>) -> Option<Vec<u8>> {
        let text = text.as_bytes();
        match self {
            Self::Own | Self::Text => Some(text.to_vec()),
            Self::Sha256 => Some(Sha256::digest(text).to_vec()),
            Self::Blake3 => Some(blake3::hash(text).as_bytes().to_vec()),
            Self::HmacSha256 => {
                let mac = Hmac::<Sha256>::new_from_slice(hmac_key?).ok()?.chain_update(text);
                Some(mac.finalize().into_bytes().to_vec())
            }
            Self::Slow => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pepper;

    #[test]
    fn digest_equals_the_digest_of_the_other_system() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        // FIPS 180-4, example B.1, and BLAKE3's test vector of the empty input.
        assert_eq!(
            hex(Scheme::Sha256.kept("abc", None).unwrap()),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(Scheme::Blake3.kept("", None).unwrap()),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(Scheme::Text.kept("abc", None).unwrap(), b"abc");
        // RFC 4231, test case 2.
        assert_eq!(
            hex(Scheme::HmacSha256.kept("what do ya want for nothing?", Some(b"Jefe")).unwrap()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(Scheme::HmacSha256.kept("abc", None), None);
        assert_eq!(Scheme::Slow.kept("abc", Some(b"Jefe")), None);
    }

    #[test]
    fn schemes_have_different_digests() {
        let pepper = Pepper::from_bytes([7; 32]).with_hmac_key(b"Jefe");
        let all = [&[Scheme::Own][..], &Scheme::FOREIGN].concat();
        let digest = |scheme, text| pepper.digest_as(scheme, text).unwrap();
        for &one in &all {
            for &other in &all {
                let same = digest(one, "abc") == digest(other, "abc");
                assert_eq!(same, one == other, "{one:?} {other:?}");
            }
            assert!(digest(one, "abc") != digest(one, "abd"));
            // The other system's digest is not accepted in place of the text.
            for kept in [Scheme::Sha256, Scheme::HmacSha256, Scheme::Slow] {
                assert!(digest(one, "abc") != pepper.digest_kept(kept, b"abc"));
            }
        }
        assert!(digest(Scheme::Own, "abc") == pepper.digest("abc"));
        let kept = Scheme::Sha256.kept("abc", None).unwrap();
        assert!(digest(Scheme::Sha256, "abc") == pepper.digest_kept(Scheme::Sha256, &kept));
    }
}
