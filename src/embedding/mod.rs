//! Keyward in a Rust program, as one handle: the store, the scripts, the gate and the background
//! duties.
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use axum::{Router, routing::get};
//! use keyward::{ClientSource, Identity, Keyward};
//!
//! # let folder = tempfile::tempdir()?;
//! # let folder = folder.path();
//! let keyward = Keyward::folder(folder).client(ClientSource::connect_info()).start().await?;
//! if let Some(first) = keyward.first_start() {
//!     println!("The first key, of the user {}: {}", first.username, first.key.expose());
//! }
//!
//! async fn reports(caller: Identity) -> String {
//!     format!("Reports for {}.", caller.name().unwrap_or("nobody"))
//! }
//! let guard = keyward.guard().requires("read reports");
//! let app: Router = Router::new().route("/reports", get(reports)).layer(guard);
//! # drop(app);
//!
//! // After the last request: writes the counts of the last seconds, and ends the duties.
//! keyward.stop().await;
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```

mod behalf;
mod builder;
mod duties;

use std::sync::Arc;

pub use behalf::OnBehalf;
pub use builder::{ClientMissing, KeywardBuilder, StartError};

use crate::{
    accounts::{Accounts, FirstStart, Writer},
    layer::{ClientSource, GuardLayer, Identity},
    pipeline::Gate,
};
use duties::Duties;

/// A running Keyward inside a program. Cheap to clone.
///
/// [`KeywardBuilder::start`] makes it: the store has its first records, the scripts are in force,
/// and the background duties run. The duties end with [`Keyward::stop`], or when the last clone and
/// the last guard are dropped.
#[derive(Clone)]
pub struct Keyward(Arc<Inner>);

struct Inner {
    accounts: Accounts,
    gate: Gate,
    client: ClientSource,
    first_start: Option<FirstStart>,
    duties: Duties,
}

impl Keyward {
    /// A guard for this Keyward: a layer for `tower` and axum. Without further calls, the resources
    /// of the store decide; see [`GuardLayer::requires`] and [`GuardLayer::requires_user`].
    ///
    /// ```
    /// # async fn example(keyward: keyward::Keyward) {
    /// let readers = keyward.guard().requires("read reports");
    /// let members = keyward.guard().requires_user();
    /// # drop((readers, members)); }
    /// ```
    pub fn guard(&self) -> GuardLayer {
        let guard = GuardLayer::new(self.0.gate.clone(), self.0.client.clone());
        guard.owned_by(self.0.clone())
    }

    /// Changes that a caller asks for, with the permissions of the caller's credential.
    ///
    /// ```
    /// # async fn example(keyward: keyward::Keyward, caller: keyward::Identity)
    /// # -> Result<(), keyward::AccountError> {
    /// use keyward::NewKey;
    /// let new = NewKey { label: "ci".into(), ..NewKey::default() };
    /// let issued = keyward.on_behalf_of(&caller).issue_key(new).await?;
    /// println!("{}", issued.text.expose());
    /// # Ok(()) }
    /// ```
    pub fn on_behalf_of(&self, caller: &Identity) -> OnBehalf {
        OnBehalf::new(self.0.accounts.clone(), caller.clone())
    }

    /// Changes of the program itself, which no permission narrows. Never use it for changes that a
    /// caller asks for.
    ///
    /// ```
    /// # async fn example(keyward: keyward::Keyward) -> Result<(), keyward::AccountError> {
    /// use keyward::NewUser;
    /// let user = NewUser { name: "builder".into(), status: true, ..NewUser::default() };
    /// let created = keyward.unbounded().create_user(user).await?;
    /// assert_eq!(created.record.name, "builder");
    /// # Ok(()) }
    /// ```
    pub fn unbounded(&self) -> Writer {
        self.0.accounts.unbounded()
    }

    /// The records, to read.
    pub fn accounts(&self) -> &Accounts {
        &self.0.accounts
    }

    /// The gate, for a program that decides without a layer.
    pub fn gate(&self) -> &Gate {
        &self.0.gate
    }

    /// The first administrator with the text of the first key. `None` means that the store had
    /// records before this start.
    pub fn first_start(&self) -> Option<&FirstStart> {
        self.0.first_start.as_ref()
    }

    /// Ends the background duties after their last write: the uses of keys, spent credits and
    /// denied requests of the last seconds. Call it after the last request. Later counts are not
    /// written.
    pub async fn stop(self) {
        self.0.duties.stop().await;
    }
}

impl std::fmt::Debug for Keyward {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keyward").field("client", &self.0.client).finish_non_exhaustive()
    }
}
