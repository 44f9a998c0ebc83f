//! Keyward stands in front of a REST API and decides which requests may pass. It manages users, API
//! keys, roles and permissions, and is available as a small library and as a small binary.
//!
//! # In a Rust program
//!
//! [`Keyward`] is the whole of it: the store, the first records, the scripts and the background
//! duties. A [guard](Keyward::guard) puts it in front of a `tower` or axum service, which gets the
//! caller's [`Identity`]. Changes that a caller asks for go through [`Keyward::on_behalf_of`].
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use axum::{Router, routing::get};
//! use keyward::{ClientSource, Identity, Keyward, NewKey, NewUser};
//!
//! // This example keeps all records in memory. `Keyward::folder` keeps the records and the pepper
//! // in files. The requests of this example have no connection, so the client is not known.
//! let keyward = Keyward::memory()
//!     .client(ClientSource::from_fn(|_| Some([127, 0, 0, 1].into())))
//!     .start()
//!     .await?;
//!
//! // Create a user with one key. Only `issued` has the key's text; the store has a digest of it.
//! let writer = keyward.unbounded();
//! let user = NewUser { name: "builder".into(), status: true, ..NewUser::default() };
//! let uid = writer.create_user(user).await?.record.uid;
//! let issued = writer.issue_key(uid, NewKey::default()).await?;
//!
//! // Every route behind the guard needs an authenticated user.
//! async fn hello(caller: Identity) -> String {
//!     format!("Hello, {}.", caller.name().unwrap_or("nobody"))
//! }
//! let guard = keyward.guard().requires_user();
//! let app: Router = Router::new().route("/hello", get(hello)).layer(guard);
//!
//! // A client sends `base64(name:key)`.
//! use base64::Engine as _;
//! use tower::ServiceExt as _;
//! let credential = format!("builder:{}", issued.text.expose());
//! let credential = base64::engine::general_purpose::STANDARD.encode(credential);
//! let request = http::Request::get("/hello").header("API-KEY", credential);
//! let response = app.oneshot(request.body(axum::body::Body::empty())?).await?;
//! assert_eq!(response.status(), 200);
//! # Ok::<_, Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! More examples: `examples/axum.rs`, `examples/appliance.rs` (a store in a folder, a script that
//! decides who may pass, and a page for keys) and `examples/custom_store.rs` (your own storage
//! engine). `docs/embedding.md` explains where guards may be, and the test kit.
//!
//! # Where things are
//!
//! The items that most programs need are re-exported here. The rest is in the modules:
//! - [`model`]: the records, ids, secrets and permissions;
//! - [`limits`]: rates, credits and failure limits;
//! - [`store`]: the trait that storage engines implement, the engines and the audit log;
//! - [`accounts`]: creating and changing records;
//! - [`scripting`]: authentication types, hooks and handlers in Rhai;
//! - [`pipeline`]: the [`Gate`] and its five phases;
//! - [`handlers`]: the code that responds to an allowed request;
//! - [`layer`]: the gate as a `tower` layer;
//! - [`http`]: code that the server and the layer share, such as the response to a [`Denial`].
//!
//! # Features
//!
//! The feature `server` (on by default) adds the `keyward` program: listeners, admin API,
//! configuration and command line. Your program leaves this feature out with
//! `default-features = false`. `axum` adds the extractor [`Identity`] and the knowledge of nested
//! routers, `testing` a test kit, `jwt` the script functions for JSON Web Tokens, and `watch` the
//! reload of changed scripts.

#[cfg(feature = "server")]
pub mod api;
#[cfg(feature = "server")]
pub mod cli;
#[cfg(feature = "server")]
mod config;
#[cfg(all(any(test, feature = "fuzzing"), feature = "server"))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
mod telemetry;
#[cfg(feature = "server")]
mod webhooks;

pub mod accounts;
mod directory;
mod embedding;
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses all items"))]
mod files;
pub mod handlers;
pub mod http;
pub mod layer;
pub mod limits;
pub mod model;
pub mod pipeline;
pub mod scripting;
pub mod store;
#[cfg(feature = "testing")]
pub mod testing;
#[cfg(feature = "server")]
mod tls;

pub use accounts::{
    AccountError, Accounts, FirstStart, Issued, NewKey, NewUser, Passwords, Writer,
};
pub use embedding::{ClientMissing, Keyward, KeywardBuilder, OnBehalf, StartError};
pub use ipnet::IpNet;
pub use layer::{ClientSource, GuardLayer, Identity};
pub use model::{
    Actor, Application, Clock, Entropy, Key, KeyId, Pepper, Resource, Role, Secret, Timestamp, User,
};
pub use pipeline::{Denial, Gate};
pub use scripting::{ScriptLimits, Secrets};
pub use store::{MemoryStore, RedbStore, SledStore, Store, StoreError};
