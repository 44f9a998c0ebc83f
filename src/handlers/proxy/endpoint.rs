//! One upstream: its address, the connections to it that are free, and its health.

use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use ::http::HeaderValue;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::Instant,
};

use super::{
    Age, Connection, Lease, Outcome, Progress, ProxyError, Upload, health::Health, trouble::chain,
};
use crate::{
    model::{Protocol, Proxy, Target, Transport},
    tls::Caller,
};

/// The free connections that are kept.
const MOST_FREE: usize = 256;
/// How long a connection is kept that nobody needs.
const FREE: Duration = Duration::from_secs(60);
/// How often an HTTP/2 connection with requests on it is asked whether it still stands.
const PING: Duration = Duration::from_secs(20);

/// What HTTP is spoken on.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Stream for S {}

/// One upstream.
pub(super) struct Endpoint {
    target: Target,
    /// TLS with it; none: it is spoken to in the clear.
    caller: Option<Caller>,
    /// What it calls itself.
    pub host: HeaderValue,
    pub protocol: Protocol,
    /// Free HTTP/1.1 connections, the longest free first.
    free: Mutex<Vec<(Instant, Lease)>>,
    /// The HTTP/2 connection. Held while it is made, so that one is made and not many.
    shared: tokio::sync::Mutex<Option<http2::SendRequest<Upload>>>,
    health: Health,
}

impl Endpoint {
    /// `settings` say what is spoken with it, and whom we take for it.
    ///
    /// # Errors
    /// The host cannot be called over TLS.
    pub fn new(target: Target, settings: &Proxy) -> io::Result<Self> {
        let protocol = settings.protocol;
        let caller = match target.transport {
            Transport::Clear => None,
            Transport::Tls => {
                let authorities = settings.authorities().map_err(io::Error::other)?;
                let name = match protocol {
                    Protocol::Http1 => b"http/1.1".as_slice(),
                    Protocol::Http2 => b"h2",
                };
                Some(Caller::new(&target.host, authorities, name)?)
            }
        };
        // An address that was read is ASCII without spaces.
        let host = HeaderValue::from_str(&target.authority)
            .unwrap_or_else(|_| HeaderValue::from_static(""));
        Ok(Self {
            target,
            caller,
            host,
            protocol,
            free: Mutex::default(),
            shared: tokio::sync::Mutex::default(),
            health: Health::new(),
        })
    }

    /// What its URLs begin with.
    pub fn scheme(&self) -> &'static str {
        self.target.transport.scheme()
    }

    /// What the operator knows it by.
    pub fn name(&self) -> &str {
        &self.target.authority
    }

    /// What every path begins with.
    pub fn base(&self) -> &str {
        &self.target.base
    }

    /// How long it is still left out.
    pub fn out_for(&self) -> Option<Duration> {
        self.health.out_for(Instant::now())
    }

    /// Takes in what came of asking it.
    pub fn note(&self, outcome: Outcome, settings: &Proxy) {
        if self.health.note(outcome, settings, Instant::now()) {
            tracing::warn!(
                upstream = self.name(),
                seconds = settings.eject_seconds,
                "an upstream fails: left out, if there are others"
            );
        }
    }

    /// A connection, within `limit`.
    pub async fn connect(&self, age: Age, limit: Duration) -> Result<Connection, ProxyError> {
        let connecting = async {
            match self.protocol {
                Protocol::Http1 => self.connect_http1(age).await,
                Protocol::Http2 => Box::pin(self.connect_http2()).await,
            }
        };
        tokio::time::timeout(limit, connecting).await.unwrap_or(Err(ProxyError::NoConnection))
    }

    async fn connect_http1(&self, age: Age) -> Result<Connection, ProxyError> {
        while age == Age::Any
            && let Some(mut lease) = self.take_free()
        {
            // It may have ended since.
            if lease.ready().await.is_ok() {
                return Ok(Connection::used(lease));
            }
        }
        Box::pin(self.new_http1()).await
    }

    async fn new_http1(&self) -> Result<Connection, ProxyError> {
        let stream = self.dial().await?;
        let sender = match &self.caller {
            None => self.begin_http1(stream).await?,
            Some(caller) => self.begin_http1(self.call(caller, stream).await?).await?,
        };
        Ok(Connection::new(sender))
    }

    async fn begin_http1<S: Stream>(&self, stream: S) -> Result<Lease, ProxyError> {
        let begun = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = begun.map_err(ProxyError::Broken)?;
        self.drive(connection.with_upgrades());
        Ok(sender)
    }

    async fn connect_http2(&self) -> Result<Connection, ProxyError> {
        let mut shared = self.shared.lock().await;
        if let Some(sender) = shared.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(Connection::shared(sender.clone()));
        }
        let stream = self.dial().await?;
        let sender = match &self.caller {
            None => self.begin_http2(stream).await?,
            Some(caller) => self.begin_http2(self.call(caller, stream).await?).await?,
        };
        *shared = Some(sender.clone());
        Ok(Connection::shared(sender))
    }

    async fn begin_http2<S: Stream>(
        &self,
        stream: S,
    ) -> Result<http2::SendRequest<Upload>, ProxyError> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).keep_alive_interval(PING).adaptive_window(true);
        let begun = builder.handshake(TokioIo::new(stream)).await;
        let (sender, connection) = begun.map_err(ProxyError::Broken)?;
        self.drive(connection);
        Ok(sender)
    }

    async fn call(
        &self,
        caller: &Caller,
        stream: TcpStream,
    ) -> Result<impl Stream + use<>, ProxyError> {
        caller.call(stream).await.map_err(ProxyError::Untrusted)
    }

    async fn dial(&self) -> Result<TcpStream, ProxyError> {
        let address = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(address).await.map_err(ProxyError::Unreachable)?;
        // Requests are written whole: waiting for more to send would only delay them.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    /// Runs a connection until its end. Whoever waits for an answer on it learns of its errors.
    fn drive(&self, connection: impl Future<Output = hyper::Result<()>> + Send + 'static) {
        let upstream = self.target.authority.clone();
        tokio::spawn(async move {
            if let Err(problem) = connection.await {
                tracing::debug!(upstream, "a connection broke: {}", chain(&problem));
            }
        });
    }

    fn take_free(&self) -> Option<Lease> {
        let mut free = self.free();
        while let Some((since, lease)) = free.pop() {
            if since.elapsed() < FREE && !lease.is_closed() {
                return Some(lease);
            }
        }
        None
    }

    /// Takes a connection back whose exchange is over. One whose request was not sent to its end is of no use.
    pub fn take_back(&self, lease: Option<Lease>, progress: Option<&Progress>) {
        let Some(lease) = lease else { return };
        if lease.is_closed() || progress.is_some_and(|progress| !progress.is_done()) {
            return;
        }
        let now = Instant::now();
        let mut free = self.free();
        let stale = free.iter().take_while(|(since, _)| now - *since >= FREE).count();
        free.drain(..stale);
        if free.len() < MOST_FREE {
            free.push((now, lease));
        }
    }

    fn free(&self) -> MutexGuard<'_, Vec<(Instant, Lease)>> {
        // A list of connections cannot be half changed.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
