//! TODO.

pub mod accounts;
pub(super) mod admin_service;
pub mod control_file;
pub(super) mod scripts;
pub(super) mod tls;
pub mod webhooks;
