//! Builds the components of this Keyward instance from the configuration: accounts, admin API,
//! scripts, certificates, webhooks and the control file.

pub mod accounts;
pub(super) mod admin_service;
pub mod control_file;
pub(super) mod descriptors;
pub(super) mod metrics;
pub(super) mod refusals;
pub(super) mod scripts;
pub(super) mod tls;
pub(super) mod unix_socket;
mod users;
pub mod webhooks;
