//! The timeouts of a connection: how long the connection may be idle, how long a request's head may
//! take, and how long the client may read nothing. Each connection has one timer, set to the
//! earliest possible expiry. A request costs a few writes to memory. A stream of HTTP/2 has a
//! [timeout of its own](super::stream).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ::http::{HeaderValue, Response, header::CONTENT_TYPE};

use crate::handlers::PassThrough;

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
/// How long a connection whose client has closed its sending half may be silent during an event
/// stream.
const SILENT_EVENTS: Duration = Duration::from_secs(5);

/// `exchange`: every request has its response, and all bytes of the responses were written.
const COMPLETE: u8 = 0;
/// `exchange`: the last request has no response yet.
const REQUESTED: u8 = 1;
/// `exchange`: the response to the last request has begun.
const RESPONDED: u8 = 2;

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
    /// HTTP/1: the progress of the last request: [`COMPLETE`], [`REQUESTED`] or [`RESPONDED`].
    exchange: AtomicU8,
    /// Whether the PROXY header of the connection is still to come.
    awaits_proxy_header: AtomicBool,
    has_received: AtomicBool,
    /// Whether the head of a first request was read.
    has_requested: AtomicBool,
    /// HTTP/2: the time since which a header block is not complete.
    block_since: AtomicU64,
    /// How many bytes of the HTTP/2 preface have come, or [`NOT_HTTP2`].
    preface_bytes: AtomicUsize,
    was_rejected: AtomicBool,
    is_upgraded: AtomicBool,
    /// Whether the last response is a stream of events.
    is_event_stream: AtomicBool,
}

/// The source of a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum ResponseSource {
    Keyward,
    Upstream { is_event_stream: bool },
}

impl ResponseSource {
    pub fn of<B>(response: &Response<B>) -> Self {
        if response.extensions().get::<PassThrough>().is_none() {
            return Self::Keyward;
        }
        let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        let is_event_stream =
            content_type.is_some_and(|value| value.starts_with(b"text/event-stream"));
        Self::Upstream { is_event_stream }
    }
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
            exchange: AtomicU8::new(COMPLETE),
            awaits_proxy_header: AtomicBool::new(false),
            has_received: AtomicBool::new(false),
            has_requested: AtomicBool::new(false),
            block_since: AtomicU64::new(0),
            preface_bytes: AtomicUsize::new(0),
            was_rejected: AtomicBool::new(false),
            is_upgraded: AtomicBool::new(false),
            is_event_stream: AtomicBool::new(false),
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

    /// Records whether the PROXY header of the connection is still to come.
    pub fn set_awaits_proxy_header(&self, awaits: bool) {
        self.awaits_proxy_header.store(awaits, Relaxed);
    }

    pub fn awaits_proxy_header(&self) -> bool {
        self.awaits_proxy_header.load(Relaxed)
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

    /// Records whether an HTTP/2 header block is not complete.
    pub fn set_block_open(&self, is_open: bool) {
        let is_known = self.block_since.load(Relaxed) != 0;
        if is_open != is_known {
            self.block_since.store(if is_open { self.now() } else { 0 }, Relaxed);
        }
    }

    /// Records that bytes were written.
    pub fn wrote(&self) {
        if self.blocked_since.load(Relaxed) != 0 {
            self.blocked_since.store(0, Relaxed);
        }
    }

    pub fn is_http2(&self) -> bool {
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

    /// Records that a response will be written.
    pub fn begin_response(&self, source: ResponseSource) {
        self.exchange.store(RESPONDED, Relaxed);
        let is_event_stream = source == ResponseSource::Upstream { is_event_stream: true };
        self.is_event_stream.store(is_event_stream, Relaxed);
    }

    /// Records that all bytes that hyper had were written. Returns whether all requests have their
    /// responses now.
    pub fn flushed(&self) -> bool {
        if self.exchange.load(Relaxed) == COMPLETE {
            return true;
        }
        let is_complete = self.in_flight.load(Relaxed) == 0;
        if is_complete {
            self.exchange.store(COMPLETE, Relaxed);
        }
        is_complete
    }

    /// Whether bytes of a response are still to be written.
    pub fn is_responding(&self) -> bool {
        self.exchange.load(Relaxed) != COMPLETE
    }

    /// How long a connection whose client has closed its sending half may be silent. `None` means
    /// that the response has not begun: its handler has its own timeouts.
    pub fn silence_limit(&self) -> Option<Duration> {
        let idle = Duration::from_millis(self.idle);
        let is_event_stream = self.is_event_stream.load(Relaxed);
        let limit = if is_event_stream { idle.min(SILENT_EVENTS) } else { idle };
        (self.exchange.load(Relaxed) == RESPONDED).then_some(limit)
    }

    /// Whether the bytes that hyper writes now can be a rejection by hyper: hyper rejects a head
    /// only after the response to the request before it was written.
    pub fn can_write_rejection(&self) -> bool {
        !self.is_upgraded() && !self.is_responding()
    }

    /// Records that the head of a request was read.
    pub fn begin_request(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.exchange.store(REQUESTED, Relaxed);
        self.head_since.store(0, Relaxed);
        self.has_requested.store(true, Relaxed);
        InFlight { timeouts: self.clone() }
    }

    /// Checks whether the connection has to be closed.
    pub fn check(&self) -> TimeoutCheck {
        let now = self.now();
        // A wait that begins after this check expires at this time at the earliest.
        let next_check = now + self.idle.min(self.header_read);
        let (blocked_since, head_since) =
            (self.blocked_since.load(Relaxed), self.head_since.load(Relaxed));
        let block_since = self.block_since.load(Relaxed);
        let (expiry, reason) = if blocked_since != 0 {
            (blocked_since + self.idle, "the client reads no bytes")
        } else if block_since != 0 {
            (block_since + self.header_read, "a request's header block took too long")
        } else if self.in_flight.load(Relaxed) > 0 || self.is_upgraded() {
            // Handlers and tunnels have their own timeouts. The next check is needed because the
            // connection may become idle right after this check.
            return self.check_again_at(next_check);
        } else if !self.has_received.load(Relaxed) {
            (self.idle_since.load(Relaxed) + self.header_read, "the client sent nothing")
        } else if !self.has_requested.load(Relaxed) {
            // Neither bytes of a head nor other HTTP/2 frames extend the time.
            (self.idle_since.load(Relaxed) + self.header_read, "the first request took too long")
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
}

impl InFlight {
    /// The timeouts of the connection.
    pub fn timeouts(&self) -> &ConnectionTimeouts {
        &self.timeouts
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
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
        assert_eq!(timeouts.check(), TimeoutCheck::Expired("the first request took too long"));
        drop(timeouts.begin_request());
        timeouts.received(b"a ping");
        assert!(!has_expired(&timeouts));
        let timeouts = new_timeouts(HOUR, Duration::ZERO);
        timeouts.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(!has_expired(&timeouts), "the first request has the time of a head");
        let request = timeouts.begin_request();
        assert!(!has_expired(&timeouts));
        drop(request);
        assert_eq!(timeouts.check(), TimeoutCheck::Expired("no request came"));
    }

    #[test]
    fn open_header_block_is_timed_also_while_other_requests_are_in_flight() {
        let timeouts = new_timeouts(Duration::ZERO, HOUR);
        let _request = timeouts.begin_request();
        timeouts.set_block_open(true);
        timeouts.set_block_open(true);
        let expired = TimeoutCheck::Expired("a request's header block took too long");
        assert_eq!(timeouts.check(), expired);
        timeouts.set_block_open(false);
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
    fn only_a_response_that_has_begun_may_be_silent_for_a_limited_time() {
        let timeouts = new_timeouts(HOUR, HOUR);
        let request = timeouts.begin_request();
        assert_eq!((timeouts.silence_limit(), timeouts.flushed()), (None, false));
        timeouts.begin_response(ResponseSource::Upstream { is_event_stream: false });
        assert_eq!(timeouts.silence_limit(), Some(HOUR));
        timeouts.begin_response(ResponseSource::Upstream { is_event_stream: true });
        assert_eq!(timeouts.silence_limit(), Some(SILENT_EVENTS));
        assert!(!timeouts.flushed() && timeouts.is_responding());
        drop(request);
        assert!(timeouts.is_responding(), "the last bytes are not written");
        assert!(timeouts.flushed() && !timeouts.is_responding());
    }
}
