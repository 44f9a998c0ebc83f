//! Builds the engine: the standard package without what waits or evaluates, every limit, and Keyward's library.

use rhai::{
    Array, Dynamic, Engine, EvalAltResult, Map, NativeCallContext, Position,
    packages::{Package as _, StandardPackage},
};

use super::sorting;
use crate::scripting::{
    Limits, library,
    runtime::{
        budget,
        context::{ContextHandle, stop},
    },
};

/// How an engine reads variables that nobody has declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum Variables {
    /// They are errors.
    Strict,
    /// They are left for later: the constants of a file are read before the functions that use them.
    Lenient,
}

/// An engine. Building one takes half a millisecond, so there is one for a whole set of scripts.
pub(in crate::scripting) fn build(limits: &Limits, variables: Variables) -> Engine {
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    limits.set(&mut engine);
    engine.set_strict_variables(variables == Variables::Strict);
    // The interner is one lock that all calls would share.
    engine.set_max_strings_interned(0);
    // Text that becomes code; functions that keep values, whose sizes nobody would count; files that become modules.
    for symbol in ["eval", "curry", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    engine.on_print(|text| {
        if budget::may_log() {
            tracing::info!("{}", clip(text));
        }
    });
    engine.on_debug(|text, source, place| {
        if budget::may_log() {
            tracing::debug!(script = source.unwrap_or(""), %place, "{}", clip(text));
        }
    });
    engine.on_progress(budget::progress);
    constants(&mut engine);
    waiting(&mut engine);
    nesting(&mut engine);
    sorting::register(&mut engine);
    library::register(&mut engine);
    engine
}

fn clip(text: &str) -> String {
    text.chars().take(1000).collect()
}

/// The constants of a file: functions see nothing of its top level, so they are looked up with the call.
#[allow(deprecated, reason = "the engine calls this part of its interface not yet settled")]
fn constants(engine: &mut Engine) {
    engine.on_var(|name, index, context| {
        // What has an index is a local variable, and so is what the scope knows: they hide a constant of the same name.
        if index != 0 || context.scope().contains(name) {
            return Ok(None);
        }
        let call = context.tag().read_lock::<ContextHandle>();
        Ok(call.and_then(|call| call.constants.as_ref()?.get(name).cloned()))
    });
}

/// A script that sleeps holds a thread.
fn waiting(engine: &mut Engine) {
    let refuse = || Err(stop("sleep() is not for scripts: a request waits for nothing"));
    engine.register_fn("sleep", move |_: i64| -> Result<(), Box<EvalAltResult>> { refuse() });
    engine.register_fn("sleep", move |_: f64| -> Result<(), Box<EvalAltResult>> { refuse() });
}

/// How deep arrays and maps may be nested where they are walked by recursion.
const NESTED: usize = 64;

/// The engine's own functions that walk arrays and maps recurse once a level, and the size limits allow many levels: they would run
/// out of the thread's stack, which ends the process. These stand in front of them.
fn nesting(engine: &mut Engine) {
    type Shown = Result<String, Box<EvalAltResult>>;
    type Equal = Result<bool, Box<EvalAltResult>>;
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |array: &mut Array| shown(&array.clone().into()));
        engine.register_fn(name, |map: &mut Map| shown(&map.clone().into()));
    }
    engine.register_fn("to_json", |map: &mut Map| -> Shown {
        let map = Dynamic::from(map.clone());
        flat(&map)?;
        serde_json::to_string(&map).map_err(|_| stop("this value cannot be written as JSON"))
    });
    engine.register_fn("==", |context: NativeCallContext, a: Array, b: Array| -> Equal {
        equal(&context, &a.into(), &b.into())
    });
    engine.register_fn("!=", |context: NativeCallContext, a: Array, b: Array| -> Equal {
        equal(&context, &a.into(), &b.into()).map(|equal| !equal)
    });
    engine.register_fn("==", |context: NativeCallContext, a: Map, b: Map| -> Equal {
        equal(&context, &a.into(), &b.into())
    });
    engine.register_fn("!=", |context: NativeCallContext, a: Map, b: Map| -> Equal {
        equal(&context, &a.into(), &b.into()).map(|equal| !equal)
    });
}

/// Never an error: where the engine makes a text of a value and gets an error, it walks the value itself.
fn shown(value: &Dynamic) -> String {
    match is_flat(value, NESTED) {
        true => value.to_string(),
        false => "(nested too deeply)".to_owned(),
    }
}

/// # Errors
/// The value is nested more deeply than may be walked.
fn flat(value: &Dynamic) -> Result<(), Box<EvalAltResult>> {
    match is_flat(value, NESTED) {
        true => Ok(()),
        false => {
            let what = "Nesting of arrays and maps".to_owned();
            Err(EvalAltResult::ErrorDataTooLarge(what, Position::NONE).into())
        }
    }
}

fn is_flat(value: &Dynamic, levels: usize) -> bool {
    if let Ok(array) = value.as_array_ref() {
        return levels > 0 && array.iter().all(|item| is_flat(item, levels - 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return levels > 0 && map.values().all(|item| is_flat(item, levels - 1));
    }
    true
}

fn equal(
    context: &NativeCallContext<'_>,
    a: &Dynamic,
    b: &Dynamic,
) -> Result<bool, Box<EvalAltResult>> {
    flat(a)?;
    flat(b)?;
    same(context, a, b)
}

/// Compares values that are known to be flat.
fn same(
    context: &NativeCallContext<'_>,
    a: &Dynamic,
    b: &Dynamic,
) -> Result<bool, Box<EvalAltResult>> {
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b.iter()) {
            if !same(context, a, b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    if let (Ok(a), Ok(b)) = (a.as_map_ref(), b.as_map_ref()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (key, a) in a.iter() {
            let Some(b) = b.get(key) else { return Ok(false) };
            if !same(context, a, b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let (mut a, mut b) = (a.clone(), b.clone());
    let compared = context.call_native_fn_raw("==", true, &mut [&mut a, &mut b]);
    // Values of kinds that cannot be compared are not equal.
    Ok(compared.ok().and_then(|equal| equal.as_bool().ok()).unwrap_or(false))
}
