//! `keyward script`: checks, tests and creates scripts without a server, and reloads those of a
//! running server.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::{Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::{
    cli::{
        CliError, Exit, Output, Session,
        client::paths::path,
        terminal::{
            screen::{self, printable},
            table::{Column, Listing, cell},
        },
    },
    config::Settings,
    pipeline::TestGate,
    scripting::{
        self, CheckedScripts, DEFINITIONS, ScriptError, ScriptKind, ScriptTestGate, TestOutcome,
    },
};

const COLUMNS: &[Column] = &[
    ("FILE", |script| cell(&script["file"])),
    ("FUNCTIONS", |script| cell(&script["functions"])),
    ("BLOCKING", |script| cell(&script["blocking"])),
    ("TESTS", |script| cell(&script["tests"])),
];

/// Commands for the running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Have the running server reload its scripts
    Reload,
}

/// Commands that need neither a server nor a store.
#[derive(Debug, Subcommand)]
pub enum Bench {
    /// Compile and check the scripts; all problems are listed
    Check {
        /// The folder of the scripts [default: scripts.dir]
        dir: Option<PathBuf>,
    },
    /// Run the scripts' own tests
    Test {
        /// The folder of the scripts [default: scripts.dir]
        dir: Option<PathBuf>,
        /// Only the tests whose name or file contains this text
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Create a script from a working template with tests
    New {
        /// The kind of script
        #[arg(value_enum)]
        what: What,
        /// The name of the authentication type or handler, or the resource's id; hooks without a
        /// name are for all requests
        name: Option<String>,
        /// The folder of the scripts [default: scripts.dir]
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// Write the definitions that editors use for completion and checks
    Definitions {
        /// The folder of the scripts [default: scripts.dir]
        dir: Option<PathBuf>,
    },
}

/// The kinds of templates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum What {
    /// An authentication type: auth/NAME.rhai
    Auth,
    /// Hooks of a resource (resources/NAME.rhai), or of all requests (hooks.rhai)
    Hook,
    /// A handler: handlers/NAME.rhai
    Handler,
    /// Events of keys and users: events.rhai
    Event,
}

/// Runs a local command.
pub fn run(bench: Bench, settings: &Settings, output: Output) -> anyhow::Result<()> {
    let folder = |dir: Option<PathBuf>| dir.unwrap_or_else(|| settings.scripts.dir.clone());
    match bench {
        Bench::Check { dir } => check(&inspect(&there(dir, settings)?, settings)?, output),
        Bench::Test { dir, filter } => {
            let inspected = inspect(&there(dir, settings)?, settings)?;
            test(&inspected, filter.as_deref(), output)
        }
        Bench::New { what, name, dir } => begin(what, name.as_deref(), &folder(dir), output),
        Bench::Definitions { dir } => definitions(&folder(dir), output),
    }
}

/// The folder, which must exist: a mistyped folder would be empty and therefore valid.
fn there(dir: Option<PathBuf>, settings: &Settings) -> Result<PathBuf, CliError> {
    let folder = dir.unwrap_or_else(|| settings.scripts.dir.clone());
    if folder.is_dir() {
        return Ok(folder);
    }
    let text = format!(
        "there is no folder {}: name the folder of the scripts, or begin one with keyward script new",
        folder.display()
    );
    Err(CliError::new(Exit::Usage, text))
}

fn inspect(folder: &Path, settings: &Settings) -> Result<CheckedScripts, CliError> {
    CheckedScripts::new(folder, settings.scripts.limits.clone()).map_err(|found| refused(&found))
}

/// All problems, each with its place and line.
fn refused(found: &[ScriptError]) -> CliError {
    let text = match found.len() {
        1 => "The scripts are not in order.".to_owned(),
        count => format!("The scripts are not in order in {count} places."),
    };
    let mut failure = CliError::new(Exit::Refused, text);
    failure.problem["errors"] = found.iter().map(error).collect();
    failure
}

fn error(found: &ScriptError) -> Value {
    json!({
        "location": found.location(),
        "file": found.file,
        "line": found.line,
        "column": found.column,
        "message": found.message,
        "excerpt": found.excerpt(),
    })
}

fn check(inspected: &CheckedScripts, output: Output) -> anyhow::Result<()> {
    let view = |script: &&scripting::Script| {
        let functions: Vec<_> =
            script.functions().into_iter().map(scripting::Function::name).collect();
        json!({
            "file": script.file(),
            "functions": functions,
            "blocking": script.is_blocking(),
            "tests": script.tests().count(),
        })
    };
    let scripts: Vec<Value> = inspected.set.scripts().iter().map(view).collect();
    let text = match output {
        Output::Table => Listing::new(COLUMNS).page(&scripts),
        Output::Json => format!("{:#}\n", Value::from(scripts)),
    };
    Ok(screen::print(&text)?)
}

fn test(inspected: &CheckedScripts, filter: Option<&str>, output: Output) -> anyhow::Result<()> {
    let gate: Arc<dyn ScriptTestGate> = Arc::new(TestGate);
    let mut written = Ok(());
    let all = inspected.test(filter, &gate, |tested| {
        // Printed one by one, so that a slow test is visible.
        if output == Output::Table && written.is_ok() {
            written = screen::print(&line(tested));
        }
    });
    written?;
    if output == Output::Json {
        let all: Vec<Value> = all.iter().map(result).collect();
        screen::print(&format!("{:#}\n", Value::from(all)))?;
    }
    if all.is_empty() {
        let text = match filter {
            Some(filter) => format!("No test is called {filter:?}, and no file with tests."),
            None => "There are no tests. A test is a function test_…() of a script.".to_owned(),
        };
        return Err(CliError::new(Exit::NotFound, text).into());
    }
    let failed: Vec<ScriptError> = all.iter().filter_map(|one| one.failure.clone()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let mut failure = refused(&failed);
    failure.problem["detail"] = format!("{} of {} tests failed.", failed.len(), all.len()).into();
    Err(failure.into())
}

fn line(tested: &TestOutcome) -> String {
    let verdict = if tested.failure.is_none() { "ok    " } else { "FAILED" };
    let (file, name) = (printable(&tested.file), printable(&tested.name));
    format!("{verdict}  {file}  {name}  ({} ms)\n", tested.time.as_millis())
}

fn result(tested: &TestOutcome) -> Value {
    json!({
        "file": tested.file,
        "test": tested.name,
        "passed": tested.failure.is_none(),
        "microseconds": u64::try_from(tested.time.as_micros()).unwrap_or(u64::MAX),
        "error": tested.failure.as_ref().map(error),
    })
}

fn begin(what: What, name: Option<&str>, folder: &Path, output: Output) -> anyhow::Result<()> {
    let usage = |text: String| CliError::new(Exit::Usage, text);
    let kind = match (what, name) {
        (What::Auth, Some(_)) => ScriptKind::Auth,
        (What::Handler, Some(_)) => ScriptKind::Handler,
        (What::Hook, Some(_)) => ScriptKind::Resource,
        (What::Hook, None) => ScriptKind::Hooks,
        (What::Event, None) => ScriptKind::Events,
        (What::Event, Some(_)) => {
            return Err(usage(
                "there is one script of events, without a name: keyward script new event".into(),
            )
            .into());
        }
        (What::Auth | What::Handler, None) => {
            return Err(usage("give it a name: keyward script new auth NAME".into()).into());
        }
    };
    let name = name.unwrap_or_default();
    kind.check_name(name).map_err(usage)?;
    let file = folder.join(kind.file(name));
    write_new(&file, &template(kind, name))?;
    let use_it = how_to_use(kind, name);
    let text = match output {
        Output::Table => format!(
            "{} is written. Look through it, then:\n  keyward script test --filter {}\n{use_it}",
            printable(&file.display().to_string()),
            kind.file(name),
        ),
        Output::Json => format!("{:#}\n", json!({ "file": file, "use": use_it })),
    };
    Ok(screen::print(&text)?)
}

fn template(kind: ScriptKind, name: &str) -> String {
    let text = match kind {
        ScriptKind::Auth => include_str!("templates/auth.rhai"),
        ScriptKind::Hooks => include_str!("templates/hooks.rhai"),
        ScriptKind::Resource => include_str!("templates/resource.rhai"),
        ScriptKind::Handler => include_str!("templates/handler.rhai"),
        ScriptKind::Events => include_str!("templates/events.rhai"),
    };
    text.replace("NAME", name)
}

/// The hint for using the new file. A running server loads it at once.
fn how_to_use(kind: ScriptKind, name: &str) -> String {
    match kind {
        ScriptKind::Auth => format!(
            "Clients use it through an application, and name that in AUTH-METHOD:\n  keyward app add {name} --type {name}\n"
        ),
        ScriptKind::Events => {
            "It is called when keys and users are made, and keys are taken back or end.\n".into()
        }
        ScriptKind::Hooks => "It is called for every request of the public listener.\n".into(),
        ScriptKind::Resource => {
            format!(
                "It is called for every request of the resource {name}:\n  keyward resource show {name}\n"
            )
        }
        ScriptKind::Handler => format!(
            "A resource answers with it:\n  keyward resource add {name} --handler script:{name} --path /{name} --method GET --format any --authentication '*'\n"
        ),
    }
}

/// Writes a new file.
fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(shown)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {
            let text = format!("{} is there already, and was left as it is", file.display());
            Err(CliError::new(Exit::Refused, text).into())
        }
        opened => opened.and_then(|mut file| file.write_all(text.as_bytes())).with_context(shown),
    }
}

/// Overwritten each time, because the program generates it.
fn definitions(folder: &Path, output: Output) -> anyhow::Result<()> {
    let file = folder.join(DEFINITIONS);
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&file, scripting::definitions()));
    written.with_context(|| format!("cannot write {}", file.display()))?;
    let text = match output {
        Output::Table => format!(
            "{} is written, for editors that know Rhai.\n",
            printable(&file.display().to_string())
        ),
        Output::Json => format!("{:#}\n", json!({ "file": file })),
    };
    Ok(screen::print(&text)?)
}

/// Sends the request to the server.
pub async fn ask(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let Verb::Reload = verb;
    let answered = session.client.post(&path(&["scripts", "reload"]), &Value::Null).await;
    match answered {
        Ok(answer) => session.show(&answer.body),
        Err(mut failure) if failure.problem["errors"].is_array() => {
            // The list shows source lines too, which a problem document has no field for.
            if let Ok(list) = session.client.get(&path(&["scripts"])).await
                && list.body["problems"].as_array().is_some_and(|found| !found.is_empty())
            {
                failure.problem["errors"] = list.body["problems"].clone();
            }
            Err(failure.into())
        }
        Err(failure) => Err(failure.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scripting::ScriptLimits;

    #[test]
    fn every_template_works_and_says_nothing_of_its_mould() {
        let folder = tempfile::tempdir().unwrap();
        for (what, name) in [
            (What::Auth, Some("tokens")),
            (What::Hook, Some("orders")),
            (What::Hook, None),
            (What::Handler, Some("hello")),
        ] {
            begin(what, name, folder.path(), Output::Json).unwrap();
            let again = begin(what, name, folder.path(), Output::Json).unwrap_err();
            assert_eq!(crate::cli::terminal::exit::code(&again), Exit::Refused, "{what:?}");
        }
        definitions(folder.path(), Output::Json).unwrap();
        let inspected = CheckedScripts::new(folder.path(), ScriptLimits::default());
        let inspected = inspected.unwrap_or_else(|found| panic!("{}", found[0]));
        assert_eq!(inspected.set.scripts().len(), 4);
        let gate: Arc<dyn ScriptTestGate> = Arc::new(TestGate);
        let tested = inspected.test(None, &gate, |_| {});
        assert_eq!(tested.len(), 6);
        for one in tested {
            assert!(one.failure.is_none(), "{}", one.failure.unwrap());
        }
        for kind in [ScriptKind::Auth, ScriptKind::Resource, ScriptKind::Handler] {
            assert!(!template(kind, "x").contains("NAME "), "{kind:?}");
        }
    }

    #[test]
    fn a_name_that_cannot_be_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "a/b", "", "A B", "basic", "x\ny"] {
            let refused = begin(What::Auth, Some(name), folder.path(), Output::Json);
            let code = crate::cli::terminal::exit::code(&refused.expect_err(name));
            assert_eq!(code, Exit::Usage, "{name:?}");
        }
        assert!(begin(What::Handler, None, folder.path(), Output::Json).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
