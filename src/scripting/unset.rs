//! Describes calls on a value that is not set, such as the length of an attribute that a user does
//! not have. The engine's message names only the function.

use rhai::{EvalAltResult, Position};

/// The number of lines before the call in which the declaration of a variable is looked for.
const MAX_LINES: usize = 50;

/// The description; `None` means that the error is another one.
pub(super) fn describe(text: &str, position: Position, error: &EvalAltResult) -> Option<String> {
    let EvalAltResult::ErrorFunctionNotFound(signature, _) = error else { return None };
    let (name, arguments) = signature.split_once(" (")?;
    if !arguments.split([',', ')']).any(|argument| argument.trim() == "(") {
        return None;
    }
    let line = position.line()?;
    let source = text.lines().nth(line - 1)?;
    let before: String = source.chars().take(position.position()? - 1).collect();
    let object = match before.strip_suffix("?.").or_else(|| before.strip_suffix('.')) {
        Some(before) => last_expression(before),
        None => first_argument(&source[before.len()..], name)?,
    };
    let value = match attribute(object) {
        Some(attribute) => format!("the attribute {attribute:?} is not set"),
        None => match declaration(text, line, object).and_then(attribute) {
            Some(attribute) => {
                format!("the attribute {attribute:?} is not set, so {object} is ()")
            }
            None if object.is_empty() => return None,
            None => format!("{object} is ()"),
        },
    };
    Some(format!("{value}: nothing has no {name}. Check for () first"))
}

/// The expression at the end of a text: `user.attributes.tenant`.
fn last_expression(text: &str) -> &str {
    let is_part = |c: char| c.is_alphanumeric() || "_.[]\"".contains(c);
    let start = text.char_indices().rev().take_while(|(_, c)| is_part(*c)).last();
    start.map_or("", |(start, _)| &text[start..])
}

/// The first argument of a call at the beginning of a text: `a` in `len(a)`.
fn first_argument<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let arguments = text.strip_prefix(name)?.trim_start().strip_prefix('(')?;
    arguments.split([',', ')']).next().map(str::trim)
}

/// The attribute that an expression reads.
fn attribute(expression: &str) -> Option<&str> {
    let (_, name) = expression.split_once("attributes")?;
    let name = name.trim_start_matches(['.', '[', '"']);
    let end = name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len());
    (end > 0).then(|| &name[..end])
}

/// The value with which a variable is declared before a line.
fn declaration<'a>(text: &'a str, line: usize, variable: &str) -> Option<&'a str> {
    let before: Vec<&str> = text.lines().take(line).collect();
    before.into_iter().rev().take(MAX_LINES).find_map(|line| {
        let (_, rest) = line.split_once("let ")?;
        let rest = rest.trim_start().strip_prefix(variable)?.trim_start();
        rest.strip_prefix('=').map(str::trim)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, column: u16) -> Option<String> {
        let signature = "len (())".to_owned();
        let error = EvalAltResult::ErrorFunctionNotFound(signature, Position::NONE);
        let line = u16::try_from(text.lines().count()).unwrap();
        describe(text, Position::new(line, column), &error)
    }

    #[test]
    fn missing_attribute_is_named() {
        for (text, column) in [
            ("user.attributes.tenant.len()", 24),
            ("if user.attributes[\"tenant\"].len() > 1 {", 30),
            ("let t = user.attributes.tenant;\nlen(t)", 1),
            ("let t = user.attributes.tenant;\n  t.len()", 5),
            ("len(user.attributes.tenant)", 1),
        ] {
            let message = found(text, column).unwrap_or_default();
            assert!(message.contains("the attribute \"tenant\" is not set"), "{text}: {message}");
        }
        assert!(found("let x = ();\nx.len()", 3).unwrap().starts_with("x is ()"));
    }

    #[test]
    fn other_errors_are_left_alone() {
        let error = EvalAltResult::ErrorFunctionNotFound("len (i64)".into(), Position::NONE);
        assert_eq!(describe("x.len()", Position::new(1, 3), &error), None);
    }
}
