//! A client that sends exactly what it is told to.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};

use super::PATIENCE;

/// A request, byte for byte.
pub struct Request {
    to: SocketAddr,
    head: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(to: SocketAddr, method: &str, target: &str) -> Self {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        Self { to, head, body: None }
    }

    pub fn header(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.head.extend_from_slice(name.as_bytes());
        self.head.extend_from_slice(b": ");
        self.head.extend_from_slice(value.as_ref());
        self.head.extend_from_slice(b"\r\n");
        self
    }

    pub fn json(self, body: &Value) -> Self {
        self.header("Content-Type", "application/json").body(body.to_string())
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Some(body.into());
        self
    }

    /// Sends it over a connection of its own and reads the whole answer.
    pub fn send(self) -> Answer {
        let (to, bytes) = self.bytes();
        exchange(to, &bytes)
    }

    /// The same; none when the server is gone before the answer is whole.
    pub fn try_send(self) -> Option<Answer> {
        let (to, bytes) = self.bytes();
        let mut stream = TcpStream::connect(to).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(&bytes).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        let end = answer.windows(4).position(|part| part == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&answer[..end]).to_lowercase();
        let length: usize =
            head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        (answer.len() == end + 4 + length).then(|| Answer::parse(&answer))
    }

    fn bytes(self) -> (SocketAddr, Vec<u8>) {
        let mut bytes = self.head;
        bytes.extend_from_slice(b"Connection: close\r\n");
        if let Some(body) = &self.body
            && !bytes.windows(16).any(|part| part == b"Content-Length: ")
        {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(self.body.as_deref().unwrap_or_default());
        (self.to, bytes)
    }
}

/// Sends bytes over a connection of its own and reads one answer until the server closes.
pub fn exchange(to: SocketAddr, bytes: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(to).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    // A server that has heard enough may close before everything is sent; its answer counts all the same.
    let sent = stream.write_all(bytes);
    let mut answer = Vec::new();
    if let Err(problem) = stream.read_to_end(&mut answer) {
        assert!(!answer.is_empty(), "no answer: {problem} (sent: {sent:?})");
    }
    Answer::parse(&answer)
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no head: {}", String::from_utf8_lossy(bytes)));
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let body = String::from_utf8_lossy(&bytes[end + 4..]).into_owned();
        let answer = Self { status, headers, body };
        if let Some(length) = answer.header("content-length").filter(|_| !answer.body.is_empty()) {
            assert_eq!(length, answer.body.len().to_string(), "{}", answer.body);
        }
        answer
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|problem| panic!("{problem}: {self:?}"))
    }

    /// Holds the answer against a row of the error table: the envelope's exact text, and what every error carries.
    #[track_caller]
    pub fn refuses(&self, status: u16, code: &str, description: &str) {
        let expected = format!(
            "{{\n    \"status\": \"error\",\n    \"http_code\": {status},\n    \"error\": \"{code}\",\n    \"error_description\": \"{description}\"\n}}"
        );
        assert_eq!((self.status, self.body.as_str()), (status, expected.as_str()));
        self.is_an_error();
    }

    /// Holds the answer against a row of the user resource's tables: `{"message": …}`, and what every error carries.
    #[track_caller]
    pub fn says(&self, status: u16, message: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body, json!({ "message": message }).to_string());
        self.is_an_error();
    }

    #[track_caller]
    fn is_an_error(&self) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.status == 401, self.header("www-authenticate").is_some(), "{self:?}");
        assert_eq!(self.status == 405, self.header("allow").is_some(), "{self:?}");
    }
}
