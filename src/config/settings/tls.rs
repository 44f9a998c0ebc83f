//! TLS of a listener: the four keys of a section that are validated together.

use std::path::PathBuf;

use super::{Check, ListenAddress, Settings, appended, file, unix_path_fits};
use crate::tls::{ClientAuth, TlsFiles};

/// The TLS keys of a section.
pub(super) struct TlsKeys<'a> {
    /// The section's name.
    section: &'static str,
    certificate: &'a str,
    key: &'a str,
    client_ca: &'a str,
    client_certificates: &'a str,
}

impl<'a> From<&'a file::ServerSection> for TlsKeys<'a> {
    fn from(raw: &'a file::ServerSection) -> Self {
        Self {
            section: "server",
            certificate: &raw.tls_certificate,
            key: &raw.tls_key,
            client_ca: &raw.tls_client_ca,
            client_certificates: &raw.tls_client_certificates,
        }
    }
}

impl<'a> From<&'a file::VerifySection> for TlsKeys<'a> {
    fn from(raw: &'a file::VerifySection) -> Self {
        Self {
            section: "verify",
            certificate: &raw.tls_certificate,
            key: &raw.tls_key,
            client_ca: &raw.tls_client_ca,
            client_certificates: &raw.tls_client_certificates,
        }
    }
}

impl<'a> From<&'a file::AdminSection> for TlsKeys<'a> {
    fn from(raw: &'a file::AdminSection) -> Self {
        Self {
            section: "admin",
            certificate: &raw.tls_certificate,
            key: &raw.tls_key,
            client_ca: &raw.tls_client_ca,
            client_certificates: &raw.tls_client_certificates,
        }
    }
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    /// The TLS files of a listener. `None` means no TLS. The files are read when the listener
    /// starts.
    pub(super) fn tls<'a>(&mut self, raw: impl Into<TlsKeys<'a>>) -> Option<TlsFiles> {
        let raw = raw.into();
        let name = |key: &str| format!("{}.{key}", raw.section);
        let choices = [("required", true), ("optional", false)];
        let clients_name = name("tls_client_certificates");
        let is_required = self.choice(&clients_name, raw.client_certificates, choices);
        if raw.certificate.is_empty() {
            for (key, text) in [("tls_key", raw.key), ("tls_client_ca", raw.client_ca)] {
                if !text.is_empty() {
                    let message = "Without a certificate, the listener has no TLS and this key has no effect.";
                    let fix =
                        format!("Set {} too, or leave this key empty.", name("tls_certificate"));
                    self.broken(&name(key), message, fix);
                }
            }
            return None;
        }
        Some(TlsFiles {
            certificate: raw.certificate.into(),
            key: if raw.key.is_empty() { raw.certificate } else { raw.key }.into(),
            clients: match raw.client_ca {
                "" => ClientAuth::Unrequested,
                ca if is_required => ClientAuth::Required(ca.into()),
                ca => ClientAuth::Optional(ca.into()),
            },
        })
    }

    /// Checks the rules for an admin listener with TLS. The command line reaches such a listener's
    /// server through a socket beside the store.
    pub(super) fn admin_tls(&mut self, settings: &Settings) {
        if settings.admin.tls.is_none() {
            return;
        }
        if matches!(settings.admin.listen, ListenAddress::Unix(_)) {
            self.broken(
                "admin.tls_certificate",
                "A Unix socket has no TLS, because its data does not leave the machine.",
                "Leave this key empty, or set admin.listen to an address.",
            );
        }
        if !unix_path_fits(&settings.store.socket_file) {
            let message = "While admin.tls_certificate is set, the command line uses a socket beside the store, and the path of this socket is longer than 107 bytes.";
            let fix = "Use a shorter path.";
            (self.report)(&["store.path"], message.into(), fix.into());
        }
    }
}

/// The socket through which the command line reaches a server whose admin listener has TLS, as an
/// absolute path.
pub(super) fn socket_file(store: &std::path::Path) -> PathBuf {
    let path = appended(store, ".sock");
    std::path::absolute(&path).unwrap_or(path)
}
