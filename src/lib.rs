//! Keyward stands in front of a REST API and decides which requests may pass. It manages users, API
//! keys, roles and permissions, and is available as a small library and as a small binary.
//!
//! # In a Rust program
//!
//! A [`Store`] keeps the records: [`SledStore`] or [`RedbStore`] in a folder, [`MemoryStore`] for
//! tests, or your own engine. [`Accounts`] creates and changes users, keys, roles, applications and
//! resources. A [`Gate`] decides whether a request is allowed. A [`Layer`] puts a gate in front of
//! a `tower` or axum service, which finds the caller's [`CallerIdentity`] in the extensions of the
//! request.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use std::sync::Arc;
//!
//! use axum::{Extension, Router, routing::get};
//! use keyward::{Accounts, Actor, CallerIdentity, Gate, Layer, MemoryStore, NewKey, NewUser};
//! use keyward::{Clock, Entropy, Passwords, Pepper};
//!
//! // This example keeps all records in memory. `SledStore` and `Accounts::open` keep the records
//! // and the pepper in files.
//! let (store, entropy) = (Arc::new(MemoryStore::new()), Entropy::system());
//! let pepper = Pepper::from_bytes(entropy.bytes());
//! let accounts = Accounts::with(store, pepper, Passwords::new(2), Clock::system(), entropy)?;
//! accounts.first_start().await?;
//!
//! // Create a user with one key. Only `issued` has the key's text; the store has a digest of it.
//! let writer = accounts.as_actor(Actor::Program);
//! let user = NewUser { name: "builder".into(), status: true, ..NewUser::default() };
//! let uid = writer.create_user(user).await?.record.uid;
//! let issued = writer.issue_key(uid, NewKey::default()).await?;
//!
//! // Every route behind the layer needs an authenticated user.
//! async fn hello(Extension(identity): Extension<CallerIdentity>) -> String {
//!     format!("Hello, {}.", identity.name().unwrap_or("nobody"))
//! }
//! let guard = Layer::new(Gate::new(&accounts, 4096)).requires_user();
//! let app = Router::new().route("/hello", get(hello)).layer(guard);
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
//! More examples: `examples/axum.rs`, `examples/appliance.rs` (a store in a folder, and a script
//! that decides who may pass) and `examples/custom_store.rs` (your own storage engine).
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
//! `default-features = false`.

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
#[cfg_attr(not(feature = "server"), allow(dead_code, reason = "only the server uses all items"))]
mod tls;

pub use accounts::{AccountError, Accounts, Issued, NewKey, NewUser, Passwords, Writer};
pub use layer::{CallerIdentity, Layer};
pub use model::{
    Actor, Application, Clock, Entropy, Key, KeyId, Pepper, Resource, Role, Secret, Timestamp, User,
};
pub use pipeline::{Denial, Gate};
pub use scripting::{ScriptLimits, Secrets};
pub use store::{MemoryStore, RedbStore, SledStore, Store, StoreError};
