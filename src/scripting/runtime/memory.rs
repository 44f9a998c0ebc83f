//! Measures the memory of a call's variables while the call runs, because the engine limits only
//! single values. Temporary values of an expression are not measured; the limits of single values
//! and of nested expressions bound them.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
};

use rhai::{Dynamic, EvalAltResult, EvalContext};

use super::{
    context::{ContextHandle, too_large},
    memory_pool::MemoryPool,
};
use crate::scripting::fault::SHARED_MEMORY;

/// The estimated size of an element of an array, in bytes, without its content.
pub(in crate::scripting) const ELEMENT: usize = 24;
/// The estimated size of a map's entry, in bytes, without key and content.
const ENTRY: usize = 64;
/// The minimum number of accesses of variables between two measurements.
const STRIDE: u32 = 16;
/// Calls with less memory do not count for the memory of all calls, so that usual calls do not wait
/// for a shared counter.
const SMALL_CALL: usize = 64 * 1024;
/// The nesting of arrays and maps that is measured. Deeper values are too large.
const MAX_DEPTH: usize = 1100;

thread_local! {
    /// The number of accesses of variables until the next measurement.
    static COUNTDOWN: Cell<u32> = const { Cell::new(STRIDE) };
    /// The measured memory of the call that runs on this thread.
    static LEDGER: RefCell<Ledger> = RefCell::default();
}

/// The measured memory of one call.
#[derive(Default)]
struct Ledger {
    /// The memory of the variables of each function that is being executed.
    levels: Vec<usize>,
    /// The share of the pool; `None` means that the call is small.
    share: Option<(Arc<MemoryPool>, usize)>,
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if let Some((pool, share)) = self.share.take() {
            pool.replace(share, 0);
        }
    }
}

/// Runs a call with a new ledger. Calls nest when a test calls `decide()`.
pub(super) fn with_ledger<T>(call: impl FnOnce() -> T) -> T {
    struct RestoreOuter(Ledger);
    impl Drop for RestoreOuter {
        fn drop(&mut self) {
            LEDGER.replace(std::mem::take(&mut self.0));
        }
    }
    let _restore = RestoreOuter(LEDGER.take());
    call()
}

/// Called at each access of a variable. Measures the variables from time to time.
///
/// # Errors
/// The variables take too much memory.
#[inline]
pub(in crate::scripting) fn observe(
    context: &EvalContext<'_, '_, '_, '_, '_, '_>,
) -> Result<(), Box<EvalAltResult>> {
    let left = COUNTDOWN.get();
    if left > 0 {
        COUNTDOWN.set(left - 1);
        return Ok(());
    }
    measure(context)
}

#[cold]
fn measure(context: &EvalContext<'_, '_, '_, '_, '_, '_>) -> Result<(), Box<EvalAltResult>> {
    let mut elements = 0;
    let variables = context.scope().iter_raw();
    let bytes = variables.map(|(_, _, value)| measure_value(value, 0, &mut elements));
    let bytes = bytes.fold(0, usize::saturating_add);
    // The measurement takes only a fraction of the time of the accesses between two measurements.
    COUNTDOWN.set(STRIDE.max(elements / 4));
    let Some(call) = context.tag().read_lock::<ContextHandle>() else { return Ok(()) };
    LEDGER.with_borrow_mut(|ledger| {
        ledger.levels.resize(context.call_level() + 1, 0);
        if let Some(level) = ledger.levels.last_mut() {
            *level = bytes;
        }
        let total = ledger.levels.iter().copied().fold(0, usize::saturating_add);
        let max = call.host.limits.call_bytes;
        if total > max {
            return Err(too_large(format!(
                "the variables take more than {max} bytes (scripts.call_bytes)"
            )));
        }
        if total < SMALL_CALL && ledger.share.is_none() {
            return Ok(());
        }
        let pool = &call.host.memory;
        let (_, share) = ledger.share.get_or_insert_with(|| (pool.clone(), 0));
        if !pool.replace(*share, total) {
            return Err(too_large(format!(
                "{SHARED_MEMORY}: the variables of all calls take more than {} bytes (scripts.memory_bytes)",
                pool.max()
            )));
        }
        *share = total;
        Ok(())
    })
}

/// The estimated memory of a value, in bytes.
pub(in crate::scripting) fn size_of(value: &Dynamic) -> usize {
    measure_value(value, 0, &mut 0)
}

fn measure_value(value: &Dynamic, depth: usize, elements: &mut u32) -> usize {
    *elements = elements.saturating_add(1);
    if depth > MAX_DEPTH {
        return usize::MAX;
    }
    if let Ok(text) = value.as_immutable_string_ref() {
        return ELEMENT + text.len();
    }
    if let Ok(array) = value.as_array_ref() {
        let items = array.iter().map(|item| measure_value(item, depth + 1, elements));
        return items.fold(ELEMENT, usize::saturating_add);
    }
    if let Ok(map) = value.as_map_ref() {
        let entries = map.iter().map(|(key, item)| {
            measure_value(item, depth + 1, elements).saturating_add(ENTRY + key.len())
        });
        return entries.fold(ELEMENT, usize::saturating_add);
    }
    value.as_blob_ref().map_or(ELEMENT, |blob| ELEMENT + blob.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn end_of_a_call_frees_its_share() {
        let pool = Arc::new(MemoryPool::new(100));
        assert!(pool.replace(0, 90) && !pool.replace(0, 90));
        drop(Ledger { levels: Vec::new(), share: Some((pool.clone(), 90)) });
        assert!(pool.replace(0, 100));
    }

    #[test]
    fn size_contains_keys_texts_and_nested_values() {
        let map = rhai::Map::from([("k".repeat(1000).into(), "v".repeat(500).into())]);
        let size = size_of(&vec![Dynamic::from(map)].into());
        assert!((1500..1800).contains(&size), "{size}");
        let nested = (0..1200).fold(Dynamic::UNIT, |value, _| vec![value].into());
        assert_eq!(size_of(&nested), usize::MAX);
    }
}
