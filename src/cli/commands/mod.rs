//! The commands: one file per command. The doc comments of a command's arguments are the
//! command's help page.

pub(super) mod app;
pub(super) mod apply;
pub(super) mod audit;
pub(super) mod backup;
pub(super) mod completions;
pub(super) mod config;
pub(super) mod explain;
pub(super) mod files;
mod filter;
pub(super) mod healthcheck;
pub(super) mod import;
pub(super) mod init;
pub(super) mod key;
pub(super) mod limit;
pub(super) mod resource;
pub(super) mod role;
pub(super) mod script;
pub(super) mod serve;
pub(super) mod store;
pub(super) mod upload;
pub(super) mod user;
