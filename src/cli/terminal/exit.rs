//! The exit codes of commands, their errors, and the error report on standard error.

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
  2  the command line or the configuration is invalid
  3  no such record
  4  refused: the record or the script is invalid, the record is in use, or another client changed it
  5  the server or the store cannot be reached
  6  key scan found keys
  7  apply --dry-run --exit-code: the file would change something";

/// An exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// The command succeeded.
    Done = 0,
    /// The command failed for a reason that has no other code.
    Failed = 1,
    /// The command line or the configuration is invalid.
    Usage = 2,
    /// The record does not exist.
    NotFound = 3,
    /// The API rejected the request, or a script is invalid.
    Refused = 4,
    /// Neither the server nor the store can be reached.
    Unreachable = 5,
    /// `key scan` found keys.
    Found = 6,
    /// `apply --dry-run --exit-code` found differences.
    Changes = 7,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// An error of a command: its exit code, and a problem object (RFC 9457).
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", headline(.problem))]
pub struct CliError {
    /// The exit code.
    pub exit: Exit,
    /// The problem object, for programs.
    pub problem: Value,
}

impl CliError {
    /// Creates an error that arose in this process, not in the API.
    pub fn new(exit: Exit, detail: impl Into<String>) -> Self {
        let (kind, title) = match exit {
            Exit::Done | Exit::Failed => ("failed", "Failed"),
            Exit::Usage => ("usage", "Invalid usage"),
            Exit::NotFound => ("not-found", "Not Found"),
            Exit::Refused => ("refused", "Refused"),
            Exit::Unreachable => ("unreachable", "Cannot be reached"),
            Exit::Found => ("found", "Keys were found"),
            Exit::Changes => ("changes", "Something would change"),
        };
        let kind = format!("urn:keyward:problem:{kind}");
        let problem = json!({ "type": kind, "title": title, "detail": detail.into() });
        Self { exit, problem }
    }

    /// Creates an error from an error response of the API.
    pub fn from_response(status: StatusCode, body: Value) -> Self {
        let exit = match status {
            StatusCode::NOT_FOUND => Exit::NotFound,
            status if status.is_client_error() => Exit::Refused,
            _ => Exit::Failed,
        };
        let problem = if body.is_object() {
            body
        } else {
            let detail = format!("The server responded with {status} and no readable body.");
            json!({ "type": "about:blank", "title": "Failed", "status": status.as_u16(), "detail": detail })
        };
        Self { exit, problem }
    }

    /// Whether another client changed the record after it was read.
    pub fn is_stale(&self) -> bool {
        self.problem["status"] == StatusCode::PRECONDITION_FAILED.as_u16()
    }
}

/// Returns the main text of a problem: one sentence, or several lines that show a place in a
/// script. The error object of a rejected credential has other field names than a problem object.
fn headline(problem: &Value) -> String {
    let text = |name: &str| problem[name].as_str();
    let detail = ["detail", "error_description", "message", "title"].into_iter().find_map(text);
    let detail = detail.unwrap_or("The command failed for an unknown reason.");
    // Indent the other lines, so that they do not look like separate messages.
    detail.lines().map(screen::printable).collect::<Vec<_>>().join("\n  ")
}

/// Prints the error on standard error and returns the exit code.
pub fn report(problem: &anyhow::Error, output: Output) -> Exit {
    if is_broken_pipe(problem) {
        return Exit::Done;
    }
    let error = cli_error(problem);
    let screen = screen::Screen::process();
    match output {
        Output::Table => screen.note(&format_problem(&error.problem)),
        Output::Json => screen.note_json(&format!("{:#}\n", error.problem)),
    }
    error.exit
}

/// Whether the program that reads the output closed the pipe, as `head` does.
fn is_broken_pipe(problem: &anyhow::Error) -> bool {
    let io_error = problem.downcast_ref::<io::Error>();
    io_error.is_some_and(|problem| problem.kind() == io::ErrorKind::BrokenPipe)
}

/// Returns the exit code of an error, without printing the error.
#[cfg(test)]
pub fn code(problem: &anyhow::Error) -> Exit {
    cli_error(problem).exit
}

fn cli_error(problem: &anyhow::Error) -> CliError {
    if let Some(error) = problem.downcast_ref::<CliError>() {
        return error.clone();
    }
    if let Some(problem) = problem.downcast_ref::<ConfigError>() {
        return config_error(problem);
    }
    // A pepper error counts as a store error, because the store is not usable without the pepper.
    let is_store = problem.downcast_ref::<SetupError>().is_some()
        || problem.downcast_ref::<StoreError>().is_some();
    let exit = if is_store { Exit::Unreachable } else { Exit::Failed };
    CliError::new(exit, format!("{problem:#}"))
}

fn config_error(problem: &ConfigError) -> CliError {
    let ConfigError::Invalid(problems) = problem else {
        return CliError::new(Exit::Usage, problem.to_string());
    };
    let mut error = CliError::new(Exit::Usage, "The configuration is invalid.");
    let entry = |problem: &Problem| json!({ "location": location(problem), "message": problem.message, "fix": problem.fix });
    error.problem["errors"] = problems.iter().map(entry).collect();
    error
}

fn location(problem: &Problem) -> String {
    match &problem.place {
        Place::File { path, line } => format!("{}:{line}: {}", path.display(), problem.key),
        Place::Variable(name) => name.clone(),
        _ => format!("{} (its default)", problem.key),
    }
}

/// Formats a problem for people: one line for the problem, and one line for each invalid field.
fn format_problem(problem: &Value) -> String {
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
            assert_eq!(CliError::from_response(status, json!({})).exit, exit, "{status}");
        }
        assert_eq!(
            [0, 1, 2, 3, 4, 5, 6, 7],
            [
                Exit::Done as u8,
                Exit::Failed as u8,
                Exit::Usage as u8,
                Exit::NotFound as u8,
                Exit::Refused as u8,
                Exit::Unreachable as u8,
                Exit::Found as u8,
                Exit::Changes as u8
            ]
        );
    }

    #[test]
    fn every_error_has_its_exit_code() {
        let locked = || StoreError::Locked { path: "x".into() };
        let exit_of = |problem: anyhow::Error| code(&problem);
        assert_eq!(exit_of(locked().into()), Exit::Unreachable);
        assert_eq!(exit_of(SetupError::from(locked()).into()), Exit::Unreachable);
        assert_eq!(exit_of(ConfigError::Invalid(Vec::new()).into()), Exit::Usage);
        assert_eq!(exit_of(CliError::new(Exit::NotFound, "x").into()), Exit::NotFound);
        assert_eq!(exit_of(anyhow::anyhow!("x")), Exit::Failed);
    }

    #[test]
    fn broken_pipe_is_no_error_but_other_io_errors_are() {
        let broken = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(report(&broken, Output::Table), Exit::Done);
        let full = anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull));
        assert_eq!(code(&full), Exit::Failed);
        assert!(!is_broken_pipe(&full));
    }

    #[test]
    fn formatted_problem_has_a_line_for_each_field() {
        let problem = json!({
            "detail": "The user is invalid.\x1b[2J",
            "errors": [
                { "location": "name", "message": "It is taken.", "fix": "Choose another." },
                { "location": "mail", "message": "It is not an address.", "fix": "" },
            ],
        });
        assert_eq!(
            format_problem(&problem),
            "error: The user is invalid.[2J\n  name: It is taken. (Choose another.)\n  mail: It is not an address.\n"
        );
        assert_eq!(format_problem(&json!({ "error_description": "No." })), "error: No.\n");
        assert_eq!(format_problem(&json!({ "message": "No." })), "error: No.\n");
    }

    #[test]
    fn invalid_configuration_names_the_place_and_the_fix() {
        let found = Problem {
            place: Place::File { path: "c.toml".into(), line: 5 },
            key: "limits.x".into(),
            message: "There is no such key.".into(),
            fix: "Did you mean y?".into(),
        };
        let error = cli_error(&ConfigError::Invalid(vec![found]).into());
        assert_eq!(
            format_problem(&error.problem),
            "error: The configuration is invalid.\n  c.toml:5: limits.x: There is no such key. (Did you mean y?)\n"
        );
    }
}
