//! A small HTTP client that sends each request exactly as a test writes it.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use serde_json::{Value, json};

use super::TIMEOUT;

/// A request as raw bytes.
pub struct Request {
    server: SocketAddr,
    head: Vec<u8>,
    body: Option<Vec<u8>>,
}

impl Request {
    pub fn new(server: SocketAddr, method: &str, target: &str) -> Self {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: {server}\r\n").into_bytes();
        Self { server, head, body: None }
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

    /// Sends the request over a new connection and reads the whole response.
    pub fn send(self) -> Response {
        let (server, bytes) = self.bytes();
        exchange(server, &bytes)
    }

    /// Like `send`, but returns `None` if the server ends before the response is complete.
    pub fn try_send(self) -> Option<Response> {
        let (server, bytes) = self.bytes();
        let mut stream = TcpStream::connect(server).ok()?;
        stream.set_read_timeout(Some(TIMEOUT)).ok()?;
        stream.write_all(&bytes).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n")?;
        let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
        let length: usize =
            head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
        (bytes.len() == end + 4 + length).then(|| Response::parse(&bytes))
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
        (self.server, bytes)
    }
}

/// Sends bytes over a new connection and reads one response until the server closes the connection.
pub fn exchange(server: SocketAddr, bytes: &[u8]) -> Response {
    let mut stream = TcpStream::connect(server).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    // The server may respond and close the connection before it has read the whole request, so a
    // failed write is no error.
    let sent = stream.write_all(bytes);
    let mut received = Vec::new();
    if let Err(error) = stream.read_to_end(&mut received) {
        assert!(!received.is_empty(), "no response: {error} (sent: {sent:?})");
    }
    Response::parse(&received)
}

/// A response.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|part| part == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| {
            panic!("no end of the header section: {}", String::from_utf8_lossy(bytes))
        });
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let headers = lines
            .map(|line| line.split_once(':').unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let mut response = Self { status, headers, body: String::new() };
        let is_chunked = response.header("transfer-encoding") == Some("chunked");
        let body = &bytes[end + 4..];
        let body = if is_chunked { without_chunks(body) } else { body.to_vec() };
        response.body = String::from_utf8_lossy(&body).into_owned();
        if let Some(length) =
            response.header("content-length").filter(|_| !response.body.is_empty())
        {
            assert_eq!(length, response.body.len().to_string(), "{}", response.body);
        }
        response
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Asserts that the response is this error, with the exact text of the error envelope and the
    /// header fields that every error has.
    #[track_caller]
    pub fn assert_error(&self, status: u16, code: &str, description: &str) {
        let expected = format!(
            "{{\n    \"status\": \"error\",\n    \"http_code\": {status},\n    \"error\": \"{code}\",\n    \"error_description\": \"{description}\"\n}}"
        );
        assert_eq!((self.status, self.body.as_str()), (status, expected.as_str()));
        self.assert_error_headers();
    }

    /// Asserts that the response is this error of the user resource, with the body
    /// `{"message": …}` and the header fields that every error has.
    #[track_caller]
    pub fn assert_message(&self, status: u16, message: &str) {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.body, json!({ "message": message }).to_string());
        self.assert_error_headers();
    }

    #[track_caller]
    fn assert_error_headers(&self) {
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.status == 401, self.header("www-authenticate").is_some(), "{self:?}");
        assert_eq!(self.status == 405, self.header("allow").is_some(), "{self:?}");
    }
}

/// The content of a body in chunks.
fn without_chunks(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    loop {
        let end = body.windows(2).position(|part| part == b"\r\n").expect("a chunk has a size");
        let size = std::str::from_utf8(&body[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body = &body[end + 2..];
        if size == 0 {
            return content;
        }
        content.extend_from_slice(&body[..size]);
        body = &body[size + 2..];
    }
}
