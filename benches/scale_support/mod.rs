//! Modules of `benches/scale.rs`: the store with many users, the server, and the measurement.

pub mod measure;
pub mod server;
pub mod store;

/// A result with any error.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
