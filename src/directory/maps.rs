//! Lock-free maps for the smaller parts of the Directory, and their hashers.
//!
//! If the probe sequence of a key gets longer than 5 log2(capacity), papaya moves all entries into
//! a larger table. But if the table is less than half full, papaya moves the entries into a table
//! of equal size. With a poor hash, the key does not fit into that table either, and papaya tries
//! again for ever. This happened with `foldhash::fast`, whose seed is drawn once for each process:
//! one process in three hundred never finished loading some thousand users with consecutive
//! numbers.

use std::hash::{BuildHasher, Hash, RandomState};

/// A map by number. Keyward itself assigns the numbers, so nobody can choose numbers that collide.
pub(super) type NumberMap<V> = papaya::HashMap<u64, V, foldhash::quality::RandomState>;

/// A map by keys that other people choose. The keys are hashed with SipHash, so nobody can choose
/// keys that collide.
pub(super) type UntrustedKeyMap<K, V> = papaya::HashMap<K, V, RandomState>;

/// An empty map, which grows in one step and not gradually. Gradual growth would make insertions
/// slower while the store is loaded. After the load, the map seldom grows.
pub(super) fn map<K: Hash + Eq, V, S: BuildHasher + Default>() -> papaya::HashMap<K, V, S> {
    papaya::HashMap::builder()
        .hasher(S::default())
        .resize_mode(papaya::ResizeMode::Blocking)
        .build()
}

#[cfg(test)]
mod tests {
    use foldhash::{SharedSeed, quality::SeedableRandomState};

    use super::*;

    /// The length of the longest probe sequence in a table that is half full of consecutive
    /// numbers, with triangular steps as in papaya's `raw/probe.rs`.
    fn longest_probe(capacity: usize, hasher: &impl BuildHasher) -> usize {
        let mut taken = vec![false; capacity];
        let mut longest = 0;
        for number in 1..capacity as u64 / 2 {
            #[allow(clippy::cast_possible_truncation, reason = "papaya takes the low bits")]
            let mut slot = hasher.hash_one(number) as usize & (capacity - 1);
            let mut steps = 0;
            while std::mem::replace(&mut taken[slot], true) {
                steps += 1;
                if steps > capacity {
                    return steps;
                }
                slot = (slot + steps) & (capacity - 1);
            }
            longest = longest.max(steps);
        }
        longest
    }

    #[test]
    fn consecutive_numbers_have_short_probe_sequences_with_every_seed() {
        for seed in 0..3_000 {
            let shared: &'static SharedSeed = Box::leak(Box::new(SharedSeed::from_u64(seed)));
            let hasher = SeedableRandomState::with_seed(seed, shared);
            for capacity in [64_usize, 1024, 4096] {
                let limit = 5 * capacity.ilog2() as usize;
                let longest = longest_probe(capacity, &hasher);
                assert!(longest <= limit, "seed {seed}, capacity {capacity}: {longest} steps");
            }
        }
    }
}
