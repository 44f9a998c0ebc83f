pub mod accounts;
pub mod cli;
pub mod config;
pub mod handlers;
pub mod model;
pub mod pipeline;
pub mod store;
