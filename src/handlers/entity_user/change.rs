//! What a request does to an account: which of its fields count, whether they may be set, whether they are in order, and the record after.

use ::http::StatusCode;

use super::{
    access::{Setting, Standing, forbidden},
    field::Field,
    fields::{Fields, Value},
    record::{equals, write},
    validation::{self, Fault},
};
use crate::{
    accounts::{AccountError, Accounts, password_problem},
    directory::RoleTable,
    model::{PasswordDigest, Secret, User, mail_problem},
    pipeline::{Denial, Identity, Phase, script_denial},
};

/// A request's fields, and what was made of its passwords.
pub(super) struct Change<'a> {
    pub accounts: &'a Accounts,
    pub identity: &'a Identity<'a>,
    pub fields: &'a Fields,
    /// The digest that the current password in the request was found to match.
    pub proven: Option<PasswordDigest>,
    /// The digest of the new password.
    pub password: Option<PasswordDigest>,
}

/// Why a change was not made.
pub(super) enum Refusal {
    /// It was refused here.
    Denied(Denial),
    /// The accounts refused it.
    Account(AccountError),
}

impl From<AccountError> for Refusal {
    fn from(problem: AccountError) -> Self {
        Self::Account(problem)
    }
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

type Counting<'a> = Vec<(Field, &'a Value)>;

impl<'a> Change<'a> {
    pub(super) fn new(
        accounts: &'a Accounts,
        identity: &'a Identity<'a>,
        fields: &'a Fields,
    ) -> Self {
        Self { accounts, identity, fields, proven: None, password: None }
    }

    /// Makes a draft into the account that the request describes.
    pub(super) fn create(&self, draft: &mut User) -> Result<(), Refusal> {
        let standing = Standing::of(self.identity, draft);
        let policy = self.accounts.directory().policy();
        let mut counting = Counting::new();
        for (field, value) in self.fields {
            // Clients send the whole of an entity: there is but one value that this field can have.
            if *field == Field::DefaultLangcode && matches!(value, Value::Flag(true)) {
                continue;
            }
            let mut setting = standing.creating(*field);
            if setting == Setting::Allowed {
                setting = self.giving(&standing, value, draft, &policy.roles);
            }
            if let Setting::Refused(why) = setting {
                return Err(refused("creating", *field, why).into());
            }
            counting.push((*field, value));
        }
        let mut faults = unfit(&counting);
        // The first mail address, unless the request names another one.
        counting.sort_by_key(|(field, _)| *field);
        for (field, value) in &counting {
            write(draft, *field, value);
            if *field == Field::Mail {
                draft.init = draft.mail.clone();
            }
        }
        faults.extend(mail_is_missing(&standing, None, draft));
        self.in_order(draft, None, faults, Vec::new())
    }

    /// Changes an account as the request says. What is sent as it is already does not count.
    pub(super) fn update(&self, account: &mut User) -> Result<(), Refusal> {
        let standing = Standing::of(self.identity, account);
        standing.may_update()?;
        let counting = self.counting(account)?;
        let mut faults = unfit(&counting);
        let before = account.clone();
        for (field, value) in &counting {
            write(account, *field, value);
            match field {
                Field::Mail if !matches!(value, Value::Unfit(_)) => {
                    faults.extend(mail_is_missing(&standing, Some(&before), account));
                }
                Field::Created if matches!(value, Value::Empty) => {
                    faults.push(Fault::of(Field::Created, "This value should not be null."));
                }
                _ => {}
            }
        }
        if new_password(&counting).is_some()
            && let Some(digest) = &self.password
        {
            account.password = Some(digest.clone());
        }
        let needs_proof = standing.owns() && !self.is_proven(&before);
        let unproven = guarded(&counting).filter(|_| needs_proof).map(Fault::unproven);
        self.in_order(account, Some(&before), faults, unproven.collect())
    }

    /// The current password that the request must be checked against, where it needs one.
    pub(super) fn claim(&self, account: &User) -> Result<Option<&'a Secret>, Denial> {
        if !Standing::of(self.identity, account).owns() {
            return Ok(None);
        }
        let counting = self.counting(account)?;
        let is_needed = guarded(&counting).next().is_some();
        Ok(self.password_field().and_then(|(_, existing)| existing).filter(|_| is_needed))
    }

    /// The new password that the request brings.
    pub(super) fn new_password(&self) -> Option<&'a Secret> {
        self.password_field().and_then(|(new, _)| new)
    }

    fn password_field(&self) -> Option<(Option<&'a Secret>, Option<&'a Secret>)> {
        self.fields.iter().find_map(|(_, value)| match value {
            Value::Password { new, existing } => Some((new.as_ref(), existing.as_ref())),
            _ => None,
        })
    }

    /// The fields that the request changes, if it may.
    ///
    /// Whether a field is as it was is told only to those who can see it; to others it would be a way to guess its value.
    fn counting(&self, account: &User) -> Result<Counting<'a>, Denial> {
        let standing = Standing::of(self.identity, account);
        let policy = self.accounts.directory().policy();
        let mut counting = Counting::new();
        for (field, value) in self.fields {
            if is_nothing(value) || standing.sight().shows(*field) && equals(account, *field, value)
            {
                continue;
            }
            let mut setting = standing.updating(*field, account, &policy.roles);
            if setting == Setting::Allowed {
                setting = self.giving(&standing, value, account, &policy.roles);
            }
            if let Setting::Refused(why) = setting {
                return Err(refused("updating", *field, why));
            }
            counting.push((*field, value));
        }
        Ok(counting)
    }

    fn giving(
        &self,
        standing: &Standing<'_>,
        value: &Value,
        account: &User,
        roles: &RoleTable,
    ) -> Setting {
        match value {
            Value::Roles(ids) => {
                standing.giving(ids.iter().map(|(_, id)| id.as_str()), account, roles)
            }
            _ => Setting::Allowed,
        }
    }

    /// Whether the current password was given. It is the one that the record has at this moment.
    fn is_proven(&self, account: &User) -> bool {
        self.proven.is_some() && self.proven == account.password
    }

    /// Lists everything that is wrong, the rules about records too.
    fn in_order(
        &self,
        account: &User,
        before: Option<&User>,
        mut faults: Vec<Fault>,
        unproven: Vec<Fault>,
    ) -> Result<(), Refusal> {
        let places = self.places();
        // A field that could not be read kept its value in the record: what is wrong with that is not the client's doing.
        let unread: Vec<Field> = faults.iter().map(Fault::field).collect();
        let problems = self.accounts.user_problems(account)?;
        let password = self.new_password().and_then(password_problem);
        let found = problems.iter().chain(&password);
        let found = found.filter_map(|one| Fault::translate(one, &places));
        faults.extend(found.filter(|fault| !unread.contains(&fault.field())));
        let old_init = before.and_then(|before| before.init.as_ref());
        if account.init.as_ref() != old_init
            && account.init != account.mail
            && let Some(said) = account.init.as_deref().and_then(mail_problem)
        {
            faults.push(Fault::at(Field::Init, "0.value", said));
        }
        faults.extend(unproven);
        if faults.is_empty() { Ok(()) } else { Err(validation::invalid(faults).into()) }
    }

    /// Where in the request each role stands.
    fn places(&self) -> Vec<usize> {
        let roles = self.fields.iter().find_map(|(_, value)| match value {
            Value::Roles(ids) => Some(ids.iter().map(|(at, _)| *at).collect()),
            _ => None,
        });
        roles.unwrap_or_default()
    }

    /// What the accounts refuse, in the terms of the entity.
    pub(super) fn denial(&self, refusal: Refusal) -> Denial {
        match refusal {
            Refusal::Denied(denial) => denial,
            Refusal::Account(AccountError::Invalid(violations)) => {
                let places = self.places();
                let faults = violations.iter().filter_map(|one| Fault::translate(one, &places));
                validation::invalid(faults.collect())
            }
            Refusal::Account(problem) => account_denial(problem),
        }
    }
}

/// A password field without a new password is a proof, and changes nothing.
fn is_nothing(value: &Value) -> bool {
    matches!(value, Value::Password { new: None, .. })
}

fn new_password<'a>(counting: &Counting<'a>) -> Option<&'a Secret> {
    counting.iter().find_map(|(_, value)| match value {
        Value::Password { new, .. } => new.as_ref(),
        _ => None,
    })
}

/// The fields that one's own account gives away only for its current password.
fn guarded(counting: &Counting<'_>) -> impl Iterator<Item = Field> {
    let fields = [Field::Mail, Field::Pass];
    fields.into_iter().filter(|field| counting.iter().any(|(one, _)| one == field))
}

fn unfit(counting: &Counting<'_>) -> Vec<Fault> {
    let faults = counting.iter().map(|(_, value)| match value {
        Value::Unfit(faults) => faults.as_slice(),
        _ => &[],
    });
    faults.flatten().cloned().collect()
}

/// An account without a mail address is for those who administer users to make and to keep.
fn mail_is_missing(standing: &Standing<'_>, before: Option<&User>, after: &User) -> Option<Fault> {
    let had_one = before.is_some_and(|before| before.mail.is_some());
    let is_required = had_one || !standing.administers();
    (is_required && after.mail.is_none())
        .then(|| Fault::of(Field::Mail, "Email field is required."))
}

fn refused(doing: &str, field: Field, why: &'static str) -> Denial {
    forbidden(format!("Access denied on {doing} field '{}'.", field.name())).with_detail(why)
}

/// What the accounts refuse for other reasons than the fields.
pub(super) fn account_denial(problem: AccountError) -> Denial {
    let unavailable = |code, said: &'static str| {
        Denial::message(Phase::Handler, StatusCode::SERVICE_UNAVAILABLE, code, said)
            .with_retry_after(1)
    };
    let detail = problem.to_string();
    match problem {
        AccountError::Refused { .. } => forbidden(detail),
        AccountError::Invalid(_) => validation::unprocessable(detail),
        AccountError::NotFound { .. } => {
            let said = "The user was deleted meanwhile.";
            Denial::message(Phase::Handler, StatusCode::NOT_FOUND, "ENTITY_NOT_FOUND", said)
        }
        AccountError::Stale { .. } => {
            let said = "The user was changed meanwhile. Try again.";
            Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", said)
        }
        AccountError::Script(fault) => script_denial(fault),
        AccountError::Busy => unavailable(
            "TEMPORARILY_UNAVAILABLE",
            "Too many passwords are being checked. Try again in a moment.",
        ),
        AccountError::Store(_) => {
            unavailable("STORE_UNAVAILABLE", "The users cannot be read or written at the moment.")
                .with_detail(detail)
        }
    }
}
