//! One delivery attempt: opens a connection, sends one request and returns the response's status.

use std::{io, time::Duration};

use ::http::{Method, Request, StatusCode, header};
use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{
    model::{Target, Timestamp, Transport},
    tls::{ClientStream, TlsClient},
};

/// The maximum size of a response's header section, in bytes.
const MAX_HEADER_BYTES: usize = 16_384;

/// Sends requests to one receiver.
pub(super) struct Client {
    target: Target,
    /// `None` means plain HTTP.
    tls: Option<TlsClient>,
    timeout: Duration,
}

/// The outcome of a delivery attempt.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Delivered {
    /// The receiver accepted the webhook (2xx).
    Accepted,
    /// The receiver wants no more webhooks (410).
    Gone,
    /// The attempt failed, for this reason.
    Failed(String),
}

impl Client {
    /// # Errors
    /// The host is no valid TLS server name.
    pub fn new(
        target: Target,
        authorities: Option<RootCertStore>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let tls = match target.transport {
            Transport::Clear => None,
            Transport::Tls => Some(TlsClient::new(&target.host, authorities, b"http/1.1")?),
        };
        Ok(Self { target, tls, timeout })
    }

    /// Sends a webhook. A redirect is not followed, since it could lead to any host.
    pub async fn send(&self, id: &str, time: Timestamp, signature: &str, body: &str) -> Delivered {
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
            Err(problem) => return Delivered::Failed(problem.to_string()),
        };
        match tokio::time::timeout(self.timeout, self.exchange(request)).await {
            Err(_) => {
                Delivered::Failed(format!("no response within {} seconds", self.timeout.as_secs()))
            }
            Ok(Err(problem)) => Delivered::Failed(problem),
            Ok(Ok(status)) if status.is_success() => Delivered::Accepted,
            Ok(Ok(StatusCode::GONE)) => Delivered::Gone,
            Ok(Ok(status)) => {
                Delivered::Failed(format!("the response has status {}", status.as_u16()))
            }
        }
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<StatusCode, String> {
        let address = (self.target.host.as_str(), self.target.port);
        let stream = ClientStream::connect(address).await;
        let stream = stream.map_err(|problem| format!("cannot connect: {problem}"))?;
        match &self.tls {
            None => status(stream, request).await,
            Some(tls) => {
                let stream = tls.handshake(stream).await;
                let stream = stream.map_err(|problem| format!("TLS: {problem}"))?;
                status(stream, request).await
            }
        }
    }
}

/// Sends the request, and returns the status of the response. The body of the response is not read.
/// The connection is closed when it is dropped.
async fn status<S>(stream: S, request: Request<Full<Bytes>>) -> Result<StatusCode, String>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let broken = |problem: hyper::Error| format!("the connection broke: {problem}");
    let begun =
        http1::Builder::new().max_buf_size(MAX_HEADER_BYTES).handshake(TokioIo::new(stream)).await;
    let (mut sender, connection) = begun.map_err(broken)?;
    let mut response = std::pin::pin!(sender.send_request(request));
    let response = tokio::select! {
        response = &mut response => response,
        // A response that arrived before the end of the connection counts, however the connection
        // ended.
        ended = connection => match (response.await, ended) {
            (Err(_), Err(problem)) => Err(problem),
            (response, _) => response,
        },
    };
    response.map(|response| response.status()).map_err(broken)
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;
    use crate::tls::{Certificates, test_authority::Authority};

    /// Starts a receiver with this certificate that sends `response` to each request. Returns the
    /// receiver's port.
    async fn receiver(certificates: Certificates, response: &'static str) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Ok(mut stream) = certificates.accept(stream).await else { continue };
                let mut head = vec![0; 4096];
                if stream.read(&mut head).await.unwrap_or(0) > 0 {
                    let _ = stream.write_all(response.as_bytes()).await;
                    let _ = stream.shutdown().await;
                }
            }
        });
        port
    }

    async fn send(host: &str, port: u16, roots: Option<RootCertStore>) -> Delivered {
        let target = Target::parse(&format!("https://{host}:{port}/in")).unwrap();
        let client = Client::new(target, roots, Duration::from_secs(9)).unwrap();
        client.send("msg_1", Timestamp(1), "v1,x", "{}").await
    }

    #[tokio::test]
    async fn webhook_is_sent_only_to_a_receiver_with_a_trusted_certificate() {
        let (trusted, other) = (Authority::new(), Authority::new());
        let accepted = "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n";
        let port = receiver(trusted.signs("localhost").loaded(), accepted).await;
        assert_eq!(send("localhost", port, trusted.roots()).await, Delivered::Accepted);
        for (host, roots) in
            [("localhost", other.roots()), ("localhost", None), ("127.0.0.1", trusted.roots())]
        {
            let outcome = send(host, port, roots).await;
            assert!(
                matches!(&outcome, Delivered::Failed(why) if why.starts_with("TLS")),
                "{outcome:?}"
            );
        }
    }

    #[tokio::test]
    async fn response_without_success_status_is_a_failure() {
        let trusted = Authority::new();
        for response in ["", "nonsense\r\n\r\n", "HTTP/1.1 307 X\r\nLocation: /\r\n\r\n"] {
            let response: &'static str = response;
            let port = receiver(trusted.signs("localhost").loaded(), response).await;
            let outcome = send("localhost", port, trusted.roots()).await;
            assert!(matches!(outcome, Delivered::Failed(_)), "{response:?} {outcome:?}");
        }
    }

    /// The receiver resets the connection right after its response.
    #[tokio::test]
    async fn complete_response_counts_whatever_follows() {
        for response in [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\n\r\nok",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let _ = stream.read(&mut [0; 16]).await;
                    let _ = stream.write_all(response.as_bytes()).await;
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            });
            let target = Target::parse(&format!("http://127.0.0.1:{port}/in")).unwrap();
            let client = Client::new(target, None, Duration::from_secs(9)).unwrap();
            for attempt in 0..50 {
                let outcome = client.send("msg_1", Timestamp(1), "v1,x", "{}").await;
                assert_eq!(outcome, Delivered::Accepted, "{attempt} {response:?}");
            }
        }
    }
}
