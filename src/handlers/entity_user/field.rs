//! The fields of the user entity: their names, labels, and what each holds.

/// A field, in the order in which the entity has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Field {
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
}

/// What a field holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Text,
    Flag,
    Moment,
    Password,
    Roles,
}

impl Field {
    pub(super) const ALL: [Self; 17] = [
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

    /// The field that a request names, or none.
    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|field| field.name() == name)
    }

    /// The name in requests and answers, the label in messages, and what it holds.
    const fn facts(self) -> (&'static str, &'static str, Kind) {
        match self {
            Self::Uid => ("uid", "User ID", Kind::Number),
            Self::Uuid => ("uuid", "UUID", Kind::Text),
            Self::Langcode => ("langcode", "Language code", Kind::Text),
            Self::PreferredLangcode => {
                ("preferred_langcode", "Preferred language code", Kind::Text)
            }
            Self::PreferredAdminLangcode => {
                ("preferred_admin_langcode", "Preferred admin language code", Kind::Text)
            }
            Self::Name => ("name", "Name", Kind::Text),
            Self::Pass => ("pass", "Password", Kind::Password),
            Self::Mail => ("mail", "Email", Kind::Text),
            Self::Timezone => ("timezone", "Timezone", Kind::Text),
            Self::Status => ("status", "User status", Kind::Flag),
            Self::Created => ("created", "Created", Kind::Moment),
            Self::Changed => ("changed", "Changed", Kind::Moment),
            Self::Access => ("access", "Last access", Kind::Moment),
            Self::Login => ("login", "Last login", Kind::Moment),
            Self::Init => ("init", "Initial email", Kind::Text),
            Self::Roles => ("roles", "Roles", Kind::Roles),
            Self::DefaultLangcode => ("default_langcode", "Default translation", Kind::Flag),
        }
    }

    pub(super) const fn name(self) -> &'static str {
        self.facts().0
    }

    pub(super) const fn label(self) -> &'static str {
        self.facts().1
    }

    pub(super) const fn kind(self) -> Kind {
        self.facts().2
    }
}

impl Kind {
    /// The property that an item is about, and that a bare value means.
    pub(super) const fn main_property(self) -> &'static str {
        match self {
            Self::Roles => "target_id",
            _ => "value",
        }
    }

    /// Whether an item can have this property. What an answer shows may be sent back.
    pub(super) fn has_property(self, name: &str) -> bool {
        name == self.main_property()
            || match self {
                Self::Moment => name == "format",
                Self::Password => name == "existing",
                Self::Roles => ["target_type", "target_uuid"].contains(&name),
                Self::Number | Self::Text | Self::Flag => false,
            }
    }
}
