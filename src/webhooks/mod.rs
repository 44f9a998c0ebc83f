//! Delivery of webhooks in the background: signed, retried a limited number of times, and sent only
//! to receivers in the configuration.
//!
//! A webhook stays in the store ([`PendingWebhook`]) until it is delivered or given up. So a kill
//! of the process loses no webhook. A receiver can get a webhook twice, and recognises the second
//! copy by its id.

mod call;
mod sign;

use std::{future::Future, io, sync::Arc, time::Duration};

use rustls::RootCertStore;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use self::{
    call::{Client, Delivered},
    sign::Signer,
};
use crate::{
    accounts::{AccountError, Accounts, PendingWebhook},
    model::{Secret, Target},
};

/// The maximum number of concurrent deliveries to one receiver.
const CONCURRENT: usize = 4;
/// How often the store is checked for webhooks that are due.
const POLL: Duration = Duration::from_secs(1);
/// The maximum time that running deliveries may take when the program stops. A delivery that is cut
/// off is repeated after the next start.
const SHUTDOWN: Duration = Duration::from_secs(5);
/// The factor between two consecutive waits.
const BACKOFF: u32 = 4;

/// A receiver of webhooks, as configured.
pub struct Receiver {
    /// The name in the configuration.
    pub name: String,
    /// The URL without its query.
    pub target: Target,
    /// The query of the URL. `None` means that the URL has none.
    pub query: Option<String>,
    /// The key of the signature: `whsec_` followed by base64, or any other text.
    pub secret: Secret,
    /// The certificate authorities that are trusted. `None` means the public authorities.
    pub authorities: Option<RootCertStore>,
    /// The maximum time of one attempt.
    pub timeout: Duration,
}

impl Receiver {
    /// Checks that webhooks can be signed and sent.
    ///
    /// # Errors
    /// The host is no valid TLS server name, or the secret is unusable.
    pub fn check(self) -> io::Result<()> {
        self.open().map(drop)
    }

    fn open(self) -> io::Result<(Client, Signer)> {
        let Self { name, target, query, secret, authorities, timeout } = self;
        let named = |key: &str, problem: &dyn std::fmt::Display| {
            io::Error::other(format!("webhooks.{name}.{key}: {problem}"))
        };
        let signer = Signer::new(&secret).map_err(|problem| named("secret", &problem))?;
        let client = Client::new(target, query.as_deref(), authorities, timeout)
            .map_err(|problem| named("url", &problem))?;
        Ok((client, signer))
    }
}

/// The rules for repeating failed deliveries.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// The maximum number of attempts.
    pub tries: u32,
    /// The wait before the second attempt.
    pub first: Duration,
}

/// Delivers webhooks.
pub struct Sender {
    accounts: Accounts,
    receivers: Vec<Arc<Delivery>>,
}

/// Delivers the webhooks of one receiver.
struct Delivery {
    accounts: Accounts,
    name: String,
    client: Client,
    signer: Signer,
    retry: Retry,
}

impl Sender {
    /// Creates a sender for the webhooks of these accounts.
    ///
    /// # Errors
    /// A receiver's host is no valid TLS server name, or its secret is unusable.
    pub fn new(
        accounts: &Accounts,
        receivers: impl IntoIterator<Item = Receiver>,
        retry: Retry,
    ) -> io::Result<Self> {
        let receivers = receivers.into_iter().map(|receiver| {
            let name = receiver.name.clone();
            let (client, signer) = receiver.open()?;
            let accounts = accounts.clone();
            Ok(Arc::new(Delivery { accounts, name, client, signer, retry }))
        });
        Ok(Self { accounts: accounts.clone(), receivers: receivers.collect::<io::Result<_>>()? })
    }

    /// Delivers webhooks until `end` resolves.
    pub async fn run(self, end: impl Future<Output = ()>) {
        match self.accounts.drop_unknown_webhooks().await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                count,
                "dropped webhooks whose receivers are not in the configuration any more"
            ),
            Err(problem) => {
                tracing::warn!(%problem, "could not drop webhooks of receivers that are not in the configuration any more")
            }
        }
        let (stop, stopped) = watch::channel(());
        let mut tasks = JoinSet::new();
        for receiver in self.receivers {
            tasks.spawn(receiver.serve(stopped.clone()));
        }
        end.await;
        drop((stop, stopped));
        while tasks.join_next().await.is_some() {}
    }
}

impl Delivery {
    async fn serve(self: Arc<Self>, mut stopped: watch::Receiver<()>) {
        let mut running = JoinSet::new();
        loop {
            match self.accounts.take_due_webhooks(&self.name, CONCURRENT - running.len()) {
                Ok(webhooks) => {
                    for (id, webhook) in webhooks {
                        let delivery = self.clone();
                        running.spawn(async move { delivery.deliver(id, webhook).await });
                    }
                }
                Err(problem) => {
                    tracing::error!(webhook = self.name, %problem, "could not read pending webhooks")
                }
            }
            tokio::select! {
                Some(_) = running.join_next() => {}
                () = self.accounts.webhooks_queued(), if running.len() < CONCURRENT => {}
                () = tokio::time::sleep(POLL) => {}
                _ = stopped.changed() => break,
            }
        }
        let ending = async { while running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(SHUTDOWN, ending).await;
    }

    async fn deliver(&self, id: Uuid, pending: PendingWebhook) {
        // Every attempt has this id, so that the receiver recognises copies.
        let message = format!("msg_{}", id.simple());
        let time = self.accounts.clock().now();
        let signature = self.signer.sign(&message, time, pending.data.as_bytes());
        let outcome = self.client.send(&message, time, &signature, &pending.data).await;
        let webhook = &self.name;
        let written = match outcome {
            Delivered::Accepted => {
                tracing::debug!(webhook, id = message, "delivered a webhook");
                self.accounts.remove_webhook(id).await
            }
            Delivered::Gone => {
                tracing::warn!(
                    webhook,
                    id = message,
                    "the receiver responded 410 Gone; dropped the webhook"
                );
                self.accounts.remove_webhook(id).await
            }
            Delivered::Failed(why) => self.retry_later(id, message, pending, &why).await,
        };
        if let Err(problem) = written {
            tracing::error!(
                webhook,
                %problem,
                "could not record the outcome of a delivery; the webhook may be sent again"
            );
        }
    }

    async fn retry_later(
        &self,
        id: Uuid,
        message: String,
        mut pending: PendingWebhook,
        why: &str,
    ) -> Result<(), AccountError> {
        let webhook = &self.name;
        pending.tries = pending.tries.saturating_add(1);
        if pending.tries >= self.retry.tries {
            tracing::error!(
                webhook,
                id = message,
                tries = pending.tries,
                why,
                "gave up delivering a webhook"
            );
            return self.accounts.remove_webhook(id).await;
        }
        let wait = self.wait(pending.tries);
        tracing::warn!(
            webhook,
            id = message,
            tries = pending.tries,
            seconds = wait,
            why,
            "could not deliver a webhook; will retry"
        );
        pending.next = self.accounts.clock().now().plus(wait);
        self.accounts.retry_webhook_later(id, pending).await
    }

    /// The seconds until the next attempt, with a jitter of ± a quarter, so that webhooks that
    /// failed together are not retried together.
    fn wait(&self, tries: u32) -> i64 {
        let factor = u64::from(BACKOFF).saturating_pow(tries.saturating_sub(1));
        let millis = u64::try_from(self.retry.first.as_millis())
            .unwrap_or(u64::MAX)
            .saturating_mul(factor)
            .min(7 * 86_400_000);
        let random = u64::from(u16::from_le_bytes(self.accounts.entropy().bytes()));
        let jittered =
            millis - millis / 4 + (millis / 2).saturating_mul(random) / u64::from(u16::MAX);
        i64::try_from(jittered.div_ceil(1000)).unwrap_or(i64::MAX)
    }
}
