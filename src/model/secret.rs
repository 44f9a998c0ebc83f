//! Secrets and their digests. None of these types shows its value: `Debug` prints a placeholder,
//! and there is no `Display`.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use super::{Scheme, ids::from_text};

/// A secret text, such as a key or a password. Zeroised on drop.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text of the secret. A review of how secrets are handled must look at every caller.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// The value of each hexadecimal digit, and 16 for other bytes. A table is faster than branches,
/// which a processor mispredicts for random digits: a server that starts parses millions of
/// digests.
const NIBBLES: [u8; 256] = {
    let mut values = [16; 256];
    let mut byte = 0;
    while byte < 256 {
        if let Some(value) = (byte as u8 as char).to_digit(16) {
            values[byte] = value as u8;
        }
        byte += 1;
    }
    values
};

/// BLAKE3 of a key's whole text, keyed with the server's [`Pepper`].
///
/// Two digests are compared in constant time.
#[derive(Clone, Copy)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Formats 64 hexadecimal digits.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// Parses 64 hexadecimal digits.
    pub fn from_hex(text: &[u8]) -> Option<Self> {
        let text: &[u8; 64] = text.try_into().ok()?;
        let mut bytes = [0; 32];
        // The bitwise combination of all nibbles. A byte that is not a hexadecimal digit makes this
        // value 16 or more.
        let mut combined = 0;
        for (byte, pair) in bytes.iter_mut().zip(text.as_chunks::<2>().0) {
            let (high, low) = (NIBBLES[usize::from(pair[0])], NIBBLES[usize::from(pair[1])]);
            combined |= high | low;
            *byte = high << 4 | low & 15;
        }
        (combined < 16).then_some(Self(bytes))
    }
}

impl PartialEq for Digest {
    fn eq(&self, other: &Self) -> bool {
        // `blake3::Hash` compares in constant time; arrays do not.
        blake3::Hash::from_bytes(self.0) == blake3::Hash::from_bytes(other.0)
    }
}

impl Eq for Digest {}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digest(…)")
    }
}

/// Serialised as 64 hexadecimal digits, only for the store's records.
impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&blake3::Hash::from_bytes(self.0).to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = |text: &str| Self::from_hex(text.as_bytes());
        from_text(deserializer, "a digest is 64 hexadecimal digits", read)
    }
}

/// The server's secret for digests, which is kept outside the store. A thief who has a copy of the
/// store, but not the pepper, cannot test guesses against the digests.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Pepper([u8; 32], Option<Vec<u8>>);

impl Pepper {
    /// The pepper with these bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes, None)
    }

    /// Adds the HMAC key of the system whose HMAC-SHA-256 digests were imported.
    pub fn with_hmac_key(mut self, key: &[u8]) -> Self {
        self.1 = Some(key.to_vec());
        self
    }

    /// Whether there is a key for imported HMAC digests.
    pub fn has_hmac_key(&self) -> bool {
        self.1.is_some()
    }

    /// Parses the 64 hexadecimal digits of a pepper file, ignoring white space around them.
    pub fn from_hex(text: &str) -> Option<Self> {
        let hash = blake3::Hash::from_hex(text.trim()).ok()?;
        Some(Self(*hash.as_bytes(), None))
    }

    /// The content of a pepper file.
    pub fn to_hex(&self) -> Zeroizing<String> {
        Zeroizing::new(blake3::Hash::from_bytes(self.0).to_hex().to_string())
    }

    /// The digest of a key's text.
    pub fn digest(&self, key: &str) -> Digest {
        Digest(*blake3::keyed_hash(&self.0, key.as_bytes()).as_bytes())
    }

    /// The digest of a key's text by a scheme. `None` means that the text alone is not enough to
    /// compute this scheme's digest.
    pub fn digest_as(&self, scheme: Scheme, key: &str) -> Option<Digest> {
        // Keyward created almost all keys, and their digest needs no copy of the text.
        if scheme.is_own() {
            return Some(self.digest(key));
        }
        let kept = Zeroizing::new(scheme.kept(key, self.1.as_deref())?);
        Some(self.digest_kept(scheme, &kept))
    }

    /// The digest of the bytes that another system kept for a key; see [`Scheme::kept`].
    pub fn digest_kept(&self, scheme: Scheme, kept: &[u8]) -> Digest {
        let purpose: &[u8] = match scheme {
            Scheme::Own => return Digest(*blake3::keyed_hash(&self.0, kept).as_bytes()),
            Scheme::Text => b"text",
            Scheme::Sha256 => b"sha256",
            Scheme::Blake3 => b"blake3",
            Scheme::HmacSha256 => b"hmac-sha256",
            Scheme::Slow => b"slow",
        };
        let key = blake3::derive_key("keyward 2026-11-25 keys of other systems", &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(&[purpose.len() as u8]).update(purpose).update(kept);
        Digest(*hasher.finalize().as_bytes())
    }

    /// A fingerprint that identifies the pepper, but does not reveal the pepper. The store keeps
    /// the fingerprint, so that Keyward notices a start with the wrong pepper.
    pub fn fingerprint(&self) -> Digest {
        Digest(blake3::derive_key("keyward 2026-11-23 pepper fingerprint", &self.0))
    }
}

impl Pepper {
    /// The key of the audit trail, derived from the pepper for this purpose only.
    pub fn audit_key(&self) -> AuditKey {
        AuditKey(blake3::derive_key("keyward 2026-11-25 audit trail", &self.0))
    }

    /// The key that seals backups, derived from the pepper for this purpose only.
    pub fn backup_key(&self) -> BackupKey {
        BackupKey(blake3::derive_key("keyward 2026-11-29 backup seal", &self.0))
    }
}

impl Pepper {
    /// The secret from which one part of a run of `key generate --all` generates its keys. Nobody
    /// can compute this secret from the run's id without the pepper.
    pub fn run_secret(&self, run: &[u8; 16], part: u64) -> [u8; 32] {
        let key = blake3::derive_key("keyward 2026-11-25 keys for many users", &self.0);
        let mut hasher = blake3::Hasher::new_keyed(&key);
        hasher.update(run).update(&part.to_le_bytes());
        *hasher.finalize().as_bytes()
    }
}

/// The key of the digests that chain the entries of the audit trail.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct AuditKey([u8; 32]);

impl AuditKey {
    /// The digest of several parts, for one purpose. The length of each part is hashed before the
    /// part, so different lists of parts never give the hasher the same input.
    pub fn digest(&self, purpose: &str, parts: &[&[u8]]) -> Digest {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        for part in std::iter::once(&purpose.as_bytes()).chain(parts) {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        Digest(*hasher.finalize().as_bytes())
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuditKey(…)")
    }
}

/// The key of the seal at the end of a backup.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct BackupKey([u8; 32]);

impl BackupKey {
    /// A hasher that computes the seal of the bytes that it gets.
    pub(crate) fn hasher(&self) -> blake3::Hasher {
        blake3::Hasher::new_keyed(&self.0)
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackupKey(…)")
    }
}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper(…)")
    }
}

/// The beginning of the digests that Keyward makes. This text contains the parameters that RFC 9106
/// and OWASP recommend for machines with little memory.
const OWN_PREFIX: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// A slow digest of a password or of an imported key. A digest that Keyward made is Argon2id as a
/// PHC string. An imported digest has the other system's format.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PasswordDigest(Box<str>);

impl PasswordDigest {
    /// Wraps a digest string (`$argon2id$v=19$…`).
    pub fn new(phc: impl Into<Box<str>>) -> Self {
        Self(phc.into())
    }

    /// The string, for verification.
    pub fn phc(&self) -> &str {
        &self.0
    }

    /// Whether the digest has Keyward's parameters. Keyward replaces a digest with other parameters
    /// when a client presents the plaintext.
    pub fn is_ours(&self) -> bool {
        self.0.starts_with(OWN_PREFIX)
    }
}

impl fmt::Debug for PasswordDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordDigest(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_round_trips_and_other_text_is_refused() {
        for first in 0..=255 {
            let digest = Digest::from_bytes(std::array::from_fn(|index| first ^ index as u8));
            let text = digest.to_hex();
            assert!(Digest::from_hex(text.as_bytes()) == Some(digest));
            assert!(Digest::from_hex(text.to_uppercase().as_bytes()) == Some(digest));
            let mut changed = text.into_bytes();
            changed[usize::from(first) % 64] = first;
            let is_digit = first.is_ascii_hexdigit();
            assert_eq!(Digest::from_hex(&changed).is_some(), is_digit, "{first}");
        }
        for index in 0..64 {
            let mut zeros = [b'0'; 64];
            zeros[index] = b'g';
            assert!(Digest::from_hex(&zeros).is_none(), "{index}");
        }
        for length in [0, 2, 62, 63, 65, 66] {
            assert!(Digest::from_hex(&vec![b'0'; length]).is_none(), "{length}");
        }
    }

    #[test]
    fn debug_output_has_no_secret() {
        let pepper = Pepper::from_bytes([7; 32]);
        let shown = format!(
            "{:?} {:?} {:?} {:?} {:?} {:?}",
            Secret::new("hunter2"),
            pepper,
            pepper.audit_key(),
            pepper.backup_key(),
            pepper.digest("hunter2"),
            PasswordDigest::new("$argon2id$hunter2")
        );
        assert_eq!(
            shown,
            "Secret(…) Pepper(…) AuditKey(…) BackupKey(…) Digest(…) PasswordDigest(…)"
        );
    }

    #[test]
    fn a_digest_depends_on_the_pepper_and_on_the_text() {
        let one = Pepper::from_bytes([1; 32]);
        let two = Pepper::from_bytes([2; 32]);
        assert_eq!(one.digest("a"), one.digest("a"));
        assert_ne!(one.digest("a"), two.digest("a"));
        assert_ne!(one.digest("a"), one.digest("b"));
        assert_ne!(one.fingerprint(), two.fingerprint());
        assert_eq!(
            Pepper::from_hex(&format!(" {}\n", one.to_hex().as_str())).unwrap().fingerprint(),
            one.fingerprint()
        );
    }
}
