//! Samples the log lines that clients cause, so that a flood of requests does not fill the disk.
//!
//! A line with the field `client` is about a client. Of the lines with one code from one network,
//! the first in each minute is logged, and after it every hundredth. All these lines together have
//! a limit a minute.

use std::{
    collections::HashMap,
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use parking_lot::Mutex;
use tracing::{
    Event, Level, Metadata,
    field::{Field, Visit},
};
use tracing_subscriber::layer::{Context, Filter};

use crate::model::client_network;

/// Each of this many lines of one kind is logged.
const INTERVAL: u64 = 100;
/// The maximum number of lines about clients a minute.
const LINES_PER_MINUTE: u64 = 600;
/// The maximum number of kinds that are counted a minute. Lines of further kinds are not logged.
const MAX_KINDS: usize = 8192;

/// The log lines that clients cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientLines {
    /// Some of the lines.
    Sampled,
    /// All lines.
    All,
}

/// Counts the lines that were left out of the log. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct UnloggedLines(Arc<AtomicU64>);

impl UnloggedLines {
    /// The number of lines since the last call.
    pub fn take(&self) -> u64 {
        self.0.swap(0, Relaxed)
    }
}

/// The filter that samples lines.
pub(super) struct ClientSampler {
    started: Instant,
    hasher: RandomState,
    minute: Mutex<Minute>,
    unlogged: UnloggedLines,
}

/// The counts of one minute.
#[derive(Default)]
struct Minute {
    number: u64,
    logged: u64,
    kinds: HashMap<u64, u64>,
}

impl ClientSampler {
    pub fn new(unlogged: UnloggedLines) -> Self {
        let minute = Mutex::new(Minute::default());
        Self { started: Instant::now(), hasher: RandomState::new(), minute, unlogged }
    }

    /// Whether one more line of a kind is logged in this minute since the start.
    fn admits(&self, kind: u64, minute: u64) -> bool {
        let mut current = self.minute.lock();
        if current.number != minute {
            *current = Minute { number: minute, ..Minute::default() };
        }
        let is_known = current.kinds.contains_key(&kind);
        let has_room = is_known || current.kinds.len() < MAX_KINDS;
        let is_sampled = has_room && {
            let count = current.kinds.entry(kind).or_default();
            *count += 1;
            (*count - 1).is_multiple_of(INTERVAL)
        };
        let is_admitted = is_sampled && current.logged < LINES_PER_MINUTE;
        current.logged += u64::from(is_admitted);
        drop(current);
        if !is_admitted {
            self.unlogged.0.fetch_add(1, Relaxed);
        }
        is_admitted
    }
}

impl<S> Filter<S> for ClientSampler {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn event_enabled(&self, event: &Event<'_>, _: &Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // Lines below the level info are only logged if an operator asks for them.
        if *metadata.level() > Level::INFO || metadata.fields().field("client").is_none() {
            return true;
        }
        let mut fields = ClientFields::default();
        event.record(&mut fields);
        let Some(client) = fields.client else { return true };
        let kind = (metadata.callsite(), client_network(client), fields.code);
        self.admits(self.hasher.hash_one(kind), self.started.elapsed().as_secs() / 60)
    }
}

/// The fields of a line that say of which kind it is.
#[derive(Default)]
struct ClientFields {
    client: Option<IpAddr>,
    code: String,
}

impl Visit for ClientFields {
    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "code" {
            value.clone_into(&mut self.code);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == "client" {
            self.client = format!("{value:?}").parse().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_line_of_a_kind_in_a_minute_and_every_hundredth_are_logged() {
        let unlogged = UnloggedLines::default();
        let sampler = ClientSampler::new(unlogged.clone());
        let logged =
            |kind, minute, lines| (0..lines).filter(|_| sampler.admits(kind, minute)).count();
        assert_eq!(logged(1, 0, 250), 3);
        assert_eq!(logged(2, 0, 1), 1);
        assert_eq!(unlogged.take(), 247);
        assert_eq!(logged(1, 1, 1), 1);
    }

    #[test]
    fn many_kinds_do_not_bypass_the_limit() {
        let sampler = ClientSampler::new(UnloggedLines::default());
        let logged = (0..100_000).filter(|kind| sampler.admits(*kind, 0)).count();
        assert_eq!(logged, LINES_PER_MINUTE as usize);
        assert!(sampler.minute.lock().kinds.len() <= MAX_KINDS);
        assert!(sampler.admits(5, 1));
    }
}
