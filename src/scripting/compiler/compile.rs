//! From a file's text to a script that can be called: syntax, constants, names, arity, and calls of functions that do not exist.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use rhai::{
    AST, ASTFlags, ASTNode, CallFnOptions, Dynamic, Engine, Expr, FnCallExpr, ParseError, Position,
    Scope, Stmt,
};

use super::engine::{self, Variables};
use crate::model::suggest;
use crate::scripting::{
    Function, Kind, Limits, ScriptError,
    fault::{describe, innermost},
    loading::source::Source,
    runtime::{
        budget,
        context::{Constants, ContextHandle},
        prepared::Entry,
    },
    values::request::is_plain,
};

/// What a file came to.
pub(in crate::scripting) struct Compiled {
    pub ast: AST,
    pub constants: Arc<Constants>,
    /// The bits of the functions that it defines.
    pub functions: u16,
    entries: [Option<Box<Entry>>; Function::ALL.len()],
    /// The names of its `test_…` functions, in the order of the file.
    pub tests: Vec<(String, Position)>,
    pub is_blocking: bool,
}

impl Compiled {
    /// A function that it defines.
    pub fn entry(&self, function: Function) -> Option<&Entry> {
        self.entries[function as usize].as_deref()
    }
}

/// The engines that compile, and what they know.
pub(in crate::scripting) struct Compiler {
    pub engine: Arc<Engine>,
    lenient: Engine,
    /// How many arguments each host function takes.
    known: HashMap<String, HashSet<usize>>,
    limits: Limits,
    call: ContextHandle,
}

/// What the engine itself answers, with any number of arguments. Nobody can write `curry`; the parser does, in closures that use constants.
const KEYWORDS: &[&str] =
    &["call", "curry", "type_of", "is_def_var", "is_def_fn", "print", "debug", "Fn"];

impl Compiler {
    pub fn new(limits: &Limits, call: ContextHandle) -> Self {
        let engine = engine::build(limits, Variables::Strict);
        let known = known(&engine);
        let lenient = engine::build(limits, Variables::Lenient);
        Self { engine: Arc::new(engine), lenient, known, limits: limits.clone(), call }
    }

    /// Compiles one file.
    ///
    /// # Errors
    /// All that is wrong with it; a fault of syntax hides the others.
    pub fn compile(&self, source: &Source) -> Result<Compiled, Vec<ScriptError>> {
        let at =
            |place, message: String| ScriptError::at(&source.file, &source.text, place, message);
        let constants = self.constants(source).map_err(|problem| vec![problem])?;
        let mut scope = Scope::new();
        // Variables and no constants: the engine would put a constant's value also where a parameter has its name.
        for (name, value) in &constants {
            scope.push_dynamic(name.as_str(), value.clone());
        }
        let mut ast = self
            .engine
            .compile_with_scope(&scope, &source.text)
            .map_err(|error| vec![at(error.position(), syntax(&error))])?;
        ast.set_source(source.file.as_str());
        let mut problems = Vec::new();
        let functions = functions(source.kind, &ast, &mut |place, message| {
            problems.push(at(place, message));
        });
        self.calls(&ast, &constants, &mut |place, message| problems.push(at(place, message)));
        // Samples that are all switched off. They say so at their end: a file that was cut off must not pass for one.
        let is_asleep = matches!(source.kind, Kind::Hooks | Kind::Events)
            && constants.get("ALL_OFF").is_some_and(|off| off.as_bool() == Ok(true));
        if is_asleep && functions != 0 {
            let message = "it defines functions that Keyward calls and says ALL_OFF; take the line with ALL_OFF away";
            problems.push(ScriptError::of_file(&source.file, message));
        }
        if problems.is_empty() && functions == 0 && !is_asleep {
            let names: Vec<_> = source.kind.functions().iter().map(|one| one.signature()).collect();
            let message = format!("it defines none of {}", names.join(", "));
            problems.push(ScriptError::of_file(&source.file, message));
        }
        if !problems.is_empty() {
            problems.truncate(32);
            return Err(problems);
        }
        let is_blocking = match constants.get("BLOCKING").map(Dynamic::as_bool) {
            None => false,
            Some(Ok(is_blocking)) => is_blocking,
            Some(Err(_)) => {
                let message = "BLOCKING is true or false";
                return Err(vec![ScriptError::of_file(&source.file, message)]);
            }
        };
        let tests = tests(&ast);
        ast.clear_statements();
        let mut entries = [const { None }; Function::ALL.len()];
        for one in Function::ALL.into_iter().filter(|one| functions & one.bit() != 0) {
            let entry = Entry::of(&ast, one.name(), one.parameters().len()).ok_or_else(|| {
                let message = format!("{} is there more than once", one.name());
                vec![ScriptError::of_file(&source.file, message)]
            })?;
            entries[one as usize] = Some(Box::new(entry));
        }
        let constants = Arc::new(constants);
        Ok(Compiled { ast, constants, functions, entries, tests, is_blocking })
    }

    /// The values of the constants at the file's top level, where nothing else may stand.
    fn constants(&self, source: &Source) -> Result<Constants, ScriptError> {
        let at =
            |place, message: String| ScriptError::at(&source.file, &source.text, place, message);
        let ast = self
            .lenient
            .compile(&source.text)
            .map_err(|error| at(error.position(), syntax(&error)))?;
        for statement in ast.statements() {
            match statement {
                Stmt::Noop(_) => {}
                Stmt::Var(_, flags, _) if flags.contains(ASTFlags::CONSTANT) => {}
                Stmt::Var(_, _, place) => {
                    let message =
                        "functions do not see this variable; write const for a value that they use";
                    return Err(at(*place, message.into()));
                }
                other => {
                    let message =
                        "only const and fn may stand outside of functions: nothing would run this";
                    return Err(at(other.position(), message.into()));
                }
            }
        }
        let mut scope = Scope::new();
        let mut statements = ast.clone_statements_only();
        statements.set_source(source.file.as_str());
        // A call of nothing, so that constants can use the library: `const A = hex("a");`
        let outcome = budget::within(self.limits.testing(), || {
            crate::scripting::script::guarded(|| {
                self.lenient.eval_with_tag(&mut scope, &statements, self.call.clone())
            })
        });
        match outcome {
            Err(_) => return Err(at(Position::NONE, "a host function panicked".into())),
            Ok(Err(error)) => {
                let (inner, place) = innermost(&error);
                let message = format!("a constant has no value: {}", describe(inner));
                return Err(at(place, message));
            }
            Ok(Ok(())) => {}
        }
        let mut constants = Constants::default();
        for (name, _, value) in scope.iter_raw() {
            if !is_plain(value, 0) {
                let message = format!(
                    "the constant {name} is no plain data; call the function where the value is used"
                );
                return Err(ScriptError::of_file(&source.file, message));
            }
            constants.insert(name.to_owned(), value.clone().into_read_only());
        }
        Ok(constants)
    }

    /// Finds calls of what does not exist, in functions that a test may never reach.
    fn calls(&self, ast: &AST, constants: &Constants, problem: &mut dyn FnMut(Position, String)) {
        let mut own: HashMap<String, HashSet<usize>> = HashMap::new();
        for function in ast.iter_fn_def() {
            own.entry(function.name.to_string()).or_default().insert(function.params.len());
        }
        ast.walk(&mut |path: &[ASTNode<'_>]| {
            match path.last() {
                Some(ASTNode::Stmt(Stmt::Share(names))) => {
                    // A constant is copied and not shared. A variable would be shared: values could then hold themselves.
                    let variable = names.iter().find(|(name, index)| {
                        index.is_some() || !constants.contains_key(name.as_str())
                    });
                    if let Some((name, _)) = variable {
                        let message = format!(
                            "a closure cannot use the variable {} from outside of it; use a for loop, or give it as an argument",
                            name.name
                        );
                        problem(name.pos, message);
                    }
                }
                Some(
                    ASTNode::Expr(Expr::FnCall(call, place))
                    | ASTNode::Stmt(Stmt::FnCall(call, place)),
                ) => {
                    self.call(call, 0, *place, &own, problem);
                }
                Some(ASTNode::Expr(Expr::MethodCall(call, place))) => {
                    self.call(call, 1, *place, &own, problem);
                }
                _ => {}
            }
            true
        });
    }

    fn call(
        &self,
        call: &FnCallExpr,
        receiver: usize,
        place: Position,
        own: &HashMap<String, HashSet<usize>>,
        problem: &mut dyn FnMut(Position, String),
    ) {
        let name = call.name.as_str();
        if call.op_token.is_some() || KEYWORDS.contains(&name) || name.starts_with("anon$") {
            return;
        }
        if !call.namespace.is_empty() {
            return problem(place, "there are no modules, so there is no ::".into());
        }
        let given = call.args.len() + receiver;
        let takes = |counts: &HashSet<usize>| counts.contains(&given);
        let (own_counts, host) = (own.get(name), self.known.get(name));
        // The engine looks at the script's own functions first, without what stands before the dot: `req.header("A")` inside `header(req)` would
        // call itself for ever.
        if receiver == 1
            && own_counts.is_some_and(|counts| counts.contains(&call.args.len()))
            && host.is_some_and(takes)
        {
            let message = format!(
                "in this file .{name}(…) is the file's own function; Keyward's is written {name}(req, …) here, with what stands before the dot first"
            );
            return problem(place, message);
        }
        // A function of the script's own can be called as a method too: `this` is then no argument.
        let is_own =
            own_counts.is_some_and(|counts| takes(counts) || counts.contains(&call.args.len()));
        if is_own || host.is_some_and(takes) {
            return;
        }
        if own_counts.is_none() && host.is_none() {
            let names = own.keys().chain(self.known.keys()).map(String::as_str);
            let near = suggest(name, names.filter(|one| !one.starts_with("anon$")));
            let near = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return problem(place, format!("there is no function {name}{near}"));
        }
        let mut counts: Vec<usize> =
            own_counts.into_iter().chain(host).flatten().copied().collect();
        counts.sort_unstable();
        counts.dedup();
        let counts: Vec<String> = counts.iter().map(ToString::to_string).collect();
        problem(
            place,
            format!(
                "{name} takes {} arguments, not {given} (what stands before the dot is one)",
                counts.join(" or ")
            ),
        );
    }
}

/// Running a file's top level with a tag: the engine's own `run` has no way to give one.
trait EvalWithTag {
    fn eval_with_tag(
        &self,
        scope: &mut Scope<'_>,
        ast: &AST,
        call: ContextHandle,
    ) -> Result<(), Box<rhai::EvalAltResult>>;
}

impl EvalWithTag for Engine {
    fn eval_with_tag(
        &self,
        scope: &mut Scope<'_>,
        ast: &AST,
        call: ContextHandle,
    ) -> Result<(), Box<rhai::EvalAltResult>> {
        // A function that does nothing, called after the top level was evaluated.
        let nothing = self.compile("fn nothing() {}")?;
        let both = ast.merge(&nothing);
        let options =
            CallFnOptions::new().eval_ast(true).rewind_scope(false).with_tag(Dynamic::from(call));
        self.call_fn_with_options::<Dynamic>(options, scope, &both, "nothing", ()).map(|_| ())
    }
}

fn syntax(error: &ParseError) -> String {
    let kind = error.err_type().to_string();
    match kind.strip_prefix("Undefined variable: ") {
        Some(name) => format!(
            "there is no variable {name} here; functions see their parameters, their own variables and constants"
        ),
        None => kind,
    }
}

fn known(engine: &Engine) -> HashMap<String, HashSet<usize>> {
    let mut known: HashMap<String, HashSet<usize>> = HashMap::new();
    let all = engine.collect_fn_metadata(
        None,
        |function| Some((function.metadata.name.to_string(), function.metadata.num_params)),
        true,
    );
    for (name, count) in all {
        known.entry(name).or_default().insert(count);
    }
    known
}

/// Checks the names of a file's functions, and returns the bits of those that Keyward calls.
fn functions(kind: Kind, ast: &AST, problem: &mut dyn FnMut(Position, String)) -> u16 {
    let mut bits = 0;
    for function in ast.iter_fn_def() {
        let name = function.name.as_str();
        let place = function.body.start_position();
        if name.starts_with("anon$") {
            continue;
        }
        if name.starts_with("test_") {
            if !function.params.is_empty() {
                problem(place, format!("a test takes no arguments: {name}()"));
            }
            continue;
        }
        let Some(called) = Function::ALL.into_iter().find(|one| one.name() == name) else {
            let is_private = function.access == rhai::FnAccess::Private;
            let near = kind.functions().iter().find(|one| !is_private && is_near(name, one.name()));
            if let Some(near) = near {
                problem(
                    place,
                    format!(
                        "nothing calls {name}; did you mean {}? Write private fn if it is a function of your own",
                        near.signature()
                    ),
                );
            } else if name.starts_with("on_") {
                let names: Vec<_> = kind.functions().iter().map(|one| one.name()).collect();
                problem(place, format!("nothing calls {name}; there are {}", names.join(", ")));
            }
            continue;
        };
        if !kind.functions().contains(&called) {
            let place_of = Kind::ALL.into_iter().find(|one| one.functions().contains(&called));
            let place_of = place_of.map_or("", Kind::place);
            problem(place, format!("nothing calls {name} here; it belongs into {place_of}"));
        } else if function.params.len() != called.parameters().len() {
            problem(place, format!("{name} is written {}", called.signature()));
        } else {
            bits |= called.bit();
        }
    }
    bits
}

fn is_near(name: &str, known: &str) -> bool {
    let is_hook = name.starts_with("on_") && known.starts_with("on_");
    name.eq_ignore_ascii_case(known)
        || strsim::damerau_levenshtein(name, known) <= 2
        || is_hook && strsim::damerau_levenshtein(name, known) <= 4
}

fn tests(ast: &AST) -> Vec<(String, Position)> {
    let mut tests: Vec<_> = ast
        .iter_fn_def()
        .filter(|function| function.name.starts_with("test_") && function.params.is_empty())
        .map(|function| (function.name.to_string(), function.body.start_position()))
        .collect();
    tests.sort_by_key(|(_, place)| (place.line(), place.position()));
    tests
}
