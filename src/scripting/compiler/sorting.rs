//! Replaces the engine's `sort` and `dedup`, which call a function of the script to compare items.
//! The engine's versions ignore errors of that function, including refusals and an exceeded budget.

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext};

use crate::scripting::runtime::context::runtime_error;

type Checked<T> = Result<T, Box<EvalAltResult>>;

pub(in crate::scripting) fn register(engine: &mut Engine) {
    for name in ["sort", "sort_by"] {
        engine.register_fn(name, |context: NativeCallContext, array: &mut Array, by: FnPtr| {
            sort(array, &mut |a, b| is_after(&context, &by, a, b))
        });
    }
    for name in ["sorted", "sorted_by"] {
        engine.register_fn(name, |context: NativeCallContext, array: &mut Array, by: FnPtr| {
            let mut array = array.clone();
            sort(&mut array, &mut |a, b| is_after(&context, &by, a, b)).map(|()| array)
        });
    }
    engine.register_fn("dedup", |context: NativeCallContext, array: &mut Array, by: FnPtr| {
        dedup(array, &mut |a, b| is_equal(&context, &by, a, b))
    });
}

/// Whether `a` comes after `b`. The script's function returns a number (positive means after), or
/// `true` if `a` comes before `b`.
fn is_after(
    context: &NativeCallContext<'_>,
    by: &FnPtr,
    a: &Dynamic,
    b: &Dynamic,
) -> Checked<bool> {
    let order = by.call_raw(context, None, [a.clone(), b.clone()])?;
    if let Ok(is_before) = order.as_bool() {
        return Ok(!is_before);
    }
    let wrong = |kind| {
        runtime_error(format!("the function for sort() returned {kind}; it must return a number"))
    };
    order.as_int().map(|order| order > 0).map_err(wrong)
}

fn is_equal(
    context: &NativeCallContext<'_>,
    by: &FnPtr,
    a: &Dynamic,
    b: &Dynamic,
) -> Checked<bool> {
    let equal = by.call_raw(context, None, [a.clone(), b.clone()])?;
    let wrong = |kind| {
        runtime_error(format!(
            "the function for dedup() returned {kind}; it must return true or false"
        ))
    };
    equal.as_bool().map_err(wrong)
}

/// Sorts with a stable merge sort. An inconsistent comparison function leads only to a wrong order;
/// the standard library's sort may panic. After an error the array is unchanged.
fn sort(
    array: &mut Array,
    is_after: &mut dyn FnMut(&Dynamic, &Dynamic) -> Checked<bool>,
) -> Checked<()> {
    let mut from = array.clone();
    let mut width = 1;
    while width < from.len() {
        let mut merged = Array::with_capacity(from.len());
        for run in from.chunks(width * 2) {
            let (mut left, mut right) = run.split_at(width.min(run.len()));
            while let ([a, more_left @ ..], [b, more_right @ ..]) = (left, right) {
                if is_after(a, b)? {
                    merged.push(b.clone());
                    right = more_right;
                } else {
                    merged.push(a.clone());
                    left = more_left;
                }
            }
            merged.extend(left.iter().chain(right).cloned());
        }
        from = merged;
        width *= 2;
    }
    *array = from;
    Ok(())
}

/// Removes items that are equal to the item before them. After an error the array is unchanged.
fn dedup(
    array: &mut Array,
    is_equal: &mut dyn FnMut(&Dynamic, &Dynamic) -> Checked<bool>,
) -> Checked<()> {
    let mut kept = Array::with_capacity(array.len());
    for item in array.iter() {
        let is_duplicate = match kept.last() {
            Some(last) => is_equal(last, item)?,
            None => false,
        };
        if !is_duplicate {
            kept.push(item.clone());
        }
    }
    *array = kept;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[i64]) -> Array {
        numbers.iter().map(|number| (*number).into()).collect()
    }

    fn to_numbers(array: &Array) -> Vec<i64> {
        array.iter().map(|number| number.as_int().unwrap()).collect()
    }

    #[test]
    fn sorting_is_stable() {
        for length in 0..40_i64 {
            let mut array: Array =
                numbers(&(0..length).map(|n| (n * 7 % 5) * 100 + n).collect::<Vec<_>>());
            let mut sorted = to_numbers(&array);
            sorted.sort_by_key(|number| number / 100);
            let hundreds = |number: &Dynamic| number.as_int().unwrap() / 100;
            sort(&mut array, &mut |a, b| Ok(hundreds(a) > hundreds(b))).unwrap();
            assert_eq!(to_numbers(&array), sorted);
        }
    }

    #[test]
    fn an_error_leaves_the_array_unchanged() {
        let mut array = numbers(&[3, 1, 2]);
        assert!(sort(&mut array, &mut |_, _| Err(runtime_error("no"))).is_err());
        assert!(dedup(&mut array, &mut |_, _| Err(runtime_error("no"))).is_err());
        assert_eq!(to_numbers(&array), [3, 1, 2]);
    }

    #[test]
    fn an_inconsistent_comparison_loses_no_items() {
        let mut array = numbers(&(0..500).collect::<Vec<_>>());
        let mut calls = 0;
        sort(&mut array, &mut |_, _| {
            calls += 1;
            Ok(calls % 3 == 0)
        })
        .unwrap();
        let mut sorted = to_numbers(&array);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn dedup_removes_only_adjacent_duplicates() {
        let mut array = numbers(&[1, 1, 2, 2, 2, 1]);
        dedup(&mut array, &mut |a, b| Ok(a.as_int() == b.as_int())).unwrap();
        assert_eq!(to_numbers(&array), [1, 2, 1]);
    }
}
