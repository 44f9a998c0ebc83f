//! TLS towards others. Whom we do not know, or who is not who we called, we do not talk to.

use std::{io, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::provider;

/// Calls one host over TLS. A cheap handle.
#[derive(Clone)]
pub struct Caller {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    protocol: &'static [u8],
}

impl Caller {
    /// Calls this host, a name or an address, and speaks this protocol with it (`h2` or `http/1.1`). It has to show a certificate that one of the
    /// authorities signed; without any, one of the public ones.
    ///
    /// # Errors
    /// The host is no name, or the provider has no version of TLS.
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

    /// Agrees with whoever is at the other end.
    ///
    /// # Errors
    /// It is not the host that was called, or does not speak the protocol.
    pub async fn call<S>(&self, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let connector = TlsConnector::from(self.config.clone());
        let stream = connector.connect(self.name.clone(), stream).await?;
        let agreed = stream.get_ref().1.alpn_protocol();
        // A server may pass over the question, and speaks HTTP/1.1 then (RFC 7301, section 3.2).
        match agreed.unwrap_or(b"http/1.1") == self.protocol {
            true => Ok(stream),
            false => {
                Err(io::Error::other("it does not speak the protocol that the resource names"))
            }
        }
    }
}
