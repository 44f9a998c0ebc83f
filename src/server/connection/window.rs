//! The receive windows of HTTP/2 connections: bytes of bodies that a client may send before a
//! handler reads them. While a connection has a request with a body in flight, its window counts as
//! held memory.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
};

use ::http::{Request, Response, Version};
use bytes::Bytes;
use hyper::body::{Body as _, Incoming};
use ipnet::IpNet;
use parking_lot::Mutex;

use super::head;
use crate::{
    handlers::ClientBody,
    http::forwarded::is_among,
    limits::{BufferAccount, Buffers, Held, HoldError},
};

/// The budget of the windows of a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::server) struct WindowBudget {
    buffers: Buffers,
    /// The proxies whose connections carry the requests of many clients.
    proxies: Arc<[IpNet]>,
}

/// The window of one connection.
#[derive(Debug)]
pub(in crate::server) struct ConnectionWindow {
    account: BufferAccount,
    bytes: usize,
    /// The held bytes, while at least one request has them.
    held: Mutex<Weak<Held>>,
}

impl WindowBudget {
    pub fn new(buffers: Buffers, proxies: impl IntoIterator<Item = IpNet>) -> Self {
        Self { buffers, proxies: proxies.into_iter().collect() }
    }

    /// The number of bytes of a connection's window.
    pub fn bytes(&self) -> u32 {
        self.buffers.http2_window()
    }

    /// The window of a connection of this peer.
    pub fn connection(&self, peer: IpAddr) -> ConnectionWindow {
        let client = Some(peer).filter(|peer| !is_among(&self.proxies, *peer));
        ConnectionWindow {
            account: self.buffers.account(client),
            bytes: usize::try_from(self.bytes()).unwrap_or(usize::MAX),
            held: Mutex::default(),
        }
    }
}

impl ConnectionWindow {
    /// Holds the window if an HTTP/2 request has a body. The request keeps it in its extensions.
    /// Returns whether there is room.
    pub fn admit(&self, request: &mut Request<Incoming>) -> bool {
        if request.version() != Version::HTTP_2 || request.body().is_end_stream() {
            return true;
        }
        self.hold().is_ok_and(|held| {
            request.extensions_mut().insert(held);
            true
        })
    }

    /// Holds the window. The requests of the connection share it.
    fn hold(&self) -> Result<Arc<Held>, HoldError> {
        let mut known = self.held.lock();
        if let Some(held) = known.upgrade() {
            return Ok(held);
        }
        let held = Arc::new(self.account.hold(self.bytes)?);
        *known = Arc::downgrade(&held);
        Ok(held)
    }
}

/// Refuses a request for whose body there is no room.
pub(in crate::server) fn refuse(request: Request<Incoming>) -> Response<Bytes> {
    let version = request.version();
    // On drop, the body is read and discarded for a moment, so that the client sees the response.
    drop(ClientBody::new(request.into_body(), version));
    head::no_room()
}
