//! What somebody may take of a service: rates, credits, and how often one may be wrong. All of it in memory.
//!
//! - [`Bounds`]: the rate and the credits of one key, user, application or resource. They lie in the record that the Directory holds, so there are
//!   as many as there are records with limits, and asking costs no look-up.
//! - [`Counters`]: the use of keys and the denials until they are written down, and the failures of clients until they are forgotten.

mod bounds;
mod counters;
mod credit;
mod denial_log;
mod failures;
mod rate;
mod usage;

pub use bounds::{Bounds, Now, Reading};
pub use counters::Counters;
pub use credit::Spent;
pub use denial_log::{
    Denial, DenialLimits, More, Object, Rest, Standing, Suspect, Telling, Told, Untold,
};
pub use failures::{Attempt, FailureLimits, Limit, LimitExceeded, Wait};
pub use usage::{Unwritten, Used};
