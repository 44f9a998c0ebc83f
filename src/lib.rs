//! Keyward stands in front of REST APIs and decides who may pass.
//!
//! The rooms of the house, from the ground up; each uses only what lies below it:
//! - [`model`]: the records, and what is true of them without asking anybody;
//! - [`store`]: where they are kept, and the [`Directory`](store::Directory) that decisions read;
//! - [`accounts`]: what people do with them;
//! - [`config`]: what the operator has set.

pub mod accounts;
pub mod cli;
pub mod config;
pub mod handlers;
pub mod model;
pub mod pipeline;
pub mod store;
