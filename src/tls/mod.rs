//! TLS, with rustls on ring: the certificates of our listeners, and whom we trust when we call others.

mod client;
mod error;
#[cfg(test)]
pub(crate) mod forge;
mod pem;
mod server;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use client::Caller;
pub use error::TlsError;
use rustls::crypto::CryptoProvider;
pub use server::{Certificates, Clients, Files, Reloaded, authorities};

/// The one provider. It is handed to every configuration: a default of the process could be another's.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}
