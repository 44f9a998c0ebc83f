//! The timeouts of a connection: how long the connection may be idle, how long a request's head may
//! take, and how long the client may read nothing. Each connection has one timer, set to the
//! earliest possible expiry. A request costs a few writes to memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// The value of `preface_bytes` after the client has sent a byte that differs from the preface.
const NOT_HTTP2: usize = usize::MAX;
/// The maximum number of milliseconds by which the clock of [`ticks`] lags behind the clock of
/// timers. Each timer is set this many milliseconds later. Otherwise a timer could fire before
/// [`ticks`] reaches the expiry, and the check would repeat again and again.
const LAG: u64 = 16;

/// The state of a connection that decides about timeouts. A point in time is in milliseconds since
/// the start of the connection, plus one. `0` means that there is no such time.
#[derive(Debug)]
pub(in crate::server) struct ConnectionTimeouts {
    started: Instant,
    /// `started`, on the clock of [`ticks`].
    started_ticks: i64,
    header_read: u64,
    idle: u64,
    /// The number of requests that were read and whose responses are not complete.
    in_flight: AtomicU32,
    /// The time at which the first byte of the current, incomplete head came.
    head_since: AtomicU64,
    /// The time at which the last response was complete. Before the first response, the time at
    /// which the handshake was complete.
    idle_since: AtomicU64,
    /// The time at which the client's socket became full.
    blocked_since: AtomicU64,
    /// HTTP/2: the number of responses whose next bytes wait until the client opens its
    /// flow-control window. A window can be closed while the socket accepts bytes.
    offered: AtomicU32,
    /// HTTP/2: the last time at which hyper took bytes of a response.
    taken_at: AtomicU64,
    has_received: AtomicBool,
    /// How many bytes of the HTTP/2 preface have come, or [`NOT_HTTP2`].
    preface_bytes: AtomicUsize,
    was_rejected: AtomicBool,
    is_upgraded: AtomicBool,
    /// Whether a request was read since [`Self::next_bytes`] last returned `NewRequest`.
    has_new_request: AtomicBool,
    /// Whether the last response came from an upstream.
    is_pass_through: AtomicBool,
}

/// The meaning of the next bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum NextBytes {
    /// A new request, because the previous request has its response.
    NewRequest,
    /// More bytes of the current request.
    SameRequest,
    /// Bytes that are not HTTP/1.1.
    OtherProtocol,
}

/// The result of a check for timeouts.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum TimeoutCheck {
    /// No timeout has expired. Check again at this time.
    CheckAgainAt(Instant),
    /// Close the connection, for this reason.
    Expired(&'static str),
}

impl ConnectionTimeouts {
    pub fn new(header_read: Duration, idle: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
        Self {
            started: Instant::now(),
            started_ticks: ticks(),
            header_read: millis(header_read),
            idle: millis(idle),
            in_flight: AtomicU32::new(0),
            head_since: AtomicU64::new(0),
            idle_since: AtomicU64::new(1),
            blocked_since: AtomicU64::new(0),
            offered: AtomicU32::new(0),
            taken_at: AtomicU64::new(0),
            has_received: AtomicBool::new(false),
            preface_bytes: AtomicUsize::new(0),
            was_rejected: AtomicBool::new(false),
            is_upgraded: AtomicBool::new(false),
            has_new_request: AtomicBool::new(true),
            is_pass_through: AtomicBool::new(false),
        }
    }

    /// The time now, from a cheap clock that lags by some milliseconds. Each request reads this
    /// clock several times, and the limits are seconds long.
    fn now(&self) -> u64 {
        let since = ticks().saturating_sub(self.started_ticks);
        u64::try_from(since).unwrap_or(0) + 1
    }

    /// Records that the handshake is complete: the time for the first request begins.
    pub fn begin_idle(&self) {
        self.idle_since.store(self.now(), Relaxed);
    }

    /// Records that bytes were read.
    pub fn received(&self, bytes: &[u8]) {
        self.has_received.store(true, Relaxed);
        let matched = self.preface_bytes.load(Relaxed);
        if matched < PREFACE.len() {
            let next = bytes.len().min(PREFACE.len() - matched);
            let fits = PREFACE[matched..].starts_with(&bytes[..next]);
            self.preface_bytes.store(if fits { matched + next } else { NOT_HTTP2 }, Relaxed);
        }
        if self.in_flight.load(Relaxed) == 0 && self.head_since.load(Relaxed) == 0 {
            self.head_since.store(self.now(), Relaxed);
        }
    }

    /// Records that bytes were written.
    pub fn wrote(&self) {
        if self.blocked_since.load(Relaxed) != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    fn is_http2(&self) -> bool {
        self.preface_bytes.load(Relaxed) == PREFACE.len()
    }

    /// Records that the client's socket is full.
    pub fn write_blocked(&self) {
        if self.blocked_since.load(Relaxed) == 0 {
            self.blocked_since.store(self.now(), Relaxed);
        }
    }

    /// Records that hyper has rejected a malformed request and closes the connection.
    pub fn set_rejected(&self) {
        self.was_rejected.store(true, Relaxed);
    }

    pub fn was_rejected(&self) -> bool {
        self.was_rejected.load(Relaxed)
    }

    /// Records that the bytes after this response belong to another protocol. The tunnel that
    /// carries these bytes has its own timeouts.
    pub fn set_upgraded(&self) {
        self.is_upgraded.store(true, Relaxed);
    }

    pub fn is_upgraded(&self) -> bool {
        self.is_upgraded.load(Relaxed)
    }

    /// Records that a response will be written. `is_pass_through` means that the response came from
    /// an upstream.
    pub fn begin_response(&self, is_pass_through: bool) {
        self.is_pass_through.store(is_pass_through, Relaxed);
    }

    /// Whether the bytes that hyper writes now can be a rejection by hyper. After an upstream's
    /// response, this is possible only if the client has sent more bytes since then.
    pub fn can_write_rejection(&self) -> bool {
        !self.is_upgraded()
            && (!self.is_pass_through.load(Relaxed) || self.head_since.load(Relaxed) != 0)
    }

    /// Records that the head of a request was read.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.has_new_request.store(true, Relaxed);
        self.head_since.store(0, Relaxed);
        InFlight { timeouts: self.clone(), is_offered: false }
    }

    /// The time since when all responses wait for the client's window. `None` means that at least
    /// one response does not wait, or that no request is in flight.
    fn window_closed_since(&self) -> Option<u64> {
        let (offered, in_flight) = (self.offered.load(Relaxed), self.in_flight.load(Relaxed));
        (offered > 0 && offered == in_flight).then(|| self.taken_at.load(Relaxed))
    }

    /// The meaning of the bytes that come next.
    pub fn next_bytes(&self) -> NextBytes {
        if self.is_http2() || self.is_upgraded() {
            NextBytes::OtherProtocol
        } else if self.in_flight.load(Relaxed) == 0 && self.has_new_request.load(Relaxed) {
            // A load and a separate store are enough, because only the task of the connection uses
            // this flag.
            self.has_new_request.store(false, Relaxed);
            NextBytes::NewRequest
        } else {
            NextBytes::SameRequest
        }
    }

    /// Checks whether the connection has to be closed.
    pub fn check(&self) -> TimeoutCheck {
        let now = self.now();
        // A wait that begins after this check expires at this time at the earliest.
        let next_check = now + self.idle.min(self.header_read);
        let (blocked_since, head_since) =
            (self.blocked_since.load(Relaxed), self.head_since.load(Relaxed));
        let (expiry, reason) = if blocked_since != 0 {
            (blocked_since + self.idle, "the client reads no bytes")
        } else if let Some(since) = self.window_closed_since() {
            (since + self.idle, "the client does not open its HTTP/2 window")
        } else if self.in_flight.load(Relaxed) > 0 || self.is_upgraded() {
            // Handlers and tunnels have their own timeouts. The next check is needed because the
            // connection may become idle right after this check.
            return self.check_again_at(next_check);
        } else if !self.has_received.load(Relaxed) {
            (self.idle_since.load(Relaxed) + self.header_read, "the client sent nothing")
        } else if head_since != 0 && !self.is_http2() {
            (head_since + self.header_read, "a request's head took too long")
        } else {
            // HTTP/2 frames that are not requests, such as pings, do not keep a connection open.
            (self.idle_since.load(Relaxed) + self.idle, "no request came")
        };
        if expiry <= now {
            TimeoutCheck::Expired(reason)
        } else {
            self.check_again_at(expiry.min(next_check))
        }
    }

    fn check_again_at(&self, time: u64) -> TimeoutCheck {
        TimeoutCheck::CheckAgainAt(self.started + Duration::from_millis(time - 1 + LAG))
    }
}

/// Milliseconds since an arbitrary moment, on a coarse monotonic clock.
fn ticks() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// A request in flight. This value is dropped when hyper has taken the last byte of the response.
#[derive(Debug)]
pub(in crate::server) struct InFlight {
    timeouts: Arc<ConnectionTimeouts>,
    is_offered: bool,
}

impl InFlight {
    /// The timeouts of the connection.
    pub fn timeouts(&self) -> &ConnectionTimeouts {
        &self.timeouts
    }

    /// Records that the head or more bytes of the response are ready, so that the client has to
    /// take them.
    pub fn offer_bytes(&mut self) {
        // If an HTTP/1 client reads nothing, its socket becomes full, and `write_blocked` records
        // the full socket.
        if !self.timeouts.is_http2() {
            return;
        }
        self.timeouts.taken_at.store(self.timeouts.now(), Relaxed);
        if !std::mem::replace(&mut self.is_offered, true) {
            self.timeouts.offered.fetch_add(1, Relaxed);
        }
    }

    /// Records that the client can take bytes, but no bytes of the response are ready.
    pub fn wait_for_bytes(&mut self) {
        if std::mem::replace(&mut self.is_offered, false) {
            self.timeouts.offered.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.wait_for_bytes();
        self.timeouts.idle_since.store(self.timeouts.now(), Relaxed);
        self.timeouts.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn new_timeouts(header_read: Duration, idle: Duration) -> Arc<ConnectionTimeouts> {
        Arc::new(ConnectionTimeouts::new(header_read, idle))
    }

    fn has_expired(timeouts: &ConnectionTimeouts) -> bool {
        matches!(timeouts.check(), TimeoutCheck::Expired(_))
    }

    #[test]
    fn head_is_timed_from_its_first_byte_until_it_is_complete() {
        let timeouts = new_timeouts(Duration::ZERO, HOUR);
        assert!(has_expired(&timeouts), "nothing was sent");
        timeouts.received(b"G");
        assert!(has_expired(&timeouts), "the head is not complete");
        let request = timeouts.begin_request();
        assert!(!has_expired(&timeouts), "a request is in flight");
        timeouts.received(b"its body");
        drop(request);
        assert!(!has_expired(&timeouts), "the connection is idle");
        timeouts.received(b"G");
        assert!(has_expired(&timeouts), "the next head is not complete");
    }

    #[test]
    fn http2_connection_is_idle_after_its_last_request_whatever_bytes_come() {
        let timeouts = new_timeouts(Duration::ZERO, HOUR);
        timeouts.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(!has_expired(&timeouts));
        let timeouts = new_timeouts(HOUR, Duration::ZERO);
        timeouts.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(timeouts.check(), TimeoutCheck::Expired("no request came"));
        let _request = timeouts.begin_request();
        assert!(!has_expired(&timeouts));
    }

    #[test]
    fn client_that_reads_no_bytes_is_timed_while_a_request_is_in_flight() {
        let timeouts = new_timeouts(HOUR, Duration::ZERO);
        timeouts.received(b"G");
        let _request = timeouts.begin_request();
        assert!(!has_expired(&timeouts));
        timeouts.write_blocked();
        assert_eq!(timeouts.check(), TimeoutCheck::Expired("the client reads no bytes"));
        timeouts.wrote();
        assert!(!has_expired(&timeouts));
    }

    #[test]
    fn response_that_waits_for_a_window_is_timed() {
        let timeouts = new_timeouts(HOUR, Duration::ZERO);
        timeouts.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut first = timeouts.begin_request();
        first.offer_bytes();
        first.offer_bytes();
        assert_eq!(
            timeouts.check(),
            TimeoutCheck::Expired("the client does not open its HTTP/2 window")
        );
        let other = timeouts.begin_request();
        assert!(!has_expired(&timeouts), "another request is in flight");
        drop(other);
        first.wait_for_bytes();
        first.wait_for_bytes();
        assert!(!has_expired(&timeouts), "no bytes are ready");
        first.offer_bytes();
        assert!(has_expired(&timeouts));
        drop(first);
        assert_eq!(timeouts.check(), TimeoutCheck::Expired("no request came"));
    }
}
