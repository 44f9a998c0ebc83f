//! What the bench of many users is made of: their store, the program on it, and what asks it.

pub mod ask;
pub mod server;
pub mod store;

/// An answer, or what went wrong.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;
