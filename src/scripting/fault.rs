//! What comes of a call that did not return what it should: refused on purpose, or broken.

use http::{HeaderMap, StatusCode};
use rhai::{Dynamic, EvalAltResult, Map, Position};

use super::values::headers;
use crate::model::Secret;

/// Why a script's call gave no value.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The script refused, on purpose: this is what the client is told.
    Refused(Box<Refusal>),
    /// The script failed. The client is told 503 `SCRIPT_ERROR` and nothing else.
    Broken {
        /// File, line, column and reason, for the operator's log. Never a secret, and never for a client.
        detail: String,
    },
}

/// A refusal that a script threw.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// 400 to 599.
    pub status: StatusCode,
    /// The stable name of the error: `[A-Z0-9_]{1,64}`.
    pub code: String,
    /// What the client is told, as a sentence.
    pub description: String,
    /// Header fields for the answer.
    pub headers: HeaderMap,
    /// Where in the scripts it was thrown, for the operator.
    pub place: String,
}

impl Fault {
    /// A failure with this reason.
    pub(super) fn broken(detail: impl Into<String>) -> Self {
        Self::Broken { detail: detail.into() }
    }
}

/// How long a refusal's description may be, in characters.
const DESCRIPTION: usize = 1000;

impl Refusal {
    /// Reads what was thrown: `#{ error: "CODE", status: 403, description: "…", headers: #{ … } }`.
    ///
    /// # Errors
    /// What is wrong with it, in a sentence.
    pub(super) fn read(thrown: &Map, place: String) -> Result<Self, String> {
        const FIELDS: [&str; 4] = ["error", "status", "description", "headers"];
        if let Some(field) = thrown.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(format!("the refusal has an unknown field {field}"));
        }
        let field = |name: &str| thrown.get(name).cloned().unwrap_or(Dynamic::UNIT);
        let status = field("status").as_int().map_err(|_| "the refusal's status is no number")?;
        let status = denied_status(status)?;
        let code = field("error").into_string().map_err(|_| "the refusal's error is no text")?;
        check_code(&code)?;
        let description = match field("description") {
            none if none.is_unit() => "The request was refused.".to_owned(),
            text => text.into_string().map_err(|_| "the refusal's description is no text")?,
        };
        if description.chars().count() > DESCRIPTION || description.chars().any(char::is_control) {
            return Err(format!(
                "the refusal's description is longer than {DESCRIPTION} characters, or holds control characters"
            ));
        }
        let headers = match field("headers") {
            none if none.is_unit() => HeaderMap::new(),
            map => {
                let map = map.try_cast::<Map>().ok_or("the refusal's headers are no map")?;
                headers::read(&map)?
            }
        };
        Ok(Self { status, code, description, headers, place })
    }
}

/// A status code with which something is refused. Everything else would be a pass, or no answer at all.
pub(super) fn denied_status(status: i64) -> Result<StatusCode, String> {
    u16::try_from(status)
        .ok()
        .filter(|status| (400..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| format!("{status} is no status to refuse with; use one from 400 to 599"))
}

/// The form of an error's stable name.
pub(super) fn check_code(code: &str) -> Result<(), String> {
    let form = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    match (1..=64).contains(&code.len()) && code.bytes().all(form) {
        true => Ok(()),
        false => Err("an error code is 1 to 64 of A-Z, 0-9 and _".into()),
    }
}

/// How a call failed, as the breaker sees it.
pub(super) enum Failure {
    /// It ran out of its budget: time, steps or memory.
    Exhausted(Fault),
    /// Anything else.
    Other(Fault),
}

impl Failure {
    /// Sorts an engine's error. `file` is the script's.
    pub fn of(file: &str, error: &EvalAltResult) -> Self {
        let (error, place) = innermost(error);
        let place = show(file, place);
        if let EvalAltResult::ErrorRuntime(thrown, _) = error {
            return Self::Other(thrown_fault(thrown, place));
        }
        let fault = Fault::broken(format!("{place}: {}", describe(error)));
        match error {
            EvalAltResult::ErrorTooManyOperations(_)
            | EvalAltResult::ErrorTooManyVariables(_)
            | EvalAltResult::ErrorStackOverflow(_)
            | EvalAltResult::ErrorDataTooLarge(..)
            | EvalAltResult::ErrorTerminated(..) => Self::Exhausted(fault),
            _ => Self::Other(fault),
        }
    }

    /// The same without these texts in what the operator's log is told: a script may throw what it was given.
    pub fn without(mut self, hidden: &[Secret]) -> Self {
        if let Self::Exhausted(Fault::Broken { detail }) | Self::Other(Fault::Broken { detail }) =
            &mut self
        {
            *detail = blotted(detail, hidden);
        }
        self
    }

    pub fn into_fault(self) -> Fault {
        match self {
            Self::Exhausted(fault) | Self::Other(fault) => fault,
        }
    }
}

/// A text without these secrets. The shortest would blot out half of the text, and are none.
pub(super) fn blotted(text: &str, hidden: &[Secret]) -> String {
    let mut text = text.to_owned();
    for secret in hidden.iter().filter(|secret| secret.expose().len() >= 4) {
        text = text.replace(secret.expose(), "…");
    }
    text
}

fn thrown_fault(thrown: &Dynamic, place: String) -> Fault {
    if let Some(map) = thrown.clone().try_cast::<Map>() {
        return match Refusal::read(&map, place.clone()) {
            Ok(refusal) => Fault::Refused(Box::new(refusal)),
            Err(problem) => Fault::broken(format!("{place}: {problem}")),
        };
    }
    match thrown.clone().into_string() {
        Ok(text) => {
            let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
            Fault::broken(format!("{place}: {text}"))
        }
        Err(kind) => Fault::broken(format!(
            "{place}: a value of type {kind} was thrown; throw #{{ error, status, description }}, or use deny()"
        )),
    }
}

/// The error itself, out of the calls that it came through, and the place that is closest to it.
pub(super) fn innermost(error: &EvalAltResult) -> (&EvalAltResult, Position) {
    let mut error = error;
    let mut place = error.position();
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _)
    | EvalAltResult::ErrorInModule(_, inner, _) = error
    {
        error = inner;
        if !error.position().is_none() {
            place = error.position();
        }
    }
    (error, place)
}

pub(super) fn show(file: &str, place: Position) -> String {
    match (place.line(), place.position()) {
        (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
        (Some(line), None) => format!("{file}:{line}"),
        _ => file.to_owned(),
    }
}

/// What an error says without the values that were at hand: one of them may be a credential.
pub(super) fn describe(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => "the call takes too many steps".into(),
        EvalAltResult::ErrorTerminated(why, _) => format!("the call {why}"),
        EvalAltResult::ErrorStackOverflow(_) => "functions call functions too deeply".into(),
        EvalAltResult::ErrorTooManyVariables(_) => "there are too many variables".into(),
        EvalAltResult::ErrorDataTooLarge(kind, _) => format!("too large: {}", kind.to_lowercase()),
        EvalAltResult::ErrorIndexNotFound(..) => "there is nothing at this index".into(),
        EvalAltResult::ErrorArithmetic(..) => {
            "a number cannot be read, or a result cannot be held (arithmetic)".into()
        }
        EvalAltResult::ErrorRuntime(thrown, _) => match thrown.clone().into_string() {
            Ok(text) => text,
            Err(kind) => format!("a value of type {kind} was thrown"),
        },
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => describe(inner),
        EvalAltResult::ErrorSystem(..) => "the engine failed".into(),
        // Names and types only; the place is told apart.
        other => {
            let text = other.to_string();
            let place = format!(" ({})", other.position());
            text.strip_suffix(&place).unwrap_or(&text).replace('\n', " ")
        }
    }
}
