//! What is told of keys and users, and to whom.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::Duration,
};

use super::{Check, file};
use crate::model::{Target, Transport, check_id};

/// What is told of keys and users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSettings {
    /// The days before a key's end on which somebody is told.
    pub expiring_days: BTreeSet<u32>,
    /// The webhooks that wait at most.
    pub webhooks_waiting: usize,
    /// How often a webhook is tried.
    pub webhook_tries: u32,
    /// How long it is until the second try.
    pub webhook_retry: Duration,
    /// Where webhooks go, by name.
    pub webhooks: BTreeMap<String, WebhookSettings>,
}

/// Where a webhook goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhookSettings {
    /// The receiver.
    pub target: Target,
    /// The name of the secret that it is signed with.
    pub secret: String,
    /// The file of the authorities that the receiver's certificate has to come from; none: the public ones.
    pub ca: Option<PathBuf>,
    /// How long one try may take.
    pub timeout: Duration,
}

/// The most days, and the most of them.
const MOST_DAYS: u32 = 3650;
const MOST: usize = 16;

impl<R: FnMut(&[&str], String, String)> Check<R> {
    pub(super) fn events(
        &mut self,
        raw: &file::Events,
        webhooks: &BTreeMap<String, file::Webhook>,
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
        let read = |part: &str| part.parse().ok().filter(|days| (1..=MOST_DAYS).contains(days));
        let days: Option<BTreeSet<u32>> = parts.map(read).collect();
        days.filter(|days| days.len() <= MOST).unwrap_or_else(|| {
            let fix = format!("Use at most {MOST} whole numbers from 1 to {MOST_DAYS} with commas between them, such as \"30, 7, 1\".");
            self.broken(key, "These are no numbers of days.", fix);
            BTreeSet::new()
        })
    }

    fn webhook(&mut self, name: &str, raw: &file::Webhook) -> WebhookSettings {
        let key = |key: &str| format!("webhooks.{name}.{key}");
        let timeout = self.seconds(&key("timeout_seconds"), raw.timeout_seconds, 1..=120);
        if let Err(problem) = check_id("name", name) {
            self.broken(&key("url"), "A webhook cannot have this name.", problem.fix);
        }
        if raw.secret.is_empty() || raw.secret.contains('/') || raw.secret.starts_with('.') {
            let fix = "Name a file of scripts.secrets_dir, without a folder.";
            self.broken(
                &key("secret"),
                "This names no secret that a webhook could be signed with.",
                fix,
            );
        }
        let target = Target::parse(&raw.url).unwrap_or_else(|problem| {
            let fix = "Use a URL such as https://hooks.example.com/keyward.";
            self.broken(&key("url"), &format!("This is no address of a receiver: {problem}."), fix);
            Target {
                transport: Transport::Clear,
                host: String::new(),
                port: 0,
                authority: String::new(),
                base: String::new(),
            }
        });
        let ca = (!raw.ca.is_empty()).then(|| raw.ca.clone().into());
        WebhookSettings { target, secret: raw.secret.clone(), ca, timeout }
    }
}
