//! Reads certificates and keys from PEM (RFC 7468).

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::TlsError;

/// All certificates of a file, in order.
pub(super) fn certificates(
    text: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    check_pem(text, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        Ok(found) => Ok(found),
        // A key in the file, whose block has headers.
        Err(_) if is_encrypted(text) => Err(TlsError::EncryptedKey(path.to_owned())),
        Err(_) => Err(TlsError::BrokenPem(path.to_owned())),
    }
}

/// The first private key of a file.
pub(super) fn key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    check_pem(text, path)?;
    PrivateKeyDer::from_pem_slice(text).map_err(|problem| match problem {
        _ if is_encrypted(text) => TlsError::EncryptedKey(path.to_owned()),
        pem::Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        _ => TlsError::BrokenPem(path.to_owned()),
    })
}

/// Whether a private key is encrypted. PKCS#8 says so in the label of the block, and the older
/// format in the first header of the block.
fn is_encrypted(text: &[u8]) -> bool {
    contains(text, b"ENCRYPTED PRIVATE KEY") || contains(text, b"Proc-Type: 4,ENCRYPTED")
}

/// Whether a file has a private key, of any kind.
#[cfg(feature = "server")]
pub(super) fn has_key(text: &[u8]) -> bool {
    contains(text, b"PRIVATE KEY-----")
}

fn check_pem(text: &[u8], path: &Path) -> Result<(), TlsError> {
    if contains(text, b"-----BEGIN ") { Ok(()) } else { Err(TlsError::NotPem(path.to_owned())) }
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
