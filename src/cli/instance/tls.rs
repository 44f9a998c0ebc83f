//! Loads the certificates of the listeners when the program starts, and again when the files
//! change.

use std::time::Duration;

use tokio::signal::unix::Signal;

use crate::{
    cli::terminal::screen,
    config::Settings,
    tls::{Certificates, Reloaded, TlsError, TlsFiles},
};

/// How often the log repeats that a certificate expires soon.
const REMIND: Duration = Duration::from_secs(24 * 3600);

/// The certificates of the listeners. Cheap to clone.
#[derive(Clone)]
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

/// Checks the certificates, and prints a warning for each one that is not valid now or expires
/// soon.
///
/// # Errors
/// As [`load`].
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    if let Some(problem) = load(settings)?.problem() {
        screen::note(&format!("warning: {problem}\n"));
    }
    Ok(())
}

fn load_section(section: &str, files: Option<&TlsFiles>) -> anyhow::Result<Option<Certificates>> {
    let loaded = files.cloned().map(Certificates::load).transpose();
    loaded.map_err(|problem| anyhow::anyhow!("the TLS of [{section}]: {problem}"))
}

impl ListenerCertificates {
    fn all(&self) -> [(&'static str, &Option<Certificates>); 3] {
        [("server", &self.public), ("verify", &self.verify), ("admin", &self.admin)]
    }

    /// The certificates that are not valid now, or that expire soon. `None` means that there are
    /// none.
    pub fn problem(&self) -> Option<String> {
        let warnings = self.all().into_iter().filter_map(|(section, certificates)| {
            let warning = certificates.as_ref()?.warning()?;
            Some(format!("the certificate of [{section}] {warning}"))
        });
        let warnings: Vec<String> = warnings.collect();
        (!warnings.is_empty()).then(|| warnings.join("; "))
    }

    /// Reloads the certificates whenever a file changes and whenever SIGHUP arrives. Never returns.
    pub async fn reload_on_change(self, mut hangups: Signal) {
        let all = self.all();
        let [public, verify, admin] =
            all.map(|(section, certificates)| watch(section, certificates.clone()));
        let on_hangup = async {
            while hangups.recv().await.is_some() {
                for (section, certificates) in all {
                    let Some(certificates) = certificates.clone() else { continue };
                    let reloaded = certificates.clone();
                    let reload = tokio::task::spawn_blocking(move || certificates.reload());
                    if let Ok(outcome) = reload.await {
                        report(section, &outcome);
                        warn(section, &reloaded);
                    }
                }
            }
        };
        tokio::join!(on_hangup, public, verify, admin);
    }
}

async fn watch(section: &str, certificates: Option<Certificates>) {
    let Some(certificates) = certificates else { return };
    let remind = async {
        loop {
            warn(section, &certificates);
            tokio::time::sleep(REMIND).await;
        }
    };
    let following = certificates.follow(|outcome| {
        report(section, outcome);
        warn(section, &certificates);
    });
    let followed = tokio::select! {
        followed = following => followed,
        () = remind => return,
    };
    if let Err(problem) = followed {
        tracing::error!(
            "cannot watch the certificate of [{section}]: {problem}. Send SIGHUP after a change"
        );
    }
}

/// Warns if the certificate in use is not valid now, or expires soon.
fn warn(section: &str, certificates: &Certificates) {
    if let Some(warning) = certificates.warning() {
        tracing::warn!("the certificate of [{section}] {warning}");
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
