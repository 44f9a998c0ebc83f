//! What is wrong with a certificate, a key or a list of authorities. No error shows what a file holds.

use std::path::PathBuf;

use crate::files::FileError;

/// Why there is no TLS with these files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be used as it lies there.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is the matter.
        problem: FileError,
    },
    /// A file is not PEM.
    #[error("{}: it is not PEM: there is no line -----BEGIN …-----. DER becomes PEM with: openssl x509 -inform der, or openssl pkey -inform der", .0.display())]
    NotPem(PathBuf),
    /// A block of a file does not end, or is not base64.
    #[error("{}: it is not PEM to its end: a block is cut off or is not base64", .0.display())]
    BrokenPem(PathBuf),
    /// A file has no certificate.
    #[error("{}: there is no certificate in it (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// A file has no private key.
    #[error("{}: there is no private key in it (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The key needs a passphrase.
    #[error("{}: the private key is encrypted, and nobody is there to give the passphrase. Write it without: openssl pkey -in OLD -out NEW", .0.display())]
    EncryptedKey(PathBuf),
    /// A key of a kind that is not known.
    #[error("{}: the private key cannot be used: RSA, ECDSA (P-256, P-384) and Ed25519 can", .0.display())]
    UnknownKey(PathBuf),
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the first certificate in {}. That one has to be the server's own, with those that signed it below", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate that is none.
    #[error("{}: a certificate cannot be read: {problem}", .path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What the library said.
        problem: String,
    },
}
