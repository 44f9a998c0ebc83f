//! The functions that scripts can call, in sections. Each function is documented once, in its doc
//! comment, from which the reference and the definitions for editors are generated.

mod digests;
mod encodings;
mod events;
mod guards;
#[cfg(feature = "jwt")]
mod jwt;
mod people;
pub(super) mod reference;
mod request;
mod responses;
mod testing;
mod times;

use rhai::{Dynamic, Engine, EvalAltResult, Module};

use super::values::{
    records::{IdentityView, KeyView, ResourceView, RoleView, UserView},
    request::ScriptRequest,
    response::{HandlerResponse, ScriptDenial, ScriptResponse},
};
pub(super) use digests::SecretText;
pub(super) use encodings::{json_parse, json_text};

type Checked<T> = Result<T, Box<EvalAltResult>>;

/// A map for a script. The type is `Dynamic`, because the engine would rebuild a Rust map. The name
/// `Map` appears in the definitions for editors.
type Map = Dynamic;

/// A section of the library and of the reference.
pub(super) struct Section {
    pub title: &'static str,
    pub intro: &'static str,
    pub module: fn() -> Module,
}

/// The whole library.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "The request",
        intro: "`req` is the first argument of every function that Keyward calls, except in `events.rhai`.",
        module: request::module,
    },
    Section {
        title: "Users, keys, roles, resources",
        intro: "All these values are read-only and come from memory. `identity` is the caller; `user` is any user.",
        module: people::module,
    },
    Section {
        title: "Denials and responses",
        intro: "`denial` is an argument of `on_denied`; `response` is an argument of `on_response`.",
        module: responses::module,
    },
    Section {
        title: "Encodings",
        intro: "A *blob* is a value that contains bytes. Parameters named `data` accept a text or a blob.",
        module: encodings::module,
    },
    Section {
        title: "Digests, signatures, secrets",
        intro: "Digests are blobs. Print a digest with `hex()` or `base64_encode()`, and compare digests with `constant_time_eq()`.",
        module: digests::module,
    },
    #[cfg(feature = "jwt")]
    Section {
        title: "JSON Web Tokens",
        intro: "The script chooses the algorithm. A token that names another algorithm is rejected.",
        module: jwt::module,
    },
    Section {
        title: "Time",
        intro: "Times are whole seconds since 1970-01-01T00:00:00Z; durations are seconds.",
        module: times::module,
    },
    Section {
        title: "Limits, networks, patterns, log",
        intro: "All scripts share the counters of `rate_limit()` and `once()`. The counters survive a reload.",
        module: guards::module,
    },
    Section {
        title: "Events",
        intro: "The functions of `events.rhai` have one argument, the map `event`.",
        module: events::module,
    },
    Section {
        title: "Tests",
        intro: "These functions are available only while `test_…` functions run. Each test has separate users, secrets, counters and a separate clock.",
        module: testing::module,
    },
];

/// Registers the library.
pub(super) fn register(engine: &mut Engine) {
    types(engine);
    for section in SECTIONS {
        engine.register_global_module((section.module)().into());
    }
}

/// Registers the names that types have in scripts and in error messages.
pub(super) fn types(engine: &mut Engine) {
    engine
        .register_type_with_name::<ScriptRequest>("Request")
        .register_type_with_name::<IdentityView>("Identity")
        .register_type_with_name::<UserView>("User")
        .register_type_with_name::<KeyView>("Key")
        .register_type_with_name::<RoleView>("Role")
        .register_type_with_name::<ResourceView>("Resource")
        .register_type_with_name::<ScriptDenial>("Denial")
        .register_type_with_name::<ScriptResponse>("Response")
        .register_type_with_name::<HandlerResponse>("Reply")
        .register_type_with_name::<SecretText>("Secret");
}
