//! Applications: how clients authenticate.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{RateLimit, Violation, check_id, key::text};

/// The id of the operator's application.
const OPERATOR: &str = "keyward.operator";

/// A way to authenticate, chosen by the request header `AUTH-METHOD`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Application {
    /// The id, which a client sends in `AUTH-METHOD`.
    pub id: String,
    /// The name that people see.
    pub name: String,
    /// Whether requests can authenticate. `false` means that requests with this application are
    /// anonymous. Keyward still checks the permissions of such requests.
    pub enabled: bool,
    /// Whether requests without `AUTH-METHOD` use this application. At most one application is the
    /// default.
    pub is_default: bool,
    /// The authentication type.
    #[serde(rename = "type")]
    pub auth_type: AuthType,
    /// The request header that carries the credential.
    pub header: String,
    /// The kind of keys that the application accepts.
    pub key_source: KeySource,
    /// Whether a universal key of this application can also act as an administrator.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub universal_administrators: bool,
    /// The realm in `WWW-Authenticate`: the protection space (RFC 9110, section 11.5).
    pub realm: String,
    /// How much detail a denied client gets.
    pub detail: Detail,
    /// The prefix of keys that are created for this application.
    pub key_prefix: String,
    /// The rate limit of all clients of the application together. `None` means no limit.
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
    /// The key alone, as in the `Authorization` header field of RFC 6750.
    Bearer,
    /// Defined by the script `auth/NAME.rhai`.
    Script(String),
}

/// The kind of keys that an application accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeySource {
    /// Each key authenticates the one user to whom the key belongs.
    PerUser,
    /// One universal key authenticates any user that the client names. Such a key is for a program
    /// that authenticates its users itself.
    Universal,
}

/// How much detail a denied client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Detail {
    /// The exact reason.
    Exact,
    /// One response for all of these: an unknown user, a wrong key, a blocked user, an expired key,
    /// a revoked key.
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

    /// The type with this name. Any other name than a built-in name is the name of a
    /// script. The script does not have to exist.
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

    /// The name of the script. `None` means that the type is built in.
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

    /// The application for the operator's key, which is sent as `Authorization: Bearer`. This
    /// application is not in the store.
    pub fn operator() -> Self {
        Self {
            auth_type: AuthType::Bearer,
            header: "Authorization".into(),
            key_prefix: "kwop".into(),
            ..Self::api_key(OPERATOR, "Operator")
        }
    }

    /// Whether this is [`Application::operator`]. No stored application has the operator's id,
    /// because [`check_id`] rejects ids that begin with `keyward.`.
    pub fn is_operator(&self) -> bool {
        self.id == OPERATOR
    }

    /// Whether the credential is read from `Authorization`, where it follows a scheme such as
    /// `Basic`.
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
                "Say in a few words which clients use the application.",
            ));
        }
        if self.realm.is_empty()
            || self.realm.len() > 128
            || !self.realm.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            found.push(Violation::new(
                "realm",
                "A realm is 1 to 128 printable ASCII characters.",
                "Use the product's name, for example. Clients see the realm in WWW-Authenticate.",
            ));
        }
        found.extend(self.header_problem());
        found.extend(self.source_problem());
        found
    }

    /// Checks that the credential of an application for universal keys contains a user name and a
    /// key.
    fn source_problem(&self) -> Option<Violation> {
        let message = match (self.key_source, &self.auth_type) {
            (KeySource::Universal, AuthType::Basic) => {
                "The type basic accepts passwords and no keys."
            }
            (KeySource::Universal, AuthType::Bearer) => {
                "A universal key acts as the user that the client names, and the type bearer names no user."
            }
            (KeySource::PerUser, _) if self.universal_administrators => {
                "universal_administrators has no effect without universal keys."
            }
            _ => return None,
        };
        let fix = "For universal keys, use the type api_key or a script. Otherwise set key_source to per_user and universal_administrators to false.";
        Some(Violation::new("key_source", message, fix))
    }

    fn header_problem(&self) -> Option<Violation> {
        /// Header fields that HTTP or Keyward uses for another purpose.
        const RESERVED: &[&str] = &[
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
        if http::HeaderName::from_bytes(name.as_bytes()).is_err()
            || RESERVED.contains(&name.as_str())
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
