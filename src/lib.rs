//! Keyward stands in front of REST APIs and decides who may pass.
//!
//! The rooms of the house, from the ground up; each uses only what lies below it:
//! - [`model`]: the records, and what is true of them without asking anybody;
//! - [`limits`]: what somebody may take of a service, and what they have taken;
//! - [`files`]: what operators put on the disk beside the store, and when it changes;
//! - [`tls`]: certificates, ours and those of others;
//! - [`store`]: where they are kept, and the [`Directory`](directory::Directory) that decisions read;
//! - [`hooks`]: the scripts of the operator;
//! - [`accounts`]: what people do with them;
//! - [`webhooks`]: what others are told of it;
//! - [`pipeline`]: the Gate, five rooms that every request walks through;
//! - [`handlers`]: what follows when it may;
//! - [`front`]: what every face does alike;
//! - [`http`] and [`admin`]: the public face and the one for administrators;
//! - [`cli`]: the command line;
//! - [`config`]: what the operator has set;
//! - [`telemetry`]: what the operator is told.

pub mod accounts;
pub mod api;
pub mod cli;
pub mod config;
pub mod directory;
pub mod files;
pub mod handlers;
pub mod http;
pub mod layer;
pub mod limits;
pub mod model;
pub mod pipeline;
pub mod scripting;
pub mod server;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod webhooks;

pub use layer::Layer;
