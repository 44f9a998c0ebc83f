//! The section of the configuration file about the listener for other proxies: `[verify]`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[verify]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct VerifySection {
    /// The address and port, or "unix:/path/to.sock" for a Unix socket. Empty means no such
    /// listener.
    pub listen: String,
    /// The proxies that may ask: addresses and networks, separated by commas. Keyward believes what
    /// they say about their clients. A program that connects to the Unix socket counts as
    /// 127.0.0.1.
    pub trusted_proxies: String,
    /// The address and port for Envoy's gRPC checks (envoy.service.auth.v3). The listener has the
    /// TLS and the trusted_proxies of this section. Empty means no such listener.
    pub grpc_listen: String,
    /// The file of the TLS certificate in PEM, followed by its intermediate certificates. Empty
    /// means no TLS.
    pub tls_certificate: String,
    /// The file of the certificate's private key in PEM, not readable by other users. Empty means
    /// that the key is in the certificate's file.
    pub tls_key: String,
    /// The file of the authorities that sign client certificates, in PEM. Empty means that clients
    /// are not asked for certificates.
    pub tls_client_ca: String,
    /// Whether a client without a certificate is rejected ("required") or accepted ("optional").
    #[schemars(extend("enum" = ["required", "optional"]))]
    pub tls_client_certificates: String,
}

impl Default for VerifySection {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8082".into(),
            trusted_proxies: "127.0.0.0/8, ::1".into(),
            grpc_listen: String::new(),
            tls_certificate: String::new(),
            tls_key: String::new(),
            tls_client_ca: String::new(),
            tls_client_certificates: "required".into(),
        }
    }
}
