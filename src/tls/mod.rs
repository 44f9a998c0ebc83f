//! TLS with rustls on ring: certificates of the listeners, and verification of the servers that
//! Keyward connects to. Also the TCP connections to these servers.

mod client;
mod client_stream;
mod error;
mod pem;
#[cfg(feature = "server")]
mod server;
#[cfg(test)]
#[cfg(feature = "server")]
pub(crate) mod test_authority;
#[cfg(test)]
#[cfg(feature = "server")]
mod tests;
#[cfg(feature = "server")]
mod x509;

use std::sync::Arc;

pub use client::TlsClient;
pub(crate) use client_stream::{ClientStream, EndOnError};
pub use error::TlsError;
use rustls::crypto::CryptoProvider;
#[cfg(feature = "server")]
pub use server::{Certificates, ClientAuth, Reloaded, TlsFiles, authorities};

/// The cryptography of every TLS configuration. Each configuration names the provider, because
/// another library may set the default provider of the process.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
