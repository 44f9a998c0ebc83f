//! Requests to a server that runs: HTTP/1.1 over TCP or a unix socket, one connection for each.

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

use super::{Sending, Transport};
use crate::{
    cli::{Exit, Failure},
    config::AdminListen,
};

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take. Nothing that the admin API does takes seconds, unless the machine is overloaded.
const ANSWER: Duration = Duration::from_secs(60);
/// The most bytes of an answer.
const LARGEST: usize = 256 << 20;

/// A server that runs.
#[derive(Debug)]
pub struct Remote {
    address: AdminListen,
    answer: Duration,
}

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Remote {
    /// The server at this address.
    pub fn new(address: AdminListen) -> Self {
        Self { address, answer: ANSWER }
    }

    /// Gives up after this time.
    pub fn within(self, answer: Duration) -> Self {
        Self { answer, ..self }
    }

    /// Whether anybody listens there.
    pub async fn is_listening(&self) -> bool {
        self.connect().await.is_ok()
    }

    async fn connect(&self) -> io::Result<Stream> {
        let connecting = async {
            Ok(match &self.address {
                AdminListen::Tcp(address) => Stream::Tcp(TcpStream::connect(near(*address)).await?),
                AdminListen::Unix(path) => Stream::Unix(UnixStream::connect(path).await?),
            })
        };
        timeout(CONNECT.min(self.answer), connecting).await?
    }

    async fn exchange(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, Failure> {
        let stream = self.connect().await.map_err(|problem| {
            let text = format!("no server answers at {}: {problem}", self.address);
            Failure::new(Exit::Unreachable, text)
        })?;
        request.headers_mut().insert(HOST, self.host());
        let request = request.map(Full::new);
        let is_read = request.method().is_safe();
        let answering = async {
            match stream {
                Stream::Tcp(stream) => talk(stream, request).await,
                Stream::Unix(stream) => talk(stream, request).await,
            }
        };
        let answered = match timeout(self.answer, answering).await {
            Ok(answered) => answered.map_err(|problem| problem.to_string()),
            Err(_) => Err(format!("no answer within {} s", self.answer.as_secs())),
        };
        answered.map_err(|problem| self.silent(&problem, is_read))
    }

    fn host(&self) -> HeaderValue {
        let host = match self.address {
            AdminListen::Tcp(address) => near(address).to_string(),
            AdminListen::Unix(_) => "localhost".into(),
        };
        HeaderValue::try_from(host).unwrap_or(HeaderValue::from_static("localhost"))
    }

    fn silent(&self, problem: &str, is_read: bool) -> Failure {
        let mut text = format!("the server at {} did not answer: {problem}", self.address);
        if !is_read {
            text.push_str(". Whether the change was made is not known: look before you try again");
        }
        Failure::new(Exit::Unreachable, text)
    }
}

/// A server that listens on every interface is reached on this machine's own.
pub fn near(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

type Fault = Box<dyn std::error::Error + Send + Sync>;

async fn talk<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, Fault>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, LARGEST).collect().await?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    // The connection has to be driven while the answer is awaited; what becomes of it afterwards concerns nobody.
    let mut exchange = std::pin::pin!(exchange);
    tokio::select! {
        answer = &mut exchange => answer,
        _ = connection => exchange.await,
    }
}

impl Transport for Remote {
    fn send(&self, request: Request<Bytes>) -> Sending<'_> {
        Box::pin(self.exchange(request))
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn every_interface_is_reached_on_this_machines_own() {
        for (listens, reached) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:1", "[::1]:1"), ("10.0.0.7:1", "10.0.0.7:1")]
        {
            assert_eq!(near(listens.parse().unwrap()).to_string(), reached);
        }
    }
}
