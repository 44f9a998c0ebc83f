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
    tls::{ClientStream, EndOnError, TlsClient},
};

/// The maximum size of a response's header section, in bytes.
const MAX_HEADER_BYTES: usize = 16_384;

/// Sends requests to one receiver.
pub(super) struct Client {
    target: Target,
    /// The path and the query of the URL.
    path: String,
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
        query: Option<&str>,
        authorities: Option<RootCertStore>,
        timeout: Duration,
    ) -> io::Result<Self> {
        let tls = match target.transport {
            Transport::Clear => None,
            Transport::Tls => Some(TlsClient::new(&target.host, authorities, b"http/1.1")?),
        };
        let mut path = if target.base.is_empty() { "/".to_owned() } else { target.base.clone() };
        if let Some(query) = query {
            path.push('?');
            path.push_str(query);
        }
        Ok(Self { target, path, tls, timeout })
    }

    /// Sends a webhook. A redirect is not followed, since it could lead to any host.
    pub async fn send(&self, id: &str, time: Timestamp, signature: &str, body: &str) -> Delivered {
        let request = Request::builder()
            .method(Method::POST)
            .uri(&self.path)
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
                let stream = tls.handshake(EndOnError(stream)).await;
                let stream = stream.map_err(|problem| format!("TLS: {problem}"))?;
                status(stream, request).await
            }
        }
    }
}

/// Sends the request, and returns the status of the response. The body of the response is not read,
/// and the way in which the receiver closes the connection after the head does not matter. The
/// connection is closed when it is dropped.
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
        net::{TcpListener, TcpStream},
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
        let client = Client::new(target, None, roots, Duration::from_secs(9)).unwrap();
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

    /// The ways in which a receiver closes a connection after its response.
    #[derive(Debug, Clone, Copy)]
    enum Close {
        /// A TLS stream without close_notify.
        Abrupt,
        Reset,
        Half,
        /// The receiver keeps the connection open.
        Never,
    }

    /// Starts a receiver without TLS, or with this certificate, that closes in this way.
    async fn closing_receiver(
        certificates: Option<Certificates>,
        response: &'static str,
        close: Close,
    ) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let answer = move |close, stream: &TcpStream| {
            if matches!(close, Close::Reset) {
                socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap();
            }
        };
        tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut stream, _)) = listener.accept().await {
                // Otherwise the reset could overtake the response.
                stream.set_nodelay(true).unwrap();
                let mut head = vec![0; 4096];
                let Some(certificates) = &certificates else {
                    let _ = stream.read(&mut head).await;
                    let _ = stream.write_all(response.as_bytes()).await;
                    answer(close, &stream);
                    match close {
                        Close::Half => {
                            let _ = stream.shutdown().await;
                            kept.push(stream);
                        }
                        Close::Never => kept.push(stream),
                        Close::Abrupt | Close::Reset => {}
                    }
                    continue;
                };
                let Ok(mut stream) = certificates.accept(stream).await else { continue };
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.flush().await;
                // Without its TLS, the stream is closed without close_notify.
                let stream = stream.into_inner().0;
                answer(close, &stream);
                match close {
                    Close::Half | Close::Never => kept.push(stream),
                    Close::Abrupt | Close::Reset => {}
                }
            }
        });
        port
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn complete_response_counts_in_whatever_way_the_receiver_closes() {
        let authority = Authority::new();
        let lengths = [
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            "HTTP/1.0 200 OK\r\n\r\nuntil the end",
        ];
        for response in lengths {
            for close in [Close::Abrupt, Close::Reset, Close::Half, Close::Never] {
                for is_tls in [true, false] {
                    let certificates = is_tls.then(|| authority.signs("localhost").loaded());
                    let port = closing_receiver(certificates, response, close).await;
                    let scheme = if is_tls { "https" } else { "http" };
                    let url = format!("{scheme}://localhost:{port}/in");
                    let target = Target::parse(&url).unwrap();
                    let timeout = Duration::from_secs(9);
                    let roots = authority.roots();
                    let client = Client::new(target, Some("a=b"), roots, timeout).unwrap();
                    // The order of the last bytes and the end is a race.
                    for _ in 0..10 {
                        let outcome = client.send("msg_1", Timestamp(1), "v1,x", "{}").await;
                        assert_eq!(outcome, Delivered::Accepted, "{url} {response:?} {close:?}");
                    }
                }
            }
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
}
