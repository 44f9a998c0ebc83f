//! `/api/v1/scripts`: which scripts are in force, what is wrong with those on disk, and loading them again.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{Call, response};
use crate::{
    handlers::PayloadResponse,
    model::Violation,
    pipeline::{Denial, Phase},
    scripting::{Function, ScriptProblem, Script, ScriptError, Scripts},
};

/// What is in force, and what an administrator should know.
pub(super) fn show(call: &Call<'_>) -> PayloadResponse {
    let scripts = call.accounts.scripts();
    let set = scripts.current();
    let items: Vec<Value> = set.scripts().into_iter().map(script).collect();
    let problems: Vec<Value> = scripts.problems().iter().map(problem).collect();
    response::json(
        StatusCode::OK,
        &json!({ "folder": scripts.folder(), "scripts": items, "problems": problems }),
    )
}

fn script(script: &Script) -> Value {
    let functions: Vec<_> = script.functions().into_iter().map(Function::name).collect();
    json!({
        "file": script.file(),
        "functions": functions,
        "blocking": script.is_blocking(),
        "state": if script.is_off() { "off" } else { "on" },
        "tests": script.tests().count(),
    })
}

fn problem(problem: &ScriptProblem) -> Value {
    match problem {
        ScriptProblem::NotLoaded(error) => json!({
            "location": error.location(),
            "file": error.file,
            "line": error.line,
            "column": error.column,
            "message": error.message,
            "excerpt": error.excerpt(),
        }),
        ScriptProblem::SwitchedOff { file } => json!({
            "location": file,
            "file": file,
            "line": null,
            "column": null,
            "message": "It is switched off, because it kept running out of its budget. What needs it is refused.",
            "excerpt": null,
        }),
    }
}

/// Reads the folder again. The new scripts are in force when this is answered.
pub(super) async fn reload(call: &Call<'_>) -> Result<PayloadResponse, Denial> {
    let scripts = call.accounts.scripts().clone();
    if scripts.is_none() {
        let said = "No server runs, and so no scripts are loaded. They are when one starts.";
        return Err(Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", said));
    }
    let loaded = tokio::task::spawn_blocking(move || loaded(&scripts)).await;
    loaded.map_err(|_| ended())?.map(|body| response::json(StatusCode::OK, &body))
}

fn loaded(scripts: &Scripts) -> Result<Value, Denial> {
    match scripts.reload() {
        Ok(loaded) => {
            tracing::info!(scripts = loaded.scripts, tests = loaded.tests, "scripts loaded");
            Ok(json!({
                "scripts": loaded.scripts,
                "tests": loaded.tests,
                "changed": loaded.is_new,
            }))
        }
        Err(found) => Err(refused(&found)),
    }
}

fn refused(found: &[ScriptError]) -> Denial {
    let said = "The scripts are not in order. Those that were in force stay.";
    let fix = "Mend the file and load again.";
    let violation = |one: &ScriptError| Violation::new(one.location(), one.message.clone(), fix);
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_SCRIPTS", said)
        .with_violations(found.iter().map(violation).collect())
}

fn ended() -> Denial {
    let said = "Loading the scripts ended early. Those that were in force stay.";
    Denial::message(Phase::Handler, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", said)
}
