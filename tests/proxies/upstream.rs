//! An application that records each request exactly as it received the bytes. It accepts every
//! upgrade, and then sends back what it receives.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

pub struct Upstream {
    pub address: SocketAddr,
    requests: Arc<Mutex<Vec<Recorded>>>,
}

#[derive(Debug, Clone, Default)]
pub struct Recorded {
    /// The request line and the header fields.
    pub head: String,
    /// The body with its framing: chunk sizes and trailers.
    pub body: Vec<u8>,
    /// The bytes that came after an upgrade.
    pub tunnel: Vec<u8>,
}

impl Upstream {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let recorder = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let recorder = Recorder { requests: recorder.clone(), stream, unread: Vec::new() };
                // A broken connection ends the thread. The test sees what was recorded before.
                thread::spawn(move || drop(recorder.run()));
            }
        });
        Self { address, requests }
    }

    /// The requests since the last call. A request is recorded before its response is sent.
    pub fn take(&self) -> Vec<Recorded> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

impl Recorded {
    pub fn method(&self) -> &str {
        self.head.split(' ').next().unwrap()
    }

    pub fn target(&self) -> &str {
        self.head.split(' ').nth(1).unwrap_or_default()
    }

    /// The values of a header field, without empty values.
    pub fn field(&self, name: &str) -> Vec<&str> {
        let lines = self.head.split("\r\n").skip(1).filter_map(|line| line.split_once(':'));
        let values = lines.filter(|(known, _)| known.eq_ignore_ascii_case(name));
        values.map(|(_, value)| value.trim()).filter(|value| !value.is_empty()).collect()
    }
}

struct Recorder {
    requests: Arc<Mutex<Vec<Recorded>>>,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Recorder {
    fn run(mut self) -> std::io::Result<()> {
        loop {
            while find(&self.unread, b"\r\n\r\n").is_none() {
                self.read_more()?;
            }
            let end = find(&self.unread, b"\r\n\r\n").unwrap() + 4;
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let request = Recorded {
                head: String::from_utf8_lossy(&head).trim_end().into(),
                ..Recorded::default()
            };
            let body = self.read_body(&request)?;
            let protocol = request.field("upgrade").concat();
            self.requests.lock().unwrap().push(Recorded { body, ..request });
            if !protocol.is_empty() {
                return self.tunnel(&protocol);
            }
            self.stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")?;
        }
    }

    fn read_more(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 16_384];
        match self.stream.read(&mut buffer)? {
            0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
            count => {
                self.unread.extend_from_slice(&buffer[..count]);
                Ok(())
            }
        }
    }

    fn read_body(&mut self, request: &Recorded) -> std::io::Result<Vec<u8>> {
        let length: usize = match request.field("content-length").first() {
            Some(length) => length.parse().unwrap_or_default(),
            None if request.field("transfer-encoding").is_empty() => 0,
            None => loop {
                if let Some(end) = end_of_chunks(&self.unread) {
                    break end;
                }
                self.read_more()?;
            },
        };
        while self.unread.len() < length {
            self.read_more()?;
        }
        Ok(self.unread.drain(..length).collect())
    }

    fn tunnel(mut self, protocol: &str) -> std::io::Result<()> {
        // The accept value belongs to the key in the tests' handshake (RFC 6455 1.3).
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
        );
        self.stream.write_all(head.as_bytes())?;
        loop {
            if self.unread.is_empty() {
                self.read_more()?;
            }
            let bytes = std::mem::take(&mut self.unread);
            let mut requests = self.requests.lock().unwrap();
            if let Some(request) = requests.last_mut() {
                request.tunnel.extend_from_slice(&bytes);
            }
            drop(requests);
            self.stream.write_all(&bytes)?;
        }
    }
}

/// The end of a chunked body with its trailers.
fn end_of_chunks(bytes: &[u8]) -> Option<usize> {
    let mut start = 0;
    loop {
        let line = start + find(&bytes[start..], b"\r\n")?;
        let size = std::str::from_utf8(&bytes[start..line]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            let trailers = &bytes[line..];
            return Some(line + find(trailers, b"\r\n\r\n")? + 4);
        }
        start = line + 2 + size + 2;
        bytes.get(start)?;
    }
}

pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}
