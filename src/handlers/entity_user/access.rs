//! Access control for the accounts and fields that a user may see and change.
//!
//! The rules are the rules of Drupal's `UserAccessControlHandler` and one additional rule: only an
//! administrator may change or delete an administrator. In Drupal, a user with `administer users`
//! can become an administrator.

use ::http::{Method, StatusCode};

use super::field::UserField;
use crate::{
    directory::RoleTable,
    model::User,
    pipeline::{Denial, Identity, Phase},
};

const ADMINISTER: &str = "administer users";
const VIEW: &str = "access user profiles";

/// The rights of an identity on one account.
#[derive(Clone, Copy)]
pub(super) struct AccountAccess<'a> {
    identity: &'a Identity<'a>,
    is_user_admin: bool,
    is_owner: bool,
}

/// Whether a field may be set.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum FieldAccess {
    Allowed,
    /// The field must not be set. The text is the reason, for the operator's log.
    Refused(&'static str),
}

impl FieldAccess {
    /// Returns this result if this result is a refusal, and otherwise the result of `next`.
    pub(super) fn and(self, next: impl FnOnce() -> Self) -> Self {
        if self == Self::Allowed { next() } else { self }
    }
}

/// The set of visible fields of an account. The JSON of an account depends only on the account and
/// on this set, so there is one cached JSON for each variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Visibility {
    Administrator,
    Owner,
    MailReader,
    Other,
}

impl Visibility {
    /// Whether a field is visible. Owners see their own mail address and preferences.
    pub(super) fn shows(self, field: UserField) -> bool {
        match field {
            UserField::Pass => false,
            _ if self == Self::Administrator => true,
            UserField::PreferredLangcode
            | UserField::PreferredAdminLangcode
            | UserField::Timezone => self == Self::Owner,
            UserField::Mail => self != Self::Other,
            UserField::Custom(_) => self == Self::Owner,
            UserField::Status
            | UserField::Access
            | UserField::Login
            | UserField::Init
            | UserField::Roles => false,
            UserField::Uid
            | UserField::Uuid
            | UserField::Langcode
            | UserField::Name
            | UserField::Created
            | UserField::Changed
            | UserField::DefaultLangcode => true,
        }
    }
}

impl<'a> AccountAccess<'a> {
    /// An account with number 0 has no owner: 0 is the operator, or an account that is not created
    /// yet.
    pub(super) fn new(identity: &'a Identity<'a>, account: &User) -> Self {
        let is_owner = account.uid != 0 && identity.uid() == Some(account.uid);
        Self { identity, is_user_admin: identity.has(ADMINISTER), is_owner }
    }

    /// Whether the user has `administer users`.
    pub(super) fn is_user_admin(&self) -> bool {
        self.is_user_admin
    }

    /// Whether the account is the user's own.
    pub(super) fn is_owner(&self) -> bool {
        self.is_owner
    }

    /// Checks whether the user may see an account. Users can always see their own account. A user
    /// without the permission gets the same response for active and blocked accounts.
    pub(super) fn may_view(&self, account: &User) -> Result<(), Denial> {
        if self.is_user_admin || self.is_owner {
            return Ok(());
        }
        if !self.identity.has(VIEW) {
            return Err(view_required());
        }
        if account.status {
            Ok(())
        } else {
            Err(forbidden(
                "The 'access user profiles' permission is required and the user must be active.",
            ))
        }
    }

    pub(super) fn may_update(&self) -> Result<(), Denial> {
        if self.is_user_admin || self.is_owner {
            return Ok(());
        }
        Err(forbidden(
            "Users can only update their own account, unless they have the 'administer users' permission.",
        ))
    }

    pub(super) fn may_delete(&self, may_change_account: bool) -> Result<(), Denial> {
        let required = || forbidden("The 'cancel account' permission is required.");
        if !self.is_user_admin {
            if !self.identity.has("cancel account") {
                return Err(required());
            }
            if !self.is_owner {
                return Err(required()
                    .with_internal_message("'cancel account' covers the user's own account only"));
            }
        }
        if !may_change_account {
            return Err(forbidden("Only an administrator can delete an administrator."));
        }
        Ok(())
    }

    /// The visible fields of the account.
    pub(super) fn visibility(&self) -> Visibility {
        match self {
            Self { is_user_admin: true, .. } => Visibility::Administrator,
            Self { is_owner: true, .. } => Visibility::Owner,
            _ if self.identity.has("view user email addresses") => Visibility::MailReader,
            _ => Visibility::Other,
        }
    }

    /// Whether a field of a new account may be set by a user who may create accounts.
    pub(super) fn on_create(&self, field: UserField) -> FieldAccess {
        match field {
            UserField::Uid | UserField::Uuid | UserField::Changed | UserField::DefaultLangcode => {
                SET_BY_SERVER
            }
            UserField::Pass if self.identity.is_restricted() => BEYOND_KEY,
            _ => FieldAccess::Allowed,
        }
    }

    /// Whether a field of an existing account may be changed by a user who may update the account.
    /// `may_change_account` is the result of the rules about administrators, which the accounts
    /// have for all faces.
    pub(super) fn on_update(&self, field: UserField, may_change_account: bool) -> FieldAccess {
        if !may_change_account {
            return FieldAccess::Refused("only an administrator may change an administrator");
        }
        match field {
            UserField::Uid | UserField::Uuid | UserField::Changed | UserField::DefaultLangcode => {
                SET_BY_SERVER
            }
            UserField::Pass if !self.is_owner && self.identity.is_restricted() => BEYOND_KEY,
            UserField::Pass if self.identity.uses_universal_key() => BEYOND_KEY,
            _ if self.is_user_admin => FieldAccess::Allowed,
            UserField::Name if self.identity.has("change own username") => FieldAccess::Allowed,
            UserField::Name => {
                FieldAccess::Refused("the permission 'change own username' is missing")
            }
            UserField::Pass
            | UserField::Mail
            | UserField::Langcode
            | UserField::PreferredLangcode
            | UserField::PreferredAdminLangcode
            | UserField::Timezone => FieldAccess::Allowed,
            UserField::Custom(field) if field.is_own => FieldAccess::Allowed,
            UserField::Custom(_)
            | UserField::Status
            | UserField::Created
            | UserField::Access
            | UserField::Login
            | UserField::Init
            | UserField::Roles => {
                FieldAccess::Refused("the permission 'administer users' is missing")
            }
        }
    }

    /// Whether an account may be given these roles.
    pub(super) fn on_grant<'r>(
        &self,
        ids: impl Iterator<Item = &'r str>,
        account: &User,
        roles: &RoleTable,
    ) -> FieldAccess {
        for role in ids.filter_map(|id| roles.role(id)) {
            if role.is_admin && !self.identity.is_admin() {
                return FieldAccess::Refused("only an administrator may create an administrator");
            }
            if !account.roles.contains(&role.id) && !self.identity.may_grant(role) {
                return BEYOND_SCOPES;
            }
        }
        FieldAccess::Allowed
    }
}

const SET_BY_SERVER: FieldAccess = FieldAccess::Refused("the server sets this field");
/// A role with more permissions than the key's scopes would be a way around the scopes.
const BEYOND_SCOPES: FieldAccess =
    FieldAccess::Refused("the role has permissions beyond the key's scopes");
/// A new password would be a way around the restrictions of the key.
const BEYOND_KEY: FieldAccess = FieldAccess::Refused("a restricted key may not set this password");

/// Whether the user may create accounts.
pub(super) fn may_create(identity: &Identity<'_>) -> Result<(), Denial> {
    if identity.has(ADMINISTER) {
        Ok(())
    } else {
        Err(forbidden("The 'administer users' permission is required."))
    }
}

/// Whether an identity may access the accounts of others at all, with this method.
///
/// # Errors
/// The denial that the identity gets for every account of others that exists.
pub(super) fn of_others(identity: &Identity<'_>, method: &Method) -> Result<(), Denial> {
    let is_user_admin = identity.has(ADMINISTER);
    let access = AccountAccess { identity, is_user_admin, is_owner: false };
    match *method {
        Method::PATCH => access.may_update(),
        Method::DELETE => access.may_delete(true),
        _ if is_user_admin || identity.has(VIEW) => Ok(()),
        _ => Err(view_required()),
    }
}

fn view_required() -> Denial {
    forbidden("The 'access user profiles' permission is required.")
}

pub(super) fn forbidden(message: impl Into<std::borrow::Cow<'static, str>>) -> Denial {
    Denial::message(Phase::Handler, StatusCode::FORBIDDEN, "ACCESS_DENIED", message)
}
