//! What the audit trail is told of denials, until it is written down. Somebody who is refused a hundred thousand times a second must neither fill
//! the memory, nor the disk, nor push out of the trail what others have done.
//!
//! So of denials of one kind only some are told, each with how many it stands for; so many in a day get an entry of their own; and the rest is
//! counted, and told together. No denial is lost: what all entries stand for is what there was.

#[cfg(test)]
mod tests;

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, VecDeque, hash_map::RandomState},
    hash::BuildHasher as _,
    mem,
    net::IpAddr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{Now, failures::network};
use crate::model::{KeyId, Timestamp};

/// Whoever counts waits only for those who count in the same part at this moment.
const PARTS: usize = 16;
/// The kinds that one part tells from each other.
const KINDS: usize = 512;
/// Those that wait to be written.
const WAITING: usize = 1024;
/// The codes that are counted apart where many denials are told together.
const CODES: usize = 16;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 3600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// Which denials are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// None.
    None,
    /// Of each kind the first in a minute, and then each after so many.
    Sampled(u64),
    /// Each.
    All,
}

/// What is told of denials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DenialLimits {
    /// Which.
    pub telling: Telling,
    /// The entries of their own that they get in a day: a quarter of them at once. What is more is told together, once in an hour.
    pub per_day: u64,
}

impl DenialLimits {
    /// Nothing is told.
    pub fn none() -> Self {
        Self { telling: Telling::None, per_day: 0 }
    }
}

/// A denial, as it happens.
#[derive(Debug, Clone, Copy)]
pub struct Denial<'a> {
    /// The stable name of the error.
    pub code: &'a Cow<'static, str>,
    /// The status of the answer.
    pub status: u16,
    /// Where the request comes from.
    pub client: IpAddr,
    /// What it was for.
    pub object: Object<'a>,
    /// The application that it came through.
    pub application: Option<&'a str>,
    /// Who was refused.
    pub suspect: Suspect,
}

/// What a request was for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Object<'a> {
    /// A resource.
    Resource(&'a str),
    /// The admin API.
    Admin,
    /// A path where nothing is.
    Nowhere,
    /// A program that Keyward is built into.
    Program,
}

/// Who was refused, as far as it was found out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Suspect {
    /// The user that the credential names, who exists.
    pub uid: Option<u64>,
    /// The key, where it has matched.
    pub key: Option<KeyId>,
    /// Whether it is them.
    pub standing: Standing,
}

/// Whether somebody is who they say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has found out.
    #[default]
    Claimed,
    /// They are.
    Proven,
}

/// A denial that is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// When.
    pub time: Timestamp,
    /// The stable name of the error.
    pub code: Cow<'static, str>,
    /// The status of the answer.
    pub status: u16,
    /// Where the request came from.
    pub client: IpAddr,
    /// What it was for.
    pub object: String,
    /// The application that it came through.
    pub application: Option<Box<str>>,
    /// Who was refused.
    pub suspect: Suspect,
    /// How many denials of its kind it stands for, with itself.
    pub times: u64,
}

/// Denials that are told together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct More {
    /// How many.
    pub times: u64,
    /// When the first of them was.
    pub since: Timestamp,
    /// When the last of them was.
    pub until: Timestamp,
    /// How many of each error, as far as they are told apart.
    pub codes: BTreeMap<Cow<'static, str>, u64>,
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Untold {
    /// Each for itself.
    pub each: Vec<Told>,
    /// Those that are told together.
    pub more: Option<More>,
}

/// When denials that are told together are handed out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    /// Once in an hour.
    InTime,
    /// Now: there is no later.
    Now,
}

pub(super) struct Denials {
    limits: DenialLimits,
    hasher: RandomState,
    parts: Box<[Mutex<HashMap<Kind, Seen>>; PARTS]>,
    queue: Mutex<Queue>,
}

/// Denials that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Kind {
    /// A hash of the code and the application.
    what: u64,
    network: u128,
    is_of_a_user: bool,
}

/// What there was of a kind.
struct Seen {
    minute: u64,
    in_minute: u64,
    untold: u64,
    code: Cow<'static, str>,
    last: Timestamp,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Told>,
    /// When all entries of the day would be there again, in ticks.
    spent: u64,
    more: More,
    /// When the first of these was counted, in ticks.
    begun: u64,
}

impl Denials {
    pub fn new(limits: DenialLimits) -> Self {
        let parts = Box::new(std::array::from_fn(|_| Mutex::default()));
        Self { limits, hasher: RandomState::new(), parts, queue: Mutex::default() }
    }

    /// What is told.
    pub fn limits(&self) -> DenialLimits {
        self.limits
    }

    /// Takes a denial in. Nothing is waited for but others who count.
    pub fn count(&self, denial: Denial<'_>, now: Now) {
        match self.limits.telling {
            Telling::None => {}
            Telling::All => self.tell(denial, 1, now),
            Telling::Sampled(each) => match self.sample(&denial, each.max(1), now) {
                Sample::Told(times) => self.tell(denial, times, now),
                Sample::Kept => {}
                Sample::Strange => self.queue().count(denial.code.clone(), 1, now.time, now),
            },
        }
    }

    fn sample(&self, denial: &Denial<'_>, each: u64, now: Now) -> Sample {
        let kind = Kind {
            what: self.hasher.hash_one((denial.code, denial.application)),
            network: network(denial.client),
            is_of_a_user: denial.suspect.uid.is_some(),
        };
        let at = self.hasher.hash_one(kind) as usize % PARTS;
        let mut part = locked(&self.parts[at]);
        if part.len() >= KINDS && !part.contains_key(&kind) {
            return Sample::Strange;
        }
        let minute = now.ticks / MINUTE;
        let seen = part.entry(kind).or_insert_with(|| Seen {
            minute,
            in_minute: 0,
            untold: 0,
            code: denial.code.clone(),
            last: now.time,
        });
        if seen.minute != minute {
            (seen.minute, seen.in_minute) = (minute, 0);
        }
        seen.in_minute += 1;
        seen.untold += 1;
        seen.last = now.time;
        match (seen.in_minute - 1).is_multiple_of(each) {
            true => Sample::Told(mem::take(&mut seen.untold)),
            false => Sample::Kept,
        }
    }

    fn tell(&self, denial: Denial<'_>, times: u64, now: Now) {
        let mut queue = self.queue();
        if queue.waiting.len() >= WAITING || !queue.spend(self.limits.per_day, now.ticks) {
            queue.count(denial.code.clone(), times, now.time, now);
            return;
        }
        queue.waiting.push_back(Told {
            time: now.time,
            code: denial.code.clone(),
            status: denial.status,
            client: denial.client,
            object: denial.object.to_string(),
            application: denial.application.map(Box::from),
            suspect: denial.suspect,
            times,
        });
    }

    /// Takes out at most `most` that are to be written, and what is told together when it is time.
    pub fn take(&self, most: usize, rest: Rest, now: Now) -> Untold {
        let old: Vec<Seen> = self.parts.iter().flat_map(|part| finished(part, rest, now)).collect();
        let mut queue = self.queue();
        for seen in old {
            queue.count(seen.code, seen.untold, seen.last, now);
        }
        let count = queue.waiting.len().min(most);
        let each = queue.waiting.drain(..count).collect();
        let is_time = rest == Rest::Now || now.ticks.saturating_sub(queue.begun) >= HOUR;
        let more = (is_time && queue.more.times > 0).then(|| mem::take(&mut queue.more));
        Untold { each, more }
    }

    /// Takes back what could not be written.
    pub fn put_back(&self, untold: Untold) {
        let mut queue = self.queue();
        for told in untold.each.into_iter().rev() {
            match queue.waiting.len() < WAITING {
                true => queue.waiting.push_front(told),
                false => queue.more.add(told.code, told.times, told.time),
            }
        }
        if let Some(more) = untold.more {
            queue.more.merge(more);
            // As late as it was.
            queue.begun = 0;
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        locked(&self.queue)
    }
}

/// What becomes of one of many.
enum Sample {
    /// It is told, for so many.
    Told(u64),
    /// It is counted, for the next that is told.
    Kept,
    /// There are too many kinds to count it apart.
    Strange,
}

/// Takes out the kinds whose minute is over; at the end all.
fn finished(part: &Mutex<HashMap<Kind, Seen>>, rest: Rest, now: Now) -> Vec<Seen> {
    let minute = now.ticks / MINUTE;
    let mut part = locked(part);
    let is_over = |_: &Kind, seen: &mut Seen| seen.minute < minute || rest == Rest::Now;
    let over = part.extract_if(is_over).map(|(_, seen)| seen);
    over.filter(|seen| seen.untold > 0).collect()
}

impl Queue {
    /// Counts denials that are told together.
    fn count(&mut self, code: Cow<'static, str>, times: u64, time: Timestamp, now: Now) {
        if self.more.times == 0 {
            self.begun = now.ticks;
        }
        self.more.add(code, times, time);
    }

    /// Takes an entry of the day's, if there is one left.
    fn spend(&mut self, per_day: u64, now: u64) -> bool {
        if per_day == 0 {
            return false;
        }
        // A quarter at once, and the others one after another: in the first day as in every other there are so many.
        let at_once = (per_day / 4).max(1);
        let every = DAY / (per_day - at_once).max(1);
        let spent = self.spent.max(now).saturating_add(every);
        let fits = spent <= now.saturating_add(every.saturating_mul(at_once));
        if fits {
            self.spent = spent;
        }
        fits
    }
}

impl More {
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
