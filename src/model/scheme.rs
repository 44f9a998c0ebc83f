//! Keys of other systems: what is kept of them, and how a text that is presented is checked against it.

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// Where a key comes from, and with it what its digest is made of. Whatever another system kept, the pepper goes over it once more: a
/// plain SHA-256 of a short key could be guessed by whoever copies the store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scheme {
    /// Made here: of the text.
    #[default]
    Own,
    /// Made elsewhere, and brought as text: of the text.
    Text,
    /// Made elsewhere: of the text's SHA-256 (FIPS 180-4).
    Sha256,
    /// Made elsewhere: of the text's BLAKE3.
    Blake3,
}

impl Scheme {
    /// Those of other systems.
    pub const FOREIGN: [Self; 3] = [Self::Text, Self::Sha256, Self::Blake3];

    /// Whether the key was made here.
    pub fn is_own(&self) -> bool {
        *self == Self::Own
    }

    /// What another system keeps of a text.
    pub fn kept(self, text: &str) -> Vec<u8> {
        match self {
            Self::Own | Self::Text => text.as_bytes().to_vec(),
            Self::Sha256 => Sha256::digest(text.as_bytes()).to_vec(),
            Self::Blake3 => blake3::hash(text.as_bytes()).as_bytes().to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Pepper;

    #[test]
    fn what_is_kept_is_what_others_keep() {
        let hex = |bytes: Vec<u8>| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        // FIPS 180-4, example B.1, and BLAKE3's test vector of nothing.
        assert_eq!(
            hex(Scheme::Sha256.kept("abc")),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            hex(Scheme::Blake3.kept("")),
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"
        );
        assert_eq!(Scheme::Text.kept("abc"), b"abc");
    }

    #[test]
    fn no_scheme_takes_another_ones_digest() {
        let pepper = Pepper::from_bytes([7; 32]);
        let all = [Scheme::Own, Scheme::Text, Scheme::Sha256, Scheme::Blake3];
        for one in all {
            for other in all {
                let same = pepper.digest_as(one, "abc") == pepper.digest_as(other, "abc");
                assert_eq!(same, one == other, "{one:?} {other:?}");
            }
            assert!(pepper.digest_as(one, "abc") != pepper.digest_as(one, "abd"));
            // What another system kept cannot be presented in the place of the text.
            let kept = pepper.digest_kept(Scheme::Sha256, b"abc");
            assert!(pepper.digest_as(one, "abc") != kept);
        }
        assert!(pepper.digest_as(Scheme::Own, "abc") == pepper.digest("abc"));
        let kept = Scheme::Sha256.kept("abc");
        assert!(
            pepper.digest_as(Scheme::Sha256, "abc") == pepper.digest_kept(Scheme::Sha256, &kept)
        );
    }
}
