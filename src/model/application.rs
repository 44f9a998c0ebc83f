//! Applications: how clients authenticate.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{RateLimit, Violation, check_id, key::text};

/// The id of the operator's application.
const OPERATOR: &str = "keyward.operator";

/// A way to authenticate, chosen by the request header `AUTH-METHOD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The id, as in `AUTH-METHOD`.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// If disabled, its requests are anonymous; permissions are still checked.
    pub enabled: bool,
    /// Whether it is used for requests without `AUTH-METHOD`. At most one application is.
    pub is_default: bool,
    /// The authentication type.
    #[serde(rename = "type")]
    pub auth_type: AuthType,
    /// The request header that carries the credential.
    pub header: String,
    /// The kind of keys that it accepts.
    pub key_source: KeySource,
    /// Whether its universal keys can also authenticate administrators.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub universal_administrators: bool,
    /// The protection space that challenges name (RFC 9110, section 11.5).
    pub realm: String,
    /// How much detail a denied client gets.
    pub detail: Detail,
    /// The prefix of keys made for this application.
    pub key_prefix: String,
    /// The rate limit of all its clients together. `None` means no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<RateLimit>,
}

/// The content of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuthType {
    /// `base64(username:api-key)`.
    ApiKey,
    /// `base64(username:password)` (RFC 7617).
    Basic,
    /// The key alone (RFC 6750's header form).
    Bearer,
    /// Defined by the script `auth/NAME.rhai`.
    Script(String),
}

/// The kind of keys that an application accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// Each user has keys of its own.
    PerUser,
    /// Universal keys: one key authenticates any user that the client names. For a program that has
    /// authenticated its users itself.
    Universal,
}

/// How much detail a denied client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The exact reason.
    Exact,
    /// One response for an unknown user, a wrong key, a blocked user, an expired and a revoked key.
    Uniform,
}

impl AuthType {
    /// The name in records and on the command line.
    pub fn name(&self) -> &str {
        match self {
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Script(name) => name,
        }
    }

    /// The type with this name: a built-in one, or else a script's. Does not check that the script
    /// exists.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        if let Some(built_in) =
            [Self::ApiKey, Self::Basic, Self::Bearer].into_iter().find(|one| one.name() == name)
        {
            return Ok(built_in);
        }
        match check_id(location, name) {
            Ok(()) => Ok(Self::Script(name.to_owned())),
            Err(_) => Err(Violation::new(
                location,
                format!("{name:?} is not an authentication type."),
                "Use api_key, basic or bearer, or the name of a script in scripts/auth.",
            )),
        }
    }

    /// The script's name.
    pub fn script(&self) -> Option<&str> {
        match self {
            Self::Script(name) => Some(name),
            _ => None,
        }
    }
}

impl Serialize for AuthType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for AuthType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse("type", &name).map_err(|problem| D::Error::custom(problem.message))
    }
}

impl KeySource {
    /// The source with this name.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        match name {
            "per_user" => Ok(Self::PerUser),
            "universal" => Ok(Self::Universal),
            _ => Err(Violation::new(
                location,
                format!("{name:?} is not a key source."),
                "Use per_user or universal.",
            )),
        }
    }
}

impl Detail {
    /// The detail with this name.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        match name {
            "exact" => Ok(Self::Exact),
            "uniform" => Ok(Self::Uniform),
            _ => Err(Violation::new(
                location,
                format!("{name:?} is not a level of detail."),
                "Use exact or uniform.",
            )),
        }
    }
}

impl Application {
    /// An enabled `api_key` application that reads `API-KEY`.
    pub fn api_key(id: &str, name: &str) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            enabled: true,
            is_default: false,
            auth_type: AuthType::ApiKey,
            header: "API-KEY".into(),
            key_source: KeySource::PerUser,
            universal_administrators: false,
            realm: "Keyward".into(),
            detail: Detail::Exact,
            key_prefix: "kw".into(),
            rate_limit: None,
        }
    }

    /// The operator's application, which is not in the store: a key alone, in `Authorization`.
    pub fn operator() -> Self {
        Self {
            auth_type: AuthType::Bearer,
            header: "Authorization".into(),
            key_prefix: "kwop".into(),
            ..Self::api_key(OPERATOR, "Operator")
        }
    }

    /// Whether this is [`Application::operator`]. Ids with its first character are not valid for
    /// other applications.
    pub fn is_operator(&self) -> bool {
        self.id == OPERATOR
    }

    /// Whether the credential is read from `Authorization`, with a scheme before it.
    pub fn reads_authorization(&self) -> bool {
        self.header.eq_ignore_ascii_case("authorization")
    }

    /// Checks the record's fields.
    pub fn check(&self) -> Vec<Violation> {
        let mut found = Vec::new();
        found.extend(check_id("id", &self.id).err());
        found.extend(text::check_prefix("key_prefix", &self.key_prefix).err());
        if self.name.trim().is_empty() || self.name.len() > 255 {
            found.push(Violation::new(
                "name",
                "An application needs a name of 1 to 255 bytes.",
                "Say in a few words which clients use it.",
            ));
        }
        if self.realm.is_empty()
            || self.realm.len() > 128
            || !self.realm.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            found.push(Violation::new(
                "realm",
                "A realm is 1 to 128 printable ASCII characters.",
                "It is shown to clients in WWW-Authenticate; the product's name will do.",
            ));
        }
        found.extend(self.header_problem());
        found.extend(self.source_problem());
        found
    }

    /// A universal key authenticates the user that the client names, so it needs a type with a user
    /// name and a key.
    fn source_problem(&self) -> Option<Violation> {
        let said = match (self.key_source, &self.auth_type) {
            (KeySource::Universal, AuthType::Basic) => {
                "The type basic takes passwords and no keys."
            }
            (KeySource::Universal, AuthType::Bearer) => {
                "The type bearer names no user whom a universal key could act as."
            }
            (KeySource::PerUser, _) if self.universal_administrators => {
                "Without universal keys there is nothing that could act as an administrator."
            }
            _ => return None,
        };
        let fix =
            "Use the type api_key or a script with key_source universal, or key_source per_user.";
        Some(Violation::new("key_source", said, fix))
    }

    fn header_problem(&self) -> Option<Violation> {
        const TAKEN: &[&str] = &[
            "auth-method",
            "host",
            "connection",
            "content-length",
            "content-type",
            "transfer-encoding",
            "upgrade",
            "te",
            "trailer",
            "cookie",
        ];
        let name = self.header.to_ascii_lowercase();
        if http::HeaderName::from_bytes(name.as_bytes()).is_err() || TAKEN.contains(&name.as_str())
        {
            return Some(Violation::new(
                "header",
                format!("{:?} cannot carry a credential.", self.header),
                "Use API-KEY, Authorization, or a header name of your own.",
            ));
        }
        if self.auth_type == AuthType::Basic && !self.reads_authorization() {
            return Some(Violation::new(
                "header",
                "The type basic reads Authorization and no other header.",
                "Set header to Authorization.",
            ));
        }
        None
    }
}
