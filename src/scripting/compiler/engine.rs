//! Builds the Rhai engine with all limits and Keyward's library. The engine contains Rhai's
//! standard package, without the functions that wait or evaluate text.

use rhai::{
    Array, Dynamic, Engine, EvalAltResult, Map, NativeCallContext,
    packages::{Package as _, StandardPackage},
};

use super::{collections, sorting, texts};
use crate::scripting::{
    ScriptLimits, library,
    runtime::{
        budget,
        context::{ContextHandle, runtime_error, too_large},
        memory,
    },
};

/// How an engine treats undeclared variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::scripting) enum Variables {
    /// Undeclared variables are compile errors.
    Strict,
    /// Undeclared variables are resolved at run time. Such an engine evaluates a file's constants,
    /// before the functions that use these constants are compiled.
    Lenient,
}

/// Builds an engine. This takes half a millisecond, so all scripts of a set share one engine.
pub(in crate::scripting) fn build(limits: &ScriptLimits, variables: Variables) -> Engine {
    let mut engine = Engine::new_raw();
    StandardPackage::new().register_into_engine(&mut engine);
    limits.apply_to(&mut engine);
    engine.set_strict_variables(variables == Variables::Strict);
    // The string interner is off, because all calls would wait for its single lock.
    engine.set_max_strings_interned(0);
    // `eval` turns text into code, `curry` hides values from the size limits, and `import` and
    // `export` make files modules.
    for symbol in ["eval", "curry", "import", "export"] {
        engine.disable_symbol(symbol);
    }
    engine.on_print(|text| {
        if budget::take_log_line() {
            tracing::info!("{}", clip(text));
        }
    });
    engine.on_debug(|text, source, place| {
        if budget::take_log_line() {
            tracing::debug!(script = source.unwrap_or(""), %place, "{}", clip(text));
        }
    });
    engine.on_progress(budget::on_progress);
    resolve_constants(&mut engine);
    forbid_sleep(&mut engine);
    bound_recursion(&mut engine);
    sorting::register(&mut engine);
    texts::register(&mut engine);
    collections::register(&mut engine);
    library::register(&mut engine);
    engine
}

fn clip(text: &str) -> String {
    text.chars().take(1000).collect()
}

/// Resolves the constants of a file. Functions do not see the file's top level, so constants are
/// looked up in the context of the call.
#[allow(deprecated, reason = "the engine marks this part of its interface as unstable")]
fn resolve_constants(engine: &mut Engine) {
    engine.on_var(|name, index, context| {
        memory::observe(&context)?;
        // Local variables have an index or are in the scope. A local variable hides a constant of
        // the same name.
        if index != 0 || context.scope().contains(name) {
            return Ok(None);
        }
        let call = context.tag().read_lock::<ContextHandle>();
        Ok(call.and_then(|call| call.constants.as_ref()?.get(name).cloned()))
    });
}

/// Replaces `sleep` by an error, because a sleeping script would occupy a thread.
fn forbid_sleep(engine: &mut Engine) {
    let refuse =
        || Err(runtime_error("scripts cannot call sleep(), because sleeping would delay requests"));
    engine.register_fn("sleep", move |_: i64| -> Result<(), Box<EvalAltResult>> { refuse() });
    engine.register_fn("sleep", move |_: f64| -> Result<(), Box<EvalAltResult>> { refuse() });
}

/// The maximum depth of nested arrays and maps for functions that walk values recursively.
const MAX_NESTING: usize = 64;

/// Replaces the engine's functions that walk arrays and maps recursively. The size limits allow
/// values with so many levels that the engine's functions would overflow the thread's stack. A
/// stack overflow aborts the process.
fn bound_recursion(engine: &mut Engine) {
    type Text = Result<String, Box<EvalAltResult>>;
    type Equal = Result<bool, Box<EvalAltResult>>;
    for name in ["to_string", "to_debug", "print", "debug"] {
        engine.register_fn(name, |context: NativeCallContext, array: &mut Array| {
            to_text(&context, &array.clone().into())
        });
        engine.register_fn(name, |context: NativeCallContext, map: &mut Map| {
            to_text(&context, &map.clone().into())
        });
    }
    engine.register_fn("to_json", |context: NativeCallContext, map: &mut Map| -> Text {
        let map = Dynamic::from(map.clone());
        check_nesting(&map)?;
        library::json_text(&context, &map)
    });
    engine.register_fn(
        "parse_json",
        |context: NativeCallContext, text: &str| -> Result<Dynamic, Box<EvalAltResult>> {
            library::json_parse(&context, text)
        },
    );
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

/// Formats a value as text. This function never fails, because after an error the engine would walk
/// the value with its own function.
fn to_text(context: &NativeCallContext<'_>, value: &Dynamic) -> String {
    if is_nested_within(value, MAX_NESTING) {
        texts::bounded_text(context, format_args!("{value}"))
    } else {
        "(nested too deeply)".to_owned()
    }
}

/// # Errors
/// The value is nested too deeply to be walked recursively.
fn check_nesting(value: &Dynamic) -> Result<(), Box<EvalAltResult>> {
    if is_nested_within(value, MAX_NESTING) {
        return Ok(());
    }
    Err(too_large("Nesting of arrays and maps"))
}

fn is_nested_within(value: &Dynamic, levels: usize) -> bool {
    if let Ok(array) = value.as_array_ref() {
        return levels > 0 && array.iter().all(|item| is_nested_within(item, levels - 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return levels > 0 && map.values().all(|item| is_nested_within(item, levels - 1));
    }
    true
}

fn equal(
    context: &NativeCallContext<'_>,
    a: &Dynamic,
    b: &Dynamic,
) -> Result<bool, Box<EvalAltResult>> {
    check_nesting(a)?;
    check_nesting(b)?;
    equal_nested(context, a, b)
}

/// Compares values whose nesting has been checked.
fn equal_nested(
    context: &NativeCallContext<'_>,
    a: &Dynamic,
    b: &Dynamic,
) -> Result<bool, Box<EvalAltResult>> {
    budget::check_time()?;
    if let (Ok(a), Ok(b)) = (a.as_array_ref(), b.as_array_ref()) {
        if a.len() != b.len() {
            return Ok(false);
        }
        for (a, b) in a.iter().zip(b.iter()) {
            if !equal_nested(context, a, b)? {
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
            if !equal_nested(context, a, b)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    let (mut a, mut b) = (a.clone(), b.clone());
    let compared = context.call_native_fn_raw("==", true, &mut [&mut a, &mut b]);
    // Values of types that cannot be compared are not equal.
    Ok(compared.ok().and_then(|equal| equal.as_bool().ok()).unwrap_or(false))
}
