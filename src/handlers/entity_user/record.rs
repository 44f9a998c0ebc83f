//! The fields of the entity in the record of a user: comparing one with what a request says, and writing it.

use super::{field::Field, fields::Value};
use crate::model::{Timestamp, User};

/// Whether a field has this value already.
pub(super) fn equals(account: &User, field: Field, value: &Value) -> bool {
    let text = |held: Option<&str>| match value {
        Value::Empty => held.is_none(),
        Value::Text(text) => held == Some(text),
        _ => false,
    };
    let moment = |held: Timestamp| matches!(value, Value::Moment(at) if *at == held);
    let flag = |held: bool| matches!(value, Value::Flag(flag) if *flag == held);
    match field {
        Field::Uid => matches!(value, Value::Number(uid) if *uid == account.uid),
        Field::Uuid => {
            matches!(value, Value::Text(text) if uuid::Uuid::parse_str(text) == Ok(account.uuid))
        }
        Field::Langcode => text(Some(&account.langcode)),
        Field::PreferredLangcode => text(account.preferred_langcode.as_deref()),
        Field::PreferredAdminLangcode => text(account.preferred_admin_langcode.as_deref()),
        Field::Name => text(Some(&account.name)),
        Field::Pass => false,
        Field::Mail => text(account.mail.as_deref()),
        Field::Timezone => text(account.timezone.as_deref()),
        Field::Status => flag(account.status),
        Field::Created => moment(account.created),
        Field::Changed => moment(account.changed),
        Field::Access => moment(account.access),
        Field::Login => moment(account.login),
        Field::Init => text(account.init.as_deref()),
        Field::Roles => has_roles(account, value),
        Field::DefaultLangcode => flag(true),
    }
}

/// Roles have no order.
fn has_roles(account: &User, value: &Value) -> bool {
    match value {
        Value::Roles(ids) => {
            ids.len() == account.roles.len() && ids.iter().all(|(_, id)| account.roles.contains(id))
        }
        _ => false,
    }
}

/// Puts a value into the record. One that does not fit leaves it as it is.
pub(super) fn write(account: &mut User, field: Field, value: &Value) {
    let text = match value {
        Value::Empty => None,
        Value::Text(text) => Some(text.clone()),
        Value::Flag(flag) => return write_flag(account, field, *flag),
        Value::Moment(at) => return write_moment(account, field, *at),
        Value::Roles(ids) => {
            account.roles = ids.iter().map(|(_, id)| id.clone()).collect();
            return;
        }
        Value::Number(_) | Value::Password { .. } | Value::Unfit(_) => return,
    };
    match field {
        Field::Langcode => account.langcode = text.unwrap_or_else(|| "en".into()),
        Field::PreferredLangcode => account.preferred_langcode = text,
        Field::PreferredAdminLangcode => account.preferred_admin_langcode = text,
        Field::Name => account.name = text.unwrap_or_default(),
        Field::Mail => account.mail = text,
        Field::Timezone => account.timezone = text,
        Field::Init => account.init = text,
        // Empty: blocked, and never.
        Field::Status => account.status = false,
        Field::Access => account.access = Timestamp(0),
        Field::Login => account.login = Timestamp(0),
        _ => {}
    }
}

fn write_flag(account: &mut User, field: Field, flag: bool) {
    if field == Field::Status {
        account.status = flag;
    }
}

fn write_moment(account: &mut User, field: Field, at: Timestamp) {
    match field {
        Field::Created => account.created = at,
        Field::Access => account.access = at,
        Field::Login => account.login = at,
        _ => {}
    }
}
