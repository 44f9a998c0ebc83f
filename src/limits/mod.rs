//! What somebody may take of a service: rates, credits, and how often one may be wrong. All of it in memory.
//!
//! - [`Bounds`]: the rate and the credits of one key, user, application or resource. They lie in the record that the Directory holds, so there are
//!   as many as there are records with limits, and asking costs no look-up.
//! - [`Ledger`]: the use of keys and the denials until they are written down, and the failures of clients until they are forgotten.

mod bounds;
mod credit;
mod denials;
mod flood;
mod ledger;
mod rate;
mod usage;

pub use bounds::{Bounds, Now, Reading, Taken};
pub use credit::Spent;
pub use denials::{
    Denial, DenialLimits, More, Object, Rest, Standing, Suspect, Telling, Told, Untold,
};
pub use flood::{Attempt, Crossed, FailureLimits, Limit, Wait};
pub use ledger::Ledger;
pub use usage::{Unwritten, Used};
