//! The functions that Keyward calls, at hand: a call searches neither for the function nor, again and again, for what the function calls.

use std::{
    cell::Cell,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use rhai::{
    AST, ASTNode, Caches, Dynamic, Engine, EvalAltResult, EvalContext, Expr, Expression,
    GlobalRuntimeState, ImmutableString, Module, Position, Scope, Shared, Stmt, StmtBlock,
};

use super::context::{ContextHandle, stop};

/// A function, taken out of its file.
pub(in crate::scripting) struct Entry {
    parameters: Vec<ImmutableString>,
    body: Expr,
    /// All functions of the file.
    file: Shared<Module>,
    source: ImmutableString,
    desks: Box<[ThreadSlot]>,
}

/// Where one thread keeps what it needs for a call from one call to the next. Apart from the others, so that threads do not wait for each other's memory.
#[derive(Default)]
#[repr(align(128))]
struct ThreadSlot(Mutex<Option<Box<EvalState>>>);

/// What a call needs, and what is the same in the next one.
struct EvalState {
    /// The parameters, without values between calls.
    scope: Scope<'static>,
    /// Which function is meant by which name and types. That depends on the file and the engine alone.
    caches: Caches,
    global: GlobalRuntimeState,
}

/// How many functions a desk remembers. A script can make names of what a client sends, and each would stay.
const REMEMBERED: usize = 512;

impl Entry {
    /// The function of this name; none: the file does not define it, or for several types.
    pub fn of(ast: &AST, name: &str, parameters: usize) -> Option<Self> {
        let mut alone = ast.clone();
        alone.retain_functions(|_, _, one, count| one == name && count == parameters);
        let mut functions = alone.iter_fn_def();
        let (function, None) = (functions.next()?, functions.next()) else { return None };
        let (start, end) = (function.body.start_position(), function.body.end_position());
        let mut statements = Vec::new();
        // The body's own type has no name outside of the engine, so its statements are collected.
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
            desks: (0..desks()).map(|_| ThreadSlot::default()).collect(),
        })
    }

    /// Calls it. `tag` is what host functions find; the next call of this thread may find it again, unless it is to be [`Tag::Forgotten`].
    ///
    /// # Errors
    /// What the engine says.
    pub fn call(
        &self,
        engine: &Engine,
        tag: Tag<'_>,
        arguments: impl IntoIterator<Item = Dynamic>,
    ) -> Result<Dynamic, Box<EvalAltResult>> {
        let desk = self.desk();
        let kept = desk.and_then(|desk| desk.0.try_lock().ok()?.take());
        let mut tools = kept.unwrap_or_else(|| Box::new(self.tools(engine)));
        // When a host function panics, the tools are dropped with what was half done.
        let outcome = tools.run(self, engine, &tag, arguments);
        if let Some(desk) = desk
            && tools.put_in_order(self, &tag)
            && let Ok(mut place) = desk.0.try_lock()
        {
            *place = Some(tools);
        }
        outcome
    }

    fn desk(&self) -> Option<&ThreadSlot> {
        self.desks.get(seat() % self.desks.len().max(1))
    }

    fn tools(&self, engine: &Engine) -> EvalState {
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

/// What host functions find in the engine.
pub(in crate::scripting) enum Tag<'a> {
    /// The same in most calls.
    Kept(&'a ContextHandle),
    /// For this call alone: it may know secrets.
    Forgotten(ContextHandle),
}

impl EvalState {
    fn run(
        &mut self,
        entry: &Entry,
        engine: &Engine,
        tag: &Tag<'_>,
        arguments: impl IntoIterator<Item = Dynamic>,
    ) -> Result<Dynamic, Box<EvalAltResult>> {
        let Self { scope, caches, global } = self;
        let handle = match tag {
            Tag::Kept(handle) => *handle,
            Tag::Forgotten(handle) => handle,
        };
        if !global.tag.read_lock::<ContextHandle>().is_some_and(|found| found.is(handle)) {
            global.tag = Dynamic::from(ContextHandle::clone(handle));
        }
        for (name, value) in entry.parameters.iter().zip(arguments) {
            // What comes from a constant cannot be changed; a parameter can.
            let value = if value.is_read_only() { value.clone() } else { value };
            *scope.get_mut(name).ok_or_else(|| stop("a parameter has no place"))? = value;
        }
        // The call itself is a step.
        global.num_operations = 1;
        if scope.len() > engine.max_variables() {
            return Err(EvalAltResult::ErrorTooManyVariables(Position::NONE).into());
        }
        let mut context = EvalContext::new(engine, global, caches, scope, None);
        #[allow(deprecated, reason = "the engine calls this part of its interface not yet settled")]
        let outcome = context.eval_expression_tree_raw(&Expression::from(&entry.body), true);
        outcome.or_else(|error| match *error {
            EvalAltResult::Return(value, _) | EvalAltResult::Exit(value, _) => Ok(value),
            mut error if error.is_system_exception() => {
                error.set_position(Position::NONE);
                Err(error.into())
            }
            error => Err(error.into()),
        })
    }

    /// Leaves nothing of a call behind for the next one. False: they are not to be used again.
    fn put_in_order(&mut self, entry: &Entry, tag: &Tag<'_>) -> bool {
        let Self { scope, caches, global } = self;
        scope.rewind(entry.parameters.len());
        let is_empty = entry.parameters.iter().all(|name| {
            scope.get_mut(name).is_some_and(|place| {
                *place = Dynamic::UNIT;
                true
            })
        });
        if let Tag::Forgotten(_) = tag {
            global.tag = Dynamic::UNIT;
        }
        global.lib.truncate(1);
        (global.level, global.scope_level, global.always_search_scope) = (0, 0, false);
        is_empty
            && scope.len() == entry.parameters.len()
            && caches.fn_resolution_caches_len() <= 1
            && caches.fn_resolution_cache_mut().dict.len() <= REMEMBERED
    }
}

/// Some more than there are threads that serve: others come along, and have seats too.
fn desks() -> usize {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    (threads * 2).next_power_of_two().clamp(4, 64)
}

/// This thread's number, among those that have called a script.
fn seat() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static SEAT: Cell<Option<usize>> = const { Cell::new(None) };
    }
    SEAT.get().unwrap_or_else(|| {
        let seat = NEXT.fetch_add(1, Ordering::Relaxed);
        SEAT.set(Some(seat));
        seat
    })
}

#[cfg(test)]
mod unit {
    use std::sync::Arc;

    use super::{
        super::context::{Call, HostContext},
        *,
    };
    use crate::model::{Clock, Secret};
    use crate::scripting::{
        Limits, NoRecords, Secrets,
        compiler::engine::{Variables, build},
    };

    fn handle() -> ContextHandle {
        let (clock, limits) = (Clock::system(), Limits::default());
        let ambient = HostContext::new(Arc::new(NoRecords), clock, Secrets::default(), limits);
        let mut call = Call::new(Arc::new(ambient));
        call.hidden = Some([Secret::new("s3cret")].into());
        ContextHandle::new(call)
    }

    fn entry(text: &str) -> (Engine, Entry) {
        let engine = build(&Limits::default(), Variables::Strict);
        let ast = engine.compile(text).unwrap();
        let entry = Entry::of(&ast, "f", 1).unwrap();
        (engine, entry)
    }

    /// How many functions this thread's desk remembers; none: it is empty.
    fn remembered(entry: &Entry) -> Option<usize> {
        let mut tools = entry.desk().unwrap().0.lock().unwrap();
        Some(tools.as_mut()?.caches.fn_resolution_cache_mut().dict.len())
    }

    #[test]
    fn what_is_found_is_kept_up_to_a_bound() {
        let text = "fn f(n) { for i in 0..n { for twice in 0..2 { try { Fn(`g${i}`).call() } catch {} } } n + 1 }";
        let (engine, entry) = entry(text);
        let (tag, call) = (handle(), |n: i64| [Dynamic::from(n)]);
        for _ in 0..3 {
            let value = entry.call(&engine, Tag::Kept(&tag), call(10)).unwrap();
            assert_eq!(value.as_int(), Ok(11));
        }
        assert!((1..=100).contains(&remembered(&entry).unwrap()));
        assert!(entry.call(&engine, Tag::Kept(&tag), call(1000)).is_ok());
        assert_eq!(remembered(&entry), None, "all is forgotten when it is too much");
    }

    #[test]
    fn surroundings_that_are_to_be_forgotten_are() {
        let (engine, entry) = entry("fn f(n) { n }");
        let call = || [Dynamic::UNIT];
        let kept = || {
            let tools = entry.desk().unwrap().0.lock().unwrap();
            tools.as_ref().is_some_and(|tools| !tools.global.tag.is_unit())
        };
        let tag = handle();
        assert!(entry.call(&engine, Tag::Kept(&tag), call()).is_ok());
        assert!(kept());
        assert!(entry.call(&engine, Tag::Forgotten(handle()), call()).is_ok());
        assert!(!kept() && remembered(&entry).is_some());
    }

    #[test]
    fn a_parameter_can_be_changed_whatever_was_given_for_it() {
        let (engine, entry) = entry("fn f(n) { n += 1; n }");
        for given in 1..4_i64 {
            let argument = Dynamic::from(given).into_read_only();
            let value = entry.call(&engine, Tag::Kept(&handle()), [argument]).unwrap();
            assert_eq!(value.as_int(), Ok(given + 1));
        }
    }

    #[test]
    fn closures_and_other_functions_are_no_part_of_a_body() {
        let (engine, entry) = entry(
            "fn g(x) { throw \"g\" } fn f(n) { let twice = |x| { x * 2 }; if n > 0 { return twice.call(n) } 0 } fn f() { throw \"f\" }",
        );
        let value = entry.call(&engine, Tag::Kept(&handle()), [Dynamic::from(4_i64)]).unwrap();
        assert_eq!(value.as_int(), Ok(8));
    }
}
