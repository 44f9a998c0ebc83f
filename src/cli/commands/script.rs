//! `keyward script`: checks, tests and creates scripts without a server, and reloads the scripts of
//! a running server.

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
        instance::scripts::read_secrets,
        terminal::{
            display::DisplayOptions,
            screen::{self, Screen, printable},
            table::{Column, Listing, cell},
        },
    },
    config::Settings,
    pipeline::TestGate,
    scripting::{
        self, CheckedScripts, DEFINITIONS, ScriptError, ScriptKind, ScriptTestGate, Secrets,
        TestOutcome,
    },
};

const COLUMNS: &[Column] = &[
    Column::new("FILE", |script| cell(&script["file"])),
    Column::new("FUNCTIONS", |script| cell(&script["functions"])),
    Column::new("BLOCKING", |script| cell(&script["blocking"])).leaves(1),
    Column::new("TESTS", |script| cell(&script["tests"])),
];

/// Commands for the running server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Verb {
    /// Ask the running server to reload its scripts
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
    /// Run the tests that the scripts contain
    Test {
        /// The folder of the scripts [default: scripts.dir]
        dir: Option<PathBuf>,
        /// Run only the tests whose name or file contains this text
        #[arg(long, value_name = "NAME")]
        filter: Option<String>,
    },
    /// Create a script from a working template with tests
    New {
        /// The kind of script
        #[arg(value_enum)]
        what: What,
        /// The name of the authentication type or of the handler, or the id of the hooks' resource;
        /// hooks without a name are called for all requests
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

/// Runs a command that needs no server.
pub fn run(
    bench: Bench,
    settings: &Settings,
    output: Output,
    display: DisplayOptions,
) -> anyhow::Result<()> {
    let folder = |dir: Option<PathBuf>| dir.unwrap_or_else(|| settings.scripts.dir.clone());
    match bench {
        Bench::Check { dir } => {
            let secrets = read_secrets(&settings.scripts.secrets_dir)?;
            let inspected = inspect(&existing_folder(dir, settings)?, settings)?;
            match output {
                Output::Table => check(&inspected, &secrets, &Screen::with_options(display)),
                Output::Json => check_for_programs(&inspected, &secrets),
            }
        }
        Bench::Test { dir, filter } => {
            let inspected = inspect(&existing_folder(dir, settings)?, settings)?;
            test(&inspected, filter.as_deref(), output)
        }
        Bench::New { what, name, dir } => {
            let shown = dir.as_ref().map(|dir| format!(" {}", dir.display())).unwrap_or_default();
            create(what, name.as_deref(), &folder(dir), &shown, output)
        }
        Bench::Definitions { dir } => definitions(&folder(dir), output),
    }
}

/// Returns the folder of the scripts, which must exist: a mistyped folder would contain no scripts
/// and so have no errors.
fn existing_folder(dir: Option<PathBuf>, settings: &Settings) -> Result<PathBuf, CliError> {
    let folder = dir.unwrap_or_else(|| settings.scripts.dir.clone());
    if folder.is_dir() {
        return Ok(folder);
    }
    let text = format!(
        "there is no folder {}. Give the folder of the scripts, or create it with keyward script new",
        folder.display()
    );
    Err(CliError::new(Exit::Usage, text))
}

fn inspect(folder: &Path, settings: &Settings) -> Result<CheckedScripts, CliError> {
    CheckedScripts::new(folder, settings.scripts.limits.clone()).map_err(|found| refused(&found))
}

/// Returns the error that lists all problems, each with its place and its line of text.
fn refused(found: &[ScriptError]) -> CliError {
    let text = match found.len() {
        1 => "The scripts have an error.".to_owned(),
        count => format!("The scripts have {count} errors."),
    };
    let mut failure = CliError::new(Exit::Refused, text);
    failure.problem["errors"] = found.iter().map(error_json).collect();
    failure
}

fn error_json(found: &ScriptError) -> Value {
    json!({
        "location": found.location(),
        "file": found.file,
        "line": found.line,
        "column": found.column,
        "message": found.message,
        "excerpt": found.excerpt(),
    })
}

fn warnings(script: &scripting::Script, secrets: &Secrets) -> Vec<ScriptError> {
    script.warnings().iter().cloned().chain(script.missing_secrets(secrets)).collect()
}

fn views(inspected: &CheckedScripts, secrets: &Secrets) -> Vec<Value> {
    let view = |script: &scripting::Script| {
        let functions: Vec<_> =
            script.functions().into_iter().map(scripting::Function::name).collect();
        let warnings = warnings(script, secrets);
        json!({
            "file": script.file(),
            "functions": functions,
            "blocking": script.is_blocking(),
            "tests": script.tests().count(),
            "warnings": warnings.iter().map(error_json).collect::<Vec<_>>(),
        })
    };
    inspected.set.scripts().iter().map(|script| view(script)).collect()
}

fn check(inspected: &CheckedScripts, secrets: &Secrets, screen: &Screen) -> anyhow::Result<()> {
    let found = inspected.set.scripts();
    let found = found.iter().flat_map(|script| warnings(script, secrets));
    let found: String = found.map(|warning| format!("warning: {warning}\n")).collect();
    let mut listing = Listing::new(COLUMNS, screen.display());
    screen.print_styled(&listing.page(&views(inspected, secrets)))?;
    Ok(screen.say(&printable_lines(&found))?)
}

fn check_for_programs(inspected: &CheckedScripts, secrets: &Secrets) -> anyhow::Result<()> {
    Ok(screen::print(&format!("{:#}\n", Value::from(views(inspected, secrets))))?)
}

/// A text of several lines without control characters.
fn printable_lines(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", printable(line))).collect()
}

fn test(inspected: &CheckedScripts, filter: Option<&str>, output: Output) -> anyhow::Result<()> {
    let gate: Arc<dyn ScriptTestGate> = Arc::new(TestGate);
    let mut written = Ok(());
    let all = inspected.test(filter, &gate, |tested| {
        // Each result is printed at once, so that a slow test is visible.
        if output == Output::Table && written.is_ok() {
            written = screen::print(&result_line(tested));
        }
    });
    written?;
    if output == Output::Json {
        let all: Vec<Value> = all.iter().map(result_json).collect();
        screen::print(&format!("{:#}\n", Value::from(all)))?;
    }
    if all.is_empty() {
        let text = match filter {
            Some(filter) => format!("No test has a name or a file that contains {filter:?}."),
            None => "The scripts contain no tests. A test is a function test_…() in a script."
                .to_owned(),
        };
        return Err(CliError::new(Exit::NotFound, text).into());
    }
    let failed: Vec<ScriptError> = all.iter().filter_map(|tested| tested.failure.clone()).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let mut failure = refused(&failed);
    failure.problem["detail"] = format!("{} of {} tests failed.", failed.len(), all.len()).into();
    Err(failure.into())
}

fn result_line(tested: &TestOutcome) -> String {
    let verdict = if tested.failure.is_none() { "ok    " } else { "FAILED" };
    let (file, name) = (printable(&tested.file), printable(&tested.name));
    let mut text = format!("{verdict}  {file}  {name}  ({} ms)\n", tested.time.as_millis());
    for line in &tested.log {
        text += &format!("        {}\n", printable(line));
    }
    text
}

fn result_json(tested: &TestOutcome) -> Value {
    json!({
        "file": tested.file,
        "test": tested.name,
        "passed": tested.failure.is_none(),
        "microseconds": u64::try_from(tested.time.as_micros()).unwrap_or(u64::MAX),
        "log": tested.log,
        "error": tested.failure.as_ref().map(error_json),
    })
}

/// Writes a new script. `test_folder` is the argument for `keyward script test` in the hint.
fn create(
    what: What,
    name: Option<&str>,
    folder: &Path,
    test_folder: &str,
    output: Output,
) -> anyhow::Result<()> {
    let usage = |text: String| CliError::new(Exit::Usage, text);
    let kind = match (what, name) {
        (What::Auth, Some(_)) => ScriptKind::Auth,
        (What::Handler, Some(_)) => ScriptKind::Handler,
        (What::Hook, Some(_)) => ScriptKind::Resource,
        (What::Hook, None) => ScriptKind::Hooks,
        (What::Event, None) => ScriptKind::Events,
        (What::Event, Some(_)) => {
            return Err(usage(
                "the script for events has no name: run keyward script new event".into(),
            )
            .into());
        }
        (What::Auth | What::Handler, None) => {
            return Err(
                usage("the script needs a name: keyward script new auth NAME".into()).into()
            );
        }
    };
    let name = name.unwrap_or_default();
    kind.check_name(name).map_err(usage)?;
    let file = folder.join(kind.file(name));
    write_new(&file, &template(kind, name))?;
    let hint = usage_hint(kind, name);
    let text = match output {
        Output::Table => format!(
            "{} is written. Edit the script, then run its tests:\n  keyward script test{} --filter {}\n{hint}",
            printable(&file.display().to_string()),
            printable(test_folder),
            kind.file(name),
        ),
        Output::Json => format!("{:#}\n", json!({ "file": file, "use": hint })),
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

/// Returns the hint for using a new script. A running server loads the new file at once.
fn usage_hint(kind: ScriptKind, name: &str) -> String {
    match kind {
        ScriptKind::Auth => format!(
            "Clients use this type through an application, whose id they send in AUTH-METHOD:\n  keyward app add {name} --type {name}\n"
        ),
        ScriptKind::Events => {
            "The functions are called when keys and users are created, and when keys are revoked or expire.\nThe script changes nothing until you set ENABLED to true at its top.\n".into()
        }
        ScriptKind::Hooks => "The hooks are called for every request of the public listener.\nThe script changes nothing until you set ENABLED to true at its top.\n".into(),
        ScriptKind::Resource => {
            format!(
                "The hooks are called for every request of the resource {name}:\n  keyward resource show {name}\nThe script changes nothing until you set ENABLED to true at its top.\n"
            )
        }
        ScriptKind::Handler => format!(
            "This command adds a resource with the handler:\n  keyward resource add {name} --handler script:{name} --path /{name} --method GET --format any --authentication '*'\n"
        ),
    }
}

/// Writes a new file, and never overwrites an existing file.
fn write_new(file: &Path, text: &str) -> anyhow::Result<()> {
    let shown = || format!("cannot write {}", file.display());
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(shown)?;
    }
    match OpenOptions::new().write(true).create_new(true).open(file) {
        Err(problem) if problem.kind() == io::ErrorKind::AlreadyExists => {
            let text = format!("{} exists already and was not changed", file.display());
            Err(CliError::new(Exit::Refused, text).into())
        }
        opened => opened.and_then(|mut file| file.write_all(text.as_bytes())).with_context(shown),
    }
}

/// Writes the file of definitions, and overwrites an older one, because the program generates it.
fn definitions(folder: &Path, output: Output) -> anyhow::Result<()> {
    let file = folder.join(DEFINITIONS);
    let written =
        fs::create_dir_all(folder).and_then(|()| fs::write(&file, scripting::definitions()));
    written.with_context(|| format!("cannot write {}", file.display()))?;
    let text = match output {
        Output::Table => format!(
            "{} is written, for editors that support Rhai.\n",
            printable(&file.display().to_string())
        ),
        Output::Json => format!("{:#}\n", json!({ "file": file })),
    };
    Ok(screen::print(&text)?)
}

/// Sends the request to the server.
pub async fn ask(verb: Verb, session: &Session) -> anyhow::Result<()> {
    let Verb::Reload = verb;
    let result = session.client.post(&path(&["scripts", "reload"]), &Value::Null).await;
    match result {
        Ok(response) => session.show(&response.body),
        Err(mut failure) if failure.problem["errors"].is_array() => {
            // The list of scripts also contains the source lines, for which a problem document has
            // no field.
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
    fn template_passes_its_tests_and_contains_no_placeholder() {
        let folder = tempfile::tempdir().unwrap();
        for (what, name) in [
            (What::Auth, Some("tokens")),
            (What::Hook, Some("orders")),
            (What::Hook, None),
            (What::Handler, Some("hello")),
        ] {
            create(what, name, folder.path(), "", Output::Json).unwrap();
            let again = create(what, name, folder.path(), "", Output::Json).unwrap_err();
            assert_eq!(crate::cli::terminal::exit::code(&again), Exit::Refused, "{what:?}");
        }
        definitions(folder.path(), Output::Json).unwrap();
        let inspected = CheckedScripts::new(folder.path(), ScriptLimits::default());
        let inspected = inspected.unwrap_or_else(|found| panic!("{}", found[0]));
        assert_eq!(inspected.set.scripts().len(), 4);
        let gate: Arc<dyn ScriptTestGate> = Arc::new(TestGate);
        let tested = inspected.test(None, &gate, |_| {});
        assert_eq!(tested.len(), 6);
        for outcome in tested {
            assert!(outcome.failure.is_none(), "{}", outcome.failure.unwrap());
        }
        for kind in [ScriptKind::Auth, ScriptKind::Resource, ScriptKind::Handler] {
            assert!(!template(kind, "x").contains("NAME "), "{kind:?}");
        }
    }

    #[test]
    fn invalid_name_of_a_script_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x", "a/b", "", "A B", "basic", "x\ny"] {
            let refused = create(What::Auth, Some(name), folder.path(), "", Output::Json);
            let code = crate::cli::terminal::exit::code(&refused.expect_err(name));
            assert_eq!(code, Exit::Usage, "{name:?}");
        }
        assert!(create(What::Handler, None, folder.path(), "", Output::Json).is_err());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
