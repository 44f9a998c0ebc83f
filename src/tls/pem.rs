//! Certificates and keys out of PEM (RFC 7468).

use std::path::Path;

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};

use super::TlsError;

/// All certificates of a text, in their order.
pub(super) fn certificates(
    text: &[u8],
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    begins(text, path)?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => Err(TlsError::NoCertificate(path.to_owned())),
        Ok(found) => Ok(found),
        Err(_) => Err(TlsError::BrokenPem(path.to_owned())),
    }
}

/// The first private key of a text.
pub(super) fn key(text: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    begins(text, path)?;
    PrivateKeyDer::from_pem_slice(text).map_err(|problem| match problem {
        pem::Error::NoItemsFound if is_encrypted(text) => TlsError::EncryptedKey(path.to_owned()),
        pem::Error::NoItemsFound => TlsError::NoKey(path.to_owned()),
        _ => TlsError::BrokenPem(path.to_owned()),
    })
}

/// PKCS#8 says so in the block's name, the older form in its first line.
fn is_encrypted(text: &[u8]) -> bool {
    has(text, b"ENCRYPTED PRIVATE KEY") || has(text, b"Proc-Type: 4,ENCRYPTED")
}

fn begins(text: &[u8], path: &Path) -> Result<(), TlsError> {
    match has(text, b"-----BEGIN ") {
        true => Ok(()),
        false => Err(TlsError::NotPem(path.to_owned())),
    }
}

fn has(text: &[u8], part: &[u8]) -> bool {
    memchr::memmem::find(text, part).is_some()
}
