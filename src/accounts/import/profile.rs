//! The fields of an imported user beside the name and the password digest.

use std::collections::BTreeMap;

use serde::Serialize;
use uuid::Uuid;

use crate::{
    accounts::NewUser,
    model::{Timestamp, User},
};

/// The largest uid. Some programs cannot read larger numbers in JSON (RFC 8259, section 6).
pub(super) const MAX_UID: u64 = (1 << 52) - 1;

/// The fields of an imported user. `None` means the default for a new user, and no change for a
/// user who exists.
#[derive(Debug, Clone, Default)]
pub struct UserProfile {
    /// The uid. If another user has it, the user gets a new one.
    pub uid: Option<u64>,
    /// The UUID.
    pub uuid: Option<Uuid>,
    /// Whether the user is active.
    pub active: Option<bool>,
    /// The mail address.
    pub mail: Option<String>,
    /// The first mail address.
    pub init: Option<String>,
    /// The ids of roles.
    pub roles: Vec<String>,
    /// The time of creation.
    pub created: Option<Timestamp>,
    /// The time of the last access.
    pub access: Option<Timestamp>,
    /// The time of the last login.
    pub login: Option<Timestamp>,
    /// The language of the record.
    pub langcode: Option<String>,
    /// The language that the user reads.
    pub preferred_langcode: Option<String>,
    /// The language of administration pages for the user.
    pub preferred_admin_langcode: Option<String>,
    /// The time zone.
    pub timezone: Option<String>,
    /// Attributes that scripts can read.
    pub attributes: BTreeMap<String, String>,
}

/// The treatment of users who exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExistingUsers {
    /// A user without a password gets the password. Nothing else changes.
    AddPassword,
    /// The users stay as they are.
    Keep,
    /// The users get the fields of the row. A user who has a password keeps it.
    Update,
}

/// A user who could not keep the uid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MovedUser {
    /// The line number of the user.
    pub line: u64,
    /// The uid in the file.
    pub from: u64,
    /// The new uid. `None` in a dry run.
    pub to: Option<u64>,
}

impl UserProfile {
    /// The fields of a new user.
    pub(super) fn new_user(&self, name: &str) -> NewUser {
        NewUser {
            name: name.to_owned(),
            mail: self.mail.clone(),
            status: self.active.unwrap_or(true),
            roles: self.roles.clone(),
            langcode: self.langcode.clone(),
            preferred_langcode: self.preferred_langcode.clone(),
            preferred_admin_langcode: self.preferred_admin_langcode.clone(),
            timezone: self.timezone.clone(),
            created: self.created,
            attributes: self.attributes.clone(),
            ..NewUser::default()
        }
    }

    /// Sets the fields of a new user that only an import can set.
    pub(super) fn complete(&self, user: &mut User) {
        user.uuid = self.uuid.unwrap_or(user.uuid);
        user.access = self.access.unwrap_or(user.access);
        user.login = self.login.unwrap_or(user.login);
        if self.init.is_some() {
            user.init = self.init.clone();
        }
    }

    /// Sets the fields of an existing user. The uid, the UUID and the times stay.
    pub(super) fn update(&self, user: &mut User) {
        user.status = self.active.unwrap_or(user.status);
        user.langcode = self.langcode.clone().unwrap_or_else(|| user.langcode.clone());
        let texts = [
            (&mut user.mail, &self.mail),
            (&mut user.preferred_langcode, &self.preferred_langcode),
            (&mut user.preferred_admin_langcode, &self.preferred_admin_langcode),
            (&mut user.timezone, &self.timezone),
        ];
        for (field, new) in texts.into_iter().filter(|(_, new)| new.is_some()) {
            field.clone_from(new);
        }
        user.roles.extend(self.roles.iter().cloned());
        user.attributes.extend(self.attributes.clone());
    }

    /// Whether a user is the one of this row, because an earlier import has created the user.
    pub(super) fn is_same(&self, user: &User) -> bool {
        match self.uuid {
            Some(uuid) => uuid == user.uuid,
            None => {
                self.uid == Some(user.uid)
                    && self.created.is_some_and(|created| created == user.created)
            }
        }
    }
}
