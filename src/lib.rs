pub mod accounts;
pub mod model;
pub mod store;
