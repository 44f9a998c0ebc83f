//! `/api/v1/scripts`: the loaded scripts, the problems of the scripts on disk, and reloading.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{ApiRequest, response};
use crate::{
    handlers::PayloadResponse,
    model::Violation,
    pipeline::{Denial, Phase},
    scripting::{Function, Script, ScriptError, ScriptProblem, Scripts},
};

/// Shows the loaded scripts and the problems of the scripts on disk.
pub(super) async fn show(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let scripts = request.accounts.scripts();
    let set = scripts.current();
    let items: Vec<Value> = set.scripts().into_iter().map(script_view).collect();
    let problems: Vec<Value> = scripts.problems().iter().map(problem_view).collect();
    let body = json!({ "folder": scripts.folder(), "scripts": items, "problems": problems });
    Ok(response::json(StatusCode::OK, &body))
}

fn script_view(script: &Script) -> Value {
    let functions: Vec<_> = script.functions().into_iter().map(Function::name).collect();
    json!({
        "file": script.file(),
        "functions": functions,
        "blocking": script.is_blocking(),
        "state": if script.is_off() { "off" } else { "on" },
        "tests": script.tests().count(),
    })
}

fn problem_view(problem: &ScriptProblem) -> Value {
    match problem {
        ScriptProblem::NotLoaded(error) | ScriptProblem::Warning(error) => json!({
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
            "message": "The script is switched off, because it kept exceeding its budget. \
                Requests that need it are denied.",
            "excerpt": null,
        }),
    }
}

/// Reloads the scripts from disk. When the client gets the response, the new scripts are in force.
pub(super) async fn reload(request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let scripts = request.accounts.scripts().clone();
    if scripts.is_none() {
        let message =
            "No server runs, so no scripts are loaded. A server loads its scripts at its start.";
        return Err(Denial::message(Phase::Handler, StatusCode::CONFLICT, "CONFLICT", message));
    }
    let result = tokio::task::spawn_blocking(move || load(&scripts)).await;
    result.map_err(|_| aborted())?.map(|body| response::json(StatusCode::OK, &body))
}

fn load(scripts: &Scripts) -> Result<Value, Denial> {
    match scripts.reload() {
        Ok(loaded) => {
            tracing::info!(scripts = loaded.scripts, tests = loaded.tests, "scripts loaded");
            Ok(json!({
                "scripts": loaded.scripts,
                "tests": loaded.tests,
                "changed": loaded.is_new,
            }))
        }
        Err(errors) => Err(invalid_scripts(&errors)),
    }
}

fn invalid_scripts(errors: &[ScriptError]) -> Denial {
    let message = "The scripts are invalid. The scripts that were loaded before stay in force.";
    let fix = "Fix the file and reload.";
    let violation =
        |error: &ScriptError| Violation::new(error.location(), error.message.clone(), fix);
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID_SCRIPTS", message)
        .with_violations(errors.iter().map(violation).collect())
}

fn aborted() -> Denial {
    let message = "Loading the scripts failed. The scripts that were loaded before stay in force.";
    Denial::message(Phase::Handler, StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR", message)
}
