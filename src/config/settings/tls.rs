//! TLS on a listener: which keys go together.

use std::path::PathBuf;

use super::{AdminListen, Check, Settings, appended, file, unix_path_fits};

/// TLS on a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file; it may be the same.
    pub key: PathBuf,
    /// The file of those that sign clients' certificates; none: clients are asked for none.
    pub client_ca: Option<PathBuf>,
    /// What becomes of clients without one.
    pub clients: ClientCertificates,
}

/// What becomes of clients without a certificate, where one is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientCertificates {
    /// They are turned away.
    Required,
    /// They come in.
    Optional,
}

/// What a section says of TLS.
pub(super) struct Raw<'a> {
    /// The names of the section's four keys.
    names: [&'static str; 4],
    certificate: &'a str,
    key: &'a str,
    client_ca: &'a str,
    client_certificates: &'a str,
}

impl<'a> From<&'a file::Server> for Raw<'a> {
    fn from(raw: &'a file::Server) -> Self {
        Self {
            names: [
                "server.tls_certificate",
                "server.tls_key",
                "server.tls_client_ca",
                "server.tls_client_certificates",
            ],
            certificate: &raw.tls_certificate,
            key: &raw.tls_key,
            client_ca: &raw.tls_client_ca,
            client_certificates: &raw.tls_client_certificates,
        }
    }
}

impl<'a> From<&'a file::Admin> for Raw<'a> {
    fn from(raw: &'a file::Admin) -> Self {
        Self {
            names: [
                "admin.tls_certificate",
                "admin.tls_key",
                "admin.tls_client_ca",
                "admin.tls_client_certificates",
            ],
            certificate: &raw.tls_certificate,
            key: &raw.tls_key,
            client_ca: &raw.tls_client_ca,
            client_certificates: &raw.tls_client_certificates,
        }
    }
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    /// Whether and how a listener has TLS. Files are looked into when it starts.
    pub(super) fn tls<'a>(&mut self, raw: impl Into<Raw<'a>>) -> Option<TlsSettings> {
        let raw = raw.into();
        let [name, key_name, ca_name, clients_name] = raw.names;
        let choices = [
            ("required", ClientCertificates::Required),
            ("optional", ClientCertificates::Optional),
        ];
        let clients = self.choice(clients_name, raw.client_certificates, choices);
        if raw.certificate.is_empty() {
            for (key, text) in [(key_name, raw.key), (ca_name, raw.client_ca)] {
                if !text.is_empty() {
                    let fix = format!("Set {name} too, or leave this empty.");
                    self.broken(key, "Without a certificate there is no TLS.", fix);
                }
            }
            return None;
        }
        let or = |text: &str, other: &str| match text {
            "" => other.into(),
            text => text.into(),
        };
        Some(TlsSettings {
            certificate: raw.certificate.into(),
            key: or(raw.key, raw.certificate),
            client_ca: (!raw.client_ca.is_empty()).then(|| raw.client_ca.into()),
            clients,
        })
    }

    /// The admin listener with TLS: the command line comes in by a socket beside the store.
    pub(super) fn admin_tls(&mut self, settings: &Settings) {
        if settings.admin.tls.is_none() {
            return;
        }
        if matches!(settings.admin.listen, AdminListen::Unix(_)) {
            self.broken(
                "admin.tls_certificate",
                "A unix socket has no TLS: nothing travels.",
                "Leave this empty, or have admin.listen name an address.",
            );
        }
        if !unix_path_fits(&settings.store.socket_file) {
            let message = "The path of the socket beside the store, which the command line uses while admin.tls_certificate is set, is longer than 107 bytes.";
            let fix = "Use a shorter path.";
            (self.report)(&["store.path"], message.into(), fix.into());
        }
    }
}

/// Where the command line reaches a server whose admin listener has TLS: an absolute path.
pub(super) fn socket_file(store: &std::path::Path) -> PathBuf {
    let path = appended(store, ".sock");
    std::path::absolute(&path).unwrap_or(path)
}
