//! TLS on a listener: both versions of HTTP, and the same bounds as in the clear.

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
        io::{Noted, Socket, Watched},
        timeouts::Watch,
    },
    tls::{
        Caller, Certificates, Clients,
        forge::{Authority, Pair},
    },
};

/// A listener with TLS, and whom its clients trust.
struct Safe {
    edge: Edge,
    authority: Authority,
}

impl Safe {
    async fn new(limits: Limits) -> Self {
        let authority = Authority::new();
        let certificates = authority.signs("localhost").loaded();
        Self { edge: edge(certificates, limits).await, authority }
    }

    async fn connect(&self, protocol: &'static [u8]) -> TlsStream<TcpStream> {
        let caller = Caller::new("localhost", self.authority.roots(), protocol);
        caller.unwrap().call(self.edge.connect().await.0).await.unwrap()
    }

    /// Sends bytes and reads until the server closes, which it has to say.
    async fn exchange(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut stream = self.connect(b"http/1.1").await;
        let _ = stream.write_all(bytes.as_ref()).await;
        rest(&mut stream).await.unwrap()
    }
}

async fn edge(certificates: Certificates, limits: Limits) -> Edge {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::from(Listener::Tcp(listener)).with_tls(Some(certificates));
    Edge::on(door, address, limits, 100)
}

async fn rest(stream: &mut TlsStream<TcpStream>) -> io::Result<String> {
    let mut bytes = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("it does not close")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last(target: &str) -> String {
    get(target).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
}

#[tokio::test]
async fn both_versions_are_spoken() {
    let safe = Safe::new(wide()).await;
    assert!(safe.exchange(last("/who")).await.ends_with("\r\n\r\nhttps://127.0.0.1"));
    let io = TokioIo::new(safe.connect(b"h2").await);
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get("https://x/who").body(Empty::<Bytes>::new()).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "https://127.0.0.1");
}

#[tokio::test]
async fn who_speaks_in_the_clear_is_not_answered() {
    let safe = Safe::new(wide()).await;
    let text = safe.edge.exchange(last("/a")).await;
    assert!(!text.contains("HTTP") && !text.contains("GET"), "{text}");
    let preface = safe.edge.exchange("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert!(!preface.contains("HTTP"), "{preface}");
    safe.edge.has_open(0, 100).await;
}

/// Nobody waits for one who does not finish the handshake, and that one is cut.
#[tokio::test]
async fn a_handshake_has_a_time() {
    let safe = Safe::new(Limits { header_read: SHORT * 2, ..wide() }).await;
    for said in ["", "\u{16}", "\u{16}\u{3}\u{1}"] {
        let began = Instant::now();
        let mut silent = safe.edge.connect().await;
        silent.send(said).await;
        assert!(safe.exchange(last("/a")).await.ends_with("GET /a"));
        assert_eq!(silent.rest().await, "", "{said:?}");
        assert!(began.elapsed() >= SHORT * 2, "{said:?}: {:?}", began.elapsed());
    }
    safe.edge.has_open(0, 100).await;
    // Who has come in and says nothing has the same time again.
    let began = Instant::now();
    let mut silent = safe.connect(b"http/1.1").await;
    let _ = rest(&mut silent).await;
    assert!(began.elapsed() >= SHORT * 2);
    safe.edge.has_open(0, 100).await;
}

/// The time for the first request begins when TLS stands, and not before.
#[tokio::test]
async fn a_slow_handshake_costs_no_time_of_the_request() {
    let safe = Safe::new(Limits { header_read: SHORT * 5, ..wide() }).await;
    let tcp = safe.edge.connect().await.0;
    sleep(SHORT * 3).await;
    let caller = Caller::new("localhost", safe.authority.roots(), b"http/1.1").unwrap();
    let mut stream = caller.call(tcp).await.unwrap();
    sleep(SHORT * 3).await;
    stream.write_all(last("/a").as_bytes()).await.unwrap();
    assert!(rest(&mut stream).await.unwrap().ends_with("GET /a"));
}

#[tokio::test]
async fn a_handshake_takes_the_place_of_a_connection() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let door = Door::from(Listener::Tcp(listener));
    let door = door.with_tls(Some(authority.signs("localhost").loaded()));
    let edge = Edge::on(door, address, wide(), 1);
    let silent = edge.connect().await;
    edge.has_open(1, 1).await;
    let safe = Safe { edge, authority };
    let mut waiting = pin!(safe.exchange(last("/a")));
    assert!(timeout(SHORT, &mut waiting).await.is_err(), "it was let in");
    drop(silent);
    assert!(waiting.await.ends_with("GET /a"));
}

#[tokio::test]
async fn the_end_does_not_wait_for_a_handshake() {
    let mut safe = Safe::new(wide()).await;
    let mut silent = safe.edge.connect().await;
    safe.edge.has_open(1, 100).await;
    safe.edge.stop();
    assert_eq!(silent.rest().await, "");
    safe.edge.ended().await;
}

#[tokio::test]
async fn a_client_that_takes_no_bytes_is_cut() {
    let safe = Safe::new(Limits { idle: SHORT * 2, ..wide() }).await;
    let mut stream = safe.connect(b"http/1.1").await;
    stream.write_all(get("/large").as_bytes()).await.unwrap();
    safe.edge.has_begun().await;
    safe.edge.has_open(0, 100).await;
    // One that is slow and does take bytes gets all of them, and is told that these were all.
    let mut stream = safe.connect(b"http/1.1").await;
    stream.write_all(last("/large").as_bytes()).await.unwrap();
    let mut taken = vec![0; LARGE / 8];
    for _ in 0..7 {
        timeout(PATIENCE, stream.read_exact(&mut taken)).await.unwrap().unwrap();
        sleep(SHORT).await;
    }
    assert!(LARGE / 8 < rest(&mut stream).await.unwrap().len());
}

/// TLS takes more than the socket does. What it holds back goes out with the flush, although nothing follows.
#[tokio::test]
async fn what_is_held_back_goes_out() {
    let authority = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let certificates = authority.signs("localhost").loaded();
    let watch = Arc::new(Watch::new(PATIENCE, PATIENCE));
    let theirs = async {
        let tcp = TcpStream::connect(address).await.unwrap();
        let caller = Caller::new("localhost", authority.roots(), b"http/1.1");
        caller.unwrap().call(tcp).await.unwrap()
    };
    let ours = async {
        let noted = Noted::new(listener.accept().await.unwrap().0, watch.clone());
        certificates.accept(noted).await.map_err(|(problem, _)| problem).unwrap()
    };
    let (mut theirs, ours) = tokio::join!(theirs, ours);
    let (mut ours, ..) = Watched::new(Socket::Tls(Box::new(ours)), watch);
    // Until neither the socket nor TLS takes any more.
    let mut sent = 0;
    while let Ok(written) = timeout(SHORT, ours.write(&[b'x'; 16 * 1024])).await {
        sent += written.unwrap();
    }
    let reading = async {
        let mut all = vec![0; sent];
        timeout(PATIENCE, theirs.read_exact(&mut all)).await.expect("some is held back").unwrap();
    };
    tokio::join!(reading, async { ours.flush().await.unwrap() });
}

/// hyper's own refusals have a body here too, and arrive although the client is still sending.
#[tokio::test]
async fn a_refusal_arrives() {
    let safe = Safe::new(wide()).await;
    let text = safe.exchange(format!("NOT HTTP\r\n\r\n{}", "x".repeat(512 * 1024))).await;
    assert_eq!(statuses(&text), [400], "{text}");
    assert!(text.contains("BAD_REQUEST"), "{text}");
}

/// Whether a client with this certificate gets an answer.
async fn is_answered(edge: &Edge, authority: &Authority, pair: Option<&Pair>) -> bool {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.unwrap().with_root_certificates(authority.roots().unwrap());
    let config = match pair {
        None => builder.with_no_client_auth(),
        Some(Pair { certificate, key }) => builder
            .with_client_auth_cert(
                vec![PemObject::from_pem_slice(certificate.as_bytes()).unwrap()],
                PemObject::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap(),
    };
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), edge.connect().await.0).await;
    let Ok(mut stream) = stream else { return false };
    let _ = stream.write_all(last("/a").as_bytes()).await;
    rest(&mut stream).await.is_ok_and(|text| text.ends_with("GET /a"))
}

#[tokio::test]
async fn clients_show_a_certificate_where_they_must() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clients.pem");
    std::fs::write(&path, &ours.certificate).unwrap();
    let (known, unknown) = (ours.signs("client"), theirs.signs("client"));
    for (clients, without) in
        [(Clients::Required(path.clone()), false), (Clients::Optional(path), true)]
    {
        let mut files = ours.signs("localhost").write(folder.path());
        files.clients = clients;
        let edge = edge(Certificates::load(files).unwrap(), wide()).await;
        assert_eq!(is_answered(&edge, &ours, None).await, without);
        assert!(is_answered(&edge, &ours, Some(&known)).await);
        assert!(!is_answered(&edge, &ours, Some(&unknown)).await);
    }
}
