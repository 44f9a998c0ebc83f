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
    /// The file of the certificate has no key, and no other file is configured for the key.
    #[error("{}: the file contains no private key. Set tls_key to the file of the certificate's private key, or append the key to this file", .0.display())]
    NoKeyInCertificate(PathBuf),
    /// A certificate of the chain belongs to no other certificate of the file.
    #[error("{}: certificate {number} in the file signed none of the others. The file must contain the server's certificate, followed by the certificates that signed it", .path.display())]
    Unrelated {
        /// The certificate's file.
        path: PathBuf,
        /// The number of the certificate in the file, from 1.
        number: usize,
    },
    /// A certificate that should sign clients' certificates may sign none.
    #[error("{}: the certificate of {subject} is not an authority, so it signs no clients' certificates. Put the certificate that signed it into this file", .path.display())]
    NotAnAuthority {
        /// The file.
        path: PathBuf,
        /// The name in the certificate.
        subject: String,
    },
    /// A new certificate is not valid now, while the current one is.
    #[error("{}: the new certificate {warning}", .path.display())]
    NotValidNow {
        /// The certificate's file.
        path: PathBuf,
        /// When the certificate is valid.
        warning: String,
    },
    /// The key needs a passphrase.
    #[error("{}: the private key is encrypted, and nobody can enter its passphrase when the server starts. Decrypt the key with: openssl pkey -in OLD -out NEW", .0.display())]
    EncryptedKey(PathBuf),
    /// The key has an unsupported kind.
    #[error("{}: the private key has an unsupported kind. Supported are RSA with 2048 to 4096 bits, ECDSA (P-256, P-384) and Ed25519", .0.display())]
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
