//! `config.toml` and the environment, read once at the start.

pub mod file;
