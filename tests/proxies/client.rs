//! A small HTTP client that sends header fields and bodies exactly as a test writes them.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Sends a request with these additional header lines and this body, and reads the whole response.
pub async fn send(
    server: SocketAddr,
    method: &str,
    path: &str,
    header_lines: &str,
    body: &[u8],
) -> Response {
    exchange(Ipv4Addr::LOCALHOST, server, method, path, header_lines, body).await
}

/// Sends a GET request from this address of the machine.
pub async fn get_from(
    from: Ipv4Addr,
    server: SocketAddr,
    path: &str,
    header_lines: &str,
) -> Response {
    exchange(from, server, "GET", path, header_lines, b"").await
}

async fn exchange(
    from: Ipv4Addr,
    server: SocketAddr,
    method: &str,
    path: &str,
    header_lines: &str,
    body: &[u8],
) -> Response {
    let length = match body {
        [] => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n{header_lines}{length}\r\n"
    );
    let exchange = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(server).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // A server that rejects the request early may close the connection before the body is sent.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    };
    let bytes = tokio::time::timeout(TIMEOUT, exchange).await.expect("a response in time");
    Response::parse(&bytes).unwrap_or_else(|| {
        panic!("{method} {path}: no response: {:?}", String::from_utf8_lossy(&bytes))
    })
}

impl Response {
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.get(9..12)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if response.header("transfer-encoding").is_some() {
            response.body = dechunk(&response.body)?;
        }
        Some(response)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn count(&self, name: &str) -> usize {
        self.headers.iter().filter(|(known, _)| known == name).count()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|problem| {
            panic!("{problem}: {} {}", self.status, String::from_utf8_lossy(&self.body))
        })
    }
}

/// Decodes a chunked body.
fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        if size == 0 {
            return Some(data);
        }
        data.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 2 + size + 2..)?;
    }
}
