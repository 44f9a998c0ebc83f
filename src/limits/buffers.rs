//! The budget of the bytes of request bodies that are in memory at one time, of all connections
//! together. Bytes count until they are dropped, however the request ends.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::model::client_network;

/// One client gets one of this many parts of a budget.
const PARTS: usize = 4;
/// The least number of seconds between two lines about refused requests.
const SECONDS_PER_LINE: i64 = 60;

/// The maximum numbers of bytes that are held at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BufferLimits {
    /// Of all bodies together. One client may hold a quarter.
    pub bytes: usize,
    /// Of the bodies of clients that are not authenticated, or not yet. One client may hold a
    /// quarter.
    pub unauthenticated_bytes: usize,
}

impl Default for BufferLimits {
    fn default() -> Self {
        Self { bytes: 128 << 20, unauthenticated_bytes: 16 << 20 }
    }
}

/// Whether a client has proved who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The request is anonymous, or its credential is not checked yet.
    Unknown,
    /// The client's credential was right.
    Authenticated,
}

/// The budget. Cheap to clone: all clones share one state.
#[derive(Debug, Clone)]
pub struct Buffers(Arc<Budgets>);

#[derive(Debug)]
struct Budgets {
    all: Arc<Pool>,
    unauthenticated: Arc<Pool>,
    refused: AtomicU64,
    /// The time of the last line about refused requests, in seconds.
    last_line: AtomicI64,
}

#[derive(Debug)]
struct Pool {
    /// The configuration key, for messages.
    key: &'static str,
    max: usize,
    /// The part of one client.
    part: usize,
    held: Mutex<Amounts>,
}

#[derive(Debug, Default)]
struct Amounts {
    total: usize,
    clients: HashMap<u128, usize>,
}

/// The reason why bytes cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldError {
    /// Other bytes use up the budget, or the client's part of it. Some will be free soon.
    UsedUp {
        /// The configuration key of the budget.
        key: &'static str,
    },
    /// One body alone is larger than a client's part of the budget.
    TooLarge {
        /// The configuration key of the budget.
        key: &'static str,
        /// The part, in bytes.
        max: usize,
    },
}

/// The numbers of bytes that are held now, and of requests that were refused for lack of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BufferUse {
    /// The bytes of all bodies.
    pub bytes: usize,
    /// Those of clients that are not authenticated.
    pub unauthenticated_bytes: usize,
    /// The requests that were refused since the start.
    pub refused: u64,
}

impl Buffers {
    /// An empty budget.
    pub fn new(limits: BufferLimits) -> Self {
        let pool = |key, max: usize| {
            let part = (max / PARTS).max(1);
            Arc::new(Pool { key, max, part, held: Mutex::default() })
        };
        Self(Arc::new(Budgets {
            all: pool("limits.buffered_bytes", limits.bytes),
            unauthenticated: pool("limits.unauthenticated_bytes", limits.unauthenticated_bytes),
            refused: AtomicU64::new(0),
            last_line: AtomicI64::new(i64::MIN),
        }))
    }

    /// The account of a client's address. An IPv6 address is reduced to its /64 network. `None`
    /// means that the client has no part of its own: it may use up the whole budget.
    pub fn account(&self, client: Option<IpAddr>) -> BufferAccount {
        BufferAccount { buffers: self.clone(), client: client.map(client_network) }
    }

    /// The number of bytes that an HTTP/2 client may send before the server reads them.
    pub fn http2_window(&self) -> u32 {
        /// The window of a connection before its first `WINDOW_UPDATE` (RFC 9113, section 6.9.2).
        const LEAST: usize = 64 << 10;
        const MOST: usize = 1 << 20;
        let window = (self.0.all.max / 512).clamp(LEAST, MOST);
        u32::try_from(window).unwrap_or(u32::MAX)
    }

    /// The numbers for the operator.
    pub fn usage(&self) -> BufferUse {
        BufferUse {
            bytes: self.0.all.held.lock().total,
            unauthenticated_bytes: self.0.unauthenticated.held.lock().total,
            refused: self.0.refused.load(Relaxed),
        }
    }

    /// Counts a request that was refused, and writes a line to the log once a minute.
    fn refused(&self, key: &'static str) {
        let refused = self.0.refused.fetch_add(1, Relaxed) + 1;
        let now = seconds();
        let last = self.0.last_line.load(Relaxed);
        let is_due = now.saturating_sub(last) >= SECONDS_PER_LINE;
        if is_due && self.0.last_line.compare_exchange(last, now, Relaxed, Relaxed).is_ok() {
            tracing::warn!(
                refused,
                "{key} is used up, so requests with bodies are refused with 503"
            );
        }
    }
}

impl Default for Buffers {
    fn default() -> Self {
        Self::new(BufferLimits::default())
    }
}

/// Seconds since an arbitrary moment.
fn seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse).tv_sec
}

/// The account of one client.
#[derive(Debug, Clone)]
pub struct BufferAccount {
    buffers: Buffers,
    client: Option<u128>,
}

impl BufferAccount {
    /// Holds no bytes yet.
    pub fn open(&self, standing: Standing) -> Held {
        let open = |pool: &Arc<Pool>| Share { pool: pool.clone(), client: self.client, bytes: 0 };
        let budgets = &self.buffers.0;
        let is_unknown = standing == Standing::Unknown;
        let unauthenticated = is_unknown.then(|| open(&budgets.unauthenticated));
        Held { buffers: self.buffers.clone(), all: open(&budgets.all), unauthenticated }
    }

    /// Holds this number of bytes of an authenticated client.
    ///
    /// # Errors
    /// Those of [`Held::grow`].
    pub fn hold(&self, bytes: usize) -> Result<Held, HoldError> {
        let mut held = self.open(Standing::Authenticated);
        held.grow(bytes)?;
        Ok(held)
    }
}

/// Bytes that count until this value is dropped.
#[derive(Debug)]
pub struct Held {
    buffers: Buffers,
    all: Share,
    /// `None` means that the client is authenticated.
    unauthenticated: Option<Share>,
}

/// Bytes of one client in one pool.
#[derive(Debug)]
pub struct Share {
    pool: Arc<Pool>,
    client: Option<u128>,
    bytes: usize,
}

impl Held {
    /// Holds more bytes.
    ///
    /// # Errors
    /// A budget does not have them. Then nothing changes.
    pub fn grow(&mut self, bytes: usize) -> Result<(), HoldError> {
        self.try_grow(bytes).inspect_err(|problem| {
            if let HoldError::UsedUp { key } = problem {
                self.buffers.refused(key);
            }
        })
    }

    /// Holds `wanted` more bytes or, if a budget does not have them, `least`. Returns the number.
    ///
    /// # Errors
    /// A budget does not have `least` bytes. Then nothing changes.
    pub fn grow_up_to(&mut self, wanted: usize, least: usize) -> Result<usize, HoldError> {
        if self.try_grow(wanted).is_ok() {
            return Ok(wanted);
        }
        self.grow(least).map(|()| least)
    }

    fn try_grow(&mut self, bytes: usize) -> Result<(), HoldError> {
        match &mut self.unauthenticated {
            Some(share) => share
                .grow(bytes)
                .and_then(|()| self.all.grow(bytes).inspect_err(|_| share.give_back(bytes))),
            None => self.all.grow(bytes),
        }
    }

    /// The body, which holds its bytes until its last copy is dropped, and its part of the budget
    /// of unauthenticated clients, which may end earlier.
    pub fn into_body(mut self, body: Vec<u8>) -> HeldBody {
        let unauthenticated = self.unauthenticated.take();
        let bytes = Bytes::from_owner(Owner { body, _held: self.all });
        HeldBody { bytes, unauthenticated }
    }
}

impl Share {
    fn grow(&mut self, more: usize) -> Result<(), HoldError> {
        let Pool { key, max, part, ref held } = *self.pool;
        let alone = self.bytes.saturating_add(more);
        let largest = if self.client.is_some() { part } else { max };
        if alone > largest {
            return Err(HoldError::TooLarge { key, max: largest });
        }
        let mut held = held.lock();
        if held.total.saturating_add(more) > max {
            return Err(HoldError::UsedUp { key });
        }
        if let Some(client) = self.client {
            let of_client = held.clients.get(&client).copied().unwrap_or_default();
            if of_client.saturating_add(more) > part {
                return Err(HoldError::UsedUp { key });
            }
            held.clients.insert(client, of_client + more);
        }
        held.total += more;
        self.bytes = alone;
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let mut held = self.pool.held.lock();
        held.total -= bytes;
        if let Some(client) = self.client
            && let Some(of_client) = held.clients.get_mut(&client)
        {
            *of_client -= bytes;
            if *of_client == 0 {
                held.clients.remove(&client);
            }
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.give_back(self.bytes);
        }
    }
}

/// A body in memory.
#[derive(Debug)]
pub struct HeldBody {
    /// The body. Its bytes count until the last copy is dropped.
    pub bytes: Bytes,
    /// `None` means that the client is authenticated.
    pub unauthenticated: Option<Share>,
}

impl From<Bytes> for HeldBody {
    /// A body that does not count.
    fn from(bytes: Bytes) -> Self {
        Self { bytes, unauthenticated: None }
    }
}

/// The owner of the bytes of a body.
struct Owner {
    body: Vec<u8>,
    _held: Share,
}

impl AsRef<[u8]> for Owner {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: HoldError = HoldError::UsedUp { key: "limits.buffered_bytes" };
    const UNKNOWN: HoldError = HoldError::UsedUp { key: "limits.unauthenticated_bytes" };

    fn buffers() -> Buffers {
        Buffers::new(BufferLimits { bytes: 400, unauthenticated_bytes: 40 })
    }

    fn account(buffers: &Buffers, client: &str) -> BufferAccount {
        buffers.account(Some(client.parse().unwrap()))
    }

    fn used(buffers: &Buffers) -> (usize, usize) {
        let BufferUse { bytes, unauthenticated_bytes, .. } = buffers.usage();
        (bytes, unauthenticated_bytes)
    }

    #[test]
    fn client_has_a_part_and_all_clients_have_the_budget() {
        let buffers = buffers();
        let first = account(&buffers, "192.0.2.1");
        let one = first.hold(60).unwrap();
        assert_eq!(first.hold(41).unwrap_err(), ALL);
        let _two = first.hold(40).unwrap();
        // An IPv4 address in an IPv6 address is one client, and so is an IPv6 network.
        assert_eq!(account(&buffers, "::ffff:192.0.2.1").hold(1).unwrap_err(), ALL);
        let _six = account(&buffers, "2001:db8::1").hold(100).unwrap();
        assert_eq!(account(&buffers, "2001:db8::2").hold(1).unwrap_err(), ALL);
        let _others = ["192.0.2.3", "192.0.2.4"].map(|ip| account(&buffers, ip).hold(100).unwrap());
        assert_eq!(account(&buffers, "192.0.2.5").hold(1).unwrap_err(), ALL);
        assert_eq!((used(&buffers), buffers.usage().refused), ((400, 0), 4));
        drop(one);
        assert_eq!(used(&buffers), (340, 0));
        drop(account(&buffers, "192.0.2.5").hold(60).unwrap());
        assert_eq!(buffers.0.all.held.lock().clients.len(), 4);
    }

    #[test]
    fn account_without_a_client_may_use_the_whole_budget() {
        let buffers = buffers();
        let held = buffers.account(None).hold(400).unwrap();
        assert_eq!(buffers.account(None).hold(1).unwrap_err(), ALL);
        drop(held);
        assert_eq!(used(&buffers), (0, 0));
    }

    #[test]
    fn body_that_can_never_be_held_is_told_apart_from_a_full_budget() {
        let buffers = buffers();
        let account = account(&buffers, "192.0.2.1");
        let too_large = HoldError::TooLarge { key: "limits.buffered_bytes", max: 100 };
        assert_eq!(account.hold(101).unwrap_err(), too_large);
        let mut unknown = account.open(Standing::Unknown);
        unknown.grow(10).unwrap();
        let too_large = HoldError::TooLarge { key: "limits.unauthenticated_bytes", max: 10 };
        assert_eq!(unknown.grow(1).unwrap_err(), too_large);
        assert_eq!(buffers.usage().refused, 0);
    }

    #[test]
    fn unauthenticated_bytes_count_in_both_budgets_until_the_client_is_authenticated() {
        let buffers = buffers();
        let account = account(&buffers, "192.0.2.1");
        let mut held = account.open(Standing::Unknown);
        held.grow(10).unwrap();
        assert_eq!(used(&buffers), (10, 10));
        let mut second = account.open(Standing::Unknown);
        assert_eq!(second.grow(1).unwrap_err(), UNKNOWN);
        let HeldBody { bytes, unauthenticated } = held.into_body(vec![7; 10]);
        drop(unauthenticated);
        assert_eq!((used(&buffers), &bytes[..]), ((10, 0), &[7; 10][..]));
        second.grow(1).unwrap();
        let copy = bytes.clone();
        drop((bytes, second));
        assert_eq!(used(&buffers), (10, 0), "a copy holds the bytes");
        drop(copy);
        assert_eq!(used(&buffers), (0, 0));
    }

    #[test]
    fn bytes_that_one_budget_refuses_are_not_held_in_the_other() {
        let buffers = Buffers::new(BufferLimits { bytes: 40, unauthenticated_bytes: 400 });
        let account = account(&buffers, "192.0.2.1");
        let mut held = account.open(Standing::Unknown);
        assert!(held.grow(11).is_err());
        assert_eq!(used(&buffers), (0, 0));
    }

    #[test]
    fn windows_follow_the_budget() {
        let window =
            |bytes| Buffers::new(BufferLimits { bytes, unauthenticated_bytes: 1 }).http2_window();
        assert_eq!([1 << 20, 128 << 20, 1 << 30].map(window), [64 << 10, 256 << 10, 1 << 20]);
    }
}
