//! Listeners, and the handshake of a new connection. The handshake consists of an optional PROXY
//! header, which names the client, and then optional TLS. The time limit for a handshake is the
//! time limit for a request's head. The listener accepts other connections during a handshake.

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
        io::{Socket, TlsIo},
        timeouts::ConnectionTimeouts,
        window::WindowBudget,
    },
    observed::Observed,
    peers::{PeerConnection, PeerLimit},
    proxy_protocol::{self, ProxyHeaderError},
};
use crate::{
    handlers::UrlScheme,
    http::forwarded::is_among,
    limits::Buffers,
    pipeline::record::{ListenerKind, RequestObserver},
    tls::Certificates,
};

/// A socket that is bound to an address or a path.
#[derive(Debug)]
pub enum BoundSocket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A unix socket with this path.
    Unix(UnixListener, PathBuf),
}

/// A bound socket, with the rules for its connections.
pub struct Listener {
    socket: BoundSocket,
    rules: AcceptRules,
    peers: PeerLimit,
    observed: Observed,
    /// `None` means that HTTP/2 windows do not count.
    windows: Option<WindowBudget>,
}

/// The handshake that a connection needs before its first request. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct AcceptRules {
    /// `None` means no TLS.
    certificates: Option<Certificates>,
    /// The trusted proxies, which begin each connection with a PROXY header. `None` means no PROXY
    /// protocol.
    proxies: Option<Arc<[IpNet]>>,
}

/// The peer of a connection: the client or a proxy in front.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    /// `None` means a unix socket.
    address: Option<SocketAddr>,
    scheme: UrlScheme,
    /// Whether a proxy began the connection with a PROXY header that names no client.
    is_unnamed: bool,
    /// The Unix user at the other end of a Unix socket. `None` means another socket.
    user: Option<u32>,
}

impl Peer {
    /// The client's address. For a unix socket, the address is 127.0.0.1, because the client runs
    /// on this machine.
    pub fn client(&self) -> IpAddr {
        self.address.map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |address| address.ip())
    }

    /// Whether a proxy forwards the bytes of a client that it does not name. Then the header fields
    /// are the client's, although the address is the proxy's.
    pub(super) fn is_unnamed(&self) -> bool {
        self.is_unnamed
    }

    /// Whether the peer is connected through a Unix socket.
    pub fn is_unix_socket(&self) -> bool {
        self.address.is_none()
    }

    /// The Unix user of the peer's process (SO_PEERCRED). `None` means that the peer is not
    /// connected through a Unix socket.
    pub fn unix_user(&self) -> Option<u32> {
        self.user
    }

    /// The scheme of the connection.
    pub fn scheme(&self) -> UrlScheme {
        self.scheme
    }
}

impl BoundSocket {
    /// The address. `None` means a unix socket.
    pub fn tcp_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    /// The address as text: `127.0.0.1:8081`, or `unix:/path`.
    pub fn display_address(&self) -> String {
        match self {
            Self::Tcp(listener) => listener
                .local_addr()
                .map_or_else(|_| "(unknown)".into(), |address| address.to_string()),
            Self::Unix(_, path) => format!("unix:{}", path.display()),
        }
    }
}

impl From<BoundSocket> for Listener {
    fn from(socket: BoundSocket) -> Self {
        let (rules, observed) = (AcceptRules::default(), Observed::default());
        Self { socket, rules, peers: PeerLimit::none(), observed, windows: None }
    }
}

impl Listener {
    /// Adds TLS. A unix socket never has TLS, because its bytes do not leave the machine.
    #[must_use]
    pub fn with_tls(mut self, certificates: Option<Certificates>) -> Self {
        self.rules.certificates = certificates;
        self
    }

    /// Expects a PROXY header from these proxies at the beginning of each connection. Connections
    /// of other clients are closed.
    #[must_use]
    pub fn with_proxy_protocol(mut self, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        self.rules.proxies = Some(proxies.into_iter().collect());
        self
    }

    /// Limits how many open connections one address may have.
    #[must_use]
    pub fn with_peer_limit(mut self, peers: PeerLimit) -> Self {
        self.peers = peers;
        self
    }

    /// Reports the requests and connections to `observer`.
    #[must_use]
    pub fn observed_by(mut self, observer: Arc<dyn RequestObserver>, kind: ListenerKind) -> Self {
        self.observed = Observed::by(observer, kind);
        self
    }

    pub(super) fn observed(&self) -> &Observed {
        &self.observed
    }

    /// Counts the bytes that HTTP/2 clients may send before they are read. The connections of
    /// `proxies` have no limit of their own, because they carry the requests of many clients.
    #[must_use]
    pub fn with_buffers(
        mut self,
        buffers: Buffers,
        proxies: impl IntoIterator<Item = IpNet>,
    ) -> Self {
        self.windows = Some(WindowBudget::new(buffers, proxies));
        self
    }

    pub(super) fn windows(&self) -> Option<&WindowBudget> {
        self.windows.as_ref()
    }

    /// Counts a connection of this peer. `None` means that its address has too many.
    pub(super) fn admit(&self, peer: &Peer) -> Option<PeerConnection> {
        self.peers.admit(peer.address.map(|address| address.ip()))
    }

    pub(super) fn rules(&self) -> &AcceptRules {
        &self.rules
    }

    pub(super) async fn accept(&self) -> io::Result<(Socket, Peer)> {
        match &self.socket {
            BoundSocket::Tcp(listener) => {
                let (stream, address) = listener.accept().await?;
                // Turns off Nagle's algorithm: a response is written in one piece, so a wait for
                // more bytes would only delay the response.
                let _ = stream.set_nodelay(true);
                let peer = Peer {
                    address: Some(address),
                    scheme: UrlScheme::Http,
                    is_unnamed: false,
                    user: None,
                };
                Ok((Socket::Tcp(stream), peer))
            }
            BoundSocket::Unix(listener, _) => {
                let (stream, _) = listener.accept().await?;
                let user = stream.peer_cred().ok().map(|peer| peer.uid());
                let peer = Peer { address: None, scheme: UrlScheme::Http, is_unnamed: false, user };
                Ok((Socket::Unix(stream), peer))
            }
        }
    }
}

/// A handshake that failed.
pub(super) struct FailedHandshake {
    pub blame: Blame,
    pub reason: String,
    /// The socket of a failed TLS handshake, after the TLS alert was sent. The caller reads the
    /// remaining bytes before it closes the socket, so that the client receives the alert.
    pub socket: Option<Socket>,
}

/// The party that can fix the cause of a failed handshake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Blame {
    /// The operator: the configuration of a proxy or of this server is wrong.
    Operator,
    /// The client: it did not begin a valid handshake, or it closed the connection.
    Client,
}

impl FailedHandshake {
    fn new(blame: Blame, reason: impl ToString) -> Self {
        Self { blame, reason: reason.to_string(), socket: None }
    }
}

impl AcceptRules {
    /// Whether a connection needs no handshake.
    pub fn is_empty(&self) -> bool {
        self.certificates.is_none() && self.proxies.is_none()
    }

    /// Performs the handshake of a new connection.
    pub async fn handshake(
        &self,
        socket: Socket,
        mut peer: Peer,
        timeouts: &Arc<ConnectionTimeouts>,
    ) -> Result<(Socket, Peer), FailedHandshake> {
        let Socket::Tcp(mut stream) = socket else { return Ok((socket, peer)) };
        if let Some(proxies) = &self.proxies {
            timeouts.set_awaits_proxy_header(true);
            let client = proxied_client(&mut stream, &peer, proxies).await?;
            peer.is_unnamed = client.is_none();
            peer.address = client.or(peer.address);
            timeouts.set_awaits_proxy_header(false);
        }
        let Some(certificates) = &self.certificates else {
            return Ok((Socket::Tcp(stream), peer));
        };
        peer.scheme = UrlScheme::Https;
        match certificates.accept(TlsIo::new(stream, timeouts.clone())).await {
            Ok(stream) => Ok((Socket::Tls(Box::new(stream)), peer)),
            Err((problem, io)) => {
                let socket = Some(Socket::Tcp(io.into_inner()));
                Err(FailedHandshake { socket, ..FailedHandshake::new(Blame::Client, problem) })
            }
        }
    }
}

/// The client that a proxy names in its PROXY header. `None` means that the proxy itself is the
/// client.
async fn proxied_client(
    stream: &mut TcpStream,
    peer: &Peer,
    proxies: &[IpNet],
) -> Result<Option<SocketAddr>, FailedHandshake> {
    // Check the address before the first read: nothing is read from a client that is not a trusted
    // proxy.
    if !is_among(proxies, peer.client()) {
        let reason =
            "server.proxy_protocol is on, and this client is not in server.trusted_proxies";
        return Err(FailedHandshake::new(Blame::Operator, reason));
    }
    proxy_protocol::read_header(stream).await.map_err(|problem| {
        let blame = match problem {
            // A load balancer's health check connects and closes at once, which is not a mistake of
            // the operator.
            ProxyHeaderError::Broken(_) => Blame::Client,
            _ => Blame::Operator,
        };
        FailedHandshake::new(blame, problem)
    })
}
