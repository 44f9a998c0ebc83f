//! The user attributes that an authentication script takes for credentials: what the script
//! declares, and what it reads without a declaration.

use std::collections::BTreeSet;

use rhai::{AST, ASTNode, BinaryExpr, Dynamic, Expr, Position};

use crate::scripting::{entry_points::ScriptKind, runtime::context::Constants};

/// The constant with the names of attributes that are credentials.
const CREDENTIALS: &str = "CREDENTIAL_ATTRIBUTES";
/// The constant with the names of attributes that the script reads, but that are no credentials.
const PLAIN: &str = "PLAIN_ATTRIBUTES";

/// The attributes that a script declares.
#[derive(Default)]
pub(super) struct Declared {
    pub credentials: BTreeSet<String>,
    plain: BTreeSet<String>,
    /// Whether the script has at least one of the two constants.
    is_explicit: bool,
}

/// Reads the declarations from the constants of a file.
///
/// # Errors
/// A declaration has the wrong type, or is in a file in which it has no effect.
pub(super) fn declared(kind: ScriptKind, constants: &Constants) -> Result<Declared, String> {
    let mut declared = Declared::default();
    for (name, into) in [(CREDENTIALS, &mut declared.credentials), (PLAIN, &mut declared.plain)] {
        let Some(value) = constants.get(name) else { continue };
        if kind != ScriptKind::Auth {
            return Err(format!("{name} has a meaning only in auth/NAME.rhai; remove it here"));
        }
        *into = names(value).ok_or_else(|| {
            format!(
                "{name} must be an array of names of user attributes: const {name} = [\"legacy_sha256\"];"
            )
        })?;
        declared.is_explicit = true;
    }
    Ok(declared)
}

fn names(value: &Dynamic) -> Option<BTreeSet<String>> {
    let items = value.as_array_ref().ok()?;
    let names = items.iter().map(|item| item.clone().into_string().ok());
    names.map(|name| name.filter(|name| !name.is_empty())).collect()
}

/// Reports attributes that an authentication script reads without a declaration. A user may change
/// their attributes, so Keyward must know which attributes are as good as a password.
pub(super) fn check_reads(
    kind: ScriptKind,
    ast: &AST,
    constants: &Constants,
    declared: &Declared,
    report: &mut dyn FnMut(Position, String),
) {
    if kind != ScriptKind::Auth {
        return;
    }
    let mut functions = ast.clone();
    functions.retain_functions(|_, _, name, _| !name.starts_with("test_"));
    functions.walk(&mut |path: &[ASTNode<'_>]| {
        let Some(ASTNode::Expr(expression)) = path.last() else { return true };
        match read(expression, constants) {
            Some(Read::Named(name, position))
                if !declared.credentials.contains(&name) && !declared.plain.contains(&name) =>
            {
                report(position, undeclared(&name));
            }
            Some(Read::Unnamed(position)) if !declared.is_explicit => {
                report(position, unnamed());
            }
            _ => {}
        }
        true
    });
}

fn undeclared(name: &str) -> String {
    format!(
        "the script reads the user attribute {name} without a declaration. If the attribute is a credential, such as a digest, add it to const {CREDENTIALS} = [\"{name}\"]; so that users cannot change it with a restricted key. If not, add it to const {PLAIN}"
    )
}

fn unnamed() -> String {
    format!(
        "the script reads user attributes, but their names cannot be seen here. List those that are credentials in const {CREDENTIALS} = [\"NAME\"]; and the others in const {PLAIN}"
    )
}

/// A read of attributes.
enum Read {
    Named(String, Position),
    Unnamed(Position),
}

/// The read of attributes that an expression makes, if any. `user.attributes.a` is parsed as
/// `user.(attributes.a)`, and `user.attributes[A].b()` as `user.(attributes[(A.b())])`.
fn read(expression: &Expr, constants: &Constants) -> Option<Read> {
    let (pair, is_index): (&BinaryExpr, bool) = match expression {
        Expr::Dot(pair, ..) => (pair, false),
        Expr::Index(pair, ..) => (pair, true),
        _ => return None,
    };
    if is_attributes(&pair.rhs) {
        return Some(Read::Unnamed(pair.rhs.position()));
    }
    if !is_attributes(&pair.lhs) {
        return None;
    }
    let field = first(&pair.rhs);
    let position = field.position();
    let name = match field {
        Expr::Property(property, _) if !is_index => Some(property.2.to_string()),
        Expr::StringConstant(text, _) if is_index => Some(text.to_string()),
        Expr::Variable(variable, ..) if is_index => {
            constants.get(variable.1.as_str()).and_then(|value| value.clone().into_string().ok())
        }
        _ => None,
    };
    Some(name.map_or(Read::Unnamed(position), |name| Read::Named(name, position)))
}

fn is_attributes(expression: &Expr) -> bool {
    matches!(expression, Expr::Property(property, _) if property.2.as_str() == "attributes")
}

/// The leftmost part of a chain.
fn first(expression: &Expr) -> &Expr {
    match expression {
        Expr::Dot(pair, ..) | Expr::Index(pair, ..) => first(&pair.lhs),
        other => other,
    }
}
