//! Handlers: the parts of Keyward that respond to a request after it was allowed.

use std::borrow::Cow;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::model::{Violation, check_id};

/// The beginning of a handler's name that names a script.
const SCRIPT_PREFIX: &str = "script:";

/// The handler of a resource.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handler {
    /// The user entity: `POST /entity/user`, and `GET`, `PATCH`, `DELETE` on `/user/{user}`.
    EntityUser,
    /// A fixed response.
    Respond,
    /// Forwards to an upstream.
    Proxy,
    /// This handler sends no response. Another proxy asks Keyward for a decision, and then sends
    /// the request to the application.
    Decide,
    /// The script `handlers/NAME.rhai`.
    Script(String),
}

impl Handler {
    /// The name in records and on the command line.
    pub fn name(&self) -> Cow<'static, str> {
        match self {
            Self::EntityUser => "entity:user".into(),
            Self::Respond => "respond".into(),
            Self::Proxy => "proxy".into(),
            Self::Decide => "decide".into(),
            Self::Script(name) => format!("{SCRIPT_PREFIX}{name}").into(),
        }
    }

    /// The handler with this name. Does not check that the script exists.
    pub fn parse(location: &str, name: &str) -> Result<Self, Violation> {
        let all = [Self::EntityUser, Self::Respond, Self::Proxy, Self::Decide];
        if let Some(known) = all.into_iter().find(|one| one.name() == name) {
            return Ok(known);
        }
        match name.strip_prefix(SCRIPT_PREFIX).filter(|script| check_id("", script).is_ok()) {
            Some(script) => Ok(Self::Script(script.to_owned())),
            None => Err(Violation::new(
                location,
                format!("{name:?} is not a handler of this version."),
                "Use entity:user, respond, proxy, decide, or script:NAME for a script in scripts/handlers.",
            )),
        }
    }

    /// The name of the script. `None` means that the handler is built in.
    pub fn script(&self) -> Option<&str> {
        match self {
            Self::Script(name) => Some(name),
            _ => None,
        }
    }

    /// The fixed paths of a handler, each with its methods. `None` means that the path is in the
    /// resource's record.
    pub(super) fn fixed_paths(&self) -> Option<&'static [(&'static str, &'static [&'static str])]> {
        match self {
            Self::EntityUser => {
                Some(&[("/entity/user", &["POST"]), ("/user/{user}", &["GET", "PATCH", "DELETE"])])
            }
            Self::Respond | Self::Proxy | Self::Decide | Self::Script(_) => None,
        }
    }
}

impl Serialize for Handler {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name())
    }
}

impl<'de> Deserialize<'de> for Handler {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse("handler", &name).map_err(|problem| D::Error::custom(problem.message))
    }
}
