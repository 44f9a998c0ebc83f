//! Endurance test of the `proxy` handler:
//! `cargo bench --bench soak [-- --gib 2 --seconds 60 --slow 1000]`.
//!
//! The bench runs an upstream in this process, starts Keyward in front of the upstream, and
//! measures:
//! - a download and an upload of `--gib` GiB, and the memory that the server needs during each;
//! - an SSE stream and a WebSocket at the same time for `--seconds` seconds, and the longest delay
//!   of an event and of an echo;
//! - `--slow` concurrent responses that take five seconds each.
//!
//! The bench fails if a byte is missing, if an event or echo takes longer than one second, or if
//! memory grows with the size of a transfer.

#![allow(clippy::print_stdout, reason = "the bench prints its results")]

mod support;

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, channel::Channel, combinators::BoxBody};
use hyper::{Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use support::{Outcome, Server, Setup, option};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    time::{sleep, timeout},
};

const GIB: u64 = 1 << 30;
const CHUNK: usize = 64 * 1024;
const SLOW: Duration = Duration::from_secs(5);
/// Allowed growth of resident memory during a transfer of many GiB, in MiB.
const MAX_GROWTH_MIB: f64 = 16.0;
const TIMEOUT: Duration = Duration::from_secs(300);

type Body = BoxBody<Bytes, Infallible>;

#[tokio::main]
async fn main() -> Outcome<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let upstream = format!("http://{}", listener.local_addr()?);
    tokio::spawn(serve_upstream(listener));
    let folder = tempfile::tempdir()?;
    let setup = Setup::new(folder.path())?;
    let rule = ["--method", "GET", "--method", "POST", "--format", "any", "--authentication", "*"];
    let add = ["resource", "add", "app", "--handler", "proxy", "--path", "/{*rest}"];
    setup.run(&[&add[..], &rule[..], &["--upstream", &upstream]].concat())?;
    let server = setup.serve("keyward")?;

    let bytes = option("--gib", 2) * GIB;
    transfer(&server, Direction::Down, bytes).await?;
    transfer(&server, Direction::Up, bytes).await?;
    let seconds = option("--seconds", 60);
    let (events, echoes) =
        tokio::join!(measure_events(&server, seconds), measure_echoes(&server, seconds));
    println!("{}\n{}", events?, echoes?);
    slow_responses(&server, option("--slow", 1000)).await
}

/// Connects to the server and sends the head of a request.
async fn send_head(server: &Server, line: &str, fields: &str) -> Outcome<BufReader<TcpStream>> {
    let mut stream = TcpStream::connect(&server.address).await?;
    let head =
        format!("{line} HTTP/1.1\r\nHost: {}\r\n{}\r\n{fields}\r\n", server.address, server.header);
    stream.write_all(head.as_bytes()).await?;
    Ok(BufReader::with_capacity(CHUNK, stream))
}

/// Reads the head of a response and checks its status.
async fn read_head(stream: &mut BufReader<TcpStream>, status: &str) -> Outcome<()> {
    let mut line = String::new();
    stream.read_line(&mut line).await?;
    if !line.starts_with(&format!("HTTP/1.1 {status}")) {
        return Err(format!("expected {status}: {line}").into());
    }
    while line != "\r\n" {
        line.clear();
        stream.read_line(&mut line).await?;
    }
    Ok(())
}

/// The direction of a transfer, seen from the client.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Down,
    Up,
}

impl std::fmt::Display for Direction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Down => "down",
            Self::Up => "up",
        })
    }
}

async fn transfer(server: &Server, direction: Direction, bytes: u64) -> Outcome<()> {
    let before = server.resident()?;
    let began = Instant::now();
    let peak = Arc::new(AtomicU64::new(0));
    let transfer = async {
        match direction {
            Direction::Down => download(server, bytes).await,
            Direction::Up => upload(server, bytes).await,
        }
    };
    let measure_memory = async {
        loop {
            peak.fetch_max((server.resident().unwrap_or_default() * 1024.0) as u64, Relaxed);
            sleep(Duration::from_millis(100)).await;
        }
    };
    let received = tokio::select! {
        received = timeout(TIMEOUT, transfer) => received??,
        () = measure_memory => unreachable!("the measurement never ends"),
    };
    let (seconds, peak) = (began.elapsed().as_secs_f64(), peak.load(Relaxed) as f64 / 1024.0);
    println!(
        "{:.1} GiB {direction}: {:.0} MiB/s, resident {before:.1} MiB before, {peak:.1} MiB at most",
        bytes as f64 / GIB as f64,
        bytes as f64 / seconds / 1024.0 / 1024.0
    );
    if received != bytes || peak - before > MAX_GROWTH_MIB {
        return Err(format!("{received} of {bytes} bytes arrived; {peak:.1} MiB of memory").into());
    }
    Ok(())
}

async fn download(server: &Server, bytes: u64) -> Outcome<u64> {
    let mut stream =
        send_head(server, &format!("GET /source?{bytes}"), "Connection: close\r\n").await?;
    read_head(&mut stream, "200").await?;
    let (mut received, mut buffer) = (0, vec![0; CHUNK]);
    // The response has a Content-Length, so there is no chunk framing in the body.
    while let read @ 1.. = stream.read(&mut buffer).await? {
        received += read as u64;
    }
    Ok(received)
}

async fn upload(server: &Server, bytes: u64) -> Outcome<u64> {
    let fields = format!("Connection: close\r\nContent-Length: {bytes}\r\n");
    let mut stream = send_head(server, "POST /sink", &fields).await?;
    let chunk = vec![b'x'; CHUNK];
    for _ in 0..bytes / CHUNK as u64 {
        stream.get_mut().write_all(&chunk).await?;
    }
    read_head(&mut stream, "200").await?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await?;
    Ok(text.trim().parse()?)
}

/// Reads server-sent events. Each event contains the time at which the upstream sent the event.
async fn measure_events(server: &Server, seconds: u64) -> Outcome<String> {
    let fields = "Accept: text/event-stream\r\nConnection: close\r\n";
    let mut stream = send_head(server, &format!("GET /events?{seconds}"), fields).await?;
    read_head(&mut stream, "200").await?;
    let (mut count, mut longest, mut line) = (0, Duration::ZERO, String::new());
    while stream.read_line(&mut line).await? > 0 {
        if let Some(sent) = line.strip_prefix("data: ") {
            let sent = Duration::from_micros(sent.trim().parse()?);
            longest = longest.max(now().saturating_sub(sent));
            count += 1;
        }
        line.clear();
    }
    if count != seconds * 10 || longest > Duration::from_secs(1) {
        return Err(
            format!("{count} of {} events; the slowest took {longest:?}", seconds * 10).into()
        );
    }
    Ok(format!("SSE for {seconds} s: {count} events, the slowest took {longest:.1?}"))
}

/// `KEY` and `ACCEPT` are the values of the example in RFC 6455, section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

async fn measure_echoes(server: &Server, seconds: u64) -> Outcome<String> {
    let fields = format!(
        "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n"
    );
    let mut stream = send_head(server, "GET /socket", &fields).await?;
    read_head(&mut stream, "101").await?;
    let (until, mut count, mut longest) =
        (Instant::now() + Duration::from_secs(seconds), 0_u64, Duration::ZERO);
    while Instant::now() < until {
        let text = format!("echo {count}");
        // Clients have to mask their frames; the mask is zero here.
        let frame = [&[0x81, 0x80 | text.len() as u8, 0, 0, 0, 0], text.as_bytes()].concat();
        let sent = Instant::now();
        stream.get_mut().write_all(&frame).await?;
        let mut echoed = vec![0; 2 + text.len()];
        timeout(TIMEOUT, stream.read_exact(&mut echoed)).await??;
        longest = longest.max(sent.elapsed());
        if echoed[..2] != [0x81, text.len() as u8] || echoed[2..] != *text.as_bytes() {
            return Err(format!("the echo of {text} is {echoed:?}").into());
        }
        count += 1;
        sleep(Duration::from_millis(10)).await;
    }
    if longest > Duration::from_secs(1) {
        return Err(format!("an echo took {longest:?}").into());
    }
    Ok(format!("WebSocket for {seconds} s: {count} echoes, the slowest {longest:.1?}"))
}

async fn slow_responses(server: &Server, count: u64) -> Outcome<()> {
    let (before, began) = (server.resident()?, Instant::now());
    let mut streams = Vec::new();
    for _ in 0..count {
        streams.push(send_head(server, "GET /slow", "Connection: close\r\n").await?);
    }
    sleep(SLOW / 2).await;
    let during = server.resident()?;
    for mut stream in streams {
        timeout(TIMEOUT, read_head(&mut stream, "200")).await??;
    }
    println!(
        "{count} responses of {SLOW:?} each: all after {:.1?}, resident {before:.1} MiB before, {during:.1} MiB during",
        began.elapsed()
    );
    Ok(())
}

fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

async fn serve_upstream(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service_fn(respond))
                .with_upgrades()
                .await;
        });
    }
}

async fn respond(mut request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let amount: u64 = request.uri().query().and_then(|text| text.parse().ok()).unwrap_or_default();
    let full = |text: String| Full::new(Bytes::from(text)).boxed();
    let response = match request.uri().path() {
        "/source" => {
            let chunk = Bytes::from(vec![b'x'; CHUNK]);
            let (mut sender, body) = Channel::<Bytes>::new(1);
            tokio::spawn(async move {
                for _ in 0..amount / CHUNK as u64 {
                    if sender.send_data(chunk.clone()).await.is_err() {
                        break;
                    }
                }
            });
            let body = body.boxed();
            Response::builder().header("content-length", amount).body(body)
        }
        "/sink" => {
            let mut received = 0;
            while let Some(Ok(frame)) = request.body_mut().frame().await {
                received += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
            Response::builder().body(full(received.to_string()))
        }
        "/events" => {
            let (mut sender, body) = Channel::<Bytes>::new(1);
            tokio::spawn(async move {
                for _ in 0..amount * 10 {
                    let event = format!("data: {}\n\n", now().as_micros());
                    if sender.send_data(event.into()).await.is_err() {
                        break;
                    }
                    sleep(Duration::from_millis(100)).await;
                }
            });
            let body = body.boxed();
            Response::builder().header("content-type", "text/event-stream").body(body)
        }
        "/socket" => {
            tokio::spawn(async move {
                if let Ok(socket) = hyper::upgrade::on(request).await {
                    let _ = echo(TokioIo::new(socket)).await;
                }
            });
            Response::builder()
                .status(StatusCode::SWITCHING_PROTOCOLS)
                .header("connection", "upgrade")
                .header("upgrade", "websocket")
                .header("sec-websocket-accept", ACCEPT)
                .body(full(String::new()))
        }
        _ => {
            sleep(SLOW).await;
            Response::builder().body(full("slow".into()))
        }
    };
    Ok(response.expect("all header fields are valid"))
}

/// Sends short frames back without a mask. The text of a frame is not unmasked, because the
/// client's mask is zero.
async fn echo(mut socket: TokioIo<hyper::upgrade::Upgraded>) -> std::io::Result<()> {
    loop {
        let mut head = [0; 6];
        socket.read_exact(&mut head).await?;
        let length = head[1] & 0x7f;
        let mut text = vec![0; usize::from(length)];
        socket.read_exact(&mut text).await?;
        socket.write_all(&[&[0x81, length], &text[..]].concat()).await?;
    }
}
