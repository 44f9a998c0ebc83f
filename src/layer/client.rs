//! The sources of the client's address, on which failure limits and the networks of keys depend.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use ::http::{request::Parts, uri::Scheme};

use super::{GuardSettings, target::misplaced};
use crate::{
    handlers::UrlScheme,
    http::{
        forwarded::{Report, is_among},
        guard::bad_request,
    },
    pipeline::Denial,
};

/// The address of the client, as an extension of the request. See [`ClientSource::extension`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

type FindClient = dyn Fn(&Parts) -> Option<IpAddr> + Send + Sync;

/// The place from which a guard takes the address of a client.
///
/// A guard asks for it because failure limits count by address, and because keys can be bound to
/// networks. If the place holds no address, the guard refuses the request with 500 and tells the
/// operator: a guard that does not know its clients cannot count their failures.
///
/// ```
/// use keyward::layer::ClientSource;
/// // A server that puts the address of its peer into the extensions of the request.
/// let client = ClientSource::from_fn(|parts| {
///     Some(parts.extensions.get::<std::net::SocketAddr>()?.ip())
/// });
/// ```
#[derive(Clone)]
pub struct ClientSource(pub(super) Source);

#[derive(Clone)]
pub(super) enum Source {
    Known(Arc<FindClient>),
    Unknown,
}

impl ClientSource {
    /// The peer of the connection, which axum knows if the router is served with
    /// `into_make_service_with_connect_info::<SocketAddr>()`.
    #[cfg(feature = "axum")]
    #[must_use]
    pub fn connect_info() -> Self {
        use axum::extract::ConnectInfo;
        Self::from_fn(|parts| {
            Some(parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>()?.0.ip())
        })
    }

    /// The extension [`ClientAddress`] of the request, which the program sets.
    #[must_use]
    pub fn extension() -> Self {
        Self::from_fn(|parts| Some(parts.extensions.get::<ClientAddress>()?.0))
    }

    /// The result of a function. `None` means that the address is missing.
    #[must_use]
    pub fn from_fn(find: impl Fn(&Parts) -> Option<IpAddr> + Send + Sync + 'static) -> Self {
        Self(Source::Known(Arc::new(find)))
    }

    /// The program does not know its clients. Keys that are bound to networks are refused. If the
    /// accounts have failure limits, every request is refused with 500, because the limits could
    /// not count.
    #[must_use]
    pub fn unknown() -> Self {
        Self(Source::Unknown)
    }
}

impl std::fmt::Debug for ClientSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Source::Known(_) => "ClientSource(known)",
            Source::Unknown => "ClientSource(unknown)",
        })
    }
}

/// The client of a request, and the scheme of the request that it sent.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub address: IpAddr,
    pub scheme: UrlScheme,
}

impl Client {
    /// The placeholder for a client address that is unknown.
    pub const UNKNOWN: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
}

impl GuardSettings {
    /// The client: the peer or, if the peer is a trusted proxy, the client that the proxy reports.
    pub(super) fn client(&self, parts: &Parts) -> Result<Client, Denial> {
        let peer = self.peer(parts)?;
        let report = if is_among(&self.trusted, peer) {
            Report::of_proxy(&parts.headers, peer, &self.trusted).map_err(bad_request)?
        } else {
            Report::without_proxy(peer)
        };
        let is_https = parts.uri.scheme().is_some_and(|scheme| *scheme == Scheme::HTTPS);
        let scheme = if is_https { UrlScheme::Https } else { UrlScheme::Http };
        Ok(Client { address: report.client, scheme: report.scheme.unwrap_or(scheme) })
    }

    fn peer(&self, parts: &Parts) -> Result<IpAddr, Denial> {
        match &self.client.0 {
            Source::Known(find) => find(parts).ok_or_else(|| {
                misplaced(
                    "the request has no client address where the ClientSource of the guard looks \
                     for it (with axum: serve the router with \
                     into_make_service_with_connect_info::<SocketAddr>())"
                        .into(),
                )
            }),
            Source::Unknown if self.counts_failures => Err(misplaced(
                "the accounts have failure limits, which need the client's address, and the \
                 guard has ClientSource::unknown()"
                    .into(),
            )),
            Source::Unknown => Ok(Client::UNKNOWN),
        }
    }
}
