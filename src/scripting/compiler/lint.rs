//! Finds probable mistakes that do not prevent a file from being loaded, and the secrets that a
//! file uses.

use rhai::{AST, ASTNode, Dynamic, Expr, FnCallExpr, Position, Stmt};

use crate::{
    model::suggest,
    scripting::{fault::denied_status, runtime::context::Constants},
};

/// The properties of the values that Keyward passes to functions under these names.
const PROPERTIES: &[(&str, &[&str])] = &[
    ("req", &["method", "path", "query", "client", "host", "body", "body_bytes", "body_sha256"]),
    (
        "identity",
        &["is_anonymous", "uid", "name", "roles", "key_id", "application", "attributes", "scopes"],
    ),
    ("user", &["uid", "name", "is_active", "roles", "attributes"]),
];

/// Reports probable mistakes.
pub(super) fn check(
    ast: &AST,
    text: &str,
    constants: &Constants,
    report: &mut dyn FnMut(Position, String),
) {
    for position in escapes_in_backticks(text) {
        report(
            position,
            "a text in backticks does not know \\n and other escapes; use a text in double quotes, or join the parts with \"\\n\"".into(),
        );
    }
    let declared = declared_variables(ast);
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(ASTNode::Expr(Expr::FnCall(call, position))) => {
                check_deny(call, *position, constants, report);
            }
            Some(ASTNode::Stmt(Stmt::FnCall(call, position))) => {
                check_deny(call, *position, constants, report);
            }
            Some(ASTNode::Expr(Expr::Dot(pair, ..))) => {
                if let Expr::Variable(variable, ..) = &pair.lhs
                    && !declared.iter().any(|name| name == variable.1.as_str())
                {
                    check_property(variable.1.as_str(), &pair.rhs, report);
                }
            }
            _ => {}
        }
        true
    });
}

fn check_deny(
    call: &FnCallExpr,
    position: Position,
    constants: &Constants,
    report: &mut dyn FnMut(Position, String),
) {
    if call.name != "deny" {
        return;
    }
    let status = call.args.first().and_then(|status| literal(status, constants));
    if let Some(Err(message)) = status.and_then(|status| status.as_int().ok()).map(denied_status) {
        report(position, message);
    }
}

fn check_property(variable: &str, property: &Expr, report: &mut dyn FnMut(Position, String)) {
    let Some((_, known)) = PROPERTIES.iter().find(|(name, _)| *name == variable) else { return };
    let property = match property {
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => &pair.lhs,
        other => other,
    };
    let Expr::Property(name, position) = property else { return };
    let name = name.2.as_str();
    if known.contains(&name) {
        return;
    }
    let near = suggest(name, known.iter().copied());
    let near = near.map(|near| format!("; did you mean {variable}.{near}?")).unwrap_or_default();
    report(*position, format!("{variable} has no property {name}{near}"));
}

/// The names of the variables that functions declare, which may hide the parameters of functions.
fn declared_variables(ast: &AST) -> Vec<String> {
    let mut names = Vec::new();
    ast.walk(&mut |path: &[ASTNode<'_>]| {
        match path.last() {
            Some(ASTNode::Stmt(Stmt::Var(variable, ..))) => names.push(variable.0.name.to_string()),
            Some(ASTNode::Stmt(Stmt::For(parts, _))) => names.push(parts.0.name.to_string()),
            _ => {}
        }
        true
    });
    names
}

/// The names of the secrets that functions use, except in tests. A name that is computed is not
/// found.
pub(super) fn secrets(ast: &AST, constants: &Constants) -> Vec<(String, Position)> {
    let mut functions = ast.clone();
    functions.retain_functions(|_, _, name, _| !name.starts_with("test_"));
    let mut secrets: Vec<(String, Position)> = Vec::new();
    functions.walk(&mut |path: &[ASTNode<'_>]| {
        if let Some(
            ASTNode::Expr(Expr::FnCall(call, position))
            | ASTNode::Stmt(Stmt::FnCall(call, position)),
        ) = path.last()
            && call.name == "secret"
            && let [argument] = &call.args[..]
            && let Some(name) = literal(argument, constants)
            && let Ok(name) = name.into_string()
            && !secrets.iter().any(|(known, _)| *known == name)
        {
            secrets.push((name, *position));
        }
        true
    });
    secrets
}

/// The value of a literal or of a constant of the file.
fn literal(expression: &Expr, constants: &Constants) -> Option<Dynamic> {
    match expression {
        Expr::Variable(variable, ..) => constants.get(variable.1.as_str()).cloned(),
        other => other.get_literal_value(None),
    }
}

/// The positions of `\n`, `\r` and `\t` in texts in backticks, outside of `${…}`.
fn escapes_in_backticks(text: &str) -> Vec<Position> {
    let mut found = Vec::new();
    let mut depths: Vec<usize> = Vec::new();
    let mut state = Lexer::Code;
    for (index, line) in text.lines().enumerate() {
        let mut letters = line.chars().enumerate().peekable();
        while let Some((column, letter)) = letters.next() {
            let next = letters.peek().map(|(_, next)| *next);
            match (state, letter, next) {
                (Lexer::Code, '/', Some('/')) => break,
                (Lexer::Code, '/', Some('*')) => state = Lexer::Comment,
                (Lexer::Comment, '*', Some('/')) => {
                    letters.next();
                    state = Lexer::Code;
                }
                (Lexer::Code, '"', _) => state = Lexer::Quoted('"'),
                (Lexer::Code, '\'', _) => state = Lexer::Quoted('\''),
                (Lexer::Quoted(_), '\\', _) => drop(letters.next()),
                (Lexer::Quoted(quote), letter, _) if letter == quote => state = Lexer::Code,
                (Lexer::Code, '`', _) => state = Lexer::Backticks,
                (Lexer::Backticks, '`', _) => state = Lexer::Code,
                (Lexer::Backticks, '$', Some('{')) => {
                    letters.next();
                    depths.push(0);
                    state = Lexer::Code;
                }
                (Lexer::Code, '{', _) => {
                    if let Some(depth) = depths.last_mut() {
                        *depth += 1;
                    }
                }
                (Lexer::Code, '}', _) => match depths.last_mut() {
                    Some(0) => {
                        depths.pop();
                        state = Lexer::Backticks;
                    }
                    Some(depth) => *depth -= 1,
                    None => {}
                },
                (Lexer::Backticks, '\\', Some('n' | 'r' | 't')) => {
                    let number = |number: usize| u16::try_from(number + 1).unwrap_or(u16::MAX);
                    found.push(Position::new(number(index), number(column)));
                }
                _ => {}
            }
        }
    }
    found
}

/// The part of a file in which a letter is.
#[derive(Clone, Copy)]
enum Lexer {
    Code,
    Comment,
    Quoted(char),
    Backticks,
}

#[cfg(test)]
mod tests {
    use std::{any::TypeId, collections::BTreeSet};

    use super::*;
    use crate::scripting::{
        IdentityView, ScriptLimits, ScriptRequest, UserView,
        compiler::engine::{Variables, build},
    };

    #[test]
    fn known_properties_are_those_of_the_library() {
        let engine = build(&ScriptLimits::default(), Variables::Strict);
        let types = [
            ("req", TypeId::of::<ScriptRequest>()),
            ("identity", TypeId::of::<IdentityView>()),
            ("user", TypeId::of::<UserView>()),
        ];
        for ((name, known), (variable, kind)) in PROPERTIES.iter().zip(types) {
            assert_eq!(*name, variable);
            let properties: BTreeSet<String> = engine
                .collect_fn_metadata(
                    None,
                    |function| {
                        let about = function.metadata;
                        let property = about.name.strip_prefix("get$")?;
                        (about.param_types.first() == Some(&kind)).then(|| property.to_owned())
                    },
                    false,
                )
                .into_iter()
                .collect();
            assert_eq!(properties, known.iter().map(|name| (*name).to_owned()).collect());
        }
    }

    #[test]
    fn escapes_are_found_only_in_backticks() {
        let found = |text: &str| escapes_in_backticks(text).len();
        for right in [
            r#"let a = "x\n"; // `\n`"#,
            r#"/* `\n` */ let a = `x`;"#,
            r#"let a = `${ "\n" } and ${ f(#{ a: "\t" }) }`;"#,
            r"let a = '\n'; let b = `\d`;",
        ] {
            assert_eq!(found(right), 0, "{right}");
        }
        for wrong in [r"let a = `x\n`;", r#"let a = `${ "y" }\n`;"#, "let a = `\n\\t`;"] {
            assert_eq!(found(wrong), 1, "{wrong}");
        }
        let position = escapes_in_backticks("let a = 1;\nlet b = `x\\ny`;")[0];
        assert_eq!((position.line(), position.position()), (Some(2), Some(11)));
    }
}
