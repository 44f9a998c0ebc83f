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
    Mode,
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
            Ok(Ok(status)) if status.is_success() => Answer::Mode,
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

#[cfg(test)]
mod unit {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::tls::{Certificates, forge::Authority};

    /// A receiver with this certificate, that answers each request so.
    async fn receiver(certificates: Certificates, answer: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = certificates.accept(stream).await else { continue };
                let mut head = vec![0; 4096];
                if stream.read(&mut head).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(answer.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        port
    }

    async fn send(host: &str, port: u16, roots: Option<RootCertStore>) -> Answer {
        let target = Target::parse(&format!("https://{host}:{port}/in")).unwrap();
        let line = Line::new(target, roots, Duration::from_secs(9)).unwrap();
        line.send("msg_1", Timestamp(1), "v1,x", "{}").await
    }

    #[tokio::test]
    async fn only_the_receiver_itself_is_told() {
        let (ours, other) = (Authority::new(), Authority::new());
        let taken = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let port = receiver(ours.signs("localhost").loaded(), taken).await;
        assert_eq!(send("localhost", port, ours.roots()).await, Answer::Mode);
        for (host, roots) in
            [("localhost", other.roots()), ("localhost", None), ("127.0.0.1", ours.roots())]
        {
            let answer = send(host, port, roots).await;
            assert!(matches!(&answer, Answer::Failed(why) if why.starts_with("TLS")), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_a_failure() {
        let ours = Authority::new();
        for answer in ["", "nonsense\r\n\r\n", "HTTP/1.1 307 X\r\nLocation: /\r\n\r\n"] {
            let answer: &'static str = answer;
            let port = receiver(ours.signs("localhost").loaded(), answer).await;
            let came = send("localhost", port, ours.roots()).await;
            assert!(matches!(came, Answer::Failed(_)), "{answer:?} {came:?}");
        }
    }
}
