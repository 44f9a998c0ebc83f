//! Asks a server on one connection, each time with another user's key, so that what a decision looks at is in no cache that it would not be in either
//! with as many clients.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::{Outcome, server::Server, store::Made};

/// The most users whose credentials are kept.
pub const SAMPLE: usize = 20_000;
/// The requests of a round.
const ROUND: usize = 4_000;
/// How many rounds there are. With as many users, no key is used twice.
pub const ROUNDS: usize = SAMPLE / ROUND;

/// What decisions took in one round.
pub struct Figures {
    /// The median time from request to answer.
    pub time: Duration,
    /// The server's CPU time, by one decision.
    pub cpu: Duration,
}

/// A keep-alive connection.
pub struct Connection(TcpStream);

impl Connection {
    /// Connects.
    pub fn open(server: &Server) -> Outcome<Self> {
        let stream = TcpStream::connect(&server.public)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        Ok(Self(stream))
    }

    /// Sends a request and reads the answer, which must be a 200.
    pub fn ask(&mut self, request: &[u8]) -> Outcome<()> {
        self.0.write_all(request)?;
        let (mut answer, mut have) = ([0; 4096], 0);
        loop {
            let read = self.0.read(&mut answer[have..])?;
            have += read;
            let so_far = &answer[..have];
            // It has no body.
            if so_far.ends_with(b"\r\n\r\n") {
                break;
            }
            if read == 0 {
                return Err(format!("cut short: {}", String::from_utf8_lossy(so_far)).into());
            }
        }
        match answer.starts_with(b"HTTP/1.1 200") {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&answer[..have]).into()),
        }
    }
}

/// The requests of a round: another user in each, and another resource.
pub fn requests(store: &Made, resources: usize, round: usize) -> Vec<Vec<u8>> {
    let users = store.sample.iter().cycle().skip(round * ROUND).take(ROUND);
    // A step that has no divisor in common with what there may be of them: all of them come, and not one after another.
    let paths = (0..).map(|at: usize| at * 7919 % resources);
    let request = |(user, path): (&String, usize)| {
        format!("GET /app-{path}/1 HTTP/1.1\r\nHost: localhost\r\nAPI-KEY: {user}\r\n\r\n")
    };
    users.zip(paths).map(request).map(String::into_bytes).collect()
}

/// Asks one round.
pub fn round(server: &Server, requests: &[Vec<u8>]) -> Outcome<Figures> {
    let mut connection = Connection::open(server)?;
    let mut times = Vec::with_capacity(requests.len());
    let before = server.cpu()?;
    for request in requests {
        let begun = Instant::now();
        connection.ask(request)?;
        times.push(begun.elapsed());
    }
    let cpu = (server.cpu()? - before) / requests.len() as u32;
    times.sort_unstable();
    Ok(Figures { time: times[times.len() / 2], cpu })
}
