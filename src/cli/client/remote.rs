//! Sends requests to a running server with HTTP/1.1 over TCP or a Unix socket. Each request has a
//! new connection.

use std::{io, net::Ipv4Addr, net::Ipv6Addr, net::SocketAddr, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header::HOST};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{
    ApiTransport, SendFuture,
    download::{Download, OutputError},
};
use crate::{
    cli::{CliError, Exit},
    config::ListenAddress,
};

/// The timeout of a connection attempt.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of a response. No operation of the admin API takes seconds, unless the machine is
/// overloaded.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// The maximum size of a response body, in bytes.
const MAX_RESPONSE_BYTES: usize = 256 << 20;

/// A running server.
#[derive(Debug)]
pub struct RemoteServer {
    address: ListenAddress,
    timeout: Duration,
}

enum AdminStream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl RemoteServer {
    /// Describes the server at this address, without connecting to it.
    pub fn new(address: ListenAddress) -> Self {
        Self { address, timeout: RESPONSE_TIMEOUT }
    }

    /// Sets the time limit of a response.
    pub fn with_timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Whether a process listens at the address.
    pub async fn is_listening(&self) -> bool {
        self.connect().await.is_ok()
    }

    async fn connect(&self) -> io::Result<AdminStream> {
        let connecting = async {
            Ok(match &self.address {
                ListenAddress::Tcp(address) => {
                    AdminStream::Tcp(TcpStream::connect(local_address(*address)).await?)
                }
                ListenAddress::Unix(path) => AdminStream::Unix(UnixStream::connect(path).await?),
            })
        };
        timeout(CONNECT_TIMEOUT.min(self.timeout), connecting).await?
    }

    async fn prepare(
        &self,
        mut request: Request<Bytes>,
    ) -> Result<(AdminStream, Request<Full<Bytes>>), CliError> {
        let stream = self.connect().await.map_err(|problem| {
            let text = format!("no server responds at {}: {problem}", self.address);
            CliError::new(Exit::Unreachable, text)
        })?;
        request.headers_mut().insert(HOST, self.host());
        Ok((stream, request.map(Full::new)))
    }

    /// The size of the body and the time of the whole response have no limit. Each part of the
    /// response has the time limit.
    async fn receive(
        &self,
        request: Request<Bytes>,
        output: &mut dyn Download,
    ) -> Result<Response<Bytes>, CliError> {
        let (stream, request) = self.prepare(request).await?;
        let received = match stream {
            AdminStream::Tcp(stream) => {
                send_and_download(stream, request, output, self.timeout).await
            }
            AdminStream::Unix(stream) => {
                send_and_download(stream, request, output, self.timeout).await
            }
        };
        received.map_err(|problem| match problem.downcast::<OutputError>() {
            Ok(problem) => (*problem).into(),
            Err(problem) => self.no_response(&problem.to_string(), true),
        })
    }

    async fn exchange(&self, request: Request<Bytes>) -> Result<Response<Bytes>, CliError> {
        let (stream, request) = self.prepare(request).await?;
        let is_read = request.method().is_safe();
        let responding = async {
            match stream {
                AdminStream::Tcp(stream) => send_and_receive(stream, request).await,
                AdminStream::Unix(stream) => send_and_receive(stream, request).await,
            }
        };
        let result = match timeout(self.timeout, responding).await {
            Ok(result) => result.map_err(|problem| problem.to_string()),
            Err(_) => Err(format!("no response within {} s", self.timeout.as_secs())),
        };
        result.map_err(|problem| self.no_response(&problem, is_read))
    }

    fn host(&self) -> HeaderValue {
        let host = match self.address {
            ListenAddress::Tcp(address) => local_address(address).to_string(),
            ListenAddress::Unix(_) => "localhost".into(),
        };
        HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("localhost"))
    }

    fn no_response(&self, problem: &str, is_read: bool) -> CliError {
        let mut text = format!("the server at {} did not respond: {problem}", self.address);
        if !is_read {
            text.push_str(
                ". It is not known whether the change was made: check before you try again",
            );
        }
        CliError::new(Exit::Unreachable, text)
    }
}

/// Returns an address at which this machine reaches a server that listens on `address`. The
/// unspecified address, which means all interfaces, becomes the loopback address.
pub fn local_address(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn send_and_receive<S>(
    stream: S,
    request: Request<Full<Bytes>>,
) -> Result<Response<Bytes>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, MAX_RESPONSE_BYTES).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    // The connection must be polled until the response is complete. The connection's result does
    // not matter.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        _ = connection => exchange.await,
    }
}

async fn send_and_download<S>(
    stream: S,
    request: Request<Full<Bytes>>,
    output: &mut dyn Download,
    limit: Duration,
) -> Result<Response<Bytes>, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let late = |_| format!("nothing came for {} s", limit.as_secs());
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let response = timeout(limit, sender.send_request(request)).await.map_err(late)??;
        let (parts, mut body) = response.into_parts();
        if !parts.status.is_success() {
            let body = Limited::new(body, MAX_RESPONSE_BYTES).collect();
            let body = timeout(limit, body).await.map_err(late)??.to_bytes();
            return Ok(Response::from_parts(parts, body));
        }
        output.begin(&parts);
        while let Some(frame) = timeout(limit, body.frame()).await.map_err(late)? {
            if let Ok(bytes) = frame?.into_data() {
                output.part(&bytes).map_err(OutputError)?;
            }
        }
        Ok(Response::from_parts(parts, Bytes::new()))
    };
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        _ = connection => exchange.await,
    }
}

impl ApiTransport for RemoteServer {
    fn download<'a>(
        &'a self,
        request: Request<Bytes>,
        output: &'a mut dyn Download,
    ) -> SendFuture<'a> {
        Box::pin(self.receive(request, output))
    }

    fn send(&self, request: Request<Bytes>) -> SendFuture<'_> {
        Box::pin(self.exchange(request))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_address_becomes_loopback() {
        for (listens, reached) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(local_address(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
