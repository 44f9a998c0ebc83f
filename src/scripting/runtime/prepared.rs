//! Prepares the functions that Keyward calls, once at load. A call then neither searches for the
//! function nor resolves the names in the function again.

use std::{
    cell::Cell,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use parking_lot::Mutex;
use rhai::{
    AST, ASTNode, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, Expression,
    GlobalRuntimeState, ImmutableString, Module, Position, Scope, Shared, Stmt, StmtBlock,
};

use super::context::{ContextHandle, runtime_error};

/// A function of a file, ready to be called.
pub(in crate::scripting) struct PreparedFn {
    parameters: Vec<ImmutableString>,
    body: Expr,
    /// All functions of the file.
    file: Shared<Module>,
    source: ImmutableString,
    slots: Box<[ThreadSlot]>,
}

/// Keeps one thread's [`EvalState`] from one call to the next. Slots share no cache lines, so that
/// threads on different CPU cores do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct ThreadSlot(Mutex<Option<Box<EvalState>>>);

/// The parts of the engine's state that calls of one function can reuse.
struct EvalState {
    /// The parameters of the function. Between two calls all parameters are `()`.
    scope: Scope<'static>,
    /// Resolved function names and argument types, which depend only on the file and the engine.
    caches: Caches,
    global: GlobalRuntimeState,
}

/// The maximum number of resolved functions that a slot keeps. A script can build function names
/// from client input, and without this maximum each name would stay in the cache.
const MAX_RESOLVED: usize = 512;

impl PreparedFn {
    /// Finds a function. `None` means that the file does not define it, or defines it for several
    /// types.
    pub fn find(ast: &AST, name: &str, parameters: usize) -> Option<Self> {
        let mut alone = ast.clone();
        alone.retain_functions(|_, _, other, count| other == name && count == parameters);
        let mut functions = alone.iter_fn_def();
        let (function, None) = (functions.next()?, functions.next()) else { return None };
        let (start, end) = (function.body.start_position(), function.body.end_position());
        let mut statements = Vec::new();
        // The engine hides the type of a function's body, so the statements of the body are
        // collected.
        alone.walk(&mut |path: &[ASTNode<'_>]| {
            if let [ASTNode::Stmt(statement)] = path {
                statements.push(Stmt::clone(statement));
            }
            true
        });
        Some(Self {
            parameters: function.params.to_vec(),
            body: Expr::Stmt(Box::new(StmtBlock::new(statements, start, end))),
            file: ast.shared_lib().clone(),
            source: ast.source().unwrap_or_default().into(),
            slots: (0..slot_count()).map(|_| ThreadSlot::default()).collect(),
        })
    }

    /// Calls the function. Host functions find the context in `tag`.
    ///
    /// # Errors
    /// The engine's error.
    pub fn call(
        &self,
        engine: &Engine,
        tag: Tag<'_>,
        arguments: impl IntoIterator<Item = Dynamic>,
    ) -> Result<Dynamic, Box<EvalAltResult>> {
        let slot = self.slot();
        let kept = slot.and_then(|slot| slot.0.try_lock()?.take());
        let mut state = kept.unwrap_or_else(|| Box::new(self.new_state(engine)));
        // If a host function panics, unwinding drops the half-changed state.
        let outcome = state.run(self, engine, &tag, arguments);
        if let Some(slot) = slot
            && state.reset(self, &tag)
            && let Some(mut kept) = slot.0.try_lock()
        {
            *kept = Some(state);
        }
        outcome
    }

    fn slot(&self) -> Option<&ThreadSlot> {
        self.slots.get(slot_index() % self.slots.len().max(1))
    }

    fn new_state(&self, engine: &Engine) -> EvalState {
        let mut global = engine.new_global_runtime_state();
        global.lib.push(self.file.clone());
        global.source = Some(self.source.clone());
        let mut scope = Scope::new();
        for name in &self.parameters {
            scope.push_dynamic(name.as_str(), Dynamic::UNIT);
        }
        EvalState { scope, caches: Caches::new(), global }
    }
}

/// The context that host functions find in the engine.
pub(in crate::scripting) enum Tag<'a> {
    /// The context of most calls. The context stays in the [`EvalState`] for the thread's next
    /// call.
    Reusable(&'a ContextHandle),
    /// A context for this call alone, because it may contain secrets.
    SingleUse(ContextHandle),
}

impl EvalState {
    fn run(
        &mut self,
        function: &PreparedFn,
        engine: &Engine,
        tag: &Tag<'_>,
        arguments: impl IntoIterator<Item = Dynamic>,
    ) -> Result<Dynamic, Box<EvalAltResult>> {
        let Self { scope, caches, global } = self;
        let handle = match tag {
            Tag::Reusable(handle) => *handle,
            Tag::SingleUse(handle) => handle,
        };
        if !global.tag.read_lock::<ContextHandle>().is_some_and(|kept| kept.is_same(handle)) {
            global.tag = Dynamic::from(ContextHandle::clone(handle));
        }
        for (name, value) in function.parameters.iter().zip(arguments) {
            // A parameter must be writable. The value of a constant is read-only, but a clone of
            // the value is writable.
            let value = if value.is_read_only() { value.clone() } else { value };
            let parameter = scope.get_mut(name);
            *parameter.ok_or_else(|| runtime_error("a parameter is missing"))? = value;
        }
        // The call counts as the first step.
        global.num_operations = 1;
        if scope.len() > engine.max_variables() {
            return Err(EvalAltResult::ErrorTooManyVariables(Position::NONE).into());
        }
        let mut context = EvalContext::new(engine, global, caches, scope, None);
        #[allow(deprecated, reason = "the engine marks this part of its interface as unstable")]
        let outcome = context.eval_expression_tree_raw(&Expression::from(&function.body), true);
        outcome.or_else(|error| match *error {
            EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
            error => Err(error.into()),
        })
    }

    /// Clears everything that belongs to the last call. Returns false if the state cannot be
    /// reused.
    fn reset(&mut self, function: &PreparedFn, tag: &Tag<'_>) -> bool {
        let Self { scope, caches, global } = self;
        scope.rewind(function.parameters.len());
        let are_cleared = function.parameters.iter().all(|name| {
            scope.get_mut(name).is_some_and(|parameter| {
                *parameter = Dynamic::UNIT;
                true
            })
        });
        if let Tag::SingleUse(_) = tag {
            global.tag = Dynamic::UNIT;
        }
        global.lib.truncate(1);
        (global.level, global.scope_level, global.always_search_scope) = (0, 0, false);
        are_cleared
            && scope.len() == function.parameters.len()
            && caches.fn_resolution_caches_len() <= 1
            && caches.fn_resolution_cache_mut().dict.len() <= MAX_RESOLVED
    }
}

/// The number of slots. There are more slots than threads that serve requests, because other
/// threads call scripts, too.
fn slot_count() -> usize {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    (threads * 2).next_power_of_two().clamp(4, 64)
}

/// This thread's number among the threads that have called a script.
fn slot_index() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static INDEX: Cell<Option<usize>> = const { Cell::new(None) };
    }
    INDEX.get().unwrap_or_else(|| {
        let index = NEXT.fetch_add(1, Ordering::Relaxed);
        INDEX.set(Some(index));
        index
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::{
        super::context::{CallContext, HostContext},
        *,
    };
    use crate::model::{Clock, Secret};
    use crate::scripting::{
        NoRecords, ScriptLimits, Secrets,
        compiler::engine::{Variables, build},
    };

    fn context() -> ContextHandle {
        let (clock, limits) = (Clock::system(), ScriptLimits::default());
        let host = HostContext::new(Arc::new(NoRecords), clock, Secrets::default(), limits);
        let mut call = CallContext::new(Arc::new(host));
        call.redactions = Some([Secret::new("s3cret")].into());
        ContextHandle::new(call)
    }

    fn prepare(text: &str) -> (Engine, PreparedFn) {
        let engine = build(&ScriptLimits::default(), Variables::Strict);
        let ast = engine.compile(text).unwrap();
        let function = PreparedFn::find(&ast, "f", 1).unwrap();
        (engine, function)
    }

    /// How many resolved functions this thread's slot keeps; `None` means that the slot is empty.
    fn resolved(function: &PreparedFn) -> Option<usize> {
        let mut state = function.slot().unwrap().0.lock();
        Some(state.as_mut()?.caches.fn_resolution_cache_mut().dict.len())
    }

    #[test]
    fn resolved_functions_are_kept_up_to_a_limit() {
        let text = "fn f(n) { for i in 0..n { for twice in 0..2 { try { Fn(`g${i}`).call() } catch {} } } n + 1 }";
        let (engine, function) = prepare(text);
        let (context, arguments) = (context(), |n: i64| [Dynamic::from(n)]);
        for _ in 0..3 {
            let value = function.call(&engine, Tag::Reusable(&context), arguments(10)).unwrap();
            assert_eq!(value.as_int(), Ok(11));
        }
        assert!((1..=100).contains(&resolved(&function).unwrap()));
        assert!(function.call(&engine, Tag::Reusable(&context), arguments(1000)).is_ok());
        assert_eq!(resolved(&function), None, "too large a state is dropped");
    }

    #[test]
    fn a_single_use_context_is_not_kept_after_the_call() {
        let (engine, function) = prepare("fn f(n) { n }");
        let arguments = || [Dynamic::UNIT];
        let has_context = || {
            let state = function.slot().unwrap().0.lock();
            state.as_ref().is_some_and(|state| !state.global.tag.is_unit())
        };
        let reusable = context();
        assert!(function.call(&engine, Tag::Reusable(&reusable), arguments()).is_ok());
        assert!(has_context());
        assert!(function.call(&engine, Tag::SingleUse(context()), arguments()).is_ok());
        assert!(!has_context() && resolved(&function).is_some());
    }

    #[test]
    fn a_parameter_can_be_changed_even_if_its_argument_is_read_only() {
        let (engine, function) = prepare("fn f(n) { n += 1; n }");
        for given in 1..4_i64 {
            let argument = Dynamic::from(given).into_read_only();
            let value = function.call(&engine, Tag::Reusable(&context()), [argument]).unwrap();
            assert_eq!(value.as_int(), Ok(given + 1));
        }
    }

    #[test]
    fn closures_and_other_functions_are_not_part_of_the_body() {
        let (engine, function) = prepare(
            "fn g(x) { throw \"g\" } fn f(n) { let twice = |x| { x * 2 }; if n > 0 { return twice.call(n) } 0 } fn f() { throw \"f\" }",
        );
        let argument = Dynamic::from(4_i64);
        let value = function.call(&engine, Tag::Reusable(&context()), [argument]).unwrap();
        assert_eq!(value.as_int(), Ok(8));
    }
}
