//! The `[events]` section, and the receivers of webhooks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use super::{Check, file};
use crate::model::{Target, Transport, check_id};

/// Events and webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// The numbers of days before a key's expiry on which scripts are notified.
    pub expiring_days: BTreeSet<u32>,
    /// The maximum number of pending webhooks.
    pub webhooks_waiting: usize,
    /// The maximum number of delivery attempts of a webhook.
    pub webhook_tries: u32,
    /// The wait before the second attempt.
    pub webhook_retry: Duration,
    /// The receivers of webhooks, by name.
    pub webhooks: BTreeMap<String, WebhookSettings>,
}

/// A receiver of webhooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The receiver's URL without its query.
    pub target: Target,
    /// The query of the URL. `None` means that the URL has none.
    pub query: Option<String>,
    /// The name of the signing secret.
    pub secret: String,
    /// The file of the trusted authorities. `None` means the public authorities.
    pub ca: Option<PathBuf>,
    /// The time limit of one attempt.
    pub timeout: Duration,
}

/// The maximum value in `events.expiring_days`.
const MAX_DAYS: u32 = 3650;
/// The maximum number of values in `events.expiring_days`.
const MAX_VALUES: usize = 16;

/// The maximum length of the query of a receiver's URL, in bytes.
const MAX_QUERY: usize = 1024;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn events(
        &mut self,
        raw: &file::EventsSection,
        webhooks: &BTreeMap<String, file::WebhookSection>,
    ) -> EventSettings {
        let tries = self.number("events.webhook_tries", raw.webhook_tries, 1..=20);
        let webhooks = webhooks.iter().map(|(name, raw)| (name.clone(), self.webhook(name, raw)));
        let webhooks = webhooks.collect();
        EventSettings {
            expiring_days: self.days("events.expiring_days", &raw.expiring_days),
            webhooks_waiting: self.size(
                "events.webhooks_waiting",
                raw.webhooks_waiting,
                1..=1_000_000,
            ),
            webhook_tries: u32::try_from(tries).unwrap_or(u32::MAX),
            webhook_retry: self.seconds(
                "events.webhook_retry_seconds",
                raw.webhook_retry_seconds,
                1..=3_600,
            ),
            webhooks,
        }
    }

    fn days(&mut self, key: &str, text: &str) -> BTreeSet<u32> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let read = |part: &str| part.parse().ok().filter(|days| (1..=MAX_DAYS).contains(days));
        let days: Option<BTreeSet<u32>> = parts.map(read).collect();
        days.filter(|days| days.len() <= MAX_VALUES).unwrap_or_else(|| {
            let fix = format!("Use at most {MAX_VALUES} whole numbers from 1 to {MAX_DAYS} with commas between them, such as \"30, 7, 1\".");
            self.broken(key, "The value is not a list of numbers of days.", fix);
            BTreeSet::new()
        })
    }

    fn webhook(&mut self, name: &str, raw: &file::WebhookSection) -> WebhookSettings {
        let key = |key: &str| format!("webhooks.{name}.{key}");
        let timeout = self.seconds(&key("timeout_seconds"), raw.timeout_seconds, 1..=120);
        if let Err(problem) = check_id("name", name) {
            self.broken(&key("url"), "A webhook cannot have this name.", problem.fix);
        }
        if raw.secret.is_empty() || raw.secret.contains('/') || raw.secret.starts_with('.') {
            let fix = "Use the name of a file in scripts.secrets_dir, without a folder.";
            self.broken(&key("secret"), "The value is not the name of a signing secret.", fix);
        }
        let (url, query) = match raw.url.split_once('?') {
            Some((url, query)) => (url, Some(query)),
            None => (&*raw.url, None),
        };
        let is_allowed = |b: u8| b.is_ascii_graphic() && !b"#\\\"<>".contains(&b);
        if query.is_some_and(|query| query.len() > MAX_QUERY || !query.bytes().all(is_allowed)) {
            let message = "The query of the receiver's URL is too long, or has a character that must be percent-encoded.";
            let fix = format!(
                "Percent-encode the query, without a fragment, and use at most {MAX_QUERY} bytes."
            );
            self.broken(&key("url"), message, fix);
        }
        let target = Target::parse(url).unwrap_or_else(|problem| {
            let fix = "Use a URL such as https://hooks.example.com/keyward.";
            let message = format!("The value is not the URL of a receiver: {problem}.");
            self.broken(&key("url"), &message, fix);
            Target {
                transport: Transport::Clear,
                host: String::new(),
                port: 0,
                authority: String::new(),
                base: String::new(),
            }
        });
        let ca = (!raw.ca.is_empty()).then(|| raw.ca.clone().into());
        let query = query.map(str::to_owned);
        WebhookSettings { target, query, secret: raw.secret.clone(), ca, timeout }
    }
}
