//! Settings of the listener for proxies that ask about requests: `[verify]`.

use std::net::SocketAddr;

use ipnet::IpNet;

use super::{Check, ListenAddress, file::VerifySection};
use crate::tls::TlsFiles;

/// The listener for proxies that ask about requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifySettings {
    /// The address. `None` means no such listener.
    pub listen: Option<ListenAddress>,
    /// The proxies that may ask.
    pub trusted_proxies: Vec<IpNet>,
    /// The address for Envoy's gRPC checks. `None` means no such listener.
    pub grpc_listen: Option<SocketAddr>,
    /// The TLS files. `None` means no TLS.
    pub tls: Option<TlsFiles>,
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn verify(&mut self, raw: &VerifySection) -> VerifySettings {
        let settings = VerifySettings {
            listen: match raw.listen.as_str() {
                "" => None,
                text => Some(self.tcp_or_unix("verify.listen", text)),
            },
            trusted_proxies: self.networks("verify.trusted_proxies", &raw.trusted_proxies),
            grpc_listen: match raw.grpc_listen.as_str() {
                "" => None,
                text => Some(self.address("verify.grpc_listen", text, "")),
            },
            tls: self.tls(raw),
        };
        if settings.tls.is_some() && settings.listeners_with_tls() == 0 {
            self.broken(
                "verify.tls_certificate",
                "Neither listener of this section has TLS: a Unix socket has none, because its data does not leave the machine.",
                "Leave this key empty, or set verify.listen or verify.grpc_listen to an address.",
            );
        }
        settings
    }
}

impl VerifySettings {
    fn listeners_with_tls(&self) -> usize {
        let is_tcp = |address: &&ListenAddress| address.tcp().is_some();
        self.listen.iter().filter(is_tcp).count() + self.grpc_listen.iter().count()
    }
}
