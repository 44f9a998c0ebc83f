//! Counters that are written by many threads and read rarely: each thread writes to a shard of its
//! own, and a reader adds the shards up.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

use parking_lot::Mutex;

/// A power of two. More threads than that share shards.
const SHARDS: usize = 32;

static NEXT_THREAD: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static THREAD: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// A value of this type for each thread. The lock of a shard is almost never contended: only a
/// reader takes the locks of all shards.
pub(super) struct Shards<T>(Box<[Shard<T>]>);

/// On cache lines of its own, so that threads do not wait for each other.
#[repr(align(128))]
struct Shard<T>(Mutex<T>);

impl<T: Default> Shards<T> {
    pub fn new() -> Self {
        Self((0..SHARDS).map(|_| Shard(Mutex::default())).collect())
    }
}

impl<T> Shards<T> {
    /// Writes to the shard of this thread.
    pub fn write<R>(&self, write: impl FnOnce(&mut T) -> R) -> R {
        write(&mut self.0[thread_number() % SHARDS].0.lock())
    }

    /// Reads all shards, one after another.
    pub fn read(&self, mut read: impl FnMut(&T)) {
        for shard in &self.0 {
            read(&shard.0.lock());
        }
    }
}

fn thread_number() -> usize {
    THREAD.with(|thread| {
        if thread.get() == usize::MAX {
            thread.set(NEXT_THREAD.fetch_add(1, Relaxed));
        }
        thread.get()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_if_many_threads_write() {
        let shards: Shards<u64> = Shards::new();
        std::thread::scope(|scope| {
            for _ in 0..SHARDS + 8 {
                scope.spawn(|| (0..1000).for_each(|_| shards.write(|count| *count += 1)));
            }
        });
        let mut sum = 0;
        shards.read(|count| sum += count);
        assert_eq!(sum, (SHARDS as u64 + 8) * 1000);
    }
}
