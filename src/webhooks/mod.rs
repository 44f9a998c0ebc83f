//! Webhooks are delivered, beside all requests: signed, one try after the other until somebody takes them, and never to anybody whom the operator has
//! not named. They lie in the store until then ([`PendingWebhook`]), so each is delivered at least once, also over a kill; a receiver tells a second copy by
//! its id.

mod call;
mod sign;

use std::{future::Future, io, sync::Arc, time::Duration};

use rustls::RootCertStore;
use tokio::{sync::watch, task::JoinSet};
use uuid::Uuid;

use self::{
    call::{Answer, Line},
    sign::Signer,
};
use crate::{
    accounts::{AccountError, Accounts, PendingWebhook},
    model::{Secret, Target},
};

/// The deliveries to one receiver at the same time.
const AT_ONCE: usize = 4;
/// How often it is looked whether a letter's time has come.
const EVERY: Duration = Duration::from_secs(1);
/// How long deliveries get that are under way when the program stops. What is cut off then is delivered again.
const LAST: Duration = Duration::from_secs(5);
/// How much longer each wait is than the one before.
const LONGER: u32 = 4;

/// Somebody who gets webhooks.
pub struct Receiver {
    /// The name in the configuration.
    pub name: String,
    /// Where.
    pub target: Target,
    /// What is signed with: `whsec_` and base64, or any other text.
    pub secret: Secret,
    /// Those whom its certificate has to come from; none: the public ones.
    pub authorities: Option<RootCertStore>,
    /// How long one try may take.
    pub timeout: Duration,
}

/// How often it is tried.
#[derive(Debug, Clone, Copy)]
pub struct Retry {
    /// How often at most.
    pub tries: u32,
    /// How long it is until the second try.
    pub first: Duration,
}

/// Delivers webhooks.
pub struct Sender {
    accounts: Accounts,
    receivers: Vec<Arc<Delivery>>,
}

/// The way to one receiver.
struct Delivery {
    accounts: Accounts,
    name: String,
    line: Line,
    signer: Signer,
    retry: Retry,
}

impl Sender {
    /// The sender of these accounts' webhooks.
    ///
    /// # Errors
    /// A receiver cannot be called over TLS, or its secret cannot be used.
    pub fn new(
        accounts: &Accounts,
        receivers: impl IntoIterator<Item = Receiver>,
        retry: Retry,
    ) -> io::Result<Self> {
        let receivers = receivers.into_iter().map(|receiver| {
            let Receiver { name, target, secret, authorities, timeout } = receiver;
            let named =
                |problem: io::Error| io::Error::other(format!("webhooks.{name}: {problem}"));
            let signer =
                Signer::new(&secret).map_err(|problem| named(io::Error::other(problem)))?;
            let line = Line::new(target, authorities, timeout).map_err(named)?;
            let accounts = accounts.clone();
            Ok(Arc::new(Delivery { accounts, name, line, signer, retry }))
        });
        Ok(Self { accounts: accounts.clone(), receivers: receivers.collect::<io::Result<_>>()? })
    }

    /// Delivers until `end` has come.
    pub async fn run(self, end: impl Future<Output = ()>) {
        match self.accounts.drop_strangers_letters().await {
            Ok(0) => {}
            Ok(count) => tracing::warn!(
                count,
                "webhooks were given up whose receivers the configuration does not name any more"
            ),
            Err(problem) => {
                tracing::warn!(%problem, "webhooks of receivers who are gone were not given up")
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
            match self.accounts.letters(&self.name, AT_ONCE - running.len()) {
                Ok(letters) => {
                    for (id, letter) in letters {
                        let delivery = self.clone();
                        running.spawn(async move { delivery.deliver(id, letter).await });
                    }
                }
                Err(problem) => {
                    tracing::error!(webhook = self.name, %problem, "webhooks cannot be read")
                }
            }
            tokio::select! {
                Some(_) = running.join_next() => {}
                () = self.accounts.letters_arrive(), if running.len() < AT_ONCE => {}
                () = tokio::time::sleep(EVERY) => {}
                _ = stopped.changed() => break,
            }
        }
        let ending = async { while running.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST, ending).await;
    }

    async fn deliver(&self, id: Uuid, letter: PendingWebhook) {
        // The same for every try: a receiver tells copies by it.
        let message = format!("msg_{}", id.simple());
        let time = self.accounts.clock().now();
        let signature = self.signer.sign(&message, time, letter.data.as_bytes());
        let answer = self.line.send(&message, time, &signature, &letter.data).await;
        let webhook = &self.name;
        let written = match answer {
            Answer::Mode => {
                tracing::debug!(webhook, id = message, "a webhook was delivered");
                self.accounts.letter_done(id).await
            }
            Answer::Gone => {
                tracing::warn!(
                    webhook,
                    id = message,
                    "the receiver wants no webhooks any more (410): this one is given up"
                );
                self.accounts.letter_done(id).await
            }
            Answer::Failed(why) => self.again(id, message, letter, &why).await,
        };
        if let Err(problem) = written {
            tracing::error!(webhook, %problem, "what became of a webhook was not written: it may be sent again");
        }
    }

    async fn again(
        &self,
        id: Uuid,
        message: String,
        mut letter: PendingWebhook,
        why: &str,
    ) -> Result<(), AccountError> {
        let webhook = &self.name;
        letter.tries = letter.tries.saturating_add(1);
        if letter.tries >= self.retry.tries {
            tracing::error!(
                webhook,
                id = message,
                tries = letter.tries,
                why,
                "a webhook is given up"
            );
            return self.accounts.letter_done(id).await;
        }
        let wait = self.wait(letter.tries);
        tracing::warn!(
            webhook,
            id = message,
            tries = letter.tries,
            seconds = wait,
            why,
            "a webhook was not delivered; it is tried again"
        );
        letter.next = self.accounts.clock().now().plus(wait);
        self.accounts.letter_later(id, letter).await
    }

    /// The seconds until the next try, give or take a quarter: those that failed together are not tried together.
    fn wait(&self, tries: u32) -> i64 {
        let factor = u64::from(LONGER).saturating_pow(tries.saturating_sub(1));
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
