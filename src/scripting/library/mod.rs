//! What scripts can call, in sections. Each function is documented once, in its own doc comment: the reference and the
//! definitions for editors are made of them.

mod answers;
mod digests;
mod encodings;
mod events;
mod guards;
mod jwt;
mod people;
pub(super) mod reference;
mod request;
mod testing;
mod times;

use rhai::{Dynamic, Engine, EvalAltResult, Module};

use super::values::{
    records::{IdentityView, KeyView, ResourceView, RoleView, UserView},
    request::ScriptRequest,
    response::{HandlerResponse, ScriptDenial, ScriptResponse},
};
pub(super) use digests::SecretText;

type Checked<T> = Result<T, Box<EvalAltResult>>;

/// A map on its way to a script. The engine would take one of Rust's apart and build it anew; the name is what the definitions for editors show.
type Map = Dynamic;

/// A part of the library, as the reference shows it.
pub(super) struct Section {
    pub title: &'static str,
    pub intro: &'static str,
    pub module: fn() -> Module,
}

/// The whole library.
pub(super) const SECTIONS: &[Section] = &[
    Section {
        title: "The request",
        intro: "`req` is the first argument of every function that Keyward calls.",
        module: request::module,
    },
    Section {
        title: "Users, keys, roles, resources",
        intro: "Read-only, and from memory. `identity` is who is asking; `user` is a record.",
        module: people::module,
    },
    Section {
        title: "Refusing and answering",
        intro: "`denial` is the argument of `on_denied`, `response` that of `on_response`.",
        module: answers::module,
    },
    Section {
        title: "Encodings",
        intro: "Bytes are *blobs*. Where a function takes data, it takes a text or a blob.",
        module: encodings::module,
    },
    Section {
        title: "Digests, signatures, secrets",
        intro: "Digests are blobs: show them with `hex()` or `base64_encode()`, compare them with `constant_time_eq()`.",
        module: digests::module,
    },
    Section {
        title: "JSON Web Tokens",
        intro: "The algorithm is the script's choice, never the token's.",
        module: jwt::module,
    },
    Section {
        title: "Time",
        intro: "Points in time are whole seconds since 1970-01-01T00:00:00Z; durations are seconds.",
        module: times::module,
    },
    Section {
        title: "Limits, networks, patterns, log",
        intro: "What is counted here is shared by all scripts, and survives a reload.",
        module: guards::module,
    },
    Section {
        title: "Events",
        intro: "`event` is a map, and the only argument of the functions of `events.rhai`.",
        module: events::module,
    },
    Section {
        title: "Tests",
        intro: "Only while a script's `test_…` functions run. Each test has its own users, secrets, clock and counters.",
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

/// Gives the types the names that scripts and messages use.
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
