//! Calls of the operator's event script, which approves new keys and users, and which is notified
//! of revoked keys.

pub(super) mod monitor;
pub(super) mod outbox;

use std::sync::{Arc, atomic::Ordering};

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts, AccountsInner, Writer};
use crate::{
    model::{Key, KeyId, Mode, User},
    scripting::{Fault, Function, RequestedWebhook, Script, ScriptSet},
};

/// The number of script calls after which the task yields to other tasks, because one change may
/// call the script for many keys.
const CALLS_BEFORE_YIELD: usize = 16;

/// A function that loads the scripts before their first use. Its error is a message for the
/// operator.
pub type LoadScripts = Arc<dyn Fn(&Accounts) -> Result<(), String> + Send + Sync>;

/// A record that is about to be created.
pub(super) enum NewRecord<'a> {
    /// A user.
    User(&'a User),
    /// A key and the name of its user.
    Key(&'a Key, &'a str),
    /// A key, the name of its user, and the id of the key that it replaces.
    Successor(&'a Key, &'a str, KeyId),
}

impl NewRecord<'_> {
    /// The script's function that approves the record.
    fn function(&self) -> Function {
        match self {
            Self::User(_) => Function::OnUserCreated,
            Self::Key(..) | Self::Successor(..) => Function::OnKeyCreated,
        }
    }

    fn event(&self) -> Map<String, Value> {
        match self {
            Self::User(user) => user_event(user),
            Self::Key(key, owner) => key_event(key, owner),
            Self::Successor(key, owner, old) => {
                let mut event = key_event(key, owner);
                event.insert("rotated_from".into(), old.to_string().into());
                event
            }
        }
    }
}

impl Accounts {
    /// Delays the loading of the scripts until the first key or user is created.
    #[must_use]
    pub fn with_lazy_scripts(self, load: LoadScripts) -> Self {
        let lazy_scripts = Some(load);
        Self(Arc::new(AccountsInner { lazy_scripts, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The scripts. If they are to be loaded at their first use and are not loaded yet, this method
    /// loads them.
    ///
    /// # Errors
    /// The scripts cannot be loaded.
    async fn loaded_scripts(&self) -> Result<Arc<ScriptSet>, AccountError> {
        if let Some(load) = &self.0.lazy_scripts
            && self.0.scripts.get().is_none()
        {
            let (load, accounts) = (load.clone(), self.clone());
            // A blocking thread loads the scripts, because loading reads files and runs tests.
            let loading = tokio::task::spawn_blocking(move || load(&accounts));
            let loaded =
                loading.await.unwrap_or_else(|_| Err("loading the scripts was aborted".into()));
            loaded.map_err(|detail| AccountError::Script(Fault::Failed { detail }))?;
        }
        Ok(self.scripts().current())
    }

    /// Loads the scripts for a change of a user's attributes, because the scripts say which of them
    /// are credentials. Other changes need no scripts, so a broken script prevents no blocking.
    pub(super) async fn load_scripts_for_attributes(
        &self,
        changes_attributes: impl FnOnce() -> bool,
    ) -> Result<(), AccountError> {
        if !self.has_all_scripts() && changes_attributes() {
            self.loaded_scripts().await?;
        }
        Ok(())
    }

    /// Whether no scripts are left to be loaded at their first use.
    pub(super) fn has_all_scripts(&self) -> bool {
        self.0.lazy_scripts.is_none() || self.0.scripts.get().is_some()
    }

    /// Notifies the script of an event that cannot be denied, and returns the webhooks that the
    /// script requests. `None` means that the script failed, and that the failure was logged.
    pub(super) async fn notify(
        &self,
        script: &Script,
        function: Function,
        event: &Value,
    ) -> Option<Vec<RequestedWebhook>> {
        match script.event(function, event).await {
            Ok(webhooks) => Some(webhooks),
            Err(fault) => {
                let failures = self.0.event_failures.fetch_add(1, Ordering::Relaxed) + 1;
                let detail = match &fault {
                    Fault::Refused(refusal) => {
                        let place = &refusal.place;
                        format!("{place} refused the event, but this event cannot be refused")
                    }
                    other => other.detail().unwrap_or_default().to_owned(),
                };
                let event = function.name();
                tracing::error!(event, failures, detail, "the event script failed");
                None
            }
        }
    }

    /// The number of failed notifications: the script failed, or it denied an event that cannot be
    /// denied.
    pub fn event_failures(&self) -> u64 {
        self.0.event_failures.load(Ordering::Relaxed)
    }

    /// The name of a user, or the empty text if the user does not exist.
    pub(super) fn user_name(&self, uid: u64) -> String {
        self.0.directory.user(uid).map(|user| user.name.to_string()).unwrap_or_default()
    }
}

impl Writer {
    /// Asks the script to approve new records, and returns the webhooks that the script requests. A
    /// dry run returns no webhooks.
    ///
    /// # Errors
    /// The script denies a record, or fails. In both cases none of the records may be created.
    pub(super) async fn approve(
        &self,
        records: &[NewRecord<'_>],
        mode: Mode,
    ) -> Result<Vec<RequestedWebhook>, AccountError> {
        let mut set = self.loaded_scripts().await?;
        let mut webhooks = Vec::new();
        if records.iter().all(|record| set.event(record.function()).is_none()) {
            return Ok(webhooks);
        }
        if mode == Mode::DryRun {
            set = Arc::new(set.dry_run());
        }
        for (number, record) in records.iter().enumerate() {
            let Some(script) = set.event(record.function()) else { continue };
            if number % CALLS_BEFORE_YIELD == CALLS_BEFORE_YIELD - 1 {
                tokio::task::yield_now().await;
            }
            let event = Value::Object(self.with_actor(record.event()));
            let requested = script.event(record.function(), &event).await;
            webhooks.extend(requested.map_err(AccountError::Script)?);
        }
        Ok(if mode == Mode::DryRun { Vec::new() } else { webhooks })
    }

    /// Notifies the script of a revoked key, and returns the webhooks that the script requests.
    pub(super) async fn notify_revoked(&self, key: &Key) -> Vec<RequestedWebhook> {
        let function = Function::OnKeyRevoked;
        let set = match self.loaded_scripts().await {
            Ok(set) => set,
            Err(problem) => {
                let event = function.name();
                tracing::error!(event, %problem, "could not notify the event script");
                return Vec::new();
            }
        };
        let Some(script) = set.event(function) else { return Vec::new() };
        let mut event = self.with_actor(key_event(key, &self.user_name(key.user)));
        event.insert("revoked".into(), json!(key.revoked));
        self.notify(script, function, &Value::Object(event)).await.unwrap_or_default()
    }

    fn with_actor(&self, mut event: Map<String, Value>) -> Map<String, Value> {
        event.insert("actor".into(), serde_json::to_value(self.actor()).unwrap_or_default());
        event
    }
}

/// The fields of a key that event scripts get. The text and the digest of the key are left out.
pub(super) fn key_event(key: &Key, owner: &str) -> Map<String, Value> {
    let event = json!({
        "id": key.id,
        "uid": key.user,
        "user": owner,
        "label": key.label,
        "prefix": key.prefix,
        "application": key.application,
        "scopes": key.scopes,
        "networks": key.networks,
        "created": key.created,
        "expires": key.expires,
    });
    fields(event)
}

/// The fields of a user that event scripts get. The password digest is left out.
fn user_event(user: &User) -> Map<String, Value> {
    let event = json!({
        "uid": user.uid,
        "uuid": user.uuid,
        "user": user.name,
        "mail": user.mail,
        "is_active": user.status,
        "roles": user.roles,
        "attributes": user.attributes,
        "created": user.created,
    });
    fields(event)
}

fn fields(event: Value) -> Map<String, Value> {
    match event {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}
