//! This module holds denials in memory until they are written to the audit trail. A client that is
//! denied a hundred thousand times a second must not fill the memory or the disk, and must not
//! displace other entries of the audit trail.
//!
//! Therefore denials of one kind are sampled: only some denials get an entry, and each entry says
//! how many denials it represents. The number of entries per day is limited. A summary counts every
//! denial that no entry represents. So the entries and the summaries together represent every
//! denial.

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
    gcra::{Conformance, Gcra},
};
use crate::model::{KeyId, Timestamp, client_network};

/// The number of shards of the table. A thread waits only for threads that use the same shard.
const SHARDS: usize = 16;
/// The maximum number of kinds of denials per shard.
const MAX_KINDS_PER_SHARD: usize = 512;
/// The maximum number of entries that wait to be written.
const QUEUE_LENGTH: usize = 1024;
/// The maximum number of error codes that a summary counts separately.
const MAX_SUMMARY_CODES: usize = 16;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// The denials that get an entry in the audit trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenialLogging {
    /// None.
    None,
    /// The first denial of each kind in each minute, and after it every n-th denial of that kind.
    /// The field is n.
    Sampled(u64),
    /// All.
    All,
}

/// The limits of logged denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialLimits {
    /// The denials that get an entry.
    pub logging: DenialLogging,
    /// The maximum number of entries per day. At most a quarter of these entries can be written at
    /// once. Denials that exceed a limit get no entry. A summary counts these denials. The
    /// summary is written at most once an hour, and also when the program stops.
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
    /// The id of the application, if it is known.
    pub application: Option<&'a str>,
    /// The denied user.
    pub subject: Subject,
}

/// The target of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// A resource.
    Resource(&'a str),
    /// The admin API.
    Admin,
    /// A path that belongs to no resource.
    Nowhere,
    /// The program that embeds Keyward.
    Program,
}

/// The denied user, as far as the user is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Subject {
    /// The user that the credential names. `None` means that no such user exists.
    pub uid: Option<u64>,
    /// The key whose text was presented. `None` means that no key matched.
    pub key: Option<KeyId>,
    /// Whether the credential was verified.
    pub verification: Verification,
}

/// Whether a credential was verified.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Verification {
    /// Not verified: the client only claims to be the user.
    #[default]
    Claimed,
    /// Verified: the client proved to be the user.
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
    /// The id of the application, if it is known.
    pub application: Option<Box<str>>,
    /// The denied user.
    pub subject: Subject,
    /// The number of denials that the entry represents, including the denial that it describes.
    pub times: u64,
}

/// A summary of the denials that no entry represents.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// The number of denials.
    pub times: u64,
    /// The time of the first denial.
    pub since: Timestamp,
    /// The time of the last denial.
    pub until: Timestamp,
    /// The number of denials with each error code, for the first [`MAX_SUMMARY_CODES`] codes.
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

/// The rule that says when a summary is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SummaryDue {
    /// Once an hour.
    WhenDue,
    /// Immediately, because the program is stopping.
    Now,
}

pub(super) struct DenialLog {
    limits: DenialLimits,
    hasher: RandomState,
    shards: Box<[Mutex<HashMap<DenialKind, KindCount>>; SHARDS]>,
    queue: Mutex<Queue>,
}

/// The denials that are sampled together: those with equal fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct DenialKind {
    /// A hash of the code and the application.
    code_and_application: u64,
    network: u128,
    names_existing_user: bool,
}

/// The count of denials of one kind.
struct KindCount {
    /// The minute of the last denial, on the monotonic clock.
    minute: u64,
    /// The number of denials in this minute.
    in_minute: u64,
    /// The number of denials that no entry represents yet.
    pending: u64,
    code: Cow<'static, str>,
    /// The time of the last denial.
    last: Timestamp,
}

#[derive(Default)]
struct Queue {
    entries: VecDeque<DenialEntry>,
    /// The GCRA theoretical arrival time for the limit of entries per day, in ns.
    arrival: u64,
    summary: Summary,
    /// The time at which the summary began, in ns.
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

    /// Counts a denial. Waits for no I/O, but only for other threads that count at the same time.
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
            code_and_application: self.hasher.hash_one((denial.code, denial.application)),
            network: client_network(denial.client),
            names_existing_user: denial.subject.uid.is_some(),
        };
        let mut shard = self.shards[self.hasher.hash_one(kind) as usize % SHARDS].lock();
        if shard.len() >= MAX_KINDS_PER_SHARD && !shard.contains_key(&kind) {
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

    /// Takes out at most `max` entries and, if the summary is due, the summary.
    pub fn take(&self, max: usize, summary_due: SummaryDue, now: Now) -> PendingDenials {
        let finished: Vec<KindCount> =
            self.shards.iter().flat_map(|shard| take_finished(shard, summary_due, now)).collect();
        let mut queue = self.queue.lock();
        for count in finished {
            queue.summarise(count.code, count.pending, count.last, now);
        }
        let length = queue.entries.len().min(max);
        let entries = queue.entries.drain(..length).collect();
        let is_due =
            summary_due == SummaryDue::Now || now.ticks.saturating_sub(queue.summary_start) >= HOUR;
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
            // The summary was due when it was taken out, so it is due at once.
            queue.summary_start = 0;
        }
    }
}

/// The result of sampling one denial.
enum Sample {
    /// The denial gets an entry that represents this many denials.
    Logged(u64),
    /// The denial is counted for the next entry of its kind.
    Counted,
    /// There are too many kinds of denials, so the denial is counted in the summary.
    Untracked,
}

/// Takes out the counts whose minute is over, or all counts for [`SummaryDue::Now`].
fn take_finished(
    shard: &Mutex<HashMap<DenialKind, KindCount>>,
    summary_due: SummaryDue,
    now: Now,
) -> Vec<KindCount> {
    let minute = now.ticks / MINUTE;
    let mut shard = shard.lock();
    let is_over = |_: &DenialKind, count: &mut KindCount| {
        count.minute < minute || summary_due == SummaryDue::Now
    };
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
        // A quarter of the entries is the burst, and the other three quarters become available
        // evenly over the day. So the first day, which begins with a full burst, has no more than
        // `per_day` entries.
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
            if self.codes.len() < MAX_SUMMARY_CODES || self.codes.contains_key(&code) {
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
