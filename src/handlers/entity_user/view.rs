//! Serializes a user record as the JSON entity, without an intermediate value.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{access::Visibility, custom::CustomFields, field::UserField};
use crate::{
    handlers::custom_field::CustomField,
    model::{Role, Timestamp, User},
};

/// The initial capacity of the buffer. Most entities are smaller.
const USUAL_BYTES: usize = 1536;

/// The visible fields of an account as JSON.
pub(super) fn entity(
    account: &User,
    visibility: Visibility,
    custom: &[&'static CustomField],
) -> Bytes {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    // Neither writing to a `Vec` nor serializing these types can fail.
    let _ = serde_json::to_writer(&mut out, &Entity::new(account, visibility, custom));
    out.into()
}

/// The fields in their order. `None` means that a field is not visible.
#[derive(Serialize)]
struct Entity<'a> {
    uid: SingleValue<u64>,
    uuid: SingleValue<Uuid>,
    langcode: SingleValue<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_langcode: Option<SingleValue<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_admin_langcode: Option<SingleValue<&'a str>>,
    name: SingleValue<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail: Option<SingleValue<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<SingleValue<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<SingleValue<bool>>,
    created: [TimeItem; 1],
    changed: [TimeItem; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<[TimeItem; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<[TimeItem; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<SingleValue<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Roles<'a>>,
    default_langcode: SingleValue<bool>,
    #[serde(flatten)]
    custom: CustomFields<'a>,
}

impl<'a> Entity<'a> {
    fn new(account: &'a User, visibility: Visibility, custom: &'a [&'static CustomField]) -> Self {
        let text = |field, value: &'a Option<String>| {
            visibility.shows(field).then_some(SingleValue(value.as_deref()))
        };
        let time = |field, time| visibility.shows(field).then(|| [TimeItem::new(time)]);
        let status = SingleValue(Some(account.status));
        Self {
            uid: SingleValue(Some(account.uid)),
            uuid: SingleValue(Some(account.uuid)),
            langcode: SingleValue(Some(&account.langcode)),
            preferred_langcode: text(UserField::PreferredLangcode, &account.preferred_langcode),
            preferred_admin_langcode: text(
                UserField::PreferredAdminLangcode,
                &account.preferred_admin_langcode,
            ),
            name: SingleValue(Some(&account.name)),
            mail: text(UserField::Mail, &account.mail),
            timezone: text(UserField::Timezone, &account.timezone),
            status: visibility.shows(UserField::Status).then_some(status),
            created: [TimeItem::new(account.created)],
            changed: [TimeItem::new(account.changed)],
            access: time(UserField::Access, account.access),
            login: time(UserField::Login, account.login),
            init: text(UserField::Init, &account.init),
            roles: visibility.shows(UserField::Roles).then_some(Roles(&account.roles)),
            // A record has one language, so this language is always the default.
            default_langcode: SingleValue(Some(true)),
            custom: CustomFields { account, fields: custom, visibility },
        }
    }
}

/// A field with at most one value. `None` means an empty field.
struct SingleValue<T>(Option<T>);

impl<T: Serialize> Serialize for SingleValue<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ValueItem<'a, T> {
            value: &'a T,
        }
        serializer.collect_seq(self.0.iter().map(|value| ValueItem { value }))
    }
}

/// A point in time, with the format string of PHP's `date` function.
#[derive(Serialize)]
struct TimeItem {
    #[serde(serialize_with = "as_text")]
    value: Timestamp,
    format: &'static str,
}

impl TimeItem {
    fn new(value: Timestamp) -> Self {
        Self { value, format: "Y-m-d\\TH:i:sP" }
    }
}

fn as_text<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

struct Roles<'a>(&'a [String]);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct RoleItem<'a> {
            target_id: &'a str,
            target_type: &'static str,
            target_uuid: Uuid,
        }
        serializer.collect_seq(self.0.iter().map(|id| RoleItem {
            target_id: id,
            target_type: "user_role",
            target_uuid: Role::uuid(id),
        }))
    }
}
