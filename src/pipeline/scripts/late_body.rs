//! A request body that is read only when the decision is as far as it can be without the body. A
//! function that reads the body waits for it; without such a function, the body is read after the
//! grant.

use std::pin::pin;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::SetOnce;

use crate::{
    limits::{HeldBody, Share, Standing},
    pipeline::{Denial, Identity, Phase},
    scripting::{Function, Script, ScriptRequest},
};

/// The body of one request, which may still have to be read.
#[derive(Debug, Default)]
pub struct LateBody {
    /// Set when a script needs the body.
    wanted: SetOnce<Standing>,
    /// Set when the body was read, or could not be read.
    received: SetOnce<Result<Bytes, Denial>>,
    /// The part of the budget of unauthenticated clients. `None` after the client has proved who
    /// it is.
    unauthenticated: Mutex<Option<Share>>,
}

impl LateBody {
    /// Waits until the body was read, if this function of the script reads it. `shown` is the
    /// request as scripts see it, which then has the body.
    ///
    /// # Errors
    /// The body could not be read.
    pub(in crate::pipeline) async fn wait_for(
        &self,
        (script, function): (&Script, Function),
        standing: Standing,
        shown: Option<&ScriptRequest>,
    ) -> Result<(), Denial> {
        if script.reads_body(function) {
            // Only the first call has an effect.
            let _ = self.wanted.set(standing);
            let body = self.received.wait().await.clone()?;
            if let Some(shown) = shown {
                shown.provide_body(body);
            }
        }
        Ok(())
    }

    /// The body. `None` means that it was not read, or could not be read.
    pub fn received(&self) -> Option<&Bytes> {
        self.received.get()?.as_ref().ok()
    }

    /// Moves the body to the budget of authenticated clients.
    pub(in crate::pipeline) fn authenticated(&self) {
        *self.unauthenticated.lock() = None;
    }

    /// Runs a decision that may wait for the body, and returns its result and the body. `read` is
    /// called once: when a script needs the body, or after the decision. `standing_of` tells the
    /// standing of the client then.
    ///
    /// # Errors
    /// The decision is a denial, or the body could not be read.
    pub async fn drive<T, R>(
        &self,
        decision: impl Future<Output = Result<T, Denial>>,
        read: impl FnOnce(Standing) -> R,
        standing_of: impl FnOnce(&T) -> Standing,
    ) -> Result<(T, Bytes), Denial>
    where
        R: Future<Output = Result<HeldBody, Denial>>,
    {
        let reading = async {
            let standing = *self.wanted.wait().await;
            let result = read(standing).await;
            let bytes = result.map(|HeldBody { bytes, unauthenticated }| {
                *self.unauthenticated.lock() = unauthenticated;
                bytes
            });
            // Only this future sets the body.
            let _ = self.received.set(bytes);
        };
        let (mut decision, mut reading) = (pin!(decision), pin!(reading));
        let decided = tokio::select! {
            biased;
            decided = &mut decision => Some(decided),
            () = &mut reading => None,
        };
        let granted = match decided {
            Some(decided) => decided?,
            None => decision.await?,
        };
        if self.received.get().is_none() {
            let _ = self.wanted.set(standing_of(&granted));
            reading.await;
        }
        match self.received.get() {
            Some(received) => Ok((granted, received.clone()?)),
            None => Err(unread()),
        }
    }
}

impl Standing {
    /// The standing of the client with this identity.
    pub(crate) fn of(identity: &Identity<'_>) -> Self {
        if identity.is_anonymous() { Self::Unknown } else { Self::Authenticated }
    }
}

/// The denial of a request whose body nobody reads, which is a mistake of this program.
fn unread() -> Denial {
    let (phase, status) = (Phase::Handler, http::StatusCode::INTERNAL_SERVER_ERROR);
    Denial::message(phase, status, "INTERNAL_ERROR", "The request could not be served.")
        .with_internal_message("the body was not read")
}
