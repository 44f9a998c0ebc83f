//! Who may see and set what of an account.
//!
//! The rules are those of Drupal's `UserAccessControlHandler`, and one more: only an administrator touches an administrator. There, whoever
//! has `administer users` can make itself an administrator.

use ::http::StatusCode;

use super::field::Field;
use crate::{
    directory::RoleTable,
    model::User,
    pipeline::{Denial, Identity, Phase},
};

const ADMINISTER: &str = "administer users";

/// How somebody stands to one account.
#[derive(Clone, Copy)]
pub(super) struct Standing<'a> {
    identity: &'a Identity<'a>,
    administers: bool,
    owns: bool,
}

/// Whether a field may be set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Setting {
    Allowed,
    /// With the reason, for the operator's log.
    Refused(&'static str),
}

/// What somebody sees of an account that may be looked at. Nothing else about them matters for what is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Administrator,
    Owner,
    MailReader,
    Other,
}

impl Sight {
    /// Whether a field is shown. One's own mail address and preferences are.
    pub(super) fn shows(self, field: Field) -> bool {
        match field {
            Field::Pass => false,
            _ if self == Self::Administrator => true,
            Field::PreferredLangcode | Field::PreferredAdminLangcode | Field::Timezone => {
                self == Self::Owner
            }
            Field::Mail => self != Self::Other,
            Field::Status | Field::Access | Field::Login | Field::Init | Field::Roles => false,
            Field::Uid
            | Field::Uuid
            | Field::Langcode
            | Field::Name
            | Field::Created
            | Field::Changed
            | Field::DefaultLangcode => true,
        }
    }
}

impl<'a> Standing<'a> {
    /// Number 0 is the person at the machine, or an account that is not written yet: nobody's own.
    pub(super) fn of(identity: &'a Identity<'a>, account: &User) -> Self {
        let owns = account.uid != 0 && identity.uid() == Some(account.uid);
        Self { identity, administers: identity.has(ADMINISTER), owns }
    }

    pub(super) fn administers(&self) -> bool {
        self.administers
    }

    pub(super) fn owns(&self) -> bool {
        self.owns
    }

    /// One's own account can be seen at all times. Without the permission nobody is told whether an account is blocked.
    pub(super) fn may_view(&self, account: &User) -> Result<(), Denial> {
        if self.administers || self.owns {
            return Ok(());
        }
        if !self.identity.has("access user profiles") {
            return Err(forbidden("The 'access user profiles' permission is required."));
        }
        match account.status {
            true => Ok(()),
            false => Err(forbidden(
                "The 'access user profiles' permission is required and the user must be active.",
            )),
        }
    }

    pub(super) fn may_update(&self) -> Result<(), Denial> {
        if self.administers || self.owns {
            return Ok(());
        }
        Err(forbidden(
            "Users can only update their own account, unless they have the 'administer users' permission.",
        ))
    }

    pub(super) fn may_delete(&self, account: &User, roles: &RoleTable) -> Result<(), Denial> {
        let required = || forbidden("The 'cancel account' permission is required.");
        if !self.administers {
            if !self.identity.has("cancel account") {
                return Err(required());
            }
            if !self.owns {
                return Err(required().with_detail("it is for one's own account alone"));
            }
        }
        if is_administrator(account, roles) && !self.identity.is_admin() {
            return Err(forbidden("An administrator can be deleted by an administrator alone."));
        }
        Ok(())
    }

    /// What is shown of the account.
    pub(super) fn sight(&self) -> Sight {
        match self {
            Self { administers: true, .. } => Sight::Administrator,
            Self { owns: true, .. } => Sight::Owner,
            _ if self.identity.has("view user email addresses") => Sight::MailReader,
            _ => Sight::Other,
        }
    }

    /// Whether a field of a new account may be given. Whoever asks may make accounts.
    pub(super) fn creating(&self, field: Field) -> Setting {
        match field {
            Field::Uid | Field::Uuid | Field::Changed | Field::DefaultLangcode => SERVERS_OWN,
            Field::Pass if self.identity.is_bound() => BEYOND_KEY,
            _ => Setting::Allowed,
        }
    }

    /// Whether a field of an account that is there may be changed. Whoever asks may update it.
    pub(super) fn updating(&self, field: Field, account: &User, roles: &RoleTable) -> Setting {
        let decides_who_gets_in =
            [Field::Name, Field::Pass, Field::Mail, Field::Status, Field::Roles].contains(&field);
        if decides_who_gets_in && is_administrator(account, roles) && !self.identity.is_admin() {
            return Setting::Refused("only an administrator can change that of an administrator");
        }
        match field {
            Field::Uid | Field::Uuid | Field::Changed | Field::DefaultLangcode => SERVERS_OWN,
            Field::Pass if !self.owns && self.identity.is_bound() => BEYOND_KEY,
            Field::Pass if self.identity.is_by_universal_key() => BEYOND_KEY,
            _ if self.administers => Setting::Allowed,
            Field::Name if self.identity.has("change own username") => Setting::Allowed,
            Field::Name => Setting::Refused("the permission 'change own username' is missing"),
            Field::Pass
            | Field::Mail
            | Field::Langcode
            | Field::PreferredLangcode
            | Field::PreferredAdminLangcode
            | Field::Timezone => Setting::Allowed,
            Field::Status
            | Field::Created
            | Field::Access
            | Field::Login
            | Field::Init
            | Field::Roles => Setting::Refused("the permission 'administer users' is missing"),
        }
    }

    /// Whether an account may be given these roles.
    pub(super) fn giving<'r>(
        &self,
        ids: impl Iterator<Item = &'r str>,
        account: &User,
        roles: &RoleTable,
    ) -> Setting {
        for role in ids.filter_map(|id| roles.role(id)) {
            if role.is_admin && !self.identity.is_admin() {
                return Setting::Refused("only an administrator can make an administrator");
            }
            if !account.roles.contains(&role.id) && !self.identity.may_hand_on(role) {
                return BEYOND_SCOPES;
            }
        }
        Setting::Allowed
    }
}

const SERVERS_OWN: Setting = Setting::Refused("the server sets it");
/// A role that holds more than the key's scopes would be a way out of them.
const BEYOND_SCOPES: Setting = Setting::Refused("it is beyond the scopes of the key");
/// Somebody with a new password would be a way out of what the key is bound to that made it so.
const BEYOND_KEY: Setting = Setting::Refused("it is beyond what the key is bound to");

/// Whether somebody may make accounts.
pub(super) fn may_create(identity: &Identity<'_>) -> Result<(), Denial> {
    match identity.has(ADMINISTER) {
        true => Ok(()),
        false => Err(forbidden("The 'administer users' permission is required.")),
    }
}

fn is_administrator(account: &User, roles: &RoleTable) -> bool {
    roles.has_administrators(&account.roles)
}

pub(super) fn forbidden(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::message(Phase::Handler, StatusCode::FORBIDDEN, "ACCESS_DENIED", message)
}
