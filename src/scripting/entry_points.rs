//! The kinds of script files, and the functions that Keyward calls in each kind.

use std::fmt;

use crate::model::{check_id, suggest};

/// The kind of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ScriptKind {
    /// `auth/NAME.rhai`: an authentication type.
    Auth,
    /// `hooks.rhai`: the hooks of all requests.
    Hooks,
    /// `resources/ID.rhai`: the hooks of one resource.
    Resource,
    /// `handlers/NAME.rhai`: responds to the requests of a resource.
    Handler,
    /// `events.rhai`: events of keys and users.
    Events,
}

/// The functions that Keyward calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Function {
    /// Reads the credential from the request.
    Header,
    /// Decodes the credential.
    Decode,
    /// Finds the credential's user.
    Lookup,
    /// Checks that the credential belongs to the user.
    Verify,
    /// Called before any phase.
    OnRequest,
    /// Called after authentication.
    OnAuthenticated,
    /// Called when the permission is checked.
    OnPermit,
    /// Called when the request is denied.
    OnDenied,
    /// Called when the response is ready.
    OnResponse,
    /// Builds the response.
    Handle,
    /// Called before a key is created.
    OnKeyCreated,
    /// Called when a key is about to expire.
    OnKeyExpiring,
    /// Called when a key is revoked.
    OnKeyRevoked,
    /// Called before a user is created.
    OnUserCreated,
    /// Called when failed attempts exceed their limit.
    OnFailureLimit,
}

impl Function {
    /// All functions, in the order of their kinds.
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
        Self::Handle,
        Self::OnKeyCreated,
        Self::OnKeyExpiring,
        Self::OnKeyRevoked,
        Self::OnUserCreated,
        Self::OnFailureLimit,
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
            Self::Handle => "handle",
            Self::OnKeyCreated => "on_key_created",
            Self::OnKeyExpiring => "on_key_expiring",
            Self::OnKeyRevoked => "on_key_revoked",
            Self::OnUserCreated => "on_user_created",
            Self::OnFailureLimit => "on_flood",
        }
    }

    /// The parameters, in order.
    pub fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Header | Self::OnRequest => &["req"],
            Self::Decode => &["req", "presented"],
            Self::Lookup => &["req", "credential"],
            Self::Verify => &["req", "user", "credential"],
            Self::OnAuthenticated | Self::Handle => &["req", "identity"],
            Self::OnPermit => &["req", "identity", "resource"],
            Self::OnDenied => &["req", "denial"],
            Self::OnResponse => &["req", "identity", "response"],
            Self::OnKeyCreated
            | Self::OnKeyExpiring
            | Self::OnKeyRevoked
            | Self::OnUserCreated
            | Self::OnFailureLimit => &["event"],
        }
    }

    /// The signature: `verify(req, user, credential)`.
    pub fn signature(self) -> String {
        format!("{}({})", self.name(), self.parameters().join(", "))
    }

    pub(super) fn bit(self) -> u16 {
        1 << self as u8
    }
}

impl ScriptKind {
    /// The functions that Keyward calls in scripts of this kind. A script must define at least one
    /// of these functions.
    pub fn functions(self) -> &'static [Function] {
        match self {
            Self::Auth => &Function::ALL[..4],
            Self::Hooks | Self::Resource => &Function::ALL[4..9],
            Self::Handler => &Function::ALL[9..10],
            Self::Events => &Function::ALL[10..],
        }
    }

    /// The folder of this kind's files, or the file itself.
    pub fn path(self) -> &'static str {
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
            Self::Hooks | Self::Events => self.path().to_owned(),
            _ => format!("{}{name}.rhai", self.path()),
        }
    }

    /// Checks the name of a script of this kind.
    ///
    /// # Errors
    /// The name is invalid. The error is a sentence that says why.
    pub fn check_name(self, name: &str) -> Result<(), String> {
        locate(&self.file(name)).map(drop)
    }

    pub(super) const ALL: [Self; 5] =
        [Self::Auth, Self::Hooks, Self::Resource, Self::Handler, Self::Events];
}

/// The file with definitions for editors, which `keyward script definitions` writes into the folder
/// of scripts. Keyward does not load this file as a script.
pub const DEFINITIONS: &str = "definitions.d.rhai";

/// The kind and the name of the script at a path relative to the folder of scripts.
///
/// # Errors
/// No script can have this path, or the script's name is invalid.
pub(super) fn locate(path: &str) -> Result<(ScriptKind, String), String> {
    for kind in [ScriptKind::Hooks, ScriptKind::Events] {
        if path == kind.path() {
            return Ok((kind, String::new()));
        }
    }
    for kind in [ScriptKind::Auth, ScriptKind::Resource, ScriptKind::Handler] {
        let name = path.strip_prefix(kind.path()).and_then(|file| file.strip_suffix(".rhai"));
        if let Some(name) = name {
            check_id("name", name).map_err(|violation| violation.to_string())?;
            // These authentication types are built in.
            if kind == ScriptKind::Auth && ["api_key", "basic", "bearer"].contains(&name) {
                return Err(format!(
                    "the authentication type {name} is built in; choose another name"
                ));
            }
            return Ok((kind, name.to_owned()));
        }
    }
    let forms =
        ["auth/NAME.rhai", "hooks.rhai", "resources/ID.rhai", "handlers/NAME.rhai", "events.rhai"];
    let near =
        suggest(path, forms).map(|near| format!(" Did you mean {near}?")).unwrap_or_default();
    Err(format!(
        "no script is loaded from this path. Use auth/NAME.rhai, hooks.rhai, resources/ID.rhai, handlers/NAME.rhai or events.rhai.{near}"
    ))
}

impl fmt::Display for ScriptKind {
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
