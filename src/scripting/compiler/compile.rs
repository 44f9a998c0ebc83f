//! Compiles a file's text. Checks syntax, constants, function names and arity, and finds calls of
//! functions that do not exist.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use rhai::{
    AST, ASTFlags, ASTNode, CallFnOptions, Dynamic, Engine, Expr, FnCallExpr, ParseError, Position,
    Scope, Stmt,
};

use super::{
    attributes, body,
    engine::{self, Variables},
    lint,
};
use crate::{
    model::suggest,
    scripting::{
        entry_points::{Function, ScriptKind},
        error::ScriptError,
        fault::{describe, innermost},
        limits::ScriptLimits,
        loading::source::SourceFile,
        runtime::{
            budget,
            context::{Constants, ContextHandle},
            prepared::PreparedFn,
        },
        values::{credential::CredentialDeclaration, request::is_plain_data},
    },
};

/// A compiled file.
pub(in crate::scripting) struct Compiled {
    pub ast: AST,
    pub constants: Arc<Constants>,
    /// The bits of the functions that the file defines.
    pub functions: u16,
    prepared: [Option<Box<PreparedFn>>; Function::ALL.len()],
    /// The bits of the functions that read the body of the request.
    pub body_readers: u16,
    /// The names of the `test_…` functions, in the order of the file.
    pub tests: Vec<String>,
    pub is_blocking: bool,
    /// The constant `CREDENTIAL` of an authentication type.
    pub credential: Option<Arc<CredentialDeclaration>>,
    /// The user attributes that the script takes for credentials.
    pub credential_attributes: BTreeSet<String>,
    /// The names of secrets that the script's functions use, except in tests, with the positions.
    pub secrets: Vec<(String, Position)>,
    /// Probable mistakes that do not prevent the script from being loaded.
    pub warnings: Vec<ScriptError>,
}

impl Compiled {
    /// The function as prepared for calls; `None` means that the file does not define it.
    pub fn function(&self, function: Function) -> Option<&PreparedFn> {
        self.prepared[function as usize].as_deref()
    }
}

/// The numbers of parameters that each function can take. Functions with the same name may differ
/// in the number of their parameters.
type Arities = HashMap<String, HashSet<usize>>;

/// Compiles files with one engine.
pub(in crate::scripting) struct Compiler {
    pub engine: Arc<Engine>,
    /// Evaluates the constants of a file.
    lenient: Engine,
    host_functions: Arities,
    limits: ScriptLimits,
    /// The context in which constants are evaluated.
    context: ContextHandle,
}

/// The maximum number of errors of a file that are reported at once.
const MAX_ERRORS: usize = 32;

/// Functions that the engine itself implements, for any number of arguments. Scripts cannot call
/// `curry`, but the parser inserts it into closures that use constants.
const KEYWORDS: &[&str] =
    &["call", "curry", "type_of", "is_def_var", "is_def_fn", "print", "debug", "Fn"];

impl Compiler {
    pub fn new(limits: &ScriptLimits, context: ContextHandle) -> Self {
        let engine = engine::build(limits, Variables::Strict);
        let host_functions = host_functions(&engine);
        let lenient = engine::build(limits, Variables::Lenient);
        Self { engine: Arc::new(engine), lenient, host_functions, limits: limits.clone(), context }
    }

    /// Compiles one file.
    ///
    /// # Errors
    /// All errors of the file. If the file has a syntax error, only this error is reported.
    pub fn compile(&self, source: &SourceFile) -> Result<Compiled, Vec<ScriptError>> {
        let SourceFile { kind, file, text, .. } = source;
        let kind = *kind;
        let at = |position, message: String| ScriptError::at(file, text, position, message);
        let in_file = |message: String| ScriptError::in_file(file, message);
        let constants = self.constants(source).map_err(|error| vec![error])?;
        let mut scope = Scope::new();
        // Constants are declared as variables here. For real constants, the engine would also
        // replace a parameter that has the name of a constant.
        for (name, value) in &constants {
            scope.push_dynamic(name.as_str(), value.clone());
        }
        let mut ast = self
            .engine
            .compile_with_scope(&scope, text)
            .map_err(|error| vec![at(error.position(), describe_syntax(&error))])?;
        ast.set_source(file.as_str());
        let mut errors = Vec::new();
        let functions = check_names(kind, &ast, &mut |position, message| {
            errors.push(at(position, message));
        });
        self.check_calls(&ast, &constants, &mut |position, message| {
            errors.push(at(position, message));
        });
        // A file whose samples are all commented out must say so at its end with ALL_OFF. Otherwise
        // a truncated file would be accepted, too.
        let is_all_off = matches!(kind, ScriptKind::Hooks | ScriptKind::Events)
            && constants.get("ALL_OFF").is_some_and(|off| off.as_bool() == Ok(true));
        if is_all_off && functions != 0 {
            let message = "the file defines functions that Keyward calls, and also ALL_OFF; remove the line with ALL_OFF";
            errors.push(in_file(message.into()));
        }
        if errors.is_empty() && functions == 0 && !is_all_off {
            let signatures: Vec<_> =
                kind.functions().iter().map(|function| function.signature()).collect();
            errors.push(in_file(format!("the file defines none of {}", signatures.join(", "))));
        }
        if !errors.is_empty() {
            errors.truncate(MAX_ERRORS);
            return Err(errors);
        }
        let is_blocking = match constants.get("BLOCKING").map(Dynamic::as_bool) {
            None => false,
            Some(Ok(is_blocking)) => is_blocking,
            Some(Err(_)) => return Err(vec![in_file("BLOCKING must be true or false".into())]),
        };
        let declared = constants.get("CREDENTIAL").filter(|_| kind == ScriptKind::Auth);
        let credential = declared
            .map(CredentialDeclaration::read)
            .transpose()
            .map_err(|problem| vec![in_file(problem)])?;
        let declared = attributes::declared(kind, &constants);
        let declared = declared.map_err(|message| vec![in_file(message)])?;
        let mut warnings = Vec::new();
        let warn = &mut |position, message| warnings.push(at(position, message));
        attributes::check_reads(kind, &ast, &constants, &declared, warn);
        let body_readers = body::readers(kind, &ast, &constants, warn);
        let body_readers = body_readers.map_err(|message| vec![in_file(message)])?;
        lint::check(&ast, text, &constants, warn);
        let secrets = lint::secrets(&ast, &constants);
        warnings.truncate(MAX_ERRORS);
        let credential_attributes = declared.credentials;
        let tests = test_names(&ast);
        ast.clear_statements();
        let mut prepared = [const { None }; Function::ALL.len()];
        for function in Function::ALL {
            if functions & function.bit() == 0 {
                continue;
            }
            let name = function.name();
            let found = PreparedFn::find(&ast, name, function.parameters().len())
                .ok_or_else(|| vec![in_file(format!("{name} is defined more than once"))])?;
            prepared[function as usize] = Some(Box::new(found));
        }
        let constants = Arc::new(constants);
        let credential = credential.map(Arc::new);
        Ok(Compiled {
            ast,
            constants,
            functions,
            prepared,
            body_readers,
            tests,
            is_blocking,
            credential,
            credential_attributes,
            secrets,
            warnings,
        })
    }

    /// The values of the constants at the file's top level, where only constants and functions are
    /// allowed.
    fn constants(&self, source: &SourceFile) -> Result<Constants, ScriptError> {
        let SourceFile { file, text, .. } = source;
        let at = |position, message: String| ScriptError::at(file, text, position, message);
        let ast = self
            .lenient
            .compile(text)
            .map_err(|error| at(error.position(), describe_syntax(&error)))?;
        for statement in ast.statements() {
            let message = match statement {
                Stmt::Noop(_) => continue,
                Stmt::Var(_, flags, _) if flags.contains(ASTFlags::CONSTANT) => continue,
                Stmt::Var(..) => {
                    "functions cannot see this variable; write const for a value that functions use"
                }
                _ => {
                    "only const and fn are allowed outside of functions, because nothing would run this line"
                }
            };
            return Err(at(statement.position(), message.into()));
        }
        let mut scope = Scope::new();
        let mut statements = ast.clone_statements_only();
        statements.set_source(file.as_str());
        // Constants are evaluated with a context, so that they can use the library: `const A =
        // hex("a");`
        let outcome = budget::run_within(self.limits.for_test(), || {
            budget::catch_panic(|| {
                eval_with_tag(&self.lenient, &mut scope, &statements, self.context.clone())
            })
        });
        match outcome {
            Err(_) => return Err(at(Position::NONE, "a host function panicked".into())),
            Ok(Err(error)) => {
                let (inner, position) = innermost(&error);
                let message = format!("a constant cannot be evaluated: {}", describe(inner));
                return Err(at(position, message));
            }
            Ok(Ok(())) => {}
        }
        let mut constants = Constants::default();
        for (name, _, value) in scope.iter_raw() {
            if !is_plain_data(value, 0) {
                let message = format!(
                    "the constant {name} is not plain data; compute the value in the function that uses it"
                );
                return Err(ScriptError::in_file(file, message));
            }
            constants.insert(name.to_owned(), value.clone().into_read_only());
        }
        Ok(constants)
    }

    /// Finds calls of functions that do not exist, even in functions that no test reaches.
    fn check_calls(
        &self,
        ast: &AST,
        constants: &Constants,
        report: &mut dyn FnMut(Position, String),
    ) {
        let mut file_functions = Arities::new();
        for function in ast.iter_fn_def() {
            let name = function.name.to_string();
            file_functions.entry(name).or_default().insert(function.params.len());
        }
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Share(names))) => {
                    // A closure gets a copy of a constant. A variable would be shared with the
                    // closure, so that a value could contain itself.
                    let variable = names.iter().find(|(name, index)| {
                        index.is_some() || !constants.contains_key(name.as_str())
                    });
                    if let Some((name, _)) = variable {
                        let message = format!(
                            "a closure cannot use the variable {} from outside of it; use a for loop, or pass it as an argument",
                            name.name
                        );
                        report(name.pos, message);
                    }
                }
                Some(
                    ASTNode::Expr(Expr::FnCall(call, position))
                    | ASTNode::Stmt(Stmt::FnCall(call, position)),
                ) => {
                    if let Err(message) = self.check_call(call, false, &file_functions) {
                        report(*position, message);
                    }
                }
                Some(ASTNode::Expr(Expr::MethodCall(call, position))) => {
                    if let Err(message) = self.check_call(call, true, &file_functions) {
                        report(*position, message);
                    }
                }
                _ => {}
            }
            true
        });
    }

    fn check_call(
        &self,
        call: &FnCallExpr,
        is_method: bool,
        file_functions: &Arities,
    ) -> Result<(), String> {
        let name = call.name.as_str();
        if call.op_token.is_some() || KEYWORDS.contains(&name) || name.starts_with("anon$") {
            return Ok(());
        }
        if !call.namespace.is_empty() {
            return Err("there are no modules, so :: cannot be used".into());
        }
        let without_object = call.args.len();
        let with_object = without_object + usize::from(is_method);
        let (in_file, in_host) = (file_functions.get(name), self.host_functions.get(name));
        let file_takes = |count| in_file.is_some_and(|arities| arities.contains(&count));
        let host_takes = |count| in_host.is_some_and(|arities| arities.contains(&count));
        // For a method call, the engine first looks for a function of the file that takes the
        // arguments without the object. So `req.header("A")` inside `header(req)` would recurse for
        // ever.
        if is_method && file_takes(without_object) && host_takes(with_object) {
            return Err(format!(
                "in this file .{name}(…) calls the file's function {name}; to call Keyward's function, write {name}(req, …), with the value before the dot as the first argument"
            ));
        }
        // In a method call of a function of the file, the object is `this` and not an argument.
        if file_takes(with_object) || file_takes(without_object) || host_takes(with_object) {
            return Ok(());
        }
        if in_file.is_none() && in_host.is_none() {
            let names = file_functions.keys().chain(self.host_functions.keys()).map(String::as_str);
            let near = suggest(name, names.filter(|other| !other.starts_with("anon$")));
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(format!("there is no function {name}{near}"));
        }
        let mut arities: Vec<usize> =
            in_file.into_iter().chain(in_host).flatten().copied().collect();
        arities.sort_unstable();
        arities.dedup();
        let arities: Vec<String> = arities.iter().map(ToString::to_string).collect();
        Err(format!(
            "{name} takes {} arguments, not {with_object} (the value before the dot counts)",
            arities.join(" or ")
        ))
    }
}

/// Evaluates a file's top level with a tag. The engine's `run` cannot pass a tag, but a call of a
/// function can.
fn eval_with_tag(
    engine: &Engine,
    scope: &mut Scope<'_>,
    ast: &AST,
    context: ContextHandle,
) -> Result<(), Box<rhai::EvalAltResult>> {
    // The engine calls this empty function after it has evaluated the top level.
    let with_function = ast.merge(&engine.compile("fn nothing() {}")?);
    let options =
        CallFnOptions::new().eval_ast(true).rewind_scope(false).with_tag(Dynamic::from(context));
    engine
        .call_fn_with_options::<Dynamic>(options, scope, &with_function, "nothing", ())
        .map(|_| ())
}

fn describe_syntax(error: &ParseError) -> String {
    let text = error.err_type().to_string();
    match text.strip_prefix("Undefined variable: ") {
        Some(name) => format!(
            "there is no variable {name} here; functions see only their parameters, their variables and the constants of the file"
        ),
        None => text,
    }
}

fn host_functions(engine: &Engine) -> Arities {
    let mut arities = Arities::new();
    let all = engine.collect_fn_metadata(
        None,
        |function| Some((function.metadata.name.to_string(), function.metadata.num_params)),
        true,
    );
    for (name, count) in all {
        arities.entry(name).or_default().insert(count);
    }
    arities
}

/// Checks the names of a file's functions. Returns the bits of the functions that Keyward calls.
fn check_names(kind: ScriptKind, ast: &AST, report: &mut dyn FnMut(Position, String)) -> u16 {
    let mut bits = 0;
    for definition in ast.iter_fn_def() {
        let name = definition.name.as_str();
        let mut report = |message| report(definition.body.start_position(), message);
        if name.starts_with("anon$") {
            continue;
        }
        if name.starts_with("test_") {
            if !definition.params.is_empty() {
                report(format!("a test takes no arguments: {name}()"));
            }
            continue;
        }
        let callable = kind.functions();
        let Some(function) = Function::ALL.into_iter().find(|other| other.name() == name) else {
            let is_private = definition.access == rhai::FnAccess::Private;
            let near = callable.iter().find(|other| !is_private && is_near(name, other.name()));
            if let Some(near) = near {
                report(format!(
                    "Keyward never calls {name}; did you mean {}? If {name} is a helper, write private fn",
                    near.signature()
                ));
            } else if name.starts_with("on_") {
                let names: Vec<_> = callable.iter().map(|other| other.name()).collect();
                report(format!(
                    "Keyward never calls {name}; in this file it calls {}",
                    names.join(", ")
                ));
            }
            continue;
        };
        if !callable.contains(&function) {
            let owner =
                ScriptKind::ALL.into_iter().find(|kind| kind.functions().contains(&function));
            let path = owner.map_or("", ScriptKind::path);
            report(format!(
                "Keyward does not call {name} in this file; the function belongs in {path}"
            ));
        } else if definition.params.len() != function.parameters().len() {
            report(format!("write {name} as {}", function.signature()));
        } else {
            bits |= function.bit();
        }
    }
    bits
}

/// Whether a name is probably a misspelling of the known name.
fn is_near(name: &str, known: &str) -> bool {
    let is_hook = name.starts_with("on_") && known.starts_with("on_");
    let max_distance = if is_hook { 4 } else { 2 };
    name.eq_ignore_ascii_case(known) || strsim::damerau_levenshtein(name, known) <= max_distance
}

fn test_names(ast: &AST) -> Vec<String> {
    let mut tests: Vec<_> = ast
        .iter_fn_def()
        .filter(|function| function.name.starts_with("test_") && function.params.is_empty())
        .map(|function| (function.body.start_position(), function.name.to_string()))
        .collect();
    tests.sort_by_key(|(position, _)| (position.line(), position.position()));
    tests.into_iter().map(|(_, name)| name).collect()
}
