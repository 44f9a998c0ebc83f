//! The maps of what is rare in the Directory, and how they hash.
//!
//! papaya moves a table into a larger one when a key's probe sequence gets longer than 5 log2(capacity), but into one of the same size when it is
//! less than half full; a key that fits neither is tried for ever. A hash must not let that happen: with `foldhash::fast`, whose seed is drawn
//! once a process, one process in three hundred never finished loading some thousand users whose numbers follow one another.

use std::hash::{BuildHasher, Hash, RandomState};

/// By number. We give the numbers ourselves, so nobody can choose them to collide.
pub(super) type ByNumber<V> = papaya::HashMap<u64, V, foldhash::quality::RandomState>;

/// By something that others choose, hashed with SipHash, which they cannot foresee.
pub(super) type ByChoice<K, V> = papaya::HashMap<K, V, RandomState>;

/// An empty map. It grows at once, not by and by: while the store is loaded, half-moved tables cost time, and later it grows seldom.
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

    /// papaya's `raw/probe.rs`: triangular steps, at most 5 log2(capacity) of them.
    fn longest_probe(capacity: usize, hasher: &impl BuildHasher) -> usize {
        let mut taken = vec![false; capacity];
        let mut longest = 0;
        for number in 1..capacity as u64 / 2 {
            #[allow(clippy::cast_possible_truncation, reason = "papaya takes the low bits")]
            let mut at = hasher.hash_one(number) as usize & (capacity - 1);
            let mut steps = 0;
            while std::mem::replace(&mut taken[at], true) {
                steps += 1;
                if steps > capacity {
                    return steps;
                }
                at = (at + steps) & (capacity - 1);
            }
            longest = longest.max(steps);
        }
        longest
    }

    #[test]
    fn numbers_that_follow_one_another_find_a_place_under_every_seed() {
        for seed in 0..3_000 {
            let shared: &'static SharedSeed = Box::leak(Box::new(SharedSeed::from_u64(seed)));
            let hasher = SeedableRandomState::with_seed(seed, shared);
            for capacity in [64_usize, 1024, 4096] {
                let limit = 5 * capacity.ilog2() as usize;
                let longest = longest_probe(capacity, &hasher);
                assert!(longest <= limit, "seed {seed}, {capacity} places: {longest} steps");
            }
        }
    }
}
