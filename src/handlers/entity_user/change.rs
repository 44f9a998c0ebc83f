//! Applies a request to a user record: checks which fields change, whether the user may set them,
//! and whether the resulting record is valid.

use ::http::StatusCode;

use super::{
    access::{AccountAccess, FieldAccess, forbidden},
    field::UserField,
    fields::Fields,
    record::{equals, write},
    validation::{self, FieldError},
    value::FieldValue,
};
use crate::{
    accounts::{AccountError, Writer, password_problem},
    directory::RoleTable,
    model::{PasswordDigest, Secret, User, mail_problem},
    pipeline::{Denial, Identity, Phase, script_denial},
};

/// The fields of a request, with the digests of the passwords in the request.
pub(super) struct EntityChange<'a> {
    pub accounts: &'a Writer,
    pub identity: &'a Identity<'a>,
    pub fields: &'a Fields,
    /// The stored digest that the current password in the request matched.
    pub verified_digest: Option<PasswordDigest>,
    /// The digest of the new password.
    pub new_digest: Option<PasswordDigest>,
}

/// The reason why a change was not applied.
pub(super) enum ChangeError {
    /// This handler refused the change.
    Denied(Denial),
    /// [`Accounts`] refused the change.
    Account(AccountError),
}

impl From<AccountError> for ChangeError {
    fn from(error: AccountError) -> Self {
        Self::Account(error)
    }
}

impl From<Denial> for ChangeError {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

/// The fields that a request changes.
type ChangedFields<'a> = Vec<(UserField, &'a FieldValue)>;

impl<'a> EntityChange<'a> {
    pub(super) fn new(
        accounts: &'a Writer,
        identity: &'a Identity<'a>,
        fields: &'a Fields,
    ) -> Self {
        Self { accounts, identity, fields, verified_digest: None, new_digest: None }
    }

    /// Writes the fields into the draft of a new account.
    pub(super) fn create(&self, draft: &mut User) -> Result<(), ChangeError> {
        let access = AccountAccess::new(self.identity, draft);
        let policy = self.accounts.directory().policy();
        let mut changed = ChangedFields::new();
        for (field, value) in self.fields {
            // Some clients send the whole entity back. In an entity, this field is always true.
            if *field == UserField::DefaultLangcode && matches!(value, FieldValue::Flag(true)) {
                continue;
            }
            let field_access = access
                .on_create(*field)
                .and(|| check_granted_roles(&access, value, draft, &policy.roles));
            if let FieldAccess::Refused(reason) = field_access {
                return Err(field_denied("creating", *field, reason).into());
            }
            changed.push((*field, value));
        }
        let mut errors = invalid_values(&changed);
        // `init` becomes the first mail address, unless the request sets `init`. After the sort,
        // `mail` comes before `init`.
        changed.sort_by_key(|(field, _)| *field);
        for (field, value) in &changed {
            write(draft, *field, value);
            if *field == UserField::Mail {
                draft.init = draft.mail.clone();
            }
        }
        errors.extend(missing_mail(&access, None, draft));
        self.ensure_valid(draft, None, errors, Vec::new())
    }

    /// Writes the fields into an existing account. Unchanged fields are ignored.
    pub(super) fn update(&self, account: &mut User) -> Result<(), ChangeError> {
        let access = AccountAccess::new(self.identity, account);
        access.may_update()?;
        let changed = self.changed_fields(account)?;
        let mut errors = invalid_values(&changed);
        let before = account.clone();
        for (field, value) in &changed {
            write(account, *field, value);
            match field {
                UserField::Mail if !matches!(value, FieldValue::Invalid(_)) => {
                    errors.extend(missing_mail(&access, Some(&before), account));
                }
                UserField::Created if matches!(value, FieldValue::Empty) => {
                    let message = "This value should not be null.";
                    errors.push(FieldError::of(UserField::Created, message));
                }
                _ => {}
            }
        }
        if changes_password(&changed)
            && let Some(digest) = &self.new_digest
        {
            account.password = Some(digest.clone());
        }
        let needs_password = access.is_owner() && !self.has_verified_password(&before);
        let unproved = password_protected(&changed).filter(|_| needs_password);
        let password_errors = unproved.map(FieldError::password_required).collect();
        self.ensure_valid(account, Some(&before), errors, password_errors)
    }

    /// The current password in the request. `None` means that the change needs no password, or that
    /// the request contains none.
    pub(super) fn password_to_verify(&self, account: &User) -> Result<Option<&'a Secret>, Denial> {
        if !AccountAccess::new(self.identity, account).is_owner() {
            return Ok(None);
        }
        let changed = self.changed_fields(account)?;
        let is_needed = password_protected(&changed).next().is_some();
        Ok(self.password_field().and_then(|(_, existing)| existing).filter(|_| is_needed))
    }

    /// The new password in the request.
    pub(super) fn new_password(&self) -> Option<&'a Secret> {
        self.password_field().and_then(|(new, _)| new)
    }

    fn password_field(&self) -> Option<(Option<&'a Secret>, Option<&'a Secret>)> {
        self.fields.iter().find_map(|(_, value)| match value {
            FieldValue::Password { new, existing } => Some((new.as_ref(), existing.as_ref())),
            _ => None,
        })
    }

    /// The fields that the request changes, after a check that the user may change them.
    ///
    /// A field that the user cannot see counts as changed even if its value stays the same.
    /// Otherwise the user could find out the value by guessing.
    fn changed_fields(&self, account: &User) -> Result<ChangedFields<'a>, Denial> {
        let access = AccountAccess::new(self.identity, account);
        let policy = self.accounts.directory().policy();
        let may_change = self.accounts.require_change_of(account).is_ok();
        let mut changed = ChangedFields::new();
        for (field, value) in self.fields {
            let is_visible = access.visibility().shows(*field);
            if is_password_proof(value) || is_visible && equals(account, *field, value) {
                continue;
            }
            let field_access = access
                .on_update(*field, may_change)
                .and(|| check_granted_roles(&access, value, account, &policy.roles));
            if let FieldAccess::Refused(reason) = field_access {
                return Err(field_denied("updating", *field, reason));
            }
            changed.push((*field, value));
        }
        Ok(changed)
    }

    /// Whether the password that was verified is still the password of the record. Another request
    /// may have changed the record's password after the verification.
    fn has_verified_password(&self, account: &User) -> bool {
        self.verified_digest.is_some() && self.verified_digest == account.password
    }

    /// Reports all errors at once, including violations of the rules for user records.
    fn ensure_valid(
        &self,
        account: &User,
        before: Option<&User>,
        mut errors: Vec<FieldError>,
        password_errors: Vec<FieldError>,
    ) -> Result<(), ChangeError> {
        let positions = self.role_positions();
        // A field with an invalid value keeps its old value in the record. Violations by the old
        // value are not reported, because the client did not send that value.
        let invalid_fields: Vec<UserField> = errors.iter().map(FieldError::field).collect();
        let violations = self.accounts.user_violations(account)?;
        let password = self.new_password().and_then(password_problem);
        let found = violations.iter().chain(&password);
        let found = found.filter_map(|violation| FieldError::translate(violation, &positions));
        errors.extend(found.filter(|error| !invalid_fields.contains(&error.field())));
        let old_init = before.and_then(|before| before.init.as_ref());
        if account.init.as_ref() != old_init
            && account.init != account.mail
            && let Some(message) = account.init.as_deref().and_then(mail_problem)
        {
            errors.push(FieldError::at(UserField::Init, "0.value", message));
        }
        errors.extend(password_errors);
        if errors.is_empty() { Ok(()) } else { Err(validation::invalid(errors).into()) }
    }

    /// The position of each role in the request.
    fn role_positions(&self) -> Vec<usize> {
        let roles = self.fields.iter().find_map(|(_, value)| match value {
            FieldValue::Roles(ids) => Some(ids.iter().map(|(position, _)| *position).collect()),
            _ => None,
        });
        roles.unwrap_or_default()
    }

    /// The denial for an error. Each violation becomes a field error of the response.
    pub(super) fn denial(&self, error: ChangeError) -> Denial {
        match error {
            ChangeError::Denied(denial) => denial,
            ChangeError::Account(AccountError::Invalid(violations)) => {
                let positions = self.role_positions();
                let errors = violations
                    .iter()
                    .filter_map(|violation| FieldError::translate(violation, &positions));
                validation::invalid(errors.collect())
            }
            ChangeError::Account(error) => account_denial(error),
        }
    }
}

/// Whether a value only proves that the user knows the current password. Such a value does not
/// change the password field.
fn is_password_proof(value: &FieldValue) -> bool {
    matches!(value, FieldValue::Password { new: None, .. })
}

fn changes_password(changed: &ChangedFields<'_>) -> bool {
    changed.iter().any(|(_, value)| matches!(value, FieldValue::Password { new: Some(_), .. }))
}

/// The changed fields for which owners must prove that they know their current password.
fn password_protected(changed: &ChangedFields<'_>) -> impl Iterator<Item = UserField> {
    let fields = [UserField::Mail, UserField::Pass];
    fields.into_iter().filter(|field| changed.iter().any(|(changed, _)| changed == field))
}

fn invalid_values(changed: &ChangedFields<'_>) -> Vec<FieldError> {
    let errors = changed.iter().map(|(_, value)| match value {
        FieldValue::Invalid(errors) => errors.as_slice(),
        _ => &[],
    });
    errors.flatten().cloned().collect()
}

/// The error for a missing mail address. A new account needs a mail address, unless the user has
/// `administer users`. The same rule applies when a user sets the mail field of an account that has
/// no mail address. Nobody may remove a mail address.
fn missing_mail(
    access: &AccountAccess<'_>,
    before: Option<&User>,
    after: &User,
) -> Option<FieldError> {
    let had_mail = before.is_some_and(|before| before.mail.is_some());
    let is_required = had_mail || !access.is_user_admin();
    (is_required && after.mail.is_none())
        .then(|| FieldError::of(UserField::Mail, "Email field is required."))
}

/// Whether the user may grant the roles in a value. The values of other fields are always allowed.
fn check_granted_roles(
    access: &AccountAccess<'_>,
    value: &FieldValue,
    account: &User,
    roles: &RoleTable,
) -> FieldAccess {
    match value {
        FieldValue::Roles(ids) => {
            access.on_grant(ids.iter().map(|(_, id)| id.as_str()), account, roles)
        }
        _ => FieldAccess::Allowed,
    }
}

fn field_denied(operation: &str, field: UserField, reason: &'static str) -> Denial {
    forbidden(format!("Access denied on {operation} field '{}'.", field.name()))
        .with_internal_message(reason)
}

/// The denial for an error that does not concern a field of the request.
pub(super) fn account_denial(error: AccountError) -> Denial {
    let unavailable = |code, message: &'static str| {
        Denial::message(Phase::Handler, StatusCode::SERVICE_UNAVAILABLE, code, message)
            .with_retry_after(1)
    };
    let text = error.to_string();
    match error {
        AccountError::Refused { .. } | AccountError::AdminOnly | AccountError::Forbidden { .. } => {
            forbidden(text)
        }
        AccountError::Invalid(_) => validation::unprocessable(text),
        AccountError::NotFound { .. } => {
            let message = "Another request has deleted the user.";
            Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "ENTITY_NOT_FOUND", message)
        }
        AccountError::Stale { .. } => {
            let message = "Another request has changed the user. Try again.";
            Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", message)
        }
        AccountError::Script(fault) => script_denial(fault),
        AccountError::Busy => unavailable(
            "TEMPORARILY_UNAVAILABLE",
            "Too many passwords are being checked. Try again in a moment.",
        ),
        AccountError::Store(_) | AccountError::AuditTrail(_) => {
            unavailable("STORE_UNAVAILABLE", "The users cannot be read or written at the moment.")
                .with_internal_message(text)
        }
    }
}
