//! Tests of TLS on a listener: both versions of HTTP, and the same limits as without TLS.

use std::{io, pin::pin};

use ::http::Version;
use http_body_util::Empty;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, pki_types::pem::PemObject};
use tokio::time::Instant;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::*;
use crate::{
    server::connection::{
        io::{MonitoredIo, Socket, TlsIo},
        timeouts::ConnectionTimeouts,
    },
    tls::{
        Certificates, ClientAuth, TlsClient,
        test_authority::{Authority, CertificateWithKey},
    },
};

/// A listener with TLS, and the authority that its clients trust.
struct TlsListener {
    listener: TestListener,
    authority: Authority,
}

impl TlsListener {
    async fn new(limits: ConnectionLimits) -> Self {
        let authority = Authority::new();
        let certificates = authority.signs("localhost").loaded();
        Self { listener: start(certificates, limits).await, authority }
    }

    async fn connect(&self, protocol: &'static [u8]) -> TlsStream<TcpStream> {
        let caller = TlsClient::new("localhost", self.authority.roots(), protocol);
        caller.unwrap().handshake(self.listener.connect().await.0).await.unwrap()
    }

    /// Sends bytes and reads until the server closes the connection with a close_notify.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        let _ = stream.write_all(bytes.as_ref()).await;
        rest(&mut stream).await.unwrap()
    }
}

async fn start(certificates: Certificates, limits: ConnectionLimits) -> TestListener {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from(BoundSocket::Tcp(socket)).with_tls(Some(certificates));
    TestListener::on(listener, address, limits, 100)
}

async fn rest(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes))
        .await
        .expect("the server should close the connection")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A `GET` request after which the server closes.
fn last_get(target: &str) -> String {
    get(target).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn both_http_versions_are_served() {
    let tls = TlsListener::new(generous_limits()).await;
    assert!(tls.exchange(last_get("/who")).await.ends_with("\r\n\r\nhttps://127.0.0.1"));
    let io = TokioIo::new(tls.connect(b"h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://x/who").body(Empty::<Bytes>::new()).unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "https://127.0.0.1");
}

#[tokio::test]
async fn client_without_tls_gets_no_http_response() {
    let tls = TlsListener::new(generous_limits()).await;
    let text = tls.listener.exchange(last_get("/a")).await;
    assert!(!text.contains("HTTP") && !text.contains("GET"), "{text}");
    let preface = tls.listener.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!preface.contains("HTTP"), "{preface}");
    tls.listener.wait_for_open(0, 100).await;
}

/// A connection with an incomplete handshake is closed, and does not delay other connections.
#[tokio::test]
async fn handshake_has_a_timeout() {
    let tls =
        TlsListener::new(ConnectionLimits { header_read: SHORT * 2, ..generous_limits() }).await;
    for sent in ["", "\u{16}", "\u{16}\u{3}\u{1}"] {
        let began = Instant::now();
        let mut silent = tls.listener.connect().await;
        silent.send(sent).await;
        assert!(tls.exchange(last_get("/a")).await.ends_with("GET /a"));
        assert_eq!(silent.rest().await, "", "{sent:?}");
        assert!(began.elapsed() >= SHORT * 2, "{sent:?}: {:?}", began.elapsed());
    }
    tls.listener.wait_for_open(0, 100).await;
    // After the handshake, the first request has the same timeout again.
    let began = Instant::now();
    let mut silent = tls.connect(b"http/1.1").await;
    let _ = rest(&mut silent).await;
    assert!(began.elapsed() >= SHORT * 2);
    tls.listener.wait_for_open(0, 100).await;
}

#[tokio::test]
async fn timeout_of_the_first_request_begins_after_the_handshake() {
    let tls =
        TlsListener::new(ConnectionLimits { header_read: SHORT * 5, ..generous_limits() }).await;
    let tcp = tls.listener.connect().await.0;
    sleep(SHORT * 3).await;
    let caller = TlsClient::new("localhost", tls.authority.roots(), b"http/1.1").unwrap();
    let mut stream = caller.handshake(tcp).await.unwrap();
    sleep(SHORT * 3).await;
    stream.write_all(last_get("/a").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.unwrap().ends_with("GET /a"));
}

#[tokio::test]
async fn handshake_counts_as_a_connection() {
    let authority = Authority::new();
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let listener = Listener::from(BoundSocket::Tcp(socket));
    let listener = listener.with_tls(Some(authority.signs("localhost").loaded()));
    let listener = TestListener::on(listener, address, generous_limits(), 1);
    let silent = listener.connect().await;
    listener.wait_for_open(1, 1).await;
    let tls = TlsListener { listener, authority };
    let mut waiting = pin!(tls.exchange(last_get("/a")));
    assert!(timeout(SHORT, &mut waiting).await.is_err(), "the connection was served");
    drop(silent);
    assert!(waiting.await.ends_with("GET /a"));
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_handshake() {
    let mut tls = TlsListener::new(generous_limits()).await;
    let mut silent = tls.listener.connect().await;
    tls.listener.wait_for_open(1, 100).await;
    tls.listener.stop();
    assert_eq!(silent.rest().await, "");
    tls.listener.ended().await;
}

#[tokio::test]
async fn client_that_reads_no_bytes_is_closed() {
    let tls = TlsListener::new(ConnectionLimits { idle: SHORT * 2, ..generous_limits() }).await;
    let mut stream = tls.connect(b"http/1.1").await;
    stream.write_all(get("/large").as_bytes()).await.unwrap();
    tls.listener.wait_for_request().await;
    tls.listener.wait_for_open(0, 100).await;
    // A client that reads slowly gets all bytes, and then a close_notify.
    let mut stream = tls.connect(b"http/1.1").await;
    stream.write_all(last_get("/large").as_bytes()).await.unwrap();
    let mut taken = vec![0; LARGE / 8];
    for _ in 0..7 {
        timeout(PATIENCE, stream.read_exact(&mut taken)).await.unwrap().unwrap();
        sleep(SHORT).await;
    }
    assert!(LARGE / 8 < rest(&mut stream).await.unwrap().len());
}

/// TLS accepts more bytes than the socket. A flush writes the rest, although no write follows.
#[tokio::test]
async fn flush_writes_the_bytes_that_tls_has_buffered() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificates = authority.signs("localhost").loaded();
    let timeouts = Arc::new(ConnectionTimeouts::new(PATIENCE, PATIENCE));
    let client = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let caller = TlsClient::new("localhost", authority.roots(), b"http/1.1");
        caller.unwrap().handshake(tcp).await.unwrap()
    };
    let server = async {
        let io = TlsIo::new(listener.accept().await.unwrap().0, timeouts.clone());
        certificates.accept(io).await.map_err(|(problem, _)| problem).unwrap()
    };
    let (mut client, server) = tokio::join!(client, server);
    let (mut server, ..) = MonitoredIo::new(Socket::Tls(Box::new(server)), timeouts);
    // Writes until neither the socket nor TLS accepts more bytes.
    let mut sent = 0;
    while let Ok(written) = timeout(SHORT, server.write(&[b'x'; 16 * 1024])).await {
        sent += written.unwrap();
    }
    let reading = async {
        let mut all = vec![0; sent];
        timeout(PATIENCE, client.read_exact(&mut all))
            .await
            .expect("all bytes should arrive")
            .unwrap();
    };
    tokio::join!(reading, async { server.flush().await.unwrap() });
}

/// The response has Keyward's body, although the client is still sending.
#[tokio::test]
async fn rejected_client_reads_the_response() {
    let tls = TlsListener::new(generous_limits()).await;
    let text = tls.exchange(format!("NOT HTTP\r\n\r\n{}", "x".repeat(512 * 1024))).await;
    assert_eq!(statuses(&text), [400], "{text}");
    assert!(text.contains("BAD_REQUEST"), "{text}");
}

/// Whether a client with this certificate gets a response.
async fn is_served(
    listener: &TestListener,
    authority: &Authority,
    pair: Option<&CertificateWithKey>,
) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(authority.roots().unwrap());
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(CertificateWithKey { certificate, key }) => builder
            .with_client_auth_cert(
                vec![PemObject::from_pem_slice(certificate.as_bytes()).unwrap()],
                PemObject::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let stream =
        connector.connect("localhost".try_into().unwrap(), listener.connect().await.0).await;
    let Ok(mut stream) = stream else { return false };
    let _ = stream.write_all(last_get("/a").as_bytes()).await;
    rest(&mut stream).await.is_ok_and(|text| text.ends_with("GET /a"))
}

#[tokio::test]
async fn client_certificates_are_required_or_optional_as_configured() {
    let (trusted, other) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.pem");
    std::fs::write(&path, &trusted.certificate).unwrap();
    let (known, unknown) = (trusted.signs("client"), other.signs("client"));
    for (clients, without) in
        [(ClientAuth::Required(path.clone()), false), (ClientAuth::Optional(path), true)]
    {
        let mut files = trusted.signs("localhost").write(folder.path());
        files.clients = clients;
        let listener = start(Certificates::load(files).unwrap(), generous_limits()).await;
        assert_eq!(is_served(&listener, &trusted, None).await, without);
        assert!(is_served(&listener, &trusted, Some(&known)).await);
        assert!(!is_served(&listener, &trusted, Some(&unknown)).await);
    }
}
