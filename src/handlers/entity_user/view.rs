//! The entity as JSON.
//!
//! Written straight from the record.

use bytes::Bytes;
use serde::{Serialize, Serializer};
use uuid::Uuid;

use super::{access::Sight, field::Field};
use crate::model::{Role, Timestamp, User};

/// More than most entities take.
const USUAL_BYTES: usize = 1536;

/// The account as somebody may see it.
pub(super) fn entity(account: &User, sight: Sight) -> Bytes {
    let mut out = Vec::with_capacity(USUAL_BYTES);
    // Neither writing to a Vec nor any of these types fails.
    let _ = serde_json::to_writer(&mut out, &Entity::new(account, sight));
    out.into()
}

/// The fields in their order; those that are none are not shown.
#[derive(Serialize)]
struct Entity<'a> {
    uid: Items<u64>,
    uuid: Items<Uuid>,
    langcode: Items<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_langcode: Option<Items<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_admin_langcode: Option<Items<&'a str>>,
    name: Items<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mail: Option<Items<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timezone: Option<Items<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Items<bool>>,
    created: [Moment; 1],
    changed: [Moment; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<[Moment; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    login: Option<[Moment; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    init: Option<Items<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Roles<'a>>,
    default_langcode: Items<bool>,
}

impl<'a> Entity<'a> {
    fn new(account: &'a User, sight: Sight) -> Self {
        let text = |field, value: &'a Option<String>| {
            sight.shows(field).then_some(Items(value.as_deref()))
        };
        let moment = |field, at| sight.shows(field).then(|| [Moment::new(at)]);
        Self {
            uid: Items(Some(account.uid)),
            uuid: Items(Some(account.uuid)),
            langcode: Items(Some(&account.langcode)),
            preferred_langcode: text(Field::PreferredLangcode, &account.preferred_langcode),
            preferred_admin_langcode: text(
                Field::PreferredAdminLangcode,
                &account.preferred_admin_langcode,
            ),
            name: Items(Some(&account.name)),
            mail: text(Field::Mail, &account.mail),
            timezone: text(Field::Timezone, &account.timezone),
            status: sight.shows(Field::Status).then_some(Items(Some(account.status))),
            created: [Moment::new(account.created)],
            changed: [Moment::new(account.changed)],
            access: moment(Field::Access, account.access),
            login: moment(Field::Login, account.login),
            init: text(Field::Init, &account.init),
            roles: sight.shows(Field::Roles).then_some(Roles(&account.roles)),
            // There is one language of a record, so it is always the default one.
            default_langcode: Items(Some(true)),
        }
    }
}

/// A field of one value, or an empty one.
struct Items<T>(Option<T>);

impl<T: Serialize> Serialize for Items<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Item<'a, T> {
            value: &'a T,
        }
        serializer.collect_seq(self.0.iter().map(|value| Item { value }))
    }
}

/// A point in time, with its form in the terms of PHP's `date`.
#[derive(Serialize)]
struct Moment {
    #[serde(serialize_with = "as_text")]
    value: Timestamp,
    format: &'static str,
}

impl Moment {
    fn new(value: Timestamp) -> Self {
        Self { value, format: "Y-m-d\\TH:i:sP" }
    }
}

fn as_text<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

struct Roles<'a>(&'a [String]);

impl Serialize for Roles<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Item<'a> {
            target_id: &'a str,
            target_type: &'static str,
            target_uuid: Uuid,
        }
        serializer.collect_seq(self.0.iter().map(|id| Item {
            target_id: id,
            target_type: "user_role",
            target_uuid: Role::uuid(id),
        }))
    }
}
