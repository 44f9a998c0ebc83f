//! A listener's certificate. It is read at the start and again when its files change; a pair that is not in order never takes the place of one
//! that is.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
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

use super::{TlsError, pem, provider};
use crate::files::{self, Changes, Readers};

/// The most bytes of a file.
const LONGEST: u64 = 1 << 20;

/// Where a listener's certificate lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate, and below it those that signed it.
    pub certificate: PathBuf,
    /// Its private key. It may be the certificate's own file.
    pub key: PathBuf,
    /// Whose certificates are asked for.
    pub clients: Clients,
}

/// What is asked of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Clients {
    /// No certificate.
    Unasked,
    /// A certificate of these authorities, if they have any.
    Optional(PathBuf),
    /// A certificate of these authorities.
    Required(PathBuf),
}

/// The certificate of a listener. A cheap handle.
#[derive(Clone)]
pub struct Certificates(Arc<Inner>);

struct Inner {
    files: Files,
    loaded: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    /// Of all that was read.
    digest: blake3::Hash,
}

/// What came of reading the files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reloaded {
    /// They hold what they held.
    Unchanged,
    /// New connections get the new certificate.
    New,
}

impl Certificates {
    /// Reads the files.
    ///
    /// # Errors
    /// One is not in order, or they do not belong together.
    pub fn load(files: Files) -> Result<Self, TlsError> {
        let loaded = ArcSwap::from_pointee(files.load()?);
        Ok(Self(Arc::new(Inner { files, loaded })))
    }

    /// Reads the files again. Connections that stand keep what they began with.
    ///
    /// # Errors
    /// The same; what was in force stays so.
    pub fn reload(&self) -> Result<Reloaded, TlsError> {
        let new = self.0.files.load()?;
        if new.digest == self.0.loaded.load().digest {
            return Ok(Reloaded::Unchanged);
        }
        self.0.loaded.store(Arc::new(new));
        Ok(Reloaded::New)
    }

    /// Reads the files again whenever something changes where they lie, for ever. `said` is told what came of it, if it is news.
    ///
    /// # Errors
    /// A folder cannot be watched.
    pub async fn follow(
        &self,
        said: impl Fn(&Result<Reloaded, TlsError>) + Send,
    ) -> Result<(), notify::Error> {
        let mut changes = Changes::beside(self.0.files.all())?;
        // What is wrong is said once, however often its folder changes.
        let mut last = String::new();
        loop {
            changes.next().await;
            let outcome = self.clone().reload_aside().await;
            let problem = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
            let is_known = std::mem::replace(&mut last, problem) == last;
            if !is_known || matches!(outcome, Ok(Reloaded::New)) {
                said(&outcome);
            }
        }
    }

    async fn reload_aside(self) -> Result<Reloaded, TlsError> {
        let reloading = tokio::task::spawn_blocking(move || self.reload());
        // One that was cut off has changed nothing.
        reloading.await.unwrap_or(Ok(Reloaded::Unchanged))
    }

    #[cfg(test)]
    pub(super) fn without_protocols(self) -> Self {
        let loaded = self.0.loaded.load();
        let mut config = (*loaded.config).clone();
        config.alpn_protocols.clear();
        let new = Loaded { config: Arc::new(config), digest: loaded.digest };
        self.0.loaded.store(Arc::new(new));
        drop(loaded);
        self
    }

    /// Agrees with a client. On an error the connection comes back, so that what was told to the client can reach it.
    pub(crate) async fn accept<S>(&self, stream: S) -> Result<TlsStream<S>, (std::io::Error, S)>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let config = self.0.loaded.load().config.clone();
        TlsAcceptor::from(config).accept(stream).into_fallible().await
    }
}

impl Files {
    fn all(&self) -> impl Iterator<Item = &Path> {
        let authorities = match &self.clients {
            Clients::Unasked => None,
            Clients::Optional(path) | Clients::Required(path) => Some(path),
        };
        [&self.certificate, &self.key].into_iter().chain(authorities).map(PathBuf::as_path)
    }

    fn load(&self) -> Result<Loaded, TlsError> {
        let certificate_text = match self.certificate == self.key {
            true => read(&self.certificate, Readers::OwnerAlone)?,
            false => read(&self.certificate, Readers::All)?,
        };
        let chain = pem::certificates(&certificate_text, &self.certificate)?;
        let key_text = read(&self.key, Readers::OwnerAlone)?;
        let key = pem::key(&key_text, &self.key)?;
        let mut digest = blake3::Hasher::new();
        // Each with its length, so that nothing moves from one to the other unnoticed.
        for text in [&certificate_text, &key_text] {
            digest.update(&text.len().to_le_bytes()).update(text);
        }
        // Only to tell the two apart; the builder would not say which file it is.
        CertifiedKey::from_der(chain.clone(), key.clone_key(), &provider()).map_err(|problem| {
            match problem {
                Error::InconsistentKeys(_) => {
                    let (certificate, key) = (self.certificate.clone(), self.key.clone());
                    TlsError::Mismatch { certificate, key }
                }
                Error::InvalidCertificate(_) => bad_certificate(&self.certificate, &problem),
                _ => TlsError::UnknownKey(self.key.clone()),
            }
        })?;
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
        Ok(Loaded { config: Arc::new(config), digest: digest.finalize() })
    }

    fn verifier(
        &self,
        digest: &mut blake3::Hasher,
    ) -> Result<Option<Arc<dyn ClientCertVerifier>>, TlsError> {
        let (path, is_optional) = match &self.clients {
            Clients::Unasked => return Ok(None),
            Clients::Optional(path) => (path, true),
            Clients::Required(path) => (path, false),
        };
        let text = read(path, Readers::All)?;
        digest.update(&text);
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

/// The authorities of a file in PEM.
///
/// # Errors
/// It cannot be read, or holds none.
pub fn authorities(path: &Path) -> Result<RootCertStore, TlsError> {
    roots(&read(path, Readers::All)?, path)
}

fn roots(text: &[u8], path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for one in pem::certificates(text, path)? {
        roots.add(one).map_err(|problem| bad_certificate(path, &problem))?;
    }
    Ok(roots)
}

fn bad_certificate(path: &Path, problem: &Error) -> TlsError {
    TlsError::BadCertificate { path: path.to_owned(), problem: problem.to_string() }
}

fn read(path: &Path, readers: Readers) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    files::read(path, LONGEST, readers)
        .map_err(|problem| TlsError::File { path: path.to_owned(), problem })
}
