//! Replaces the engine's functions that collect the results of a script's function in an array or a
//! map. The engine checks the size of the whole only at the end. These functions check the size
//! after each result.

use rhai::{Array, Dynamic, Engine, FnPtr, FuncRegistration, INT, Map, NativeCallContext};

use super::Checked;
use crate::scripting::runtime::{context::too_large, memory};

pub(super) fn register(engine: &mut Engine) {
    type C<'a> = NativeCallContext<'a>;
    pure("map").register_into_engine(
        engine,
        |context: C, array: &mut Array, by: FnPtr| -> Checked<Array> {
            let mut results = Results::new(&context);
            let mut mapped = Array::with_capacity(array.len());
            for (index, item) in array.iter_mut().enumerate() {
                let extras = [number(index)];
                let value =
                    by.call_raw_with_extra_args("map", &context, Some(item), [], extras, Some(0))?;
                mapped.push(results.checked(value)?);
            }
            Ok(mapped)
        },
    );
    pure("map").register_into_engine(
        engine,
        |context: C, map: &mut Map, by: FnPtr| -> Checked<Map> {
            let mut results = Results::new(&context);
            let mut mapped = Map::new();
            for (key, item) in map.iter_mut() {
                let arguments = [key.into()];
                let value = by.call_raw_with_extra_args(
                    "map",
                    &context,
                    Some(item),
                    arguments,
                    [],
                    Some(1),
                )?;
                mapped.insert(key.clone(), results.checked(value)?);
            }
            Ok(mapped)
        },
    );
    let zip = |context: C, array: &mut Array, other: Array, by: FnPtr| -> Checked<Array> {
        let mut results = Results::new(&context);
        let mut zipped = Array::with_capacity(array.len().min(other.len()));
        for (index, (a, b)) in array.iter().zip(other).enumerate() {
            let (arguments, extras) = ([a.clone(), b], [number(index)]);
            let value =
                by.call_raw_with_extra_args("zip", &context, None, arguments, extras, None)?;
            zipped.push(results.checked(value)?);
        }
        Ok(zipped)
    };
    pure("zip").register_into_engine(engine, zip);
    engine.register_fn("pad", |context: C, array: &mut Array, length: INT, item: Dynamic| {
        pad(&context, array, length, item)
    });
    engine.register_fn("for_each", |context: C, array: &mut Array, by: FnPtr| -> Checked<()> {
        let mut results = Results::new(&context);
        for (index, item) in array.iter_mut().enumerate() {
            let extras = [number(index)];
            let _ignored =
                by.call_raw_with_extra_args("for_each", &context, Some(item), [], extras, None)?;
            results.check(item)?;
        }
        Ok(())
    });
}

/// Fills an array up to a length. The engine's version computes the size of the result with
/// numbers that overflow.
fn pad(
    context: &NativeCallContext<'_>,
    array: &mut Array,
    length: INT,
    item: Dynamic,
) -> Checked<()> {
    let Ok(length) = usize::try_from(length) else { return Ok(()) };
    if length > context.engine().max_array_size() {
        return Err(too_large("Size of array/BLOB"));
    }
    let added = length.saturating_sub(array.len());
    if memory::size_of(&item).saturating_mul(added) > Results::new(context).max {
        return Err(too_large("Length of string"));
    }
    array.resize(length.max(array.len()), item);
    Ok(())
}

/// A function that can be called on constants.
fn pure(name: &str) -> FuncRegistration {
    FuncRegistration::new(name).in_global_namespace().with_purity(true)
}

fn number(index: usize) -> Dynamic {
    INT::try_from(index).unwrap_or(INT::MAX).into()
}

/// The memory of the results so far.
struct Results {
    bytes: usize,
    max: usize,
}

impl Results {
    /// The texts of an array have a maximum size together. The elements count, too.
    fn new(context: &NativeCallContext<'_>) -> Self {
        let engine = context.engine();
        let elements = engine.max_array_size().max(engine.max_map_size());
        let max = elements.saturating_mul(memory::ELEMENT).saturating_mul(2);
        Self { bytes: 0, max: max.saturating_add(engine.max_string_size().saturating_mul(2)) }
    }

    fn check(&mut self, value: &Dynamic) -> Checked<()> {
        self.bytes = self.bytes.saturating_add(memory::size_of(value));
        if self.bytes > self.max { Err(too_large("Length of string")) } else { Ok(()) }
    }

    fn checked(&mut self, value: Dynamic) -> Checked<Dynamic> {
        self.check(&value)?;
        Ok(value)
    }
}
