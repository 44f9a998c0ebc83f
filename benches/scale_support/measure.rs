//! Sends requests to a server on one connection, each with another user's key.
//!
//! Each request uses another key, so the CPU caches are as cold as with many real clients.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{
    Outcome,
    server::Server,
    store::{BenchStore, SAMPLE},
};

const REQUESTS_PER_ROUND: usize = 4_000;
/// Number of rounds. If the store has at least `SAMPLE` users, each key is used only once.
pub const ROUNDS: usize = SAMPLE / REQUESTS_PER_ROUND;

/// Measurements of one round.
pub struct Figures {
    /// Median time from request to response.
    pub time: Duration,
    /// The server's CPU time per request.
    pub cpu: Duration,
}

/// A keep-alive connection.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects to the public listener.
    pub fn open(server: &Server) -> Outcome<Self> {
        let stream = TcpStream::connect(&server.public)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(stream))
    }

    /// Sends a request and reads the response, which must have status 200.
    pub fn send(&mut self, request: &[u8]) -> Outcome<()> {
        self.0.write_all(request)?;
        let (mut buffer, mut length) = ([0; 4096], 0);
        loop {
            let read = self.0.read(&mut buffer[length..])?;
            length += read;
            let so_far = &buffer[..length];
            // The response has no body.
            if so_far.ends_with(b"\r\n\r\n") {
                break;
            }
            if read == 0 {
                return Err(
                    format!("truncated response: {}", String::from_utf8_lossy(so_far)).into()
                );
            }
        }
        if !buffer.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&buffer[..length]).into());
        }
        Ok(())
    }
}

/// The requests of a round, each with another user and another resource.
pub fn requests(store: &BenchStore, resources: usize, round: usize) -> Vec<Vec<u8>> {
    let users =
        store.sample.iter().cycle().skip(round * REQUESTS_PER_ROUND).take(REQUESTS_PER_ROUND);
    // Steps of 7919 visit all resources in an irregular order. 7919 is a prime, so this only needs
    // a number of resources that is not a multiple of 7919.
    let paths = (0..).map(|step: usize| step * 7919 % resources);
    let request = |(user, path): (&String, usize)| {
        format!("GET /app-{path}/1 HTTP/1.1\r\nHost: localhost\r\nAPI-KEY: {user}\r\n\r\n")
    };
    users.zip(paths).map(request).map(String::into_bytes).collect()
}

/// Sends the requests of one round and measures them.
pub fn run_round(server: &Server, requests: &[Vec<u8>]) -> Outcome<Figures> {
    let mut connection = Connection::open(server)?;
    let mut times = Vec::with_capacity(requests.len());
    let before = server.cpu()?;
    for request in requests {
        let begun = Instant::now();
        connection.send(request)?;
        times.push(begun.elapsed());
    }
    let cpu = (server.cpu()? - before) / requests.len() as u32;
    times.sort_unstable();
    Ok(Figures { time: times[times.len() / 2], cpu })
}
