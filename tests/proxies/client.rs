//! A client that sends exactly what it is told to, and what came back.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Sends a request, with more header lines and a body, and reads the answer to its end.
pub async fn ask(to: SocketAddr, method: &str, path: &str, more: &str, body: &[u8]) -> Answer {
    send(Ipv4Addr::LOCALHOST, to, method, path, more, body).await
}

/// Asks for a path from this address of the machine.
pub async fn ask_from(from: Ipv4Addr, to: SocketAddr, path: &str, more: &str) -> Answer {
    send(from, to, "GET", path, more, b"").await
}

async fn send(
    from: Ipv4Addr,
    to: SocketAddr,
    method: &str,
    path: &str,
    more: &str,
    body: &[u8],
) -> Answer {
    let length = match body {
        [] => String::new(),
        body => format!("Content-Length: {}\r\n", body.len()),
    };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api.example\r\nConnection: close\r\n{more}{length}\r\n"
    );
    let asking = async {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((from, 0).into()).unwrap();
        let mut stream = socket.connect(to).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        // Who is refused at once may be cut off while it is still sending.
        let _ = stream.write_all(body).await;
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    };
    let bytes = tokio::time::timeout(PATIENCE, asking).await.expect("an answer in time");
    Answer::parse(&bytes).unwrap_or_else(|| {
        panic!("{method} {path}: no answer: {:?}", String::from_utf8_lossy(&bytes))
    })
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut lines = head.split("\r\n");
        let status = lines.next()?.get(9..12)?.parse().ok()?;
        let headers: Vec<_> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut answer = Self { status, headers, body: bytes[end + 4..].to_vec() };
        if answer.header("transfer-encoding").is_some() {
            answer.body = chunks(&answer.body)?;
        }
        Some(answer)
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

fn chunks(mut rest: &[u8]) -> Option<Vec<u8>> {
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
