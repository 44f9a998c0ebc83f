//! Denials for the audit trail, until they are written. A client that is denied a hundred thousand
//! times a second must neither fill the memory nor the disk, nor crowd out other entries of the
//! trail.
//!
//! Therefore denials of one kind are sampled, and each sampled one says how many it represents;
//! only a limited number per day get an entry of their own; the rest is counted in a summary. No
//! denial is lost: the entries and summaries together represent all of them.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    mem,
    net::IpAddr,
};

use parking_lot::Mutex;

use super::{
    Now,
    failures::network,
    gcra::{Conformance, Gcra},
};
use crate::model::{KeyId, Timestamp};

/// Shards of the table: threads wait only for others in the same shard.
const SHARDS: usize = 16;
/// The maximum number of kinds per shard.
const KINDS: usize = 512;
/// The maximum number of entries that wait to be written.
const QUEUE_LENGTH: usize = 1024;
/// The maximum number of codes that a summary counts separately.
const CODES: usize = 16;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The denials that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialLogging {
    /// None.
    None,
    /// Of each kind the first one in a minute, and then one of every this many.
    Sampled(u64),
    /// All.
    All,
}

/// The limits of logged denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialLimits {
    /// The denials that are logged.
    pub logging: DenialLogging,
    /// The maximum number of entries per day, a quarter of them at once. Denials beyond it are
    /// summarised once an hour.
    pub per_day: u64,
}

impl DenialLimits {
    /// No denial is logged.
    pub fn none() -> Self {
        Self { logging: DenialLogging::None, per_day: 0 }
    }
}

/// A denied request.
#[derive(Debug, Clone, Copy)]
pub struct DeniedRequest<'a> {
    /// The stable name of the error.
    pub code: &'a Cow<'static, str>,
    /// The status of the response.
    pub status: u16,
    /// The client's address.
    pub client: IpAddr,
    /// The target of the request.
    pub object: Object<'a>,
    /// The application.
    pub application: Option<&'a str>,
    /// The user that was denied.
    pub subject: Subject,
}

/// The target of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// A resource.
    Resource(&'a str),
    /// The admin API.
    Admin,
    /// A path without a resource.
    Nowhere,
    /// A program that embeds Keyward.
    Program,
}

/// The user that was denied, as far as known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject {
    /// The existing user that the credential names.
    pub uid: Option<u64>,
    /// The key, if it matched.
    pub key: Option<KeyId>,
    /// Whether the credential was verified.
    pub verification: Verification,
}

/// Whether a credential was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verification {
    /// Not verified: the user is only claimed.
    #[default]
    Claimed,
    /// Verified.
    Proven,
}

/// An entry of the audit trail for a denial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DenialEntry {
    /// The time.
    pub time: Timestamp,
    /// The stable name of the error.
    pub code: Cow<'static, str>,
    /// The status of the response.
    pub status: u16,
    /// The client's address.
    pub client: IpAddr,
    /// The target of the request.
    pub object: String,
    /// The application.
    pub application: Option<Box<str>>,
    /// The user that was denied.
    pub subject: Subject,
    /// The number of denials of this kind that the entry represents, itself included.
    pub times: u64,
}

/// A summary of denials without an entry of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of denials.
    pub times: u64,
    /// The time of the first one.
    pub since: Timestamp,
    /// The time of the last one.
    pub until: Timestamp,
    /// The number per error code, for the first [`CODES`] codes.
    pub codes: BTreeMap<Cow<'static, str>, u64>,
}

/// Denials that are to be written.
#[derive(Debug, Default)]
pub struct PendingDenials {
    /// Entries.
    pub entries: Vec<DenialEntry>,
    /// The summary, if it is due.
    pub summary: Option<Summary>,
}

/// When the summary is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drain {
    /// Once an hour.
    Hourly,
    /// Now: the program is stopping.
    Now,
}

pub(super) struct DenialLog {
    limits: DenialLimits,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<DenialKind, KindCount>>; SHARDS]>,
    queue: Mutex<Queue>,
}

/// Denials that are sampled together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct DenialKind {
    /// A hash of the code and the application.
    code: u64,
    network: u128,
    is_of_user: bool,
}

/// The count of one kind.
struct KindCount {
    minute: u64,
    in_minute: u64,
    pending: u64,
    code: Cow<'static, str>,
    last: Timestamp,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<DenialEntry>,
    /// GCRA theoretical arrival time of the entries per day, in ns.
    arrival: u64,
    summary: Summary,
    /// When the summary began, in ns.
    summary_start: u64,
}

impl DenialLog {
    pub fn new(limits: DenialLimits) -> Self {
        let shards = Box::new(std::array::from_fn(|_| Mutex::default()));
        Self { limits, hasher: RandomState::new(), shards, queue: Mutex::default() }
    }

    /// The limits.
    pub fn limits(&self) -> DenialLimits {
        self.limits
    }

    /// Counts a denial. Waits only for other threads that count.
    pub fn count(&self, denial: DeniedRequest<'_>, now: Now) {
        match self.limits.logging {
            DenialLogging::None => {}
            DenialLogging::All => self.log(denial, 1, now),
            DenialLogging::Sampled(interval) => match self.sample(&denial, interval.max(1), now) {
                Sample::Logged(times) => self.log(denial, times, now),
                Sample::Counted => {}
                Sample::Untracked => {
                    self.queue.lock().summarise(denial.code.clone(), 1, now.time, now)
                }
            },
        }
    }

    fn sample(&self, denial: &DeniedRequest<'_>, interval: u64, now: Now) -> Sample {
        let kind = DenialKind {
            code: self.hasher.hash_one((denial.code, denial.application)),
            network: network(denial.client),
            is_of_user: denial.subject.uid.is_some(),
        };
        let mut shard = self.shards[self.hasher.hash_one(kind) as usize % SHARDS].lock();
        if shard.len() >= KINDS && !shard.contains_key(&kind) {
            return Sample::Untracked;
        }
        let minute = now.ticks / MINUTE;
        let count = shard.entry(kind).or_insert_with(|| KindCount {
            minute,
            in_minute: 0,
            pending: 0,
            code: denial.code.clone(),
            last: now.time,
        });
        if count.minute != minute {
            (count.minute, count.in_minute) = (minute, 0);
        }
        count.in_minute += 1;
        count.pending += 1;
        count.last = now.time;
        if (count.in_minute - 1).is_multiple_of(interval) {
            Sample::Logged(mem::take(&mut count.pending))
        } else {
            Sample::Counted
        }
    }

    fn log(&self, denial: DeniedRequest<'_>, times: u64, now: Now) {
        let mut queue = self.queue.lock();
        if queue.entries.len() >= QUEUE_LENGTH || !queue.admit(self.limits.per_day, now.ticks) {
            queue.summarise(denial.code.clone(), times, now.time, now);
            return;
        }
        queue.entries.push_back(DenialEntry {
            time: now.time,
            code: denial.code.clone(),
            status: denial.status,
            client: denial.client,
            object: denial.object.to_string(),
            application: denial.application.map(Box::from),
            subject: denial.subject,
            times,
        });
    }

    /// Takes out at most `max` entries, and the summary when it is due.
    pub fn take(&self, max: usize, drain: Drain, now: Now) -> PendingDenials {
        let finished: Vec<KindCount> =
            self.shards.iter().flat_map(|shard| take_finished(shard, drain, now)).collect();
        let mut queue = self.queue.lock();
        for count in finished {
            queue.summarise(count.code, count.pending, count.last, now);
        }
        let length = queue.entries.len().min(max);
        let entries = queue.entries.drain(..length).collect();
        let is_due = drain == Drain::Now || now.ticks.saturating_sub(queue.summary_start) >= HOUR;
        let summary = (is_due && queue.summary.times > 0).then(|| mem::take(&mut queue.summary));
        PendingDenials { entries, summary }
    }

    /// Puts back denials that could not be written.
    pub fn put_back(&self, pending: PendingDenials) {
        let mut queue = self.queue.lock();
        for entry in pending.entries.into_iter().rev() {
            if queue.entries.len() < QUEUE_LENGTH {
                queue.entries.push_front(entry);
            } else {
                queue.summary.add(entry.code, entry.times, entry.time);
            }
        }
        if let Some(summary) = pending.summary {
            queue.summary.merge(summary);
            // It was due, so it still is.
            queue.summary_start = 0;
        }
    }
}

/// The result of sampling one denial.
enum Sample {
    /// It gets an entry that represents this many.
    Logged(u64),
    /// It is counted in the next entry of its kind.
    Counted,
    /// There are too many kinds; it is counted in the summary.
    Untracked,
}

/// Takes out the counts whose minute is over, or all of them for [`Drain::Now`].
fn take_finished(
    shard: &Mutex<HashMap<DenialKind, KindCount>>,
    drain: Drain,
    now: Now,
) -> Vec<KindCount> {
    let minute = now.ticks / MINUTE;
    let mut shard = shard.lock();
    let is_over =
        |_: &DenialKind, count: &mut KindCount| count.minute < minute || drain == Drain::Now;
    let over = shard.extract_if(is_over).map(|(_, count)| count);
    over.filter(|count| count.pending > 0).collect()
}

impl Queue {
    /// Counts denials in the summary.
    fn summarise(&mut self, code: Cow<'static, str>, times: u64, time: Timestamp, now: Now) {
        if self.summary.times == 0 {
            self.summary_start = now.ticks;
        }
        self.summary.add(code, times, time);
    }

    /// Whether one more entry is within the limit per day.
    fn admit(&mut self, per_day: u64, now: u64) -> bool {
        if per_day == 0 {
            return false;
        }
        // A quarter is the burst and the others become available evenly, so that the first day has
        // no more entries than any other.
        let burst = (per_day / 4).max(1);
        let gcra = Gcra::new(DAY / (per_day - burst).max(1), burst);
        let Conformance::Conforms(arrival) = gcra.check(self.arrival, now) else { return false };
        self.arrival = arrival;
        true
    }
}

impl Summary {
    fn add(&mut self, code: Cow<'static, str>, times: u64, time: Timestamp) {
        let codes = BTreeMap::from([(code, times)]);
        self.merge(Self { times, since: time, until: time, codes });
    }

    fn merge(&mut self, other: Self) {
        if self.times == 0 {
            self.since = other.since;
        }
        self.since = self.since.min(other.since);
        self.until = self.until.max(other.until);
        self.times = self.times.saturating_add(other.times);
        for (code, times) in other.codes {
            if self.codes.len() < CODES || self.codes.contains_key(&code) {
                let known = self.codes.entry(code).or_default();
                *known = known.saturating_add(times);
            }
        }
    }
}

impl std::fmt::Display for Object<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Resource(id) => write!(f, "resource/{id}"),
            Self::Admin => f.write_str("admin"),
            Self::Nowhere => f.write_str("nowhere"),
            Self::Program => f.write_str("program"),
        }
    }
}
