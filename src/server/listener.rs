//! How connections come in: from a listener, perhaps through a proxy that names the client, perhaps with TLS. All of it is bounded by the time that
//! a request's head may take, and happens beside the listener.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpStream, UnixListener};

use super::{
    connection::{
        io::{Noted, Socket},
        timeouts::Watch,
    },
    proxy_protocol::{self, NoHeader},
    verify::dialects::is_among,
};
use crate::{handlers::Scheme, tls::Certificates};

/// A socket that is bound.
#[derive(Debug)]
pub enum Listener {
    /// On an address.
    Tcp(TcpListener),
    /// On a unix socket with this path.
    Unix(UnixListener, PathBuf),
}

/// A listener, and what clients have to do before they may ask.
pub struct Door {
    listener: Listener,
    rules: Rules,
}

/// What clients have to do before they may ask. A cheap handle.
#[derive(Clone, Default)]
pub(super) struct Rules {
    certificates: Option<Certificates>,
    /// Who names the client before anything else is said, and is believed.
    proxies: Option<Arc<[IpNet]>>,
}

/// Who sent a request.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    address: Option<SocketAddr>,
    scheme: Scheme,
}

impl Peer {
    /// The client's address. A unix socket's client is on this machine.
    pub fn client(&self) -> IpAddr {
        self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
    }

    /// What the client speaks.
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }
}

impl Listener {
    /// The address, if it has one.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// Where it is reached: `127.0.0.1:8081`, or `unix:/path`.
    pub fn place(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "(unknown)".into(), |address| address.to_string()),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

impl From<Listener> for Door {
    fn from(listener: Listener) -> Self {
        Self { listener, rules: Rules::default() }
    }
}

impl Door {
    /// The same with TLS. A unix socket stays as it is: nothing travels.
    #[must_use]
    pub fn with_tls(mut self, certificates: Option<Certificates>) -> Self {
        self.rules.certificates = certificates;
        self
    }

    /// The same behind proxies that begin each connection with a PROXY header. Connections of others are closed.
    #[must_use]
    pub fn behind(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.rules.proxies = Some(proxies.into_iter().collect());
        self
    }

    pub(super) fn rules(&self) -> &Rules {
        &self.rules
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.listener {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Answers are written whole: waiting for more to send would only delay them.
                let _ = stream.set_nodelay(true);
                let peer = Peer { address: Some(address), scheme: Scheme::Http };
                Ok((Socket::Tcp(stream), peer))
            }
            Listener::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                Ok((Socket::Unix(stream), Peer { address: None, scheme: Scheme::Http }))
            }
        }
    }
}

/// Why a connection did not come in.
pub(super) struct Refused {
    pub whose: Whose,
    pub why: String,
    /// Who has been told why, and may still be sending.
    pub socket: Option<Socket>,
}

/// Who can do something about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// The operator: a proxy or we are set up wrong.
    Operators,
    /// The client, which did something else or broke off.
    Clients,
}

impl Refused {
    fn of(whose: Whose, why: impl ToString) -> Self {
        Self { whose, why: why.to_string(), socket: None }
    }
}

impl Rules {
    /// Whether there are none.
    pub fn is_open(&self) -> bool {
        self.certificates.is_none() && self.proxies.is_none()
    }

    /// Leads a connection in.
    pub async fn let_in(
        &self,
        socket: Socket,
        mut peer: Peer,
        watch: &Arc<Watch>,
    ) -> Result<(Socket, Peer), Refused> {
        let Socket::Tcp(mut stream) = socket else { return Ok((socket, peer)) };
        if let Some(proxies) = &self.proxies {
            peer.address = named(&mut stream, &peer, proxies).await?.or(peer.address);
        }
        let Some(certificates) = &self.certificates else {
            return Ok((Socket::Tcp(stream), peer));
        };
        peer.scheme = Scheme::Https;
        match certificates.accept(Noted::new(stream, watch.clone())).await {
            Ok(stream) => Ok((Socket::Tls(Box::new(stream)), peer)),
            Err((problem, noted)) => {
                let socket = Some(Socket::Tcp(noted.into_inner()));
                Err(Refused { socket, ..Refused::of(Whose::Clients, problem) })
            }
        }
    }
}

/// The client that a proxy names; none: the proxy asks for itself.
async fn named(
    stream: &mut TcpStream,
    peer: &Peer,
    proxies: &[IpNet],
) -> Result<Option<SocketAddr>, Refused> {
    // Asked first: what others say is not even read.
    if !is_among(proxies, peer.client()) {
        let why = "server.proxy_protocol is on, and this client is not in server.trusted_proxies";
        return Err(Refused::of(Whose::Operators, why));
    }
    proxy_protocol::read(stream).await.map_err(|problem| {
        let whose = match problem {
            // A balancer that looks whether anybody listens does no more.
            NoHeader::Broken(_) => Whose::Clients,
            _ => Whose::Operators,
        };
        Refused::of(whose, problem)
    })
}
