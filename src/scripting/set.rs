//! All scripts of a folder, compiled together. A set never changes, so a request uses the same
//! scripts from its beginning to its end.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use super::{
    compiler::compile::Compiler,
    entry_points::{Function, ScriptKind},
    error::ScriptError,
    loading::source::SourceFile,
    runtime::{
        breaker::Breaker,
        context::{CallContext, ContextHandle, HostContext},
        sandbox::Sandbox,
    },
    script::{BlockingPool, Script, ScriptInner},
};

/// A set of scripts.
#[derive(Default)]
pub struct ScriptSet {
    auth: HashMap<String, Script>,
    hooks: Option<Script>,
    resources: HashMap<String, Script>,
    handlers: HashMap<String, Script>,
    events: Option<Script>,
    /// The [`Function::bit`]s of all functions that at least one hook script defines.
    hooked: u16,
    /// The user attributes that at least one authentication script takes for credentials.
    credential_attributes: BTreeSet<String>,
}

impl ScriptSet {
    /// The script of an authentication type.
    pub fn auth(&self, name: &str) -> Option<&Script> {
        self.auth.get(name)
    }

    /// The script of a handler.
    pub fn handler(&self, name: &str) -> Option<&Script> {
        self.handlers.get(name)
    }

    /// The script `events.rhai`, if it defines this function.
    pub fn event(&self, function: Function) -> Option<&Script> {
        self.events.as_ref().filter(|script| script.defines(function))
    }

    /// Whether any hook script defines this function. If not, the caller need not build a
    /// [`ScriptRequest`](super::ScriptRequest).
    pub fn is_hooked(&self, function: Function) -> bool {
        self.hooked & function.bit() != 0
    }

    /// Whether any hook script defines any function.
    pub fn has_hooks(&self) -> bool {
        self.hooked != 0
    }

    /// The hook scripts that define a function, in the order of their calls: first `hooks.rhai`,
    /// then the script of the resource.
    pub fn hooks(
        &self,
        function: Function,
        resource: Option<&str>,
    ) -> impl Iterator<Item = &Script> {
        let resource = resource.and_then(|id| self.resources.get(id));
        self.hooks.iter().chain(resource).filter(move |script| script.defines(function))
    }

    /// The script of a resource, if it defines this hook function.
    pub fn resource_hook(&self, function: Function, resource: &str) -> Option<&Script> {
        self.resources.get(resource).filter(|script| script.defines(function))
    }

    /// The user attributes that authentication scripts take for credentials, as declared by `const
    /// CREDENTIAL_ATTRIBUTES`. Changing such an attribute is like setting a password.
    pub fn credential_attributes(&self) -> &BTreeSet<String> {
        &self.credential_attributes
    }

    /// Whether no script of the set defines a function that Keyward calls.
    pub fn is_empty(&self) -> bool {
        !self.has_hooks()
            && self.auth.is_empty()
            && self.handlers.is_empty()
            && self.events.is_none()
    }

    /// All scripts, sorted by file.
    pub fn scripts(&self) -> Vec<&Script> {
        let maps = [&self.auth, &self.resources, &self.handlers];
        let mut scripts: Vec<_> = maps.into_iter().flat_map(HashMap::values).collect();
        scripts.extend(self.hooks.iter().chain(&self.events));
        scripts.sort_by_key(|script| script.file());
        scripts
    }

    /// Compiles files.
    ///
    /// # Errors
    /// The errors of all files.
    pub(super) fn compile(
        sources: Vec<SourceFile>,
        host: &Arc<HostContext>,
        pool: &Arc<BlockingPool>,
    ) -> Result<Self, Vec<ScriptError>> {
        let mut set = Self::default();
        // Building an engine is slow, and an empty folder needs no engine.
        if sources.is_empty() {
            return Ok(set);
        }
        let limits = &host.limits;
        // Constants are evaluated in a sandbox, without the real records and secrets.
        let sandbox = Arc::new(Sandbox::without_gate());
        let constants_host = Arc::new(HostContext::for_test(limits, sandbox));
        let context = ContextHandle::new(CallContext::new(constants_host));
        let compiler = Compiler::new(limits, context);
        let mut errors = Vec::new();
        for source in sources {
            match compiler.compile(&source) {
                Err(found) => errors.extend(found),
                Ok(compiled) => {
                    let SourceFile { kind, name, file, text } = source;
                    let engine = compiler.engine.clone();
                    let breaker = Breaker::new(limits);
                    let pool = pool.clone();
                    let id = id_of(&file);
                    let inner =
                        ScriptInner { kind, name, file, id, text, compiled, engine, breaker, pool };
                    set.insert(Script::new(Arc::new(inner), host.clone()));
                }
            }
        }
        if errors.is_empty() { Ok(set) } else { Err(errors) }
    }

    fn insert(&mut self, script: Script) {
        let name = script.name().to_owned();
        if matches!(script.kind(), ScriptKind::Hooks | ScriptKind::Resource) {
            self.hooked |= script.inner.compiled.functions;
        }
        let attributes = &script.inner.compiled.credential_attributes;
        self.credential_attributes.extend(attributes.iter().cloned());
        match script.kind() {
            ScriptKind::Auth => drop(self.auth.insert(name, script)),
            ScriptKind::Handler => drop(self.handlers.insert(name, script)),
            ScriptKind::Resource => drop(self.resources.insert(name, script)),
            ScriptKind::Hooks => self.hooks = Some(script),
            ScriptKind::Events => self.events = Some(script),
        }
    }

    /// A copy for a dry run, in which `rate_limit` and `once` count nothing.
    pub fn dry_run(&self) -> Self {
        match self.scripts().first() {
            Some(script) => self.with_host(&Arc::new(script.host.dry_run())),
            None => Self::default(),
        }
    }

    /// A copy with another host.
    pub(super) fn with_host(&self, host: &Arc<HostContext>) -> Self {
        let map = |scripts: &HashMap<String, Script>| {
            scripts.iter().map(|(name, script)| (name.clone(), script.with_host(host))).collect()
        };
        Self {
            auth: map(&self.auth),
            hooks: self.hooks.as_ref().map(|script| script.with_host(host)),
            resources: map(&self.resources),
            handlers: map(&self.handlers),
            events: self.events.as_ref().map(|script| script.with_host(host)),
            hooked: self.hooked,
            credential_attributes: self.credential_attributes.clone(),
        }
    }
}

/// A hash of a script's file, which stays the same when the script is reloaded.
fn id_of(file: &str) -> u64 {
    let mut id = [0; 8];
    id.copy_from_slice(&blake3::hash(file.as_bytes()).as_bytes()[..8]);
    u64::from_le_bytes(id)
}

impl std::fmt::Debug for ScriptSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.scripts()).finish()
    }
}
