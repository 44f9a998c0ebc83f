//! The functions of a file that read the body of the request. Keyward reads the body just before it
//! calls such a function.

use std::collections::{BTreeMap, BTreeSet};

use rhai::{AST, ASTNode, Expr, Position, Stmt};

use crate::scripting::{
    entry_points::{Function, ScriptKind},
    runtime::context::Constants,
};

/// The constant with which an authentication type says that it reads the body.
const DECLARATION: &str = "READS_BODY";
/// The properties of a request that are its body.
const PROPERTIES: [&str; 3] = ["body", "body_bytes", "body_sha256"];
/// The functions of an authentication type.
const PHASES: [Function; 4] =
    [Function::Header, Function::Decode, Function::Lookup, Function::Verify];

/// The [`Function::bit`]s of the functions that read the body. Functions that are called after the
/// body was read do not matter here.
///
/// # Errors
/// The declaration has the wrong type, is in a file in which it has no effect, or is wrong.
pub(super) fn readers(
    kind: ScriptKind,
    ast: &AST,
    constants: &Constants,
    report: &mut dyn FnMut(Position, String),
) -> Result<u16, String> {
    let declared = constants.get(DECLARATION).map(|value| {
        if kind != ScriptKind::Auth {
            return Err(format!(
                "{DECLARATION} has a meaning only in auth/NAME.rhai; remove it here"
            ));
        }
        value.as_bool().map_err(|_| format!("{DECLARATION} must be true or false"))
    });
    let declared = declared.transpose()?;
    let functions = read_by(ast);
    let reading =
        Function::ALL.into_iter().filter(|function| functions.contains_key(function.name()));
    let bits = reading.map(Function::bit).fold(0, |bits, bit| bits | bit);
    if kind != ScriptKind::Auth {
        return Ok(bits);
    }
    let first = PHASES.into_iter().find(|function| bits & function.bit() != 0);
    match (declared, first) {
        (Some(true), None) => Ok(PHASES.map(Function::bit).iter().fold(0, |bits, bit| bits | bit)),
        (Some(false), Some(function)) => Err(format!(
            "{DECLARATION} is false, but {} reads the body; write const {DECLARATION} = true;",
            function.name()
        )),
        (None, Some(function)) => {
            let position = functions.get(function.name()).copied().unwrap_or(Position::NONE);
            report(position, undeclared(function));
            Ok(bits)
        }
        _ => Ok(bits),
    }
}

fn undeclared(function: Function) -> String {
    format!(
        "{} reads the body, so bodies are read before the credential is checked, within limits.unauthenticated_bytes. If this is meant, write const {DECLARATION} = true;",
        function.name()
    )
}

/// The names of the functions that read the body, also through other functions, with the position
/// of the function.
fn read_by(ast: &AST) -> BTreeMap<String, Position> {
    // Most files do not read a body.
    if !Reads::of(ast).is_direct {
        return BTreeMap::new();
    }
    let mut bodies = BTreeMap::new();
    for definition in ast.iter_fn_def() {
        let name = definition.name.to_string();
        // The engine hides the type of a function's body, so the function is walked alone. A file
        // may define functions of one name with different numbers of parameters.
        let mut alone = ast.clone();
        alone.retain_functions(|_, _, other, _| other == name);
        bodies.insert(name, (definition.body.start_position(), Reads::of(&alone)));
    }
    // A function pointer may lead to any function.
    let has_pointers =
        bodies.iter().any(|(name, (_, reads))| !name.starts_with("test_") && reads.has_pointers);
    let mut reading: BTreeSet<&str> = BTreeSet::new();
    loop {
        let is_closure_reading = reading.iter().any(|name| name.starts_with("anon$"));
        let found: Vec<&str> = bodies
            .iter()
            .filter(|(name, (_, reads))| {
                !name.starts_with("test_")
                    && !reading.contains(name.as_str())
                    && (reads.is_direct
                        || (has_pointers || is_closure_reading) && !reading.is_empty()
                        || reads.calls.iter().any(|call| reading.contains(call.as_str())))
            })
            .map(|(name, _)| name.as_str())
            .collect();
        if found.is_empty() {
            break;
        }
        reading.extend(found);
    }
    let position = |name: &str| bodies.get(name).map_or(Position::NONE, |(position, _)| *position);
    reading.iter().map(|name| ((*name).to_owned(), position(name))).collect()
}

/// The parts of a function that matter here.
#[derive(Default)]
struct Reads {
    /// Whether the function itself reads the body of some value.
    is_direct: bool,
    /// Whether the function makes or calls a function pointer.
    has_pointers: bool,
    /// The functions that it calls.
    calls: BTreeSet<String>,
}

impl Reads {
    /// The parts of all functions of a tree.
    fn of(ast: &AST) -> Self {
        let mut reads = Self::default();
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            match path.last() {
                Some(ASTNode::Expr(Expr::Property(property, _))) => {
                    reads.is_direct |= PROPERTIES.contains(&property.2.as_str());
                }
                Some(
                    ASTNode::Expr(Expr::FnCall(call, _) | Expr::MethodCall(call, _))
                    | ASTNode::Stmt(Stmt::FnCall(call, _)),
                ) => {
                    reads.has_pointers |= ["Fn", "call"].contains(&call.name.as_str());
                    reads.calls.insert(call.name.to_string());
                }
                _ => {}
            }
            true
        });
        reads
    }
}
