pub mod accounts;
pub mod config;
pub mod model;
pub mod pipeline;
pub mod store;
