//! The memory that all calls of scripts may use together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The memory of the variables of all calls that run at the same time.
pub(in crate::scripting) struct MemoryPool {
    max: usize,
    used: AtomicUsize,
}

impl MemoryPool {
    pub fn new(max: usize) -> Self {
        Self { max, used: AtomicUsize::new(0) }
    }

    /// The maximum, in bytes.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Replaces the share of a call. Returns false if the pool is exhausted; then the share stays
    /// unchanged.
    pub fn replace(&self, before: usize, after: usize) -> bool {
        let used = self.used.fetch_add(after, Ordering::Relaxed).saturating_add(after);
        if after > before && used.saturating_sub(before) > self.max {
            self.used.fetch_sub(after, Ordering::Relaxed);
            return false;
        }
        self.used.fetch_sub(before, Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pool_is_exhausted_by_the_sum_of_all_calls() {
        let pool = MemoryPool::new(100);
        assert!(pool.replace(0, 60) && !pool.replace(0, 60));
        assert!(pool.replace(60, 90) && !pool.replace(90, 101));
        assert!(pool.replace(90, 0) && pool.replace(0, 100));
    }
}
