//! Everything that a running call needs: its budget, its context, prepared functions, and the
//! tables behind `rate_limit` and `once`.

pub(super) mod breaker;
pub(super) mod budget;
pub(super) mod context;
pub(super) mod memory;
pub(super) mod memory_pool;
pub(super) mod outbox;
pub(super) mod prepared;
pub(super) mod quota;
pub(super) mod rate_limiter;
pub(super) mod replay_cache;
pub(super) mod sandbox;
