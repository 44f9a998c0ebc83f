//! The engine's functions that ask a script's function in which order things belong. The engine's own pass over what that function throws, a
//! refusal and the end of the budget too; these do not.

use rhai::{Array, Dynamic, Engine, EvalAltResult, FnPtr, NativeCallContext};

use crate::scripting::runtime::context::stop;

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
        dedup(array, &mut |a, b| is_same(&context, &by, a, b))
    });
}

/// The script's function returns a number, or whether the first belongs before the second.
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
    let wrong =
        |kind| stop(format!("the function that sorts returned {kind}; it returns a number"));
    order.as_int().map(|order| order > 0).map_err(wrong)
}

fn is_same(context: &NativeCallContext<'_>, by: &FnPtr, a: &Dynamic, b: &Dynamic) -> Checked<bool> {
    let same = by.call_raw(context, None, [a.clone(), b.clone()])?;
    let wrong =
        |kind| stop(format!("the function of dedup returned {kind}; it returns true or false"));
    same.as_bool().map_err(wrong)
}

/// Sorts by merging, and keeps what is equal in its order. A function that contradicts itself makes a wrong order and nothing worse; the
/// standard library's sort may panic. After an error the array is as it was.
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

/// Leaves out what is the same as what stands before it.
fn dedup(
    array: &mut Array,
    is_same: &mut dyn FnMut(&Dynamic, &Dynamic) -> Checked<bool>,
) -> Checked<()> {
    let mut kept = Array::with_capacity(array.len());
    for item in array.iter() {
        let is_twin = match kept.last() {
            Some(last) => is_same(last, item)?,
            None => false,
        };
        if !is_twin {
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
        numbers.iter().map(|one| (*one).into()).collect()
    }

    fn shown(array: &Array) -> Vec<i64> {
        array.iter().map(|one| one.as_int().unwrap()).collect()
    }

    #[test]
    fn what_is_equal_stays_in_its_order() {
        for length in 0..40_i64 {
            let mut array: Array =
                numbers(&(0..length).map(|n| (n * 7 % 5) * 100 + n).collect::<Vec<_>>());
            let mut sorted = shown(&array);
            sorted.sort_by_key(|one| one / 100);
            let tens = |one: &Dynamic| one.as_int().unwrap() / 100;
            sort(&mut array, &mut |a, b| Ok(tens(a) > tens(b))).unwrap();
            assert_eq!(shown(&array), sorted);
        }
    }

    #[test]
    fn an_error_leaves_the_array_as_it_was() {
        let mut array = numbers(&[3, 1, 2]);
        assert!(sort(&mut array, &mut |_, _| Err(stop("no"))).is_err());
        assert!(dedup(&mut array, &mut |_, _| Err(stop("no"))).is_err());
        assert_eq!(shown(&array), [3, 1, 2]);
    }

    #[test]
    fn a_function_that_contradicts_itself_does_no_harm() {
        let mut array = numbers(&(0..500).collect::<Vec<_>>());
        let mut calls = 0;
        sort(&mut array, &mut |_, _| {
            calls += 1;
            Ok(calls % 3 == 0)
        })
        .unwrap();
        let mut sorted = shown(&array);
        sorted.sort_unstable();
        assert_eq!(sorted, (0..500).collect::<Vec<_>>());
    }

    #[test]
    fn twins_go() {
        let mut array = numbers(&[1, 1, 2, 2, 2, 1]);
        dedup(&mut array, &mut |a, b| Ok(a.as_int() == b.as_int())).unwrap();
        assert_eq!(shown(&array), [1, 2, 1]);
    }
}
