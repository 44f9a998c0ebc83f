//! The fields of the user entity: names, labels and types.

use crate::handlers::custom_field::CustomField;

/// A field, in the order of the entity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum UserField {
    Uid,
    Uuid,
    Langcode,
    PreferredLangcode,
    PreferredAdminLangcode,
    Name,
    Pass,
    Mail,
    Timezone,
    Status,
    Created,
    Changed,
    Access,
    Login,
    Init,
    Roles,
    DefaultLangcode,
    /// A field that the operator has declared.
    Custom(&'static CustomField),
}

/// The type of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldType {
    Number,
    Text,
    Flag,
    Time,
    Password,
    Roles,
}

impl UserField {
    /// The fields that every account has.
    const ALL: [Self; 17] = [
        Self::Uid,
        Self::Uuid,
        Self::Langcode,
        Self::PreferredLangcode,
        Self::PreferredAdminLangcode,
        Self::Name,
        Self::Pass,
        Self::Mail,
        Self::Timezone,
        Self::Status,
        Self::Created,
        Self::Changed,
        Self::Access,
        Self::Login,
        Self::Init,
        Self::Roles,
        Self::DefaultLangcode,
    ];

    /// The field of this name; `None` means that there is no such field.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The field of this name, which may be a custom field.
    pub(super) fn parse_any(name: &str, custom: &[&'static CustomField]) -> Option<Self> {
        let custom = || custom.iter().find(|field| field.name == name);
        Self::parse(name).or_else(|| custom().map(|field| Self::Custom(field)))
    }

    /// The name in JSON, the label in messages, and the type.
    fn properties(self) -> (&'static str, &'static str, FieldType) {
        match self {
            Self::Uid => ("uid", "User ID", FieldType::Number),
            Self::Uuid => ("uuid", "UUID", FieldType::Text),
            Self::Langcode => ("langcode", "Language code", FieldType::Text),
            Self::PreferredLangcode => {
                ("preferred_langcode", "Preferred language code", FieldType::Text)
            }
            Self::PreferredAdminLangcode => {
                ("preferred_admin_langcode", "Preferred admin language code", FieldType::Text)
            }
            Self::Name => ("name", "Name", FieldType::Text),
            Self::Pass => ("pass", "Password", FieldType::Password),
            Self::Mail => ("mail", "Email", FieldType::Text),
            Self::Timezone => ("timezone", "Timezone", FieldType::Text),
            Self::Status => ("status", "User status", FieldType::Flag),
            Self::Created => ("created", "Created", FieldType::Time),
            Self::Changed => ("changed", "Changed", FieldType::Time),
            Self::Access => ("access", "Last access", FieldType::Time),
            Self::Login => ("login", "Last login", FieldType::Time),
            Self::Init => ("init", "Initial email", FieldType::Text),
            Self::Roles => ("roles", "Roles", FieldType::Roles),
            Self::DefaultLangcode => ("default_langcode", "Default translation", FieldType::Flag),
            Self::Custom(field) => (field.name.as_str(), field.name.as_str(), FieldType::Text),
        }
    }

    pub(super) fn name(self) -> &'static str {
        self.properties().0
    }

    pub(super) fn label(self) -> &'static str {
        self.properties().1
    }

    pub(super) fn field_type(self) -> FieldType {
        self.properties().2
    }
}

impl FieldType {
    /// The main property of an item. A bare value stands for this property.
    pub(super) const fn main_property(self) -> &'static str {
        match self {
            Self::Roles => "target_id",
            _ => "value",
        }
    }

    /// Whether an item may have this property. All properties of responses are accepted, so that a
    /// client can send an entity back.
    pub(super) fn has_property(self, name: &str) -> bool {
        name == self.main_property()
            || match self {
                Self::Time => name == "format",
                Self::Password => name == "existing",
                Self::Roles => ["target_type", "target_uuid"].contains(&name),
                Self::Number | Self::Text | Self::Flag => false,
            }
    }
}
