//! The certificates that the configuration names: loaded at the start, and again when they change.

use tokio::signal::unix::Signal;

use crate::{
    config::{ClientCertificates, Settings, TlsSettings},
    tls::{Certificates, ClientAuth, Reloaded, TlsError, TlsFiles},
};

/// The certificates of both listeners.
pub struct Loaded {
    /// The public one's.
    pub public: Option<Certificates>,
    /// The admin one's.
    pub admin: Option<Certificates>,
}

/// Reads the certificates.
///
/// # Errors
/// Which is not in order, and what to do.
pub fn load(settings: &Settings) -> anyhow::Result<Loaded> {
    Ok(Loaded {
        public: load_one("server", settings.server.tls.as_ref())?,
        admin: load_one("admin", settings.admin.tls.as_ref())?,
    })
}

fn load_one(section: &str, tls: Option<&TlsSettings>) -> anyhow::Result<Option<Certificates>> {
    let Some(tls) = tls else { return Ok(None) };
    let clients = match (&tls.client_ca, tls.clients) {
        (None, _) => ClientAuth::Unrequested,
        (Some(path), ClientCertificates::Required) => ClientAuth::Required(path.clone()),
        (Some(path), ClientCertificates::Optional) => ClientAuth::Optional(path.clone()),
    };
    let (certificate, key) = (tls.certificate.clone(), tls.key.clone());
    let loaded = Certificates::load(TlsFiles { certificate, key, clients });
    loaded.map(Some).map_err(|problem| anyhow::anyhow!("the TLS of [{section}]: {problem}"))
}

impl Loaded {
    /// Reads them again when a file changes, and on SIGHUP. For ever.
    pub async fn follow(self, mut hangups: Signal) {
        let (public, admin) = (self.public.clone(), self.admin.clone());
        let asked = async {
            while hangups.recv().await.is_some() {
                for (section, one) in [("server", &self.public), ("admin", &self.admin)] {
                    let Some(one) = one.clone() else { continue };
                    if let Ok(outcome) = tokio::task::spawn_blocking(move || one.reload()).await {
                        report(section, &outcome);
                    }
                }
            }
        };
        tokio::join!(asked, watch("server", public), watch("admin", admin));
    }
}

async fn watch(section: &str, certificates: Option<Certificates>) {
    let Some(certificates) = certificates else { return };
    if let Err(problem) = certificates.follow(|outcome| report(section, outcome)).await {
        tracing::error!(
            "the certificate of [{section}] cannot be watched: {problem}. Send SIGHUP after a change"
        );
    }
}

fn report(section: &str, outcome: &Result<Reloaded, TlsError>) {
    match outcome {
        Ok(Reloaded::New) => tracing::info!("the certificate of [{section}] is a new one"),
        Ok(Reloaded::Unchanged) => tracing::info!("the certificate of [{section}] is the same"),
        Err(problem) => {
            tracing::error!("the certificate of [{section}] stays as it was: {problem}");
        }
    }
}
