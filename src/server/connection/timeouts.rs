//! How long a connection may be silent. One timer a connection, which looks when the nearest limit could have been passed; a request
//! costs a few writes to memory.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The first bytes of HTTP/2 (RFC 9113, section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0";
const HTTP1: usize = usize::MAX;
/// How far, in milliseconds, the clock of [`ticks`] can be behind the one that timers go by. A look that came sooner would find nothing, again and again.
const LAG: u64 = 16;

/// What is known of a connection. Times are milliseconds since it began, plus one; zero: not so.
#[derive(Debug)]
pub(in crate::server) struct Watch {
    began: Instant,
    /// The same by [`ticks`].
    began_at: i64,
    header_read: u64,
    idle: u64,
    /// Requests that were read and not yet answered to their last byte.
    in_flight: AtomicU32,
    /// Since when a request's head is arriving.
    head: AtomicU64,
    /// Since when there is nothing to do.
    resting: AtomicU64,
    /// Since when the client takes no bytes.
    stuck: AtomicU64,
    /// On HTTP/2: answers whose next bytes wait for the client to open its window. The socket need not be full for that.
    offered: AtomicU32,
    /// When bytes of such an answer were last taken.
    taken: AtomicU64,
    has_spoken: AtomicBool,
    /// How much of HTTP/2's first bytes has come; what cannot be them any more: [`HTTP1`].
    preface: AtomicUsize,
    was_refused: AtomicBool,
    is_handed_over: AtomicBool,
    /// Whether a request was read since this was last asked.
    has_begun: AtomicBool,
    /// Whether the last answer is somebody else's.
    is_foreign: AtomicBool,
}

/// What the next bytes of a connection are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::server) enum Expects {
    /// The next request: the last one was answered.
    Next,
    /// More of what is arriving.
    More,
    /// Something that is not HTTP/1.1.
    Other,
}

/// What the timer is to do.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Verdict {
    /// Look again then.
    Wait(Instant),
    /// End the connection.
    Cut(&'static str),
}

impl Watch {
    pub fn new(header_read: Duration, idle: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX / 4);
        Self {
            began: Instant::now(),
            began_at: ticks(),
            header_read: millis(header_read),
            idle: millis(idle),
            in_flight: AtomicU32::new(0),
            head: AtomicU64::new(0),
            resting: AtomicU64::new(1),
            stuck: AtomicU64::new(0),
            offered: AtomicU32::new(0),
            taken: AtomicU64::new(0),
            has_spoken: AtomicBool::new(false),
            preface: AtomicUsize::new(0),
            was_refused: AtomicBool::new(false),
            is_handed_over: AtomicBool::new(false),
            has_begun: AtomicBool::new(true),
            is_foreign: AtomicBool::new(false),
        }
    }

    /// By a clock that lags some milliseconds: limits are seconds, and it is read several times a request.
    fn now(&self) -> u64 {
        let since = ticks().saturating_sub(self.began_at);
        u64::try_from(since).unwrap_or(0) + 1
    }

    /// The connection stands: its time begins now.
    pub fn rest(&self) {
        self.resting.store(self.now(), Relaxed);
    }

    /// Bytes came.
    pub fn read(&self, bytes: &[u8]) {
        self.has_spoken.store(true, Relaxed);
        let come = self.preface.load(Relaxed);
        if come < PREFACE.len() {
            let next = bytes.len().min(PREFACE.len() - come);
            let fits = PREFACE[come..].starts_with(&bytes[..next]);
            self.preface.store(if fits { come + next } else { HTTP1 }, Relaxed);
        }
        if self.in_flight.load(Relaxed) == 0 && self.head.load(Relaxed) == 0 {
            self.head.store(self.now(), Relaxed);
        }
    }

    /// Bytes went.
    pub fn wrote(&self) {
        if self.stuck.load(Relaxed) != 0 {
            self.stuck.store(0, Relaxed);
        }
    }

    fn is_http2(&self) -> bool {
        self.preface.load(Relaxed) == PREFACE.len()
    }

    /// The client's side is full.
    pub fn cannot_write(&self) {
        if self.stuck.load(Relaxed) == 0 {
            self.stuck.store(self.now(), Relaxed);
        }
    }

    /// hyper refused what came, and closes.
    pub fn refused(&self) {
        self.was_refused.store(true, Relaxed);
    }

    pub fn was_refused(&self) -> bool {
        self.was_refused.load(Relaxed)
    }

    /// What comes after this answer is no HTTP: whoever reads it bounds it.
    pub fn hand_over(&self) {
        self.is_handed_over.store(true, Relaxed);
    }

    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Relaxed)
    }

    /// An answer is about to be written.
    pub fn answers(&self, is_foreign: bool) {
        self.is_foreign.store(is_foreign, Relaxed);
    }

    /// Whether what is written can be a refusal of hyper's: after somebody else's answer only when more has come since.
    pub fn may_refuse(&self) -> bool {
        !self.is_handed_over() && (!self.is_foreign.load(Relaxed) || self.head.load(Relaxed) != 0)
    }

    /// A request was read.
    pub fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Relaxed);
        self.has_begun.store(true, Relaxed);
        self.head.store(0, Relaxed);
        InFlight { watch: self.clone(), is_offered: false }
    }

    /// Since when all answers wait for the client, if they do.
    fn unwanted(&self) -> Option<u64> {
        let (offered, in_flight) = (self.offered.load(Relaxed), self.in_flight.load(Relaxed));
        (offered > 0 && offered == in_flight).then(|| self.taken.load(Relaxed))
    }

    /// What comes now.
    pub fn expects(&self) -> Expects {
        if self.is_http2() || self.is_handed_over() {
            Expects::Other
        } else if self.in_flight.load(Relaxed) == 0 && self.has_begun.load(Relaxed) {
            // Nobody but the connection itself reads and begins.
            self.has_begun.store(false, Relaxed);
            Expects::Next
        } else {
            Expects::More
        }
    }

    /// What the timer is to do now.
    pub fn verdict(&self) -> Verdict {
        let now = self.now();
        // Whatever begins after this look has at least so long.
        let next_look = now + self.idle.min(self.header_read);
        let (stuck, head) = (self.stuck.load(Relaxed), self.head.load(Relaxed));
        let (limit, what) = if stuck != 0 {
            (stuck + self.idle, "the client takes no bytes")
        } else if let Some(taken) = self.unwanted() {
            (taken + self.idle, "the client opens no window")
        } else if self.in_flight.load(Relaxed) > 0 || self.is_handed_over() {
            // Handlers bound themselves. It may rest a moment after this look.
            return self.wait(next_look);
        } else if !self.has_spoken.load(Relaxed) {
            (self.resting.load(Relaxed) + self.header_read, "the client said nothing")
        } else if head != 0 && !self.is_http2() {
            (head + self.header_read, "a request's head took too long")
        } else {
            // On HTTP/2 frames that are no request, such as pings, do not keep a connection.
            (self.resting.load(Relaxed) + self.idle, "no request came")
        };
        if limit <= now { Verdict::Cut(what) } else { self.wait(limit.min(next_look)) }
    }

    fn wait(&self, until: u64) -> Verdict {
        Verdict::Wait(self.began + Duration::from_millis(until - 1 + LAG))
    }
}

/// Milliseconds since some moment.
fn ticks() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

/// A request that is being answered. Goes when the last byte of the answer was handed over.
#[derive(Debug)]
pub(in crate::server) struct InFlight {
    watch: Arc<Watch>,
    is_offered: bool,
}

impl InFlight {
    /// The watch of its connection.
    pub fn watch(&self) -> &Watch {
        &self.watch
    }

    /// There are bytes, or there will be, and it is the client's turn.
    pub fn offer(&mut self) {
        // On HTTP/1 a client that takes nothing has a full socket.
        if !self.watch.is_http2() {
            return;
        }
        self.watch.taken.store(self.watch.now(), Relaxed);
        if !std::mem::replace(&mut self.is_offered, true) {
            self.watch.offered.fetch_add(1, Relaxed);
        }
    }

    /// The client would take bytes, and there are none yet.
    pub fn owe(&mut self) {
        if std::mem::replace(&mut self.is_offered, false) {
            self.watch.offered.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.owe();
        self.watch.resting.store(self.watch.now(), Relaxed);
        self.watch.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn watch() -> Arc<Watch> {
        Arc::new(Watch::new(Duration::ZERO, Duration::from_secs(3600)))
    }

    fn is_cut(watch: &Watch) -> bool {
        matches!(watch.verdict(), Verdict::Cut(_))
    }

    #[test]
    fn a_head_is_timed_from_its_first_byte_until_it_is_whole() {
        let watch = watch();
        assert!(is_cut(&watch), "nothing was said");
        watch.read(b"G");
        assert!(is_cut(&watch), "half a head");
        let request = watch.begin();
        assert!(!is_cut(&watch), "a request is being answered");
        watch.read(b"its body");
        drop(request);
        assert!(!is_cut(&watch), "it rests");
        watch.read(b"G");
        assert!(is_cut(&watch), "half of the next head");
    }

    #[test]
    fn http2_rests_from_its_last_request_whatever_is_said() {
        let watch = Arc::new(Watch::new(Duration::ZERO, Duration::from_secs(3600)));
        watch.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert!(!is_cut(&watch));
        let watch = Arc::new(Watch::new(Duration::from_secs(3600), Duration::ZERO));
        watch.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        assert_eq!(watch.verdict(), Verdict::Cut("no request came"));
        let _request = watch.begin();
        assert!(!is_cut(&watch));
    }

    #[test]
    fn a_client_that_takes_no_bytes_is_timed_even_in_a_request() {
        let watch = Arc::new(Watch::new(Duration::from_secs(3600), Duration::ZERO));
        watch.read(b"G");
        let _request = watch.begin();
        assert!(!is_cut(&watch));
        watch.cannot_write();
        assert_eq!(watch.verdict(), Verdict::Cut("the client takes no bytes"));
        watch.wrote();
        assert!(!is_cut(&watch));
    }

    #[test]
    fn an_answer_that_waits_for_a_window_is_timed() {
        let watch = Arc::new(Watch::new(Duration::from_secs(3600), Duration::ZERO));
        watch.read(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut one = watch.begin();
        one.offer();
        one.offer();
        assert_eq!(watch.verdict(), Verdict::Cut("the client opens no window"));
        let other = watch.begin();
        assert!(!is_cut(&watch), "another one is being answered");
        drop(other);
        one.owe();
        one.owe();
        assert!(!is_cut(&watch), "its bytes have still to come");
        one.offer();
        assert!(is_cut(&watch));
        drop(one);
        assert_eq!(watch.verdict(), Verdict::Cut("no request came"));
    }
}
