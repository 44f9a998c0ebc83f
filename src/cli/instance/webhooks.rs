//! Builds the webhook sender from the configuration.

use anyhow::Context as _;

use super::scripts;
use crate::{
    accounts::Accounts,
    config::Settings,
    tls,
    webhooks::{Receiver, Retry, Sender},
};

/// Creates the sender that delivers the webhooks of these accounts.
///
/// # Errors
/// A secret or a certificate is missing or cannot be used.
pub fn sender(settings: &Settings, accounts: &Accounts) -> anyhow::Result<Sender> {
    let events = &settings.events;
    let retry = Retry { tries: events.webhook_tries, first: events.webhook_retry };
    Ok(Sender::new(accounts, receivers(settings)?, retry)?)
}

/// Checks the files that the receivers of webhooks need.
///
/// # Errors
/// As [`sender`].
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    receivers(settings)?.into_iter().try_for_each(|receiver| Ok(receiver.check()?))
}

fn receivers(settings: &Settings) -> anyhow::Result<Vec<Receiver>> {
    let mut receivers = Vec::new();
    for (name, webhook) in &settings.events.webhooks {
        let file = settings.scripts.secrets_dir.join(&webhook.secret);
        let secret =
            scripts::read_secret(&file).with_context(|| format!("webhooks.{name}.secret"))?;
        let authorities = webhook.ca.as_deref().map(tls::authorities).transpose();
        receivers.push(Receiver {
            name: name.clone(),
            target: webhook.target.clone(),
            query: webhook.query.clone(),
            secret,
            authorities: authorities.with_context(|| format!("webhooks.{name}.ca"))?,
            timeout: webhook.timeout,
        });
    }
    Ok(receivers)
}
