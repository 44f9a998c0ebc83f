//! Errors of certificates, keys and authorities. No error shows the content of a file.

use std::path::PathBuf;

use crate::files::FileError;

/// Files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or has the wrong permissions.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: FileError,
    },
    /// A file is not PEM.
    #[error("{}: the file is not PEM: it has no line -----BEGIN …-----. Convert DER to PEM with: openssl x509 -inform der, or openssl pkey -inform der", .0.display())]
    NotPem(PathBuf),
    /// A block of a file does not end, or is not base64.
    #[error("{}: the file is not valid PEM: a block is cut off or is not base64", .0.display())]
    BrokenPem(PathBuf),
    /// A file has no certificate.
    #[error("{}: the file contains no certificate (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// A file has no private key.
    #[error("{}: the file contains no private key (-----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The key needs a passphrase.
    #[error("{}: the private key is encrypted, and nobody can enter its passphrase when the server starts. Decrypt the key with: openssl pkey -in OLD -out NEW", .0.display())]
    EncryptedKey(PathBuf),
    /// The key has an unsupported kind.
    #[error("{}: the private key has an unsupported kind. Supported are RSA, ECDSA (P-256, P-384) and Ed25519", .0.display())]
    UnsupportedKey(PathBuf),
    /// The key belongs to another certificate.
    #[error("the private key in {} does not belong to the first certificate in {}. The first certificate must be the server's own, followed by the certificates that signed it", .key.display(), .certificate.display())]
    Mismatch {
        /// The certificate's file.
        certificate: PathBuf,
        /// The key's file.
        key: PathBuf,
    },
    /// A certificate cannot be parsed.
    #[error("{}: a certificate cannot be read: {problem}", .path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// The library's message.
        problem: String,
    },
}
