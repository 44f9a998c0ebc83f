//! One upstream with its address, its connection pool and its health.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use ::http::HeaderValue;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use super::{
    connection::{Http1Sender, Http2Sender, Reuse, UpstreamConnection},
    error::{ProxyError, with_causes},
    health::{Health, UpstreamResult},
    networks::UpstreamNetworks,
    upload::UploadProgress,
};
use crate::{
    model::{Protocol, Proxy, Target, Transport},
    tls::{ClientStream, EndOnError, TlsClient},
};

/// The maximum number of pooled connections.
const MAX_POOLED: usize = 256;
/// How long an unused connection stays in the pool.
const POOL_TIME: Duration = Duration::from_secs(60);
/// The interval of pings on an HTTP/2 connection with open requests.
const PING: Duration = Duration::from_secs(20);

/// A stream that carries HTTP.
trait IoStream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> IoStream for S {}

/// One upstream.
pub(super) struct Endpoint {
    target: Target,
    /// The name in logs and metrics.
    name: Arc<str>,
    networks: UpstreamNetworks,
    /// The TLS client; `None` means plain HTTP.
    tls: Option<TlsClient>,
    /// The upstream's `Host`.
    pub host: HeaderValue,
    pub protocol: Protocol,
    /// Unused HTTP/1.1 connections, the longest unused first.
    pool: Mutex<Vec<(Instant, Http1Sender)>>,
    /// The HTTP/2 connection. The lock is held while a connection is opened, so that only one
    /// connection is opened.
    shared: tokio::sync::Mutex<Option<Http2Sender>>,
    health: Health,
}

impl Endpoint {
    /// `settings` contains the protocol and the trusted certificate authorities.
    ///
    /// # Errors
    /// The host is not a valid TLS server name, or the authorities are invalid.
    pub fn new(target: Target, settings: &Proxy, networks: UpstreamNetworks) -> io::Result<Self> {
        let protocol = settings.protocol;
        let tls = match target.transport {
            Transport::Clear => None,
            Transport::Tls => {
                let authorities = settings.authorities().map_err(io::Error::other)?;
                let alpn = match protocol {
                    Protocol::Http1 => b"http/1.1".as_slice(),
                    Protocol::Http2 => b"h2",
                };
                Some(TlsClient::new(&target.host, authorities, alpn)?)
            }
        };
        // This cannot fail, because a parsed address is ASCII without spaces.
        let host = HeaderValue::from_str(&target.authority)
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        Ok(Self {
            name: target.authority.as_str().into(),
            target,
            networks,
            tls,
            host,
            protocol,
            pool: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            health: Health::new(),
        })
    }

    /// The scheme of the upstream's URLs.
    pub fn scheme(&self) -> &'static str {
        self.target.transport.scheme()
    }

    /// The name in logs and metrics.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The path of the upstream's URL. Every forwarded path begins with this path.
    pub fn base(&self) -> &str {
        &self.target.base
    }

    /// The remaining time of the ejection; `None` means that the upstream is not ejected.
    pub fn ejected_for(&self) -> Option<Duration> {
        self.health.ejected_for(Instant::now())
    }

    /// Records the result of a request.
    pub fn record(&self, result: UpstreamResult, settings: &Proxy) {
        if self.health.record(result, settings, Instant::now()) {
            tracing::warn!(
                upstream = &*self.name,
                seconds = settings.eject_seconds,
                "ejected a failing upstream; if the resource has other upstreams, they get its requests"
            );
        }
    }

    /// Gets a connection within `limit`.
    pub async fn connect(
        &self,
        reuse: Reuse,
        limit: Duration,
    ) -> Result<UpstreamConnection, ProxyError> {
        let connecting = async {
            match self.protocol {
                Protocol::Http1 => self.connect_http1(reuse).await,
                Protocol::Http2 => Box::pin(self.connect_http2()).await,
            }
        };
        tokio::time::timeout(limit, connecting).await.unwrap_or(Err(ProxyError::ConnectTimeout))
    }

    async fn connect_http1(&self, reuse: Reuse) -> Result<UpstreamConnection, ProxyError> {
        while reuse == Reuse::Allowed
            && let Some(mut sender) = self.take_from_pool()
        {
            // The upstream may have closed the pooled connection.
            if sender.ready().await.is_ok() {
                return Ok(UpstreamConnection::pooled(sender));
            }
        }
        Box::pin(self.open_http1()).await
    }

    async fn open_http1(&self) -> Result<UpstreamConnection, ProxyError> {
        let stream = self.connect_tcp().await?;
        let sender = match &self.tls {
            None => self.handshake_http1(stream).await?,
            Some(tls) => self.handshake_http1(connect_tls(tls, stream).await?).await?,
        };
        Ok(UpstreamConnection::new(sender))
    }

    async fn handshake_http1<S: IoStream>(&self, stream: S) -> Result<Http1Sender, ProxyError> {
        let result = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = result.map_err(ProxyError::Broken)?;
        self.spawn(connection.with_upgrades());
        Ok(sender)
    }

    async fn connect_http2(&self) -> Result<UpstreamConnection, ProxyError> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(UpstreamConnection::shared(sender.clone()));
        }
        let stream = self.connect_tcp().await?;
        let sender = match &self.tls {
            None => self.handshake_http2(stream).await?,
            Some(tls) => self.handshake_http2(connect_tls(tls, stream).await?).await?,
        };
        *shared = Some(sender.clone());
        Ok(UpstreamConnection::shared(sender))
    }

    async fn handshake_http2<S: IoStream>(&self, stream: S) -> Result<Http2Sender, ProxyError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING).adaptive_window(true);
        let result = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = result.map_err(ProxyError::Broken)?;
        self.spawn(connection);
        Ok(sender)
    }

    async fn connect_tcp(&self) -> Result<ClientStream<TcpStream>, ProxyError> {
        let addresses = self.addresses().await?;
        ClientStream::connect(&*addresses).await.map_err(ProxyError::Unreachable)
    }

    /// The addresses of the upstream. An address that it must not have is left out.
    async fn addresses(&self) -> Result<Vec<SocketAddr>, ProxyError> {
        let host = (self.target.host.as_str(), self.target.port);
        let resolved = tokio::net::lookup_host(host).await.map_err(ProxyError::Unreachable)?;
        let (mut allowed, mut refused) = (Vec::new(), None);
        for address in resolved {
            match self.networks.check(&self.target, address) {
                Ok(()) => allowed.push(address),
                Err(why) => refused = Some(why),
            }
        }
        match refused {
            Some(why) if allowed.is_empty() => Err(ProxyError::ForbiddenAddress(why)),
            _ => Ok(allowed),
        }
    }

    /// Runs a connection until its end. The task that waits for the response also gets the errors
    /// of the connection.
    fn spawn(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let upstream = self.target.authority.clone();
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(upstream, "a connection failed: {}", with_causes(&error));
            }
        });
    }

    fn take_from_pool(&self) -> Option<Http1Sender> {
        let mut pool = self.pool.lock();
        while let Some((since, sender)) = pool.pop() {
            if since.elapsed() < POOL_TIME && !sender.is_closed() {
                return Some(sender);
            }
        }
        None
    }

    /// Puts a connection into the pool after its exchange. Drops a connection whose request was not
    /// sent to its end.
    pub fn return_to_pool(&self, sender: Option<Http1Sender>, upload: Option<&UploadProgress>) {
        let Some(sender) = sender else { return };
        if sender.is_closed() || upload.is_some_and(|upload| !upload.is_complete()) {
            return;
        }
        let now = Instant::now();
        let mut pool = self.pool.lock();
        let expired = pool.iter().take_while(|(since, _)| now - *since >= POOL_TIME).count();
        pool.drain(..expired);
        if pool.len() < MAX_POOLED {
            pool.push((now, sender));
        }
    }
}

async fn connect_tls(
    tls: &TlsClient,
    stream: ClientStream<TcpStream>,
) -> Result<impl IoStream + use<>, ProxyError> {
    tls.handshake(EndOnError(stream)).await.map_err(ProxyError::TlsFailed)
}
