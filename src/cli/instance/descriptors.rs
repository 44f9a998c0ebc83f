//! File descriptors: raises their limit, and divides them so that an administrator can always
//! connect.

use std::{fs, io};

use anyhow::bail;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::{ListenAddress, Runtime, Settings};

/// The maximum number of connections of the admin listener, and of the command line's socket.
const ADMIN_CONNECTIONS: usize = 64;
/// Their number if there are few descriptors.
const MIN_ADMIN_CONNECTIONS: usize = 4;
/// The number of open descriptors of a server without connections, if they cannot be counted.
const USUALLY_OPEN: usize = 40;
/// Kept free for files that are opened later: of the store, backups, scripts, certificates and
/// secrets.
const FILES: usize = 16;
/// The descriptors of a worker that has a runtime of its own.
const PER_RUNTIME: usize = 6;
/// The descriptors of a connection and of its connection to an upstream.
const PER_CONNECTION: usize = 2;

/// How many connections there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionBudget {
    /// On the public listener.
    pub public: usize,
    /// On the verify listener and the one for Envoy together.
    pub verify: usize,
    /// On the admin listener.
    pub admin: usize,
    /// On the command line's socket.
    pub cli: usize,
}

/// Raises the limit of file descriptors as far as this user may. Returns the limit. `None` means
/// that there is none.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(problem) => {
            tracing::warn!(?current, "could not raise the limit of file descriptors: {problem}");
            current
        }
    }
}

/// Divides the descriptors that are left. If they allow fewer connections than are configured, logs
/// the numbers. Call it when all listeners and the store are open.
///
/// # Errors
/// There are too few descriptors for a server.
pub fn divide(settings: &Settings, limit: Option<u64>) -> anyhow::Result<ConnectionBudget> {
    let wanted = settings.limits.connections;
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else {
        return Ok(ConnectionBudget {
            public: wanted,
            verify: wanted,
            admin: ADMIN_CONNECTIONS,
            cli: ADMIN_CONNECTIONS,
        });
    };
    let open = count_open().unwrap_or(USUALLY_OPEN);
    let workers = match settings.server.runtime {
        Runtime::Shared => 0,
        Runtime::PerWorker => settings.server.workers,
    };
    let has_verify = settings.verify.listen.is_some() || settings.verify.grpc_listen.is_some();
    let runtimes = match &settings.verify.listen {
        // Each worker has a second runtime, for its verify listener.
        Some(ListenAddress::Tcp(_)) => 2 * workers,
        _ => workers,
    };
    // Each listener accepts one connection before it waits for a permit: those of the workers, and
    // at most five more.
    let reserved = open + FILES + runtimes * (PER_RUNTIME + 1) + 5;
    let free = limit.saturating_sub(reserved);
    let admin = (free / 8).clamp(MIN_ADMIN_CONNECTIONS, ADMIN_CONNECTIONS);
    let per_connection = PER_CONNECTION + usize::from(has_verify);
    let left = free.saturating_sub(2 * admin) / per_connection;
    if left == 0 {
        let least = reserved + 2 * MIN_ADMIN_CONNECTIONS + per_connection;
        bail!(
            "the limit of file descriptors (ulimit -n) is {limit}, but this server needs at least {least}. Raise the limit"
        );
    }
    if left < wanted {
        tracing::warn!(
            limit,
            reserved = reserved + 2 * admin,
            configured = wanted,
            connections = left,
            "the limit of file descriptors (ulimit -n) allows fewer connections than \
             limits.connections: each may need a second descriptor for its upstream, and the \
             verify listener may have as many"
        );
    }
    let left = wanted.min(left);
    Ok(ConnectionBudget { public: left, verify: left, admin, cli: admin })
}

/// The number of open file descriptors of this process.
fn count_open() -> io::Result<usize> {
    // One of the entries is the folder's own descriptor.
    Ok(fs::read_dir("/dev/fd")?.count().saturating_sub(1))
}
