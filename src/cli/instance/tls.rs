//! Loads the certificates of the listeners when the program starts, and again when the files
//! change.

use tokio::signal::unix::Signal;

use crate::{
    config::Settings,
    tls::{Certificates, Reloaded, TlsError, TlsFiles},
};

/// The certificates of the listeners.
pub struct ListenerCertificates {
    /// The certificates of the public listener. `None` means that this listener has no TLS.
    pub public: Option<Certificates>,
    /// The certificates of the verify listeners. `None` means that these listeners have no TLS.
    pub verify: Option<Certificates>,
    /// The certificates of the admin listener. `None` means that this listener has no TLS.
    pub admin: Option<Certificates>,
}

/// Loads the certificates of the listeners.
///
/// # Errors
/// A certificate is invalid. The error names the section of `config.toml` that configures the
/// certificate, and says how to fix the problem.
pub fn load(settings: &Settings) -> anyhow::Result<ListenerCertificates> {
    Ok(ListenerCertificates {
        public: load_section("server", settings.server.tls.as_ref())?,
        verify: load_section("verify", settings.verify.tls.as_ref())?,
        admin: load_section("admin", settings.admin.tls.as_ref())?,
    })
}

fn load_section(section: &str, files: Option<&TlsFiles>) -> anyhow::Result<Option<Certificates>> {
    let loaded = files.cloned().map(Certificates::load).transpose();
    loaded.map_err(|problem| anyhow::anyhow!("the TLS of [{section}]: {problem}"))
}

impl ListenerCertificates {
    /// Reloads the certificates whenever a file changes and whenever SIGHUP arrives. Never returns.
    pub async fn reload_on_change(self, mut hangups: Signal) {
        let all = [("server", &self.public), ("verify", &self.verify), ("admin", &self.admin)];
        let [public, verify, admin] =
            all.map(|(section, certificates)| watch(section, certificates.clone()));
        let on_hangup = async {
            while hangups.recv().await.is_some() {
                for (section, certificates) in all {
                    let Some(certificates) = certificates.clone() else { continue };
                    let reload = tokio::task::spawn_blocking(move || certificates.reload());
                    if let Ok(outcome) = reload.await {
                        report(section, &outcome);
                    }
                }
            }
        };
        tokio::join!(on_hangup, public, verify, admin);
    }
}

async fn watch(section: &str, certificates: Option<Certificates>) {
    let Some(certificates) = certificates else { return };
    if let Err(problem) = certificates.follow(|outcome| report(section, outcome)).await {
        tracing::error!(
            "cannot watch the certificate of [{section}]: {problem}. Send SIGHUP after a change"
        );
    }
}

fn report(section: &str, outcome: &Result<Reloaded, TlsError>) {
    match outcome {
        Ok(Reloaded::New) => tracing::info!("reloaded the certificate of [{section}]"),
        Ok(Reloaded::Unchanged) => tracing::info!("the certificate of [{section}] is unchanged"),
        Err(problem) => {
            tracing::error!(
                "cannot reload the certificate of [{section}], so the old certificate stays in use: {problem}"
            );
        }
    }
}
