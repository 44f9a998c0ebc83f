//! Limits in memory: rates, credits, and failed authentications.
//!
//! - [`Bounds`]: the rate and the credits of one key, user, application or resource. The
//!   directory's entry of a record contains its `Bounds`, so a check needs no look-up.
//! - [`Buffers`]: the bytes of request bodies that are in memory.
//! - [`Counters`]: uses of keys and denials until they are written to the store, and failures of
//!   clients until they expire or are evicted.

mod bounds;
mod buffers;
mod counters;
mod credit;
mod denial_log;
mod failures;
pub(crate) mod gcra;
mod rate;
mod usage;

pub use bounds::{Bounds, LimitStatus, Now};
pub use buffers::{
    BufferAccount, BufferLimits, BufferUse, Buffers, Held, HeldBody, HoldError, Share, Standing,
};
pub use counters::Counters;
pub use credit::Spent;
pub use denial_log::{
    DenialEntry, DenialLimits, DenialLogging, DeniedRequest, Object, PendingDenials, Subject,
    Summary, SummaryDue, Verification,
};
pub use failures::{FailureKind, FailureLimits, LimitExceeded, PasswordAttempt, RetryAfter};
pub use usage::{Unwritten, Used};
