//! All scripts of a folder, compiled together. Immutable: a request keeps the set that it began with to its end.

use std::{collections::HashMap, sync::Arc};

use super::{
    Function, Kind, Limits, Script, ScriptError,
    compiler::compile::Compiler,
    fault::{describe, innermost},
    loading::source::Source,
    runtime::{
        breaker::Breaker,
        context::{Call, ContextHandle, HostContext},
        prepared::Entry,
        sandbox::{Sandbox, ScriptTestGate, Subject},
    },
    script::{CallOptions, Inner, Pool},
};

/// A set of scripts.
#[derive(Default)]
pub struct Set {
    auth: HashMap<String, Script>,
    hooks: Option<Script>,
    resources: HashMap<String, Script>,
    handlers: HashMap<String, Script>,
    events: Option<Script>,
    /// The bits of the functions that any of the hooks defines.
    hooked: u16,
}

impl Set {
    /// The script of an authentication type.
    pub fn auth(&self, name: &str) -> Option<&Script> {
        self.auth.get(name)
    }

    /// The script of a handler.
    pub fn handler(&self, name: &str) -> Option<&Script> {
        self.handlers.get(name)
    }

    /// The script of events, if it defines this function.
    pub fn event(&self, function: Function) -> Option<&Script> {
        self.events.as_ref().filter(|script| script.defines(function))
    }

    /// Whether any hook defines this function: if not, there is nothing to build a [`ScriptRequest`](super::ScriptRequest) for.
    pub fn is_hooked(&self, function: Function) -> bool {
        self.hooked & function.bit() != 0
    }

    /// Whether there is any hook at all.
    pub fn has_hooks(&self) -> bool {
        self.hooked != 0
    }

    /// The hooks that define a function, in the order in which they are called: those of all requests, then the resource's.
    pub fn hooks(
        &self,
        function: Function,
        resource: Option<&str>,
    ) -> impl Iterator<Item = &Script> {
        let resource = resource.and_then(|id| self.resources.get(id));
        self.hooks.iter().chain(resource).filter(move |script| script.defines(function))
    }

    /// Whether there is no script at all.
    pub fn is_empty(&self) -> bool {
        !self.has_hooks()
            && self.auth.is_empty()
            && self.handlers.is_empty()
            && self.events.is_none()
    }

    /// All scripts, sorted by file.
    pub fn scripts(&self) -> Vec<&Script> {
        let maps = [&self.auth, &self.resources, &self.handlers];
        let mut all: Vec<_> = maps.into_iter().flat_map(HashMap::values).collect();
        all.extend(self.hooks.iter().chain(&self.events));
        all.sort_by_key(|script| script.file());
        all
    }

    /// Compiles files.
    ///
    /// # Errors
    /// All that is wrong with all of them.
    pub(super) fn compile(
        sources: Vec<Source>,
        ambient: &Arc<HostContext>,
        pool: &Arc<Pool>,
    ) -> Result<Self, Vec<ScriptError>> {
        let mut set = Self::default();
        // No engine is built for nothing.
        if sources.is_empty() {
            return Ok(set);
        }
        let limits = &ambient.limits;
        let world = Arc::new(Sandbox::new(None));
        let nowhere = Arc::new(HostContext::for_test(limits, world));
        let compiler = Compiler::new(limits, ContextHandle::new(Call::new(nowhere)));
        let mut problems = Vec::new();
        for source in sources {
            match compiler.compile(&source) {
                Err(found) => problems.extend(found),
                Ok(compiled) => {
                    let Source { kind, name, file, text } = source;
                    let engine = compiler.engine.clone();
                    let breaker =
                        Breaker::new(limits.strikes, limits.strike_window, limits.cool_down);
                    let pool = pool.clone();
                    let inner = Inner { kind, name, file, text, compiled, engine, breaker, pool };
                    set.insert(Script::new(Arc::new(inner), ambient.clone()));
                }
            }
        }
        if problems.is_empty() { Ok(set) } else { Err(problems) }
    }

    fn insert(&mut self, script: Script) {
        let name = script.name().to_owned();
        match script.kind() {
            Kind::Auth => {
                self.auth.insert(name, script);
            }
            Kind::Handler => {
                self.handlers.insert(name, script);
            }
            Kind::Events => self.events = Some(script),
            Kind::Hooks => {
                self.hooked |= script.inner.compiled.functions;
                self.hooks = Some(script);
            }
            Kind::Resource => {
                self.hooked |= script.inner.compiled.functions;
                self.resources.insert(name, script);
            }
        }
    }

    /// The same scripts, for somebody who only wants to know what they would say: what they count is looked at and not counted.
    pub fn looking(&self) -> Self {
        match self.scripts().first() {
            Some(script) => self.within(&Arc::new(script.ambient.looking())),
            None => Self::default(),
        }
    }

    /// The same scripts in other surroundings.
    fn within(&self, ambient: &Arc<HostContext>) -> Self {
        let map = |scripts: &HashMap<String, Script>| {
            scripts.iter().map(|(name, one)| (name.clone(), one.within(ambient))).collect()
        };
        Self {
            auth: map(&self.auth),
            hooks: self.hooks.as_ref().map(|one| one.within(ambient)),
            resources: map(&self.resources),
            handlers: map(&self.handlers),
            events: self.events.as_ref().map(|one| one.within(ambient)),
            hooked: self.hooked,
        }
    }

    /// Runs all `test_…` functions, each in a world of its own.
    ///
    /// # Errors
    /// The tests that failed.
    pub(super) fn test(
        &self,
        limits: &Limits,
        gate: Option<&Arc<dyn ScriptTestGate>>,
    ) -> (usize, Vec<ScriptError>) {
        let mut passed = 0;
        let mut problems = Vec::new();
        for script in self.scripts() {
            for (name, _) in &script.inner.compiled.tests {
                match self.test_one(script, name, limits, gate) {
                    Ok(()) => passed += 1,
                    Err(problem) => problems.push(problem),
                }
            }
        }
        (passed, problems)
    }

    /// Runs one of them.
    ///
    /// # Errors
    /// It failed.
    pub(super) fn test_one(
        &self,
        script: &Script,
        name: &str,
        limits: &Limits,
        gate: Option<&Arc<dyn ScriptTestGate>>,
    ) -> Result<(), ScriptError> {
        // The world knows the set and the set's scripts know the world: the set is weak, and held here while the test runs.
        let mut held = None;
        let set = Arc::new_cyclic(|weak| {
            let subject = gate.map(|gate| Subject {
                gate: gate.clone(),
                set: weak.clone(),
                kind: script.kind(),
                name: script.name().to_owned(),
            });
            let ambient = Arc::new(HostContext::for_test(limits, Arc::new(Sandbox::new(subject))));
            held = Some(script.within(&ambient));
            self.within(&ambient)
        });
        let script = held.as_ref().unwrap_or(script);
        let Inner { file, text, compiled, .. } = &*script.inner;
        let Some(entry) = Entry::of(&compiled.ast, name, 0) else {
            return Err(ScriptError::of_file(file, format!("{name} failed: it is not there")));
        };
        let outcome = script.evaluate(&entry, [], CallOptions::default(), limits.testing());
        drop(set);
        match outcome {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => {
                let (inner, place) = innermost(&error);
                let message = format!("{name} failed: {}", describe(inner));
                Err(ScriptError::at(file, text, place, message))
            }
            Err(_) => Err(ScriptError::of_file(file, format!("{name} failed: a panic"))),
        }
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.scripts()).finish()
    }
}
