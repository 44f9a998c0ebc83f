//! Makes a record of a backup no wider than the present record: nothing that was revoked, blocked
//! or narrowed since the backup comes back.
//!
//! One function for each kind of record both finds the differences and makes the narrower record,
//! so that a restore that keeps later changes keeps exactly those that it lists.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Serialize, de::DeserializeOwned};

use crate::{
    model::{
        Application, Credits, Key, KeySource, MethodRules, RateLimit, Resource, Role, Rules,
        Timestamp, User,
    },
    store::Table,
};

/// The entry of [`MethodRules::authentication`] for every application.
const EVERY_APPLICATION: &str = "*";
/// The entry of [`MethodRules::authentication`] for requests without a credential.
const NO_CREDENTIAL: &str = "anonymous";

/// A kind of record that a restore can bring back.
pub(super) trait Narrow: Clone + Serialize + DeserializeOwned {
    /// The name of the kind, in lists and in the audit trail.
    const KIND: &'static str;
    const TABLE: Table;

    fn id(&self) -> String;

    /// The name for people, beside the id. For a key it is its label, and empty if it has none.
    fn name(&self) -> String;

    /// Whether the record matters if it was deleted since.
    fn is_alive(&self, now: Timestamp) -> bool;

    /// Whether the present record with this record's id is about another thing.
    fn is_other(&self, _present: &Self) -> bool {
        false
    }

    /// Makes the record no wider than the present one. Returns the changes, each as a clause for
    /// people about the present record.
    fn narrow(&mut self, present: &Self, now: Timestamp) -> Vec<String>;
}

impl Narrow for Key {
    const KIND: &'static str = "key";
    const TABLE: Table = Table::Keys;

    fn id(&self) -> String {
        self.id.to_string()
    }

    fn name(&self) -> String {
        self.label.clone()
    }

    fn is_alive(&self, now: Timestamp) -> bool {
        self.is_in_force(now)
    }

    fn narrow(&mut self, present: &Self, now: Timestamp) -> Vec<String> {
        let mut changes = Vec::new();
        if !self.is_in_force(now) {
            return changes;
        }
        if let Some(revoked) = present.revoked {
            self.revoked = Some(revoked);
            changes.push(format!("it was revoked at {revoked}"));
            return changes;
        }
        if let Some(end) = present.ends()
            && self.ends().is_none_or(|own| own > end)
        {
            self.expires = Some(end);
            let verb = if end <= now { "expired" } else { "expires" };
            changes.push(format!("it {verb} at {end}"));
        }
        if let Some(scopes) = &present.scopes
            && self.scopes.as_ref().is_none_or(|own| own.iter().any(|one| !scopes.contains(one)))
        {
            let own = self.scopes.take().unwrap_or_else(|| scopes.clone());
            self.scopes = Some(own.into_iter().filter(|one| scopes.contains(one)).collect());
            changes.push("it has fewer scopes".into());
        }
        let networks = &present.networks;
        let is_inside = |own: &ipnet::IpNet| networks.iter().any(|one| one.contains(own));
        if !networks.is_empty()
            && (self.networks.is_empty() || !self.networks.iter().all(is_inside))
        {
            self.networks.clone_from(networks);
            changes.push("it is bound to other networks".into());
        }
        if present.application.is_some() && self.application != present.application {
            self.application.clone_from(&present.application);
            changes.push("it is bound to an application".into());
        }
        if self.universal && !present.universal {
            self.universal = false;
            changes.push("it is no longer universal".into());
        }
        narrow_rate(&mut self.rate_limit, present.rate_limit, &mut changes);
        narrow_credits(&mut self.credits, present.credits, &mut changes);
        changes
    }
}

impl Narrow for User {
    const KIND: &'static str = "user";
    const TABLE: Table = Table::Users;

    fn id(&self) -> String {
        self.uid.to_string()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    /// A deleted user matters even if blocked: a name and a mail address would come back.
    fn is_alive(&self, _: Timestamp) -> bool {
        true
    }

    fn is_other(&self, present: &Self) -> bool {
        self.uuid != present.uuid
    }

    fn narrow(&mut self, present: &Self, _: Timestamp) -> Vec<String> {
        let mut changes = Vec::new();
        if self.status && !present.status {
            self.status = false;
            changes.push("the user was blocked".into());
        }
        let lost = self.roles.iter().filter(|role| !present.roles.contains(role));
        let lost: Vec<&str> = lost.map(String::as_str).collect();
        if !lost.is_empty() {
            changes.push(format!("the user lost the roles {}", lost.join(", ")));
            self.roles.retain(|role| present.roles.contains(role));
        }
        if self.password.is_some() && self.password != present.password {
            let verb = if present.password.is_some() { "changed" } else { "removed" };
            changes.push(format!("the password was {verb}"));
            self.password.clone_from(&present.password);
        }
        let differs =
            |(name, value): &(&String, &String)| present.attributes.get(*name) != Some(value);
        let changed: Vec<String> =
            self.attributes.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        for name in changed {
            changes.push(format!("the attribute {name} was changed"));
            match present.attributes.get(&name) {
                Some(value) => self.attributes.insert(name, value.clone()),
                None => self.attributes.remove(&name),
            };
        }
        narrow_rate(&mut self.rate_limit, present.rate_limit, &mut changes);
        narrow_credits(&mut self.credits, present.credits, &mut changes);
        changes
    }
}

impl Narrow for Role {
    const KIND: &'static str = "role";
    const TABLE: Table = Table::Roles;

    fn id(&self) -> String {
        self.id.clone()
    }

    fn name(&self) -> String {
        self.label.clone()
    }

    fn is_alive(&self, _: Timestamp) -> bool {
        self.is_admin || !self.permissions.is_empty()
    }

    fn narrow(&mut self, present: &Self, _: Timestamp) -> Vec<String> {
        let mut changes = Vec::new();
        if present.is_admin {
            return changes;
        }
        if self.is_admin {
            self.is_admin = false;
            changes.push("it is no longer an administrator's role".into());
        }
        let lost = self.permissions.difference(&present.permissions);
        let lost: Vec<&str> = lost.map(String::as_str).collect();
        if !lost.is_empty() {
            changes.push(format!("it lost the permissions {}", lost.join(", ")));
            self.permissions.retain(|permission| present.permissions.contains(permission));
        }
        changes
    }
}

impl Narrow for Application {
    const KIND: &'static str = "application";
    const TABLE: Table = Table::Applications;

    fn id(&self) -> String {
        self.id.clone()
    }

    fn name(&self) -> String {
        self.name.clone()
    }

    fn is_alive(&self, _: Timestamp) -> bool {
        self.enabled
    }

    fn narrow(&mut self, present: &Self, _: Timestamp) -> Vec<String> {
        let mut changes = Vec::new();
        if self.enabled && !present.enabled {
            self.enabled = false;
            changes.push("it was disabled".into());
        }
        if self.universal_administrators && !present.universal_administrators {
            self.universal_administrators = false;
            changes.push("its universal keys no longer act as administrators".into());
        }
        if self.key_source == KeySource::Universal && present.key_source != KeySource::Universal {
            self.key_source = present.key_source;
            changes.push("it no longer accepts universal keys".into());
        }
        if self.auth_type != present.auth_type {
            changes.push(format!("its type was changed to {}", present.auth_type.name()));
            self.auth_type.clone_from(&present.auth_type);
            self.header.clone_from(&present.header);
        }
        narrow_rate(&mut self.rate_limit, present.rate_limit, &mut changes);
        changes
    }
}

impl Narrow for Resource {
    const KIND: &'static str = "resource";
    const TABLE: Table = Table::Resources;

    fn id(&self) -> String {
        self.id.clone()
    }

    fn name(&self) -> String {
        self.path.clone().unwrap_or_else(|| self.handler.name().into_owned())
    }

    fn is_alive(&self, _: Timestamp) -> bool {
        self.enabled
    }

    fn narrow(&mut self, present: &Self, _: Timestamp) -> Vec<String> {
        let mut changes = Vec::new();
        if !self.enabled {
            return changes;
        }
        if !present.enabled {
            self.enabled = false;
            changes.push("it was disabled".into());
            return changes;
        }
        if self.path != present.path || self.host != present.host {
            self.path.clone_from(&present.path);
            self.host.clone_from(&present.host);
            changes.push("its path or host was changed".into());
        }
        let path_options = self.path_options.narrowed_to(present.path_options);
        if self.path_options != path_options {
            self.path_options = path_options;
            changes.push("it refuses ambiguous paths".into());
        }
        if self.permission != present.permission {
            self.permission = present.permission;
            changes.push("the source of its permissions was changed".into());
        }
        if let Some(rules) = narrower_rules(&self.rules, &present.rules) {
            // Without a method there is no route. A record must list at least one.
            if rules.is_empty() {
                self.enabled = false;
            } else {
                self.rules = Rules::Method { methods: rules };
            }
            changes.push("its methods, applications or permissions are stricter".into());
        }
        narrow_rate(&mut self.rate_limit, present.rate_limit, &mut changes);
        changes
    }
}

/// The methods and applications that both rules allow, with the permissions that either requires.
/// `None` means that the own rules are no wider.
fn narrower_rules(own: &Rules, present: &Rules) -> Option<BTreeMap<String, MethodRules>> {
    let mut narrowed = BTreeMap::new();
    let mut is_wider = false;
    let mut methods = own.methods();
    methods.extend(present.methods());
    for method in methods {
        let Some(own) = own.of(method) else { continue };
        let mut rules = own.clone();
        match present.of(method) {
            Some(present) => {
                rules.authentication = both_allow(&own.authentication, &present.authentication);
                rules.permissions.extend(present.permissions);
            }
            None => rules.authentication.clear(),
        }
        is_wider |= rules != own;
        if !rules.authentication.is_empty() {
            narrowed.insert(method.to_owned(), rules);
        }
    }
    is_wider.then_some(narrowed)
}

fn both_allow(own: &BTreeSet<String>, present: &BTreeSet<String>) -> BTreeSet<String> {
    let allows = |set: &BTreeSet<String>, id: &String| {
        set.contains(id) || (id != NO_CREDENTIAL && set.contains(EVERY_APPLICATION))
    };
    own.union(present).filter(|id| allows(own, id) && allows(present, id)).cloned().collect()
}

fn narrow_rate(own: &mut Option<RateLimit>, present: Option<RateLimit>, changes: &mut Vec<String>) {
    if let Some(present) = present
        && own.is_none_or(|own| !own.is_within(present))
    {
        *own = Some(present);
        changes.push(format!("its rate limit is {present}"));
    }
}

fn narrow_credits(own: &mut Option<Credits>, present: Option<Credits>, changes: &mut Vec<String>) {
    if let Some(present) = present
        && own.is_none_or(|own| !own.is_within(present))
    {
        *own = Some(present);
        changes.push(format!("its credits are {present}"));
    }
}
