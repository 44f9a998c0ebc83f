//! TLS as a client. A server without a trusted certificate for the requested host is refused.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::provider;

/// Connects to one host over TLS. Cheap to clone.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    protocol: &'static [u8],
}

impl TlsClient {
    /// A client for this host (a name or an address) and this protocol (`h2` or `http/1.1`). The
    /// host's certificate must be signed by one of the authorities; `None` means the public
    /// authorities.
    ///
    /// # Errors
    /// The host is no valid server name, or the provider supports no version of TLS.
    pub fn new(
        host: &str,
        authorities: Option<RootCertStore>,
        protocol: &'static [u8],
    ) -> io::Result<Self> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        let roots = authorities
            .unwrap_or_else(|| RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() });
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?;
        let mut config = builder.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![protocol.to_vec()];
        Ok(Self { config: Arc::new(config), name, protocol })
    }

    /// Performs the handshake.
    ///
    /// # Errors
    /// The certificate is not trusted for the host, or the server does not speak the protocol.
    pub async fn handshake<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        // A server without ALPN selects no protocol, and speaks HTTP/1.1 (RFC 7301, section 3.2).
        if agreed.unwrap_or(b"http/1.1") != self.protocol {
            return Err(io::Error::other("the server does not speak the configured protocol"));
        }
        Ok(stream)
    }
}
