//! TODO.

pub(super) mod breaker;
pub(super) mod budget;
pub(super) mod context;
pub(super) mod outbox;
pub(super) mod prepared;
pub(super) mod rate_limiter;
pub(super) mod replay_cache;
pub(super) mod sandbox;
