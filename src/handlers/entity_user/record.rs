//! Compares the fields of a user entity with a stored user record, and writes them into the record.

use super::{custom, field::UserField, value::FieldValue};
use crate::model::{Timestamp, User};

/// Whether a field of the record has this value.
pub(super) fn equals(account: &User, field: UserField, value: &FieldValue) -> bool {
    let text = |current: Option<&str>| match value {
        FieldValue::Empty => current.is_none(),
        FieldValue::Text(text) => current == Some(text),
        _ => false,
    };
    let time = |current: Timestamp| matches!(value, FieldValue::Time(time) if *time == current);
    let flag = |current: bool| matches!(value, FieldValue::Flag(flag) if *flag == current);
    match field {
        UserField::Uid => matches!(value, FieldValue::Number(uid) if *uid == account.uid),
        UserField::Uuid => {
            matches!(value, FieldValue::Text(text) if uuid::Uuid::parse_str(text) == Ok(account.uuid))
        }
        UserField::Langcode => text(Some(&account.langcode)),
        UserField::PreferredLangcode => text(account.preferred_langcode.as_deref()),
        UserField::PreferredAdminLangcode => text(account.preferred_admin_langcode.as_deref()),
        UserField::Name => text(Some(&account.name)),
        UserField::Pass => false,
        UserField::Mail => text(account.mail.as_deref()),
        UserField::Timezone => text(account.timezone.as_deref()),
        UserField::Status => flag(account.status),
        UserField::Created => time(account.created),
        UserField::Changed => time(account.changed),
        UserField::Access => time(account.access),
        UserField::Login => time(account.login),
        // `init` is the first mail address of the user.
        UserField::Init => text(account.init.as_deref()),
        UserField::Roles => has_roles(account, value),
        // Entities have no translations, so each entity is in its default language.
        UserField::DefaultLangcode => flag(true),
        UserField::Custom(field) => custom::equals(account, field, value),
    }
}

/// Whether the account has exactly the roles of this value, in any order.
fn has_roles(account: &User, value: &FieldValue) -> bool {
    match value {
        FieldValue::Roles(ids) => {
            ids.len() == account.roles.len() && ids.iter().all(|(_, id)| account.roles.contains(id))
        }
        _ => false,
    }
}

/// Writes a value into the record. The caller must check first that the value has the type of the
/// field, as every value from [`super::fields::read`] has, and that the request may change the
/// field. Invalid values and passwords change nothing.
pub(super) fn write(account: &mut User, field: UserField, value: &FieldValue) {
    let text = match value {
        FieldValue::Empty => None,
        FieldValue::Text(text) => Some(text.clone()),
        FieldValue::Flag(flag) => return write_flag(account, field, *flag),
        FieldValue::Time(time) => return write_time(account, field, *time),
        FieldValue::Roles(ids) => {
            account.roles = ids.iter().map(|(_, id)| id.clone()).collect();
            return;
        }
        FieldValue::Items(items) => {
            if let UserField::Custom(field) = field {
                custom::write(account, field, items);
            }
            return;
        }
        FieldValue::Number(_) | FieldValue::Password { .. } | FieldValue::Invalid(_) => return,
    };
    match field {
        UserField::Langcode => account.langcode = text.unwrap_or_else(|| "en".into()),
        UserField::PreferredLangcode => account.preferred_langcode = text,
        UserField::PreferredAdminLangcode => account.preferred_admin_langcode = text,
        UserField::Name => account.name = text.unwrap_or_default(),
        UserField::Mail => account.mail = text,
        UserField::Timezone => account.timezone = text,
        UserField::Init => account.init = text,
        // An empty status means blocked.
        UserField::Status => account.status = false,
        // An empty time means never.
        UserField::Access => account.access = Timestamp(0),
        UserField::Login => account.login = Timestamp(0),
        _ => {}
    }
}

fn write_flag(account: &mut User, field: UserField, flag: bool) {
    if field == UserField::Status {
        account.status = flag;
    }
}

fn write_time(account: &mut User, field: UserField, time: Timestamp) {
    match field {
        UserField::Created => account.created = time,
        UserField::Access => account.access = time,
        UserField::Login => account.login = time,
        _ => {}
    }
}
