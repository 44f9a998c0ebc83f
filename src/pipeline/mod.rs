//! The Gate: five rooms that every guarded request walks through, in one order.
//!
//! ```text
//! header::read    which application, and is there a credential   → Presented
//! decode::parse   what the credential says                       → Credential
//! lookup::find    whose it is                                    → Candidate
//! verify::check   whether it is theirs                           → Identity
//! permit::decide  whether they may do this                       → Grant
//! ```
//! Each room asks for the ticket that the room before it made, and a ticket can be made only in its own room. So a room that is
//! skipped does not compile:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, decode, header, lookup, permit};
//! use keyward::store::Policy;
//! fn in_haste<'a>(gate: &Gate, policy: &'a Policy, request: &Request<'a>, action: &Action<'a>) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, policy, request, action)?;
//!     let credential = decode::parse(presented)?;
//!     let candidate = lookup::find(gate, credential)?;
//!     permit::decide(candidate, action)
//! }
//! ```
//! nor does one that is put elsewhere:
//!
//! ```compile_fail,E0308
//! use keyward::pipeline::{Action, Candidate, Denial, Gate, Request, header, lookup};
//! use keyward::store::Policy;
//! fn look_up_first<'a>(gate: &Gate, policy: &'a Policy, request: &Request<'a>, action: &Action<'a>) -> Result<Candidate<'a>, Denial> {
//!     let presented = header::read(gate, policy, request, action)?;
//!     lookup::find(gate, presented)
//! }
//! ```
//! nor a ticket that is forged:
//!
//! ```compile_fail,E0451
//! use keyward::pipeline::{Grant, Identity};
//! fn forge<'a>(identity: Identity<'a>) -> Grant<'a> {
//!     Grant { identity, rule: None }
//! }
//! ```
//! nor one that is used twice:
//!
//! ```compile_fail,E0382
//! use keyward::pipeline::{Denial, Presented, decode};
//! fn twice<'a>(presented: Presented<'a>) -> Result<(), Denial> {
//!     decode::parse(presented)?;
//!     decode::parse(presented)?;
//!     Ok(())
//! }
//! ```
//! while the five in their order do:
//!
//! ```
//! use keyward::pipeline::{Action, Denial, Gate, Grant, Request, decode, header, lookup, permit, verify};
//! use keyward::store::Policy;
//! async fn all<'a>(gate: &Gate, policy: &'a Policy, request: &Request<'a>, action: &Action<'a>) -> Result<Grant<'a>, Denial> {
//!     let presented = header::read(gate, policy, request, action)?;
//!     let credential = decode::parse(presented)?;
//!     let candidate = lookup::find(gate, credential)?;
//!     let identity = verify::check(gate, policy, request, candidate).await?;
//!     permit::decide(identity, action)
//! }
//! ```

pub mod decode;
mod denial;
pub mod header;
pub mod lookup;
pub mod permit;
mod request;
pub mod verify;

use std::sync::Arc;

pub use decode::Credential;
pub use denial::{Denial, Parts, Room, Shape};
pub use header::{AUTH_METHOD, Presented};
pub use lookup::Candidate;
pub use permit::Grant;
pub use request::{Action, Face, Request};
pub use verify::Identity;

use crate::{
    accounts::{Accounts, Passwords},
    model::{Clock, Pepper},
    store::{Directory, Policy},
};

/// What the rooms need besides the request. A cheap handle.
#[derive(Clone)]
pub struct Gate(Arc<Inner>);

struct Inner {
    directory: Arc<Directory>,
    pepper: Pepper,
    passwords: Passwords,
    clock: Clock,
    credential_bytes: usize,
}

impl Gate {
    /// The gate in front of these accounts. A credential's header field may have `credential_bytes` at most.
    pub fn new(accounts: &Accounts, credential_bytes: usize) -> Self {
        Self(Arc::new(Inner {
            directory: accounts.directory().clone(),
            pepper: accounts.pepper().clone(),
            passwords: accounts.passwords().clone(),
            clock: accounts.clock().clone(),
            credential_bytes,
        }))
    }

    /// Roles, applications and resources as they are now. One request is decided by one policy, from its route to its answer.
    pub fn policy(&self) -> Arc<Policy> {
        self.0.directory.policy()
    }

    /// Decides about a request.
    ///
    /// # Errors
    /// The first room that refuses.
    pub async fn authorize<'a>(
        &self,
        policy: &'a Policy,
        request: &Request<'a>,
        action: &Action<'a>,
    ) -> Result<Grant<'a>, Denial> {
        let presented = header::read(self, policy, request, action)?;
        let credential = decode::parse(presented)?;
        let candidate = lookup::find(self, credential)?;
        let identity = verify::check(self, policy, request, candidate).await?;
        permit::decide(identity, action)
    }
}
