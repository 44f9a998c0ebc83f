//! Why a call of a script returned no value: the script refused the request on purpose, or failed.

use http::{HeaderMap, StatusCode};
use rhai::{Dynamic, EvalAltResult, Map, Position};

use super::{unset, values::headers};
use crate::model::Secret;

/// Why a call of a script returned no value.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The script refused the request on purpose. The client gets this refusal.
    Refused(Box<ScriptRefusal>),
    /// The script failed. The client gets 503 `SCRIPT_ERROR` and no details.
    Failed {
        /// File, line, column and reason, for the operator's log. The detail contains no secret,
        /// and clients never see the detail.
        detail: String,
    },
    /// The request is too large for the script: a text, an array or a map exceeded a limit. This is
    /// the client's fault.
    TooLarge {
        /// 431 if the largest part of the request is a header field, else 400.
        status: StatusCode,
        /// File, line, column and reason, for the operator's log.
        detail: String,
    },
    /// This client's requests kept exceeding the script's budget, so the script is not called for
    /// this client for some time.
    ShutOut {
        /// The time, in seconds.
        seconds: u64,
        /// The file and the reason, for the operator's log.
        detail: String,
    },
}

/// A refusal that a script threw.
#[derive(Debug, Clone)]
pub struct ScriptRefusal {
    /// The status of the response, from 400 to 599.
    pub status: StatusCode,
    /// The error code: `[A-Z0-9_]{1,64}`.
    pub code: String,
    /// The description for the client, as a sentence.
    pub description: String,
    /// Header fields for the response.
    pub headers: HeaderMap,
    /// The position in the scripts where the refusal was thrown, for the operator.
    pub place: String,
}

impl Fault {
    /// A failure with this detail.
    pub(super) fn failed(detail: impl Into<String>) -> Self {
        Self::Failed { detail: detail.into() }
    }

    /// The detail for the operator's log; `None` means that the script refused on purpose.
    pub fn detail(&self) -> Option<&str> {
        match self {
            Self::Refused(_) => None,
            Self::Failed { detail }
            | Self::TooLarge { detail, .. }
            | Self::ShutOut { detail, .. } => Some(detail),
        }
    }
}

/// The maximum length of a refusal's description, in characters.
const MAX_DESCRIPTION: usize = 1000;

impl ScriptRefusal {
    /// Reads a thrown map: `#{ error: "CODE", status: 403, description: "…", headers: #{ … } }`.
    ///
    /// # Errors
    /// The map is not a valid refusal. The error is a sentence that says why.
    fn read(thrown: &Map, place: String) -> Result<Self, String> {
        const FIELDS: [&str; 4] = ["error", "status", "description", "headers"];
        if let Some(field) = thrown.keys().find(|key| !FIELDS.contains(&key.as_str())) {
            return Err(format!("the refusal has an unknown field {field}"));
        }
        let field = |name: &str| thrown.get(name).cloned().unwrap_or(Dynamic::UNIT);
        let status =
            field("status").as_int().map_err(|_| "the refusal's status is not a number")?;
        let status = denied_status(status)?;
        let code = field("error").into_string().map_err(|_| "the refusal's error is not a text")?;
        check_code(&code)?;
        let description = match field("description") {
            missing if missing.is_unit() => "The request was refused.".to_owned(),
            text => text.into_string().map_err(|_| "the refusal's description is not a text")?,
        };
        let is_too_long = description.chars().count() > MAX_DESCRIPTION;
        if is_too_long || description.chars().any(char::is_control) {
            return Err(format!(
                "the refusal's description is longer than {MAX_DESCRIPTION} characters, or contains control characters"
            ));
        }
        let headers = match field("headers") {
            missing if missing.is_unit() => HeaderMap::new(),
            map => {
                let map = map.try_cast::<Map>().ok_or("the refusal's headers are not a map")?;
                headers::read(&map)?
            }
        };
        Ok(Self { status, code, description, headers, place })
    }
}

/// Checks a status code for a refusal: 400 to 599. A status of 1xx is not final, 2xx reports
/// success, 3xx redirects the client, and 600 or more is not defined.
pub(super) fn denied_status(status: i64) -> Result<StatusCode, String> {
    u16::try_from(status)
        .ok()
        .filter(|status| (400..=599).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| {
            format!(
                "a request cannot be refused with the status {status}; use a status from 400 to 599"
            )
        })
}

/// Checks the form of an error code.
pub(super) fn check_code(code: &str) -> Result<(), String> {
    let is_allowed = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    if (1..=64).contains(&code.len()) && code.bytes().all(is_allowed) {
        return Ok(());
    }
    Err("an error code has 1 to 64 characters of A-Z, 0-9 and _".into())
}

/// The beginning of the error if all calls together use too much memory, which is not the fault of
/// the request.
pub(super) const SHARED_MEMORY: &str = "Memory of all calls";

/// A failed call, or a refusal. The circuit breaker counts only calls that exceeded their budget.
pub(super) enum CallFailure {
    /// The call exceeded its budget of time or steps.
    Exhausted(Fault),
    /// A value exceeded a limit of data. This is the detail.
    TooLarge(String),
    /// Any other failure or refusal.
    Other(Fault),
}

impl CallFailure {
    /// Classifies an engine's error of a call of `function` in `file`, which contains `text`.
    pub fn from_engine(file: &str, text: &str, function: &str, error: &EvalAltResult) -> Self {
        let (error, position) = innermost(error);
        let place = match (position.line(), position.position()) {
            (Some(line), Some(column)) => format!("{file}:{line}:{column}"),
            (Some(line), None) => format!("{file}:{line}"),
            _ => file.to_owned(),
        };
        if let EvalAltResult::ErrorRuntime(thrown, _) = error {
            return Self::Other(thrown_fault(thrown, place));
        }
        let unset = unset::describe(text, position, error);
        let reason = unset.unwrap_or_else(|| describe_in(function, error));
        let detail = format!("{place}: {reason}");
        match error {
            EvalAltResult::ErrorTooManyOperations(_) | EvalAltResult::ErrorTerminated(..) => {
                Self::Exhausted(Fault::failed(detail))
            }
            EvalAltResult::ErrorDataTooLarge(kind, _) if !kind.starts_with(SHARED_MEMORY) => {
                Self::TooLarge(detail)
            }
            _ => Self::Other(Fault::failed(detail)),
        }
    }

    /// Removes these secrets from the detail, because a script may throw a credential that it got
    /// as an argument.
    pub fn redacted(mut self, secrets: &[Secret]) -> Self {
        if let Self::Exhausted(Fault::Failed { detail })
        | Self::TooLarge(detail)
        | Self::Other(Fault::Failed { detail }) = &mut self
        {
            *detail = redact(detail, secrets);
        }
        self
    }
}

/// Replaces secrets in a text by `…`. A secret of fewer than 4 bytes is ignored: such a text is not
/// really secret, and replacing it everywhere would make most texts unreadable.
pub(super) fn redact(text: &str, secrets: &[Secret]) -> String {
    let mut text = text.to_owned();
    for secret in secrets.iter().filter(|secret| secret.expose().len() >= 4) {
        text = text.replace(secret.expose(), "…");
    }
    text
}

fn thrown_fault(thrown: &Dynamic, place: String) -> Fault {
    if let Some(map) = thrown.clone().try_cast::<Map>() {
        return match ScriptRefusal::read(&map, place.clone()) {
            Ok(refusal) => Fault::Refused(Box::new(refusal)),
            Err(problem) => Fault::failed(format!("{place}: {problem}")),
        };
    }
    match thrown.clone().into_string() {
        Ok(text) => {
            let text: String = text.chars().filter(|c| !c.is_control()).take(300).collect();
            Fault::failed(format!("{place}: {text}"))
        }
        Err(kind) => Fault::failed(format!(
            "{place}: a value of type {kind} was thrown; throw #{{ error, status, description }}, or use deny()"
        )),
    }
}

/// Unwraps nested errors of function calls. Returns the original error, and the innermost position
/// that is known.
pub(super) fn innermost(error: &EvalAltResult) -> (&EvalAltResult, Position) {
    let mut error = error;
    let mut position = error.position();
    while let EvalAltResult::ErrorInFunctionCall(_, _, inner, _)
    | EvalAltResult::ErrorInModule(_, inner, _) = error
    {
        error = inner;
        if !error.position().is_none() {
            position = error.position();
        }
    }
    (error, position)
}

/// The key of the configuration for a limit of data, by the engine's name of the limit.
fn data_limit(kind: &str) -> Option<&'static str> {
    [
        ("string", "scripts.string_bytes"),
        ("array", "scripts.array_items"),
        ("map", "scripts.map_entries"),
    ]
    .into_iter()
    .find_map(|(word, key)| kind.contains(word).then_some(key))
}

/// [`describe`], with the name of the function that Keyward called for an exceeded limit.
fn describe_in(function: &str, error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorTerminated(why, _) => format!("{function} {why}"),
        EvalAltResult::ErrorTooManyOperations(_)
        | EvalAltResult::ErrorStackOverflow(_)
        | EvalAltResult::ErrorTooManyVariables(_)
        | EvalAltResult::ErrorDataTooLarge(..) => format!("{} in {function}", describe(error)),
        _ => describe(error),
    }
}

/// Describes an error without the values that the error contains, because a value may be a
/// credential.
pub(super) fn describe(error: &EvalAltResult) -> String {
    match error {
        EvalAltResult::ErrorTooManyOperations(_) => {
            "the call takes too many steps (scripts.operations, scripts.blocking_operations)".into()
        }
        EvalAltResult::ErrorTerminated(why, _) => format!("the call {why}"),
        EvalAltResult::ErrorStackOverflow(_) => {
            "functions call functions too deeply (scripts.call_levels)".into()
        }
        EvalAltResult::ErrorTooManyVariables(_) => {
            "there are too many variables (scripts.variables)".into()
        }
        EvalAltResult::ErrorDataTooLarge(kind, _) => {
            let kind = kind.to_lowercase();
            let key = data_limit(&kind).map(|key| format!(" ({key})")).unwrap_or_default();
            format!("too large: {kind}{key}")
        }
        EvalAltResult::ErrorIndexNotFound(..) => "there is nothing at this index".into(),
        EvalAltResult::ErrorArithmetic(..) => {
            "a number cannot be parsed, or a result is out of range (arithmetic)".into()
        }
        EvalAltResult::ErrorRuntime(thrown, _) => match thrown.clone().into_string() {
            Ok(text) => text,
            Err(kind) => format!("a value of type {kind} was thrown"),
        },
        EvalAltResult::ErrorInFunctionCall(_, _, inner, _) => describe(inner),
        EvalAltResult::ErrorSystem(..) => "the engine failed".into(),
        // All other texts contain only names and types. The position is reported separately.
        other => {
            let text = other.to_string();
            let position = format!(" ({})", other.position());
            text.strip_suffix(&position).unwrap_or(&text).replace('\n', " ")
        }
    }
}
