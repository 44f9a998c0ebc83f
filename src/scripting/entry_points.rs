//! Which files there are, and which functions Keyward calls in each.

use std::fmt;

use crate::model::check_id;
use crate::model::suggest;

/// What a script is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `auth/NAME.rhai`: an authentication type.
    Auth,
    /// `hooks.rhai`: the hooks of all requests.
    Hooks,
    /// `resources/ID.rhai`: the hooks of one resource.
    Resource,
    /// `handlers/NAME.rhai`: answers a resource.
    Handler,
    /// `events.rhai`: what becomes of keys and users.
    Events,
}

/// The functions that Keyward calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Function {
    /// Reads the credential from the request.
    Header,
    /// What the credential says.
    Decode,
    /// Whose it is.
    Lookup,
    /// Whether it is theirs.
    Verify,
    /// Before anything else.
    OnRequest,
    /// When it is known who asks.
    OnAuthenticated,
    /// When it is to be decided whether they may.
    OnPermit,
    /// When the request is refused.
    OnDenied,
    /// When the response is ready.
    OnResponse,
    /// The answer itself.
    ContextHandle,
    /// Before a key is made.
    OnKeyCreated,
    /// When a key has so many days left.
    OnKeyExpiring,
    /// When a key is taken back.
    OnKeyRevoked,
    /// Before a user is made.
    OnUserCreated,
    /// When somebody was wrong too often.
    OnFlood,
}

impl Function {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Header,
        Self::Decode,
        Self::Lookup,
        Self::Verify,
        Self::OnRequest,
        Self::OnAuthenticated,
        Self::OnPermit,
        Self::OnDenied,
        Self::OnResponse,
        Self::ContextHandle,
        Self::OnKeyCreated,
        Self::OnKeyExpiring,
        Self::OnKeyRevoked,
        Self::OnUserCreated,
        Self::OnFlood,
    ];

    /// The name in a script.
    pub fn name(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Decode => "decode",
            Self::Lookup => "lookup",
            Self::Verify => "verify",
            Self::OnRequest => "on_request",
            Self::OnAuthenticated => "on_authenticated",
            Self::OnPermit => "on_permit",
            Self::OnDenied => "on_denied",
            Self::OnResponse => "on_response",
            Self::ContextHandle => "handle",
            Self::OnKeyCreated => "on_key_created",
            Self::OnKeyExpiring => "on_key_expiring",
            Self::OnKeyRevoked => "on_key_revoked",
            Self::OnUserCreated => "on_user_created",
            Self::OnFlood => "on_flood",
        }
    }

    /// The parameters, in order.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Header | Self::OnRequest => &["req"],
            Self::Decode => &["req", "presented"],
            Self::Lookup => &["req", "credential"],
            Self::Verify => &["req", "user", "credential"],
            Self::OnAuthenticated | Self::ContextHandle => &["req", "identity"],
            Self::OnPermit => &["req", "identity", "resource"],
            Self::OnDenied => &["req", "denial"],
            Self::OnResponse => &["req", "identity", "response"],
            Self::OnKeyCreated
            | Self::OnKeyExpiring
            | Self::OnKeyRevoked
            | Self::OnUserCreated
            | Self::OnFlood => &["event"],
        }
    }

    /// How it is written: `verify(req, user, credential)`.
    pub fn signature(self) -> String {
        format!("{}({})", self.name(), self.parameters().join(", "))
    }

    pub(super) fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl Kind {
    /// The functions that a script of this kind may define. One must be there.
    pub fn functions(self) -> &'static [Function] {
        match self {
            Self::Auth => &Function::ALL[..4],
            Self::Hooks | Self::Resource => &Function::ALL[4..9],
            Self::Handler => &Function::ALL[9..10],
            Self::Events => &Function::ALL[10..],
        }
    }

    /// The folder of this kind's files, or the file itself.
    pub fn place(self) -> &'static str {
        match self {
            Self::Auth => "auth/",
            Self::Hooks => "hooks.rhai",
            Self::Resource => "resources/",
            Self::Handler => "handlers/",
            Self::Events => "events.rhai",
        }
    }

    /// The file of a script, relative to the folder of scripts.
    pub fn file(self, name: &str) -> String {
        match self {
            Self::Hooks | Self::Events => self.place().to_owned(),
            _ => format!("{}{name}.rhai", self.place()),
        }
    }

    /// Whether a script of this kind can have this name.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn check_name(self, name: &str) -> Result<(), String> {
        place(&self.file(name)).map(drop)
    }

    pub(super) const ALL: [Self; 5] =
        [Self::Auth, Self::Hooks, Self::Resource, Self::Handler, Self::Events];
}

/// What `keyward script definitions` writes for editors into the folder of scripts. It is no script.
pub const DEFINITIONS: &str = "definitions.d.rhai";

/// What a file's path says of it.
///
/// # Errors
/// There is no such place, or the name cannot be one.
pub(super) fn place(path: &str) -> Result<(Kind, String), String> {
    for kind in [Kind::Hooks, Kind::Events] {
        if path == kind.place() {
            return Ok((kind, String::new()));
        }
    }
    let known = [Kind::Auth, Kind::Resource, Kind::Handler];
    for kind in known {
        let name = path.strip_prefix(kind.place()).and_then(|file| file.strip_suffix(".rhai"));
        if let Some(name) = name {
            check_id("name", name).map_err(|violation| violation.to_string())?;
            // These are the authentication types that are built in.
            if kind == Kind::Auth && ["api_key", "basic", "bearer"].contains(&name) {
                return Err(format!(
                    "the authentication type {name} is built in; choose another name"
                ));
            }
            return Ok((kind, name.to_owned()));
        }
    }
    let known =
        ["auth/NAME.rhai", "hooks.rhai", "resources/ID.rhai", "handlers/NAME.rhai", "events.rhai"];
    let near =
        suggest(path, known).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
    Err(format!(
        "no script is called here. There are auth/NAME.rhai, hooks.rhai, resources/ID.rhai, handlers/NAME.rhai and events.rhai.{near}"
    ))
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auth => "authentication type",
            Self::Hooks => "hooks",
            Self::Resource => "hooks of a resource",
            Self::Handler => "handler",
            Self::Events => "events",
        })
    }
}
