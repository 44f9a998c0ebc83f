//! Events: the operator's script is asked before a key or a user is made, and told when a key is taken back.

pub(super) mod monitor;
pub(super) mod outbox;

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{AccountError, Accounts, Writer};
use crate::{
    model::{Key, KeyId, Mode, User},
    scripting::{Fault, Function, Script, Set, Webhook},
};

/// After so many calls others have their turn: a script may be called for each of many keys.
const IN_A_ROW: usize = 16;

/// Loads the scripts when they are needed first. The error is for the operator.
pub type LoadScripts = Arc<dyn Fn(&Accounts) -> Result<(), String> + Send + Sync>;

/// Something that is about to be made.
pub(super) enum New<'a> {
    /// A user.
    User(&'a User),
    /// A key, and the name of its user.
    Key(&'a Key, &'a str),
    /// A key in the place of another.
    Successor(&'a Key, &'a str, KeyId),
}

impl New<'_> {
    fn function(&self) -> Function {
        match self {
            Self::User(_) => Function::OnUserCreated,
            Self::Key(..) | Self::Successor(..) => Function::OnKeyCreated,
        }
    }

    fn event(&self) -> Map<String, Value> {
        match self {
            Self::User(user) => of_user(user),
            Self::Key(key, owner) => of_key(key, owner),
            Self::Successor(key, owner, old) => {
                let mut event = of_key(key, owner);
                event.insert("rotated_from".into(), old.to_string().into());
                event
            }
        }
    }
}

impl Accounts {
    /// The same accounts, whose scripts are loaded when the first key or user is made.
    #[must_use]
    pub fn loading_scripts_late(self, load: LoadScripts) -> Self {
        Self(Arc::new(super::Inner { late: Some(load), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The scripts that are asked.
    ///
    /// # Errors
    /// They cannot be loaded: nothing is made then.
    async fn asked(&self) -> Result<Arc<Set>, AccountError> {
        if let Some(load) = &self.0.late
            && self.0.scripts.get().is_none()
        {
            let (load, accounts) = (load.clone(), self.clone());
            // It reads files and runs tests.
            let loading = tokio::task::spawn_blocking(move || load(&accounts));
            let loaded =
                loading.await.unwrap_or_else(|_| Err("the scripts cannot be loaded".into()));
            loaded.map_err(|detail| AccountError::Script(Fault::Broken { detail }))?;
        }
        Ok(self.scripts().current())
    }

    /// Tells of something that has happened, or cannot be refused. What goes wrong is logged.
    pub(super) async fn tell(
        &self,
        script: &Script,
        function: Function,
        event: &Value,
    ) -> Option<Vec<Webhook>> {
        match script.event(function, event).await {
            Ok(webhooks) => Some(webhooks),
            Err(fault) => {
                let failures =
                    self.0.event_failures.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
                let detail = match &fault {
                    Fault::Refused(refusal) => {
                        format!("refused by {}: this event cannot be refused", refusal.place)
                    }
                    Fault::Broken { detail } => detail.clone(),
                };
                tracing::error!(
                    event = function.name(),
                    failures,
                    detail,
                    "an event was not taken in"
                );
                None
            }
        }
    }

    /// How often the script of events has failed, or has refused what cannot be refused.
    pub fn event_failures(&self) -> u64 {
        self.0.event_failures.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// The name of a user who is there.
    pub(super) fn name_of(&self, uid: u64) -> String {
        self.0.directory.user(uid).map(|member| member.name.to_string()).unwrap_or_default()
    }
}

impl Writer {
    /// Asks about all that is about to be made, and returns the webhooks that go with it.
    ///
    /// # Errors
    /// The script refuses, or fails: then nothing may be made.
    pub(super) async fn ask(
        &self,
        all: &[New<'_>],
        mode: Mode,
    ) -> Result<Vec<Webhook>, AccountError> {
        let mut set = self.asked().await?;
        let mut webhooks = Vec::new();
        if all.iter().all(|one| set.event(one.function()).is_none()) {
            return Ok(webhooks);
        }
        if mode == Mode::DryRun {
            set = Arc::new(set.looking());
        }
        let actor = serde_json::to_value(self.actor()).unwrap_or_default();
        for (number, one) in all.iter().enumerate() {
            let Some(script) = set.event(one.function()) else { continue };
            if number % IN_A_ROW == IN_A_ROW - 1 {
                tokio::task::yield_now().await;
            }
            let mut event = one.event();
            event.insert("actor".into(), actor.clone());
            let wanted = script.event(one.function(), &Value::Object(event)).await;
            webhooks.extend(wanted.map_err(AccountError::Script)?);
        }
        Ok(if mode == Mode::DryRun { Vec::new() } else { webhooks })
    }

    /// Tells that a key is taken back, and returns the webhooks that go with it.
    pub(super) async fn tell_of_revoked(&self, key: &Key) -> Vec<Webhook> {
        let function = Function::OnKeyRevoked;
        let set = match self.asked().await {
            Ok(set) => set,
            Err(problem) => {
                tracing::error!(event = function.name(), %problem, "an event was not taken in");
                return Vec::new();
            }
        };
        let Some(script) = set.event(function) else { return Vec::new() };
        let mut event = of_key(key, &self.name_of(key.user));
        event.insert("actor".into(), serde_json::to_value(self.actor()).unwrap_or_default());
        event.insert("revoked".into(), json!(key.revoked));
        self.tell(script, function, &Value::Object(event)).await.unwrap_or_default()
    }
}

/// A key, as scripts are told of it: neither its text nor a digest.
pub(super) fn of_key(key: &Key, owner: &str) -> Map<String, Value> {
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

/// A user, as scripts are told of it: no password.
fn of_user(user: &User) -> Map<String, Value> {
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
