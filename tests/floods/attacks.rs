//! The floods. Each one has several clients with different addresses, which begin again when the
//! server closes their connection.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::harness::Server;

/// The shipped authentication scripts.
pub const SCRIPTS: [&str; 4] = ["query_key", "hmac", "jwt", "legacy_sha256"];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// How long a client holds a connection on which it does nothing more.
const HOLD: Duration = Duration::from_secs(20);
/// The pause between the requests of a client, so that the clients leave the server a share of the
/// machine.
const PAUSE: Duration = Duration::from_millis(20);

/// The listeners of the server.
#[derive(Clone, Copy)]
pub struct Targets {
    public: SocketAddr,
    admin: SocketAddr,
}

impl Targets {
    pub fn of(server: &Server) -> Self {
        Self { public: server.public, admin: server.admin }
    }
}

/// The running floods.
pub struct Floods {
    clients: JoinSet<()>,
    counts: Vec<(&'static str, Arc<AtomicU64>)>,
}

impl Floods {
    /// Stops all clients, and tells how often each flood has begun a connection.
    pub async fn stop(mut self) -> String {
        self.clients.shutdown().await;
        let counts = self.counts.iter().map(|(name, count)| {
            let count = count.load(Relaxed);
            assert!(count > 0, "the flood {name} did not begin");
            format!("{name}: {count} connections")
        });
        counts.collect::<Vec<_>>().join("\n")
    }

    /// Adds a flood of some clients. `attack` is called again and again.
    fn add<F>(
        &mut self,
        name: &'static str,
        clients: u8,
        server: SocketAddr,
        attack: impl Fn(TcpStream, u8) -> F + Clone + Send + Sync + 'static,
    ) where
        F: Future<Output = std::io::Result<()>> + Send + 'static,
    {
        let count = Arc::new(AtomicU64::new(0));
        let network = u8::try_from(self.counts.len() + 1).unwrap();
        self.counts.push((name, count.clone()));
        for client in 0..clients {
            let (attack, count) = (attack.clone(), count.clone());
            self.clients.spawn(async move {
                loop {
                    // Eight clients share an address.
                    let address = [127, 1, network, client / 8 + 1];
                    if let Ok(Ok(stream)) = timeout(HOLD, connect(address, server)).await {
                        count.fetch_add(1, Relaxed);
                        // The server closes the connection: that is no failure of the flood.
                        let _ = timeout(HOLD, attack(stream, client)).await;
                    }
                    sleep(PAUSE).await;
                }
            });
        }
    }
}

async fn connect(from: [u8; 4], server: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    socket.connect(server).await
}

/// Starts all floods.
pub fn start(targets: &Targets) -> Floods {
    let Targets { public, admin } = *targets;
    let mut floods = Floods { clients: JoinSet::new(), counts: Vec::new() };
    floods.add("half heads", 100, public, half_head);
    floods.add("bodies without keys", 40, public, |stream, _| body(stream, ""));
    floods.add("bodies with wrong signatures", 40, public, |stream, _| signed_body(stream));
    floods.add("wrong signatures", 10, public, |stream, _| signed_request(stream));
    floods.add("chunks of one byte", 20, public, |stream, _| dripping_chunks(stream));
    floods.add("slow readers", 40, public, |stream, _| slow_reader(stream));
    floods.add("HTTP/2 resets", 10, public, |stream, _| rapid_resets(stream));
    floods.add("HTTP/2 bodies", 20, public, |stream, _| http2_bodies(stream));
    floods.add("silent HTTP/2", 40, public, |stream, _| silent(stream));
    floods.add("wrong passwords", 20, public, wrong_password);
    floods.add("huge queries", 20, public, huge_query);
    floods.add("idle admin connections", 66, admin, |stream, _| silent(stream));
    floods
}

/// Reads until the server closes the connection.
async fn drain(mut stream: TcpStream) -> std::io::Result<()> {
    let mut buffer = vec![0; 4096];
    while stream.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn half_head(mut stream: TcpStream, client: u8) -> std::io::Result<()> {
    let begin = format!("GET /good HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(15_000));
    // Some clients send nothing.
    if !client.is_multiple_of(4) {
        stream.write_all(begin.as_bytes()).await?;
    }
    for _ in 0..100 {
        sleep(Duration::from_millis(200)).await;
        stream.write_all(b"x").await?;
    }
    Ok(())
}

async fn body(mut stream: TcpStream, fields: &str) -> std::io::Result<()> {
    const LENGTH: usize = (1 << 20) - 1;
    let head =
        format!("POST /buffered HTTP/1.1\r\nHost: a\r\n{fields}Content-Length: {LENGTH}\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let piece = vec![b'x'; 16 * 1024];
    for _ in 0..LENGTH / piece.len() {
        stream.write_all(&piece).await?;
    }
    // The last bytes never come.
    drain(stream).await
}

/// The fields of a signed request whose signature is wrong.
fn wrong_signature() -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    format!(
        "AUTH-METHOD: hmac\r\nAuthorization: HMAC-SHA256 ann:nonce-0001:x\r\nX-Signature-Created: {now}\r\n"
    )
}

async fn signed_body(stream: TcpStream) -> std::io::Result<()> {
    body(stream, &wrong_signature()).await
}

async fn signed_request(mut stream: TcpStream) -> std::io::Result<()> {
    let fields = wrong_signature();
    let request = format!("GET /buffered HTTP/1.1\r\nHost: a\r\n{fields}Connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    drain(stream).await
}

async fn dripping_chunks(mut stream: TcpStream) -> std::io::Result<()> {
    let head = "POST /buffered HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await?;
    for _ in 0..2000 {
        stream.write_all(&b"1\r\nx\r\n".repeat(50)).await?;
        sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}

async fn slow_reader(mut stream: TcpStream) -> std::io::Result<()> {
    let request = "GET /large HTTP/1.1\r\nHost: a\r\n\r\n".repeat(1000);
    stream.write_all(request.as_bytes()).await?;
    sleep(HOLD).await;
    Ok(())
}

/// A frame of HTTP/2.
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The header block of a request for a path: `:scheme http`, `:authority a`.
fn header_block(method: u8, path: &str) -> Vec<u8> {
    let length = u8::try_from(path.len()).unwrap_or_default();
    [&[method, 0x86, 0x41, 1, b'a', 0x04, length][..], path.as_bytes()].concat()
}

const GET: u8 = 0x82;
const POST: u8 = 0x83;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const PING: u8 = 6;
const END_HEADERS: u8 = 4;
const END_STREAM: u8 = 1;

async fn rapid_resets(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(PREFACE).await?;
    let (mut reader, mut writer) = stream.into_split();
    let write = async move {
        for number in 0..20_000_u32 {
            let id = number * 2 + 1;
            let begin = frame(HEADERS, END_HEADERS | END_STREAM, id, &header_block(GET, "/good"));
            let reset = frame(RST_STREAM, 0, id, &[0, 0, 0, 8]);
            writer.write_all(&[begin, reset].concat()).await?;
            if number % 100 == 0 {
                sleep(PAUSE).await;
            }
        }
        Ok(())
    };
    let mut buffer = vec![0; 4096];
    let read = async move {
        while reader.read(&mut buffer).await? > 0 {}
        Ok(())
    };
    tokio::select! { done = write => done, done = read => done }
}

/// Streams whose bodies do not end, as much as the server's window allows.
async fn http2_bodies(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(PREFACE).await?;
    for number in 0..100_u32 {
        let id = number * 2 + 1;
        let begin = frame(HEADERS, END_HEADERS, id, &header_block(POST, "/buffered"));
        stream.write_all(&begin).await?;
        for _ in 0..2 {
            stream.write_all(&frame(DATA, 0, id, &[b'x'; 8 * 1024])).await?;
        }
        sleep(Duration::from_millis(50)).await;
    }
    drain(stream).await
}

async fn silent(mut stream: TcpStream) -> std::io::Result<()> {
    stream.write_all(PREFACE).await?;
    loop {
        sleep(Duration::from_millis(500)).await;
        stream.write_all(&frame(PING, 0, 0, b"pingping")).await?;
    }
}

async fn wrong_password(mut stream: TcpStream, client: u8) -> std::io::Result<()> {
    // base64 of names and passwords: `ann:` and one that differs for each client.
    let pair = ["YW5uOm9uZQ==", "YW5uOnR3bw==", "bm9ib2R5Ong="][usize::from(client) % 3];
    let request = format!(
        "GET /good HTTP/1.1\r\nHost: a\r\nAUTH-METHOD: pw\r\nAuthorization: Basic {pair}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    drain(stream).await
}

async fn huge_query(mut stream: TcpStream, client: u8) -> std::io::Result<()> {
    let script = SCRIPTS[usize::from(client) % SCRIPTS.len()];
    let (query, field) = ("&=".repeat(3000), "a ".repeat(2000));
    let request = format!(
        "GET /good?{query} HTTP/1.1\r\nHost: a\r\nAUTH-METHOD: {script}\r\nAuthorization: {field}\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    drain(stream).await
}
