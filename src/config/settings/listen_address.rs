//! The address of a listener, and the rule that no two listeners have the same one.

use std::{fmt, net::SocketAddr, path::PathBuf};

use super::{Check, Settings, overlap};

/// The address of a listener that can be a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; port 0 means a free port.
    Tcp(SocketAddr),
    /// A Unix socket with this absolute path.
    Unix(PathBuf),
}

impl ListenAddress {
    /// The TCP address. `None` means a Unix socket.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The path of the Unix socket. `None` means a TCP address.
    fn path(&self) -> Option<PathBuf> {
        match self {
            Self::Tcp(_) => None,
            Self::Unix(path) => Some(path.clone()),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener, for the comparison with the others.
struct Candidate {
    key: &'static str,
    name: &'static str,
    tcp: Option<SocketAddr>,
    path: Option<PathBuf>,
}

impl Candidate {
    fn new(key: &'static str, name: &'static str, address: &ListenAddress) -> Self {
        Self { key, name, tcp: address.tcp(), path: address.path() }
    }
}

impl<R: FnMut(&[&str], String, String)> Check<R> {
    /// Checks that no two listeners have the same port or the same Unix socket.
    pub(super) fn ports(&mut self, settings: &Settings) {
        let public = ListenAddress::Tcp(settings.server.listen);
        let grpc = settings.verify.grpc_listen.map(ListenAddress::Tcp);
        // Without a TCP address of the admin listener, the command line has no socket of its own.
        let cli_socket = settings.admin.listen.tcp().map(|_| Candidate {
            key: "store.path",
            name: "command line's",
            tcp: None,
            path: Some(settings.store.socket_file.clone()),
        });
        let all: Vec<Candidate> = [
            cli_socket,
            Some(Candidate::new("server.listen", "public", &public)),
            Some(Candidate::new("admin.listen", "admin", &settings.admin.listen)),
            settings
                .verify
                .listen
                .as_ref()
                .map(|address| Candidate::new("verify.listen", "verify", address)),
            grpc.as_ref().map(|address| Candidate::new("verify.grpc_listen", "gRPC", address)),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (index, later) in all.iter().enumerate() {
            for earlier in &all[..index] {
                let has_same_port =
                    earlier.tcp.zip(later.tcp).is_some_and(|(one, other)| overlap(one, other));
                let has_same_path = later.path.is_some() && earlier.path == later.path;
                let (what, fix) = match (has_same_port, has_same_path) {
                    (false, false) => continue,
                    (true, _) => ("port", "different ports"),
                    (false, true) => ("Unix socket", "different paths"),
                };
                let message = format!(
                    "The {} listener and the {} listener have the same {what}.",
                    earlier.name, later.name
                );
                let fix = format!("Give {} and {} {fix}.", earlier.key, later.key);
                (self.report)(&[later.key, earlier.key], message, fix);
            }
        }
    }
}
