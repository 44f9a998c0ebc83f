//! What somebody may take of a service: rates, credits, and how often one may be wrong. All of it in memory.
//!
//! - [`Bounds`]: the rate and the credits of one key, user, application or resource. They lie in the record that the Directory holds, so there are
//!   as many as there are records with limits, and asking costs no look-up.

mod bounds;
mod credit;
mod rate;

pub use bounds::{Bounds, Now, Reading, Taken};
pub use credit::Spent;
