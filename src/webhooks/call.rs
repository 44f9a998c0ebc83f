//! One try: a connection of its own, one request, and of the answer the status alone.

use std::{io, time::Duration};

use ::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

use crate::{
    model::{Target, Timestamp, Transport},
    tls::Caller,
};

/// The most bytes of an answer's head.
const HEAD: usize = 16_384;

/// The way to a receiver.
pub(super) struct Line {
    target: Target,
    /// TLS with it; none: it is spoken to in the clear.
    caller: Option<Caller>,
    timeout: Duration,
}

/// What came of a try.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It was taken: 2xx.
    Taken,
    /// Nobody wants it: 410.
    Gone,
    /// Neither, and why.
    Failed(String),
}

impl Line {
    /// # Errors
    /// The host cannot be called over TLS.
    pub fn new(
        target: Target,
        authorities: Option<RootCertStore>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let caller = match target.transport {
            Transport::Clear => None,
            Transport::Tls => Some(Caller::new(&target.host, authorities, b"http/1.1")?),
        };
        Ok(Self { target, caller, timeout })
    }

    /// Sends a webhook. Redirects are answers like any other: they could lead anywhere.
    pub async fn send(&self, id: &str, time: Timestamp, signature: &str, body: &str) -> Answer {
        let request = Request::builder()
            .method(Method::POST)
            .uri(if self.target.base.is_empty() { "/" } else { &self.target.base })
            .header(header::HOST, &self.target.authority)
            .header(header::USER_AGENT, concat!("Keyward/", env!("CARGO_PKG_VERSION")))
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", time.0)
            .header("webhook-signature", signature)
            .body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let request = match request {
            Ok(request) => request,
            Err(problem) => return Answer::Failed(problem.to_string()),
        };
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Err(_) => {
                Answer::Failed(format!("there was no answer in {} seconds", self.timeout.as_secs()))
            }
            Ok(Err(problem)) => Answer::Failed(problem),
            Ok(Ok(status)) if status.is_success() => Answer::Taken,
            Ok(Ok(StatusCode::GONE)) => Answer::Gone,
            Ok(Ok(status)) => Answer::Failed(format!("it was answered with {}", status.as_u16())),
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let address = (self.target.host.as_str(), self.target.port);
        let stream = TcpStream::connect(address).await;
        let stream = stream.map_err(|problem| format!("there is no connection: {problem}"))?;
        match &self.caller {
            None => status(stream, request).await,
            Some(caller) => {
                let stream = caller.call(stream).await;
                let stream = stream.map_err(|problem| format!("TLS: {problem}"))?;
                status(stream, request).await
            }
        }
    }
}

/// The status of the answer. Its body is not read: with the end of this the connection ends.
async fn status<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |problem: hyper::Error| format!("the connection broke: {problem}");
    let begun = http1::Builder::new().max_buf_size(HEAD).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(broken)?;
    let mut answered = std::pin::pin!(sender.send_request(request));
    let answer = tokio::select! {
        answer = &mut answered => answer,
        // The answer may have come with its end.
        ended = connection => match ended {
            Err(problem) => return Err(broken(problem)),
            Ok(()) => answered.await,
        },
    };
    answer.map(|answer| answer.status()).map_err(broken)
}
