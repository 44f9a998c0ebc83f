//! How a command ends: its exit code, and what standard error says of a failure.

use std::{io, process::ExitCode};

use http::StatusCode;
use serde_json::{Value, json};

use super::screen;
use crate::{
    accounts::SetupError,
    cli::Output,
    config::{ConfigError, Place, Problem},
    store::StoreError,
};

/// The exit codes, for `--help`.
pub const HELP: &str = "\
Exit codes:
  0  done
  1  failed
  2  the command line or the configuration is not in order
  3  there is no such record
  4  refused: the record or the script is not in order, the record is in use, or somebody else changed it
  5  the server or the store cannot be reached
  6  key scan has found keys";

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// It is done.
    Done = 0,
    /// It could not be done, for a reason that has no code of its own.
    Failed = 1,
    /// The command line or the configuration is not in order.
    Usage = 2,
    /// There is no such record.
    NotFound = 3,
    /// The records do not allow it.
    Refused = 4,
    /// Neither a server nor a store can be reached.
    Unreachable = 5,
    /// Keys stand where they were looked for.
    Found = 6,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command failed: the exit code, and a problem in the form of RFC 9457.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", headline(.problem))]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// What a program reads.
    pub problem: Value,
}

impl CliError {
    /// A failure on this side of the API.
    pub fn new(exit: Exit, detail: impl Into<String>) -> Self {
        let (kind, title) = match exit {
            Exit::Done | Exit::Failed => ("failed", "Failed"),
            Exit::Usage => ("usage", "Not in order"),
            Exit::NotFound => ("not-found", "Not Found"),
            Exit::Refused => ("refused", "Refused"),
            Exit::Unreachable => ("unreachable", "Cannot be reached"),
            Exit::Found => ("found", "Keys were found"),
        };
        let kind = format!("urn:keyward:problem:{kind}");
        let problem = json!({ "type": kind, "title": title, "detail": detail.into() });
        Self { exit, problem }
    }

    /// What the API refused.
    pub fn answered(status: StatusCode, body: Value) -> Self {
        let exit = match status {
            StatusCode::NOT_FOUND => Exit::NotFound,
            status if status.is_client_error() => Exit::Refused,
            _ => Exit::Failed,
        };
        let problem = if body.is_object() {
            body
        } else {
            let detail = format!("The server answered {status} and nothing that could be read.");
            json!({ "type": "about:blank", "title": "Failed", "status": status.as_u16(), "detail": detail })
        };
        Self { exit, problem }
    }

    /// Whether the record was changed by somebody else since it was read.
    pub fn is_stale(&self) -> bool {
        self.problem["status"] == StatusCode::PRECONDITION_FAILED.as_u16()
    }
}

/// The one sentence, or the lines that show where in a script something is. A refused credential has a form of its own, with other names.
fn headline(problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str();
    let found = ["detail", "error_description", "message", "title"].into_iter().find_map(text);
    let found = found.unwrap_or("It failed, and nothing is known of why.");
    // What follows the first line is set off, so that it cannot pass for another message.
    found.lines().map(screen::printable).collect::<Vec<_>>().join("\n  ")
}

/// Says on standard error what went wrong, and returns the exit code.
pub fn report(problem: &anyhow::Error, output: Output) -> Exit {
    if is_broken_pipe(problem) {
        return Exit::Done;
    }
    let failure = failure(problem);
    screen::note(&match output {
        Output::Table => text(&failure.problem),
        Output::Json => format!("{:#}\n", failure.problem),
    });
    failure.exit
}

/// Whether whoever read our output has read enough.
fn is_broken_pipe(problem: &anyhow::Error) -> bool {
    let found = problem.downcast_ref::<io::Error>();
    found.is_some_and(|problem| problem.kind() == io::ErrorKind::BrokenPipe)
}

/// The exit code alone.
#[cfg(test)]
pub fn code(problem: &anyhow::Error) -> Exit {
    failure(problem).exit
}

fn failure(problem: &anyhow::Error) -> CliError {
    if let Some(failure) = problem.downcast_ref::<CliError>() {
        return failure.clone();
    }
    if let Some(problem) = problem.downcast_ref::<ConfigError>() {
        return unconfigured(problem);
    }
    // The pepper belongs to the store: without it nothing can be read that is worth reading.
    let is_store = problem.downcast_ref::<SetupError>().is_some()
        || problem.downcast_ref::<StoreError>().is_some();
    let exit = if is_store { Exit::Unreachable } else { Exit::Failed };
    CliError::new(exit, format!("{problem:#}"))
}

fn unconfigured(problem: &ConfigError) -> CliError {
    let ConfigError::Invalid(found) = problem else {
        return CliError::new(Exit::Usage, problem.to_string());
    };
    let mut failure = CliError::new(Exit::Usage, "The configuration is not in order.");
    let entry = |one: &Problem| json!({ "location": location(one), "message": one.message, "fix": one.fix });
    failure.problem["errors"] = found.iter().map(entry).collect();
    failure
}

fn location(problem: &Problem) -> String {
    match &problem.place {
        Place::File { path, line } => format!("{}:{line}: {}", path.display(), problem.key),
        Place::Variable(name) => name.clone(),
        _ => format!("{} (its default)", problem.key),
    }
}

/// A problem for people: one line, and one for each field that is not in order.
fn text(problem: &Value) -> String {
    let mut text = format!("error: {}\n", headline(problem));
    for error in problem["errors"].as_array().into_iter().flatten() {
        let part = |name: &str| screen::printable(error[name].as_str().unwrap_or_default());
        text.push_str(&format!("  {}: {}", part("location"), part("message")));
        match part("fix") {
            fix if fix.is_empty() => text.push('\n'),
            fix => text.push_str(&format!(" ({fix})\n")),
        }
        for line in error["excerpt"].as_str().unwrap_or_default().lines() {
            text.push_str(&format!("    {}\n", screen::printable(line)));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_exit_code() {
        for (status, exit) in [
            (404, Exit::NotFound),
            (400, Exit::Refused),
            (401, Exit::Refused),
            (403, Exit::Refused),
            (409, Exit::Refused),
            (412, Exit::Refused),
            (422, Exit::Refused),
            (500, Exit::Failed),
            (503, Exit::Failed),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(CliError::answered(status, json!({})).exit, exit, "{status}");
        }
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6],
            [
                Exit::Done as u8,
                Exit::Failed as u8,
                Exit::Usage as u8,
                Exit::NotFound as u8,
                Exit::Refused as u8,
                Exit::Unreachable as u8,
                Exit::Found as u8
            ]
        );
    }

    #[test]
    fn every_error_has_its_exit_code() {
        let locked = || StoreError::Locked { path: "x".into() };
        let of = |problem: anyhow::Error| failure(&problem).exit;
        assert_eq!(of(locked().into()), Exit::Unreachable);
        assert_eq!(of(SetupError::from(locked()).into()), Exit::Unreachable);
        assert_eq!(of(ConfigError::Invalid(Vec::new()).into()), Exit::Usage);
        assert_eq!(of(CliError::new(Exit::NotFound, "x").into()), Exit::NotFound);
        assert_eq!(of(anyhow::anyhow!("x")), Exit::Failed);
    }

    #[test]
    fn a_broken_pipe_ends_quietly_and_other_faults_do_not() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(report(&broken, Output::Table), Exit::Done);
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(failure(&full).exit, Exit::Failed);
        assert!(!is_broken_pipe(&full));
    }

    #[test]
    fn a_problem_is_one_line_and_one_more_for_each_field() {
        let problem = json!({
            "detail": "The user is not in order.\x1b[2J",
            "errors": [
                { "location": "name", "message": "It is taken.", "fix": "Choose another." },
                { "location": "mail", "message": "It is no address.", "fix": "" },
            ],
        });
        assert_eq!(
            text(&problem),
            "error: The user is not in order.[2J\n  name: It is taken. (Choose another.)\n  mail: It is no address.\n"
        );
        assert_eq!(text(&json!({ "error_description": "No." })), "error: No.\n");
        assert_eq!(text(&json!({ "message": "No." })), "error: No.\n");
    }

    #[test]
    fn a_broken_configuration_says_where_and_what_to_do() {
        let found = Problem {
            place: Place::File { path: "c.toml".into(), line: 5 },
            key: "limits.x".into(),
            message: "There is no such key.".into(),
            fix: "Did you mean y?".into(),
        };
        let failure = failure(&ConfigError::Invalid(vec![found]).into());
        assert_eq!(
            text(&failure.problem),
            "error: The configuration is not in order.\n  c.toml:5: limits.x: There is no such key. (Did you mean y?)\n"
        );
    }
}
