//! Certificates of a listener: loaded at the start and again when their files change. An invalid
//! pair of certificate and key never replaces a valid pair.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use rustls::{
    Error, RootCertStore, ServerConfig,
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::CertifiedKey,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use super::{
    TlsError, pem, provider,
    x509::{self, Validity, ValidityWarning},
};
use crate::files::{self, Changes, Readers};

/// How often the files are read without a change: a certificate that is not valid yet can become
/// valid.
const RECHECK: Duration = Duration::from_secs(600);
/// The maximum size of a file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// The files of a listener's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, followed by the certificates that signed it.
    pub certificate: PathBuf,
    /// The private key of the certificate. May be in the same file as the certificate.
    pub key: PathBuf,
    /// Whether clients must present a certificate.
    pub clients: ClientAuth,
}

/// Whether clients must present a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuth {
    /// Clients are not asked for a certificate.
    Unrequested,
    /// If a client presents a certificate, it must be from these authorities.
    Optional(PathBuf),
    /// Every client must present a certificate from these authorities.
    Required(PathBuf),
}

/// The certificate of a listener. Cheap to clone.
#[derive(Clone)]
pub struct Certificates(Arc<State>);

struct State {
    files: TlsFiles,
    loaded: ArcSwap<LoadedConfig>,
}

struct LoadedConfig {
    config: Arc<ServerConfig>,
    /// Digest of everything that was read.
    digest: blake3::Hash,
    /// When the certificates are valid. `None` means that this is unknown.
    validity: Option<Validity>,
}

impl LoadedConfig {
    fn warning(&self, now: i64) -> Option<ValidityWarning> {
        self.validity?.warning(now)
    }
}

/// The outcome of reading the files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// The files have not changed.
    Unchanged,
    /// New connections use the new certificate.
    New,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// A file is invalid, or certificate and key do not match.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let loaded = ArcSwap::from_pointee(files.load()?);
        Ok(Self(Arc::new(State { files, loaded })))
    }

    /// Reads the files again. Open connections keep their certificate.
    ///
    /// # Errors
    /// A file is invalid, certificate and key do not match, or the new certificate is not valid now
    /// and the current one is. The current certificate stays in use.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let new = self.0.files.load()?;
        let current = self.0.loaded.load();
        if new.digest == current.digest {
            return Ok(Reloaded::Unchanged);
        }
        let now = x509::now();
        let is_invalid = |warning: &ValidityWarning| warning.is_invalid();
        if let Some(warning) = new.warning(now).filter(is_invalid)
            && !current.warning(now).is_some_and(ValidityWarning::is_invalid)
        {
            let (path, warning) = (self.0.files.certificate.clone(), warning.to_string());
            return Err(TlsError::NotValidNow { path, warning });
        }
        self.0.loaded.store(Arc::new(new));
        Ok(Reloaded::New)
    }

    /// Tells if the certificate in use is not valid now, or only for a few more days: `expires in 3
    /// days, at …`. `None` means that all is well.
    pub fn warning(&self) -> Option<String> {
        self.0.loaded.load().warning(x509::now()).map(|warning| warning.to_string())
    }

    /// Reloads the files each time that one of their folders changes, without an end. Calls
    /// `report` for each new certificate, and each time that a problem begins, changes or ends.
    ///
    /// # Errors
    /// A folder cannot be watched.
    pub async fn follow(
        &self,
        report: impl Fn(&Result<Reloaded, TlsError>) + Send,
    ) -> Result<(), notify::Error> {
        let mut changes = Changes::in_folders_of(self.0.files.all())?;
        // A problem is reported once, however often the folder changes.
        let mut last = String::new();
        loop {
            let _ = tokio::time::timeout(RECHECK, changes.next()).await;
            let outcome = self.clone().reload_in_background().await;
            let problem = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let is_known = std::mem::replace(&mut last, problem) == last;
            if !is_known || matches!(outcome, Ok(Reloaded::New)) {
                report(&outcome);
            }
        }
    }

    async fn reload_in_background(self) -> Result<Reloaded, TlsError> {
        let reloading = tokio::task::spawn_blocking(move || self.reload());
        // A task that was cancelled has changed nothing.
        reloading.await.unwrap_or(Ok(Reloaded::Unchanged))
    }

    #[cfg(test)]
    pub(super) fn without_protocols(self) -> Self {
        let loaded = self.0.loaded.load();
        let mut config = (*loaded.config).clone();
        config.alpn_protocols.clear();
        let (config, digest, validity) = (Arc::new(config), loaded.digest, loaded.validity);
        let new = LoadedConfig { config, digest, validity };
        self.0.loaded.store(Arc::new(new));
        drop(loaded);
        self
    }

    /// Performs the handshake with a client. An error returns the connection, so that the caller
    /// can keep it open until the client has read the TLS alert.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, (std::io::Error, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.0.loaded.load().config.clone();
        TlsAcceptor::from(config).accept(stream).into_fallible().await
    }
}

impl TlsFiles {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let authorities = match &self.clients {
            ClientAuth::Unrequested => None,
            ClientAuth::Optional(path) | ClientAuth::Required(path) => Some(path),
        };
        [&self.certificate, &self.key].into_iter().chain(authorities).map(PathBuf::as_path)
    }

    fn load(&self) -> Result<LoadedConfig, TlsError> {
        let mut certificate_text = read(&self.certificate, Readers::All)?;
        if self.certificate == self.key {
            if !pem::has_key(&certificate_text) && !certificate_text.is_empty() {
                return Err(TlsError::NoKeyInCertificate(self.certificate.clone()));
            }
            certificate_text = read(&self.certificate, Readers::OwnerOnly)?;
        }
        let chain = pem::certificates(&certificate_text, &self.certificate)?;
        let key_text = read(&self.key, Readers::OwnerOnly)?;
        let key = pem::key(&key_text, &self.key)?;
        let mut digest = blake3::Hasher::new();
        // The digest includes the lengths, so that the digest also changes if bytes move from one
        // file to the other.
        for text in [&certificate_text, &key_text] {
            digest.update(&text.len().to_le_bytes()).update(text);
        }
        // This key is built only to find out which file is at fault, because the builder below does
        // not say so.
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|problem| {
            match problem {
                Error::InconsistentKeys(_) => {
                    let (certificate, key) = (self.certificate.clone(), self.key.clone());
                    TlsError::Mismatch { certificate, key }
                }
                Error::InvalidCertificate(_) => bad_certificate(&self.certificate, &problem),
                _ => TlsError::UnsupportedKey(self.key.clone()),
            }
        })?;
        if let Some(number) = x509::unrelated(&chain) {
            return Err(TlsError::Unrelated { path: self.certificate.clone(), number });
        }
        let validity = Validity::of(&chain);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|problem| bad_certificate(&self.certificate, &problem))?;
        let builder = match self.verifier(&mut digest)? {
            None => builder.with_no_client_auth(),
            Some(verifier) => builder.with_client_cert_verifier(verifier),
        };
        let mut config = builder
            .with_single_cert(chain, key)
            .map_err(|problem| bad_certificate(&self.certificate, &problem))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(LoadedConfig { config: Arc::new(config), digest: digest.finalize(), validity })
    }

    fn verifier(
        &self,
        digest: &mut blake3::Hasher,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (path, is_optional) = match &self.clients {
            ClientAuth::Unrequested => return Ok(None),
            ClientAuth::Optional(path) => (path, true),
            ClientAuth::Required(path) => (path, false),
        };
        let text = read(path, Readers::All)?;
        digest.update(&text);
        let certificates = pem::certificates(&text, path)?;
        if let Some(subject) = certificates.iter().find_map(x509::name_of_leaf) {
            return Err(TlsError::NotAnAuthority { path: path.clone(), subject });
        }
        let roots = roots(&text, path)?;
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = if is_optional { builder.allow_unauthenticated() } else { builder };
        let verifier = builder.build().map_err(|problem| TlsError::BadCertificate {
            path: path.clone(),
            problem: problem.to_string(),
        })?;
        Ok(Some(verifier))
    }
}

/// Reads the certificate authorities from a PEM file.
///
/// # Errors
/// The file cannot be read, or contains no certificate.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    roots(&read(path, Readers::All)?, path)
}

fn roots(text: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in pem::certificates(text, path)? {
        roots.add(certificate).map_err(|problem| bad_certificate(path, &problem))?;
    }
    Ok(roots)
}

fn bad_certificate(path: &Path, problem: &Error) -> TlsError {
    TlsError::BadCertificate { path: path.to_owned(), problem: problem.to_string() }
}

fn read(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    files::read(path, MAX_FILE, readers)
        .map_err(|problem| TlsError::File { path: path.to_owned(), problem })
}
