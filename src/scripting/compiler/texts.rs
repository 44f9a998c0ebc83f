//! Replaces the engine's functions for texts whose results can be much larger than their arguments.
//! The engine checks the size of a result only after it has been built. These functions compute the
//! size first, or stop at the limit.

use std::fmt::{self, Write as _};

use rhai::{Array, Dynamic, Engine, FuncRegistration, INT, ImmutableString, NativeCallContext};

use super::Checked;
use crate::scripting::runtime::context::{runtime_error, too_large};

pub(super) fn register(engine: &mut Engine) {
    register_replace(engine);
    register_split(engine);
    for name in ["to_debug", "debug"] {
        engine.register_fn(name, |context: NativeCallContext, text: &str| {
            bounded_text(&context, format_args!("{text:?}"))
        });
    }
    let refuse = || Err(runtime_error("scripts cannot list functions"));
    let name = "get_fn_metadata_list";
    engine.register_fn(name, move || -> Checked<Array> { refuse() });
    engine.register_fn(name, move |_: &str| -> Checked<Array> { refuse() });
    engine.register_fn(name, move |_: &str, _: INT| -> Checked<Array> { refuse() });
}

fn register_replace(engine: &mut Engine) {
    type C<'a> = NativeCallContext<'a>;
    type Text = ImmutableString;
    let name = "replace";
    engine.register_fn(name, |context: C, text: &mut Text, from: &str, to: &str| -> Checked<()> {
        replace(&context, text, from, to)
    });
    engine.register_fn(name, |context: C, text: &mut Text, from: &str, to: char| -> Checked<()> {
        replace(&context, text, from, to.encode_utf8(&mut [0; 4]))
    });
    engine.register_fn(name, |context: C, text: &mut Text, from: char, to: &str| -> Checked<()> {
        replace(&context, text, from.encode_utf8(&mut [0; 4]), to)
    });
    engine.register_fn(name, |context: C, text: &mut Text, from: char, to: char| -> Checked<()> {
        let (mut from_bytes, mut to_bytes) = ([0; 4], [0; 4]);
        let (from, to) = (from.encode_utf8(&mut from_bytes), to.encode_utf8(&mut to_bytes));
        replace(&context, text, from, to)
    });
}

fn replace(
    context: &NativeCallContext<'_>,
    text: &mut ImmutableString,
    from: &str,
    to: &str,
) -> Checked<()> {
    if text.is_empty() {
        return Ok(());
    }
    let growth = to.len().saturating_sub(from.len());
    let count = if growth > 0 { text.matches(from).count() } else { 0 };
    check_text(context, text.len().saturating_add(count.saturating_mul(growth)))?;
    *text = text.replace(from, to).into();
    Ok(())
}

/// # Errors
/// A text of this size exceeds the limit.
pub(in crate::scripting) fn check_text(
    context: &NativeCallContext<'_>,
    bytes: usize,
) -> Checked<()> {
    if bytes > context.engine().max_string_size() {
        return Err(too_large("Length of string"));
    }
    Ok(())
}

/// The four forms of a function that splits a text at a text or at a character, with or without a
/// maximum number of parts.
macro_rules! register_split_at {
    ($engine:expr, $name:literal, $split:ident, $splitn:ident) => {
        pure($name).register_into_engine(
            $engine,
            |context: NativeCallContext, text: &str, at: &str| -> Checked<Array> {
                collect(&context, text.$split(at))
            },
        );
        pure($name).register_into_engine(
            $engine,
            |context: NativeCallContext, text: &str, at: char| -> Checked<Array> {
                collect(&context, text.$split(at))
            },
        );
        pure($name).register_into_engine(
            $engine,
            |context: NativeCallContext, text: &str, at: &str, parts: INT| -> Checked<Array> {
                collect(&context, text.$splitn(at_least_one(parts), at))
            },
        );
        pure($name).register_into_engine(
            $engine,
            |context: NativeCallContext, text: &str, at: char, parts: INT| -> Checked<Array> {
                collect(&context, text.$splitn(at_least_one(parts), at))
            },
        );
    };
}

fn register_split(engine: &mut Engine) {
    register_split_at!(engine, "split", split, splitn);
    register_split_at!(engine, "split_rev", rsplit, rsplitn);
    pure("split").register_into_engine(
        engine,
        |context: NativeCallContext, text: &str| -> Checked<Array> {
            if text.is_empty() {
                return Ok(vec![Dynamic::from("")]);
            }
            collect(&context, text.split_whitespace())
        },
    );
    pure("to_chars").register_into_engine(
        engine,
        |context: NativeCallContext, text: &str| -> Checked<Array> {
            collect(&context, text.chars())
        },
    );
}

/// A function that can be called on constants.
fn pure(name: &str) -> FuncRegistration {
    FuncRegistration::new(name).in_global_namespace().with_purity(true)
}

fn at_least_one(parts: INT) -> usize {
    usize::try_from(parts.max(1)).unwrap_or(usize::MAX)
}

/// Collects parts up to the maximum size of an array.
fn collect(
    context: &NativeCallContext<'_>,
    parts: impl Iterator<Item: Into<Dynamic>>,
) -> Checked<Array> {
    let max = context.engine().max_array_size();
    let array: Array = parts.take(max.saturating_add(1)).map(Into::into).collect();
    if array.len() > max {
        return Err(too_large("Size of array/BLOB"));
    }
    Ok(array)
}

/// Formats a value as text, and stops soon after the maximum size of a text. The engine then
/// rejects the result, because it is larger than the maximum.
pub(super) fn bounded_text(context: &NativeCallContext<'_>, value: fmt::Arguments<'_>) -> String {
    let mut text = BoundedText { text: String::new(), max: context.engine().max_string_size() };
    // The only error is that the text has become too long.
    let _ = text.write_fmt(value);
    text.text
}

struct BoundedText {
    text: String,
    max: usize,
}

impl fmt::Write for BoundedText {
    fn write_str(&mut self, part: &str) -> fmt::Result {
        self.text.push_str(part);
        if self.text.len() > self.max { Err(fmt::Error) } else { Ok(()) }
    }
}
