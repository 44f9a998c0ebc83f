//! `/api/v1/state`: exports all records as a TOML document, and applies such a document.
//!
//! Only the operator and administrators may export or apply a document, because a document contains
//! the digests of passwords and keys, and can create administrators.

mod export;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod merge;
mod read;
mod source;

use ::http::{StatusCode, header::CONTENT_TYPE};
use serde_json::json;

pub use self::export::RECORDS_FIELD;
pub(super) use self::export::export;
use self::{read::read, source::TomlDocument};
use super::{ApiRequest, list::invalid_query, resources::OPENS_GUARDED, response};
use crate::{
    accounts::{
        AccountError, Applied, ApplyOptions, Guards, LeftOut, Unlisted, Writer, is_cut_off,
    },
    handlers::{BodyLimits, PayloadResponse, RequestBody},
    model::{Mode, Violation},
    pipeline::{Denial, Phase},
};

/// The registered media type of TOML.
const TOML: &str = "application/toml";
/// The maximum size of a document, in bytes. A document of this size has about 100,000 records.
const MAX_BYTES: usize = 64 << 20;
/// The maximum number of attempts to merge a patch, if other clients change records meanwhile.
const MAX_ATTEMPTS: usize = 5;
/// The maximum number of violations in a response.
const MAX_VIOLATIONS: usize = 100;

pub(super) async fn apply(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let accounts = request.accounts.clone();
    accounts.admin_reader().ok_or_else(admin_only)?;
    // The document may create keys and administrators without the bounds of the client's key.
    let admin = accounts.admin().ok_or_else(|| {
        response::forbidden(
            "A key that is bound to an application, networks, limits or an end cannot apply a \
             state file.",
        )
    })?;
    let (options, is_patch) = options(&request)?;
    let text = read_body(&mut request).await?;
    if is_cut_off(&text) {
        let fix = "Export again. If the last line was removed on purpose, also remove the comments \
                   at the beginning of the file.";
        let message = "The end of the file is missing: it does not end as keyward export ends it.";
        return Err(invalid(vec![Violation::new("end of the file", message, fix)]));
    }
    let text = std::sync::Arc::<str>::from(text);
    let mut attempts = 1;
    let result = loop {
        let (text_to_read, accounts) = (text.clone(), Writer::clone(&admin));
        let document = run_blocking(move || {
            let toml = TomlDocument::parse(&text_to_read)
                .map_err(|problem| AccountError::Invalid(vec![problem]))?;
            read(&toml, &accounts, is_patch)
        });
        let result = match document.await? {
            Ok(document) => admin.apply(document, options).await,
            Err(problem) => Err(problem),
        };
        match result {
            // Another client has changed a record after the patch was merged into it.
            Err(AccountError::Stale { .. }) if attempts < MAX_ATTEMPTS => attempts += 1,
            result => break result,
        }
    };
    let applied = match result {
        Ok(applied) => applied,
        // To find the lines of the violations, the text is parsed again. So the parsed document
        // does not take memory while the records are applied.
        Err(AccountError::Invalid(violations)) => {
            let denial = move || match TomlDocument::parse(&text) {
                Ok(toml) => invalid_at_lines(violations, &toml),
                Err(problem) => invalid(vec![problem]),
            };
            return Err(run_blocking(denial).await?);
        }
        Err(problem) => return Err(response::denial(problem)),
    };
    Ok(response::json(StatusCode::OK, &view(&applied, options)))
}

fn admin_only() -> Denial {
    response::forbidden("Only the operator and administrators may do this.")
}

fn view(applied: &Applied, options: ApplyOptions) -> serde_json::Value {
    let [added, changed, removed] = applied.counts();
    let mut view = json!({
        "dry_run": options.mode == Mode::DryRun,
        "added": added,
        "changed": changed,
        "removed": removed,
        "unchanged": applied.unchanged,
        "changes": applied.changes,
    });
    if !applied.warnings.is_empty() {
        view["warnings"] = json!(applied.warnings);
    }
    view
}

/// Reads the query parameters, which are `true` or `false`. Also returns whether the document is
/// merged into the current records.
fn options(request: &ApiRequest<'_>) -> Result<(ApplyOptions, bool), Denial> {
    let (mut options, mut is_patch) = (ApplyOptions::default(), false);
    let query = request.head.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let is_set = match &*value {
            "true" => true,
            "false" => false,
            _ => return Err(invalid_parameter(&name, "The value must be true or false.")),
        };
        match &*name {
            "dry_run" if is_set => options.mode = Mode::DryRun,
            "prune" if is_set => options.unlisted = Unlisted::Remove,
            OPENS_GUARDED if is_set => options.guards = Guards::Open,
            "clear" if is_set => options.left_out = LeftOut::Clear,
            "patch" if is_set => is_patch = true,
            "dry_run" | "prune" | "patch" | "clear" | OPENS_GUARDED => {}
            _ => return Err(invalid_parameter(&name, "There is no such parameter.")),
        }
    }
    if is_patch && options.unlisted == Unlisted::Remove {
        let message = "A patch keeps what the file leaves out, so it cannot be used with prune.";
        return Err(invalid_parameter("patch", message));
    }
    Ok((options, is_patch))
}

fn invalid_parameter(name: &str, message: &str) -> Denial {
    let name: String = name.chars().take(64).collect();
    let fix = "The parameters are dry_run, prune, patch, clear and opens_guarded. Each is true or \
               false.";
    invalid_query(vec![Violation::new(name, message, fix)])
}

/// Reads the body as a text, and checks that its media type is TOML.
async fn read_body(request: &mut ApiRequest<'_>) -> Result<String, Denial> {
    let field = request.head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = field.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case(TOML) {
        let code = "UNSUPPORTED_MEDIA_TYPE";
        let message = format!("Send {TOML}.");
        return Err(Denial::message(
            Phase::Handler,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            message,
        ));
    }
    let body = std::mem::replace(&mut request.body, RequestBody::Full(bytes::Bytes::new()));
    // A document may be larger than the bodies of other requests.
    let bytes = MAX_BYTES.max(request.limits.bytes);
    let limits = BodyLimits { bytes, read: request.limits.read };
    let bytes = body.collect(&limits).await?;
    String::from_utf8(bytes.to_vec()).map_err(|problem| {
        let before = &problem.as_bytes()[..problem.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let fix = "Save the file as UTF-8.";
        invalid(vec![Violation::new(format!("line {line}"), "This is not UTF-8 text.", fix)])
    })
}

/// Runs long work on a blocking thread, so that other requests do not wait for this work.
async fn run_blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Denial> {
    let aborted = |_| {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE");
        let message = "The file could not be read. Try again in a moment.";
        Denial::message(Phase::Handler, status, code, message).with_retry_after(1)
    };
    tokio::task::spawn_blocking(work).await.map_err(aborted)
}

/// The denial of an invalid document. Each violation has the line of its field.
fn invalid_at_lines(violations: Vec<Violation>, toml: &TomlDocument<'_>) -> Denial {
    let count = violations.len();
    let shown = violations.into_iter().take(MAX_VIOLATIONS);
    let mut shown: Vec<Violation> = shown.map(|violation| toml.with_line(violation)).collect();
    if count > MAX_VIOLATIONS {
        let message = format!("There are {} more faults.", count - MAX_VIOLATIONS);
        shown.push(Violation::new("", message, "Fix the faults above first."));
    }
    invalid(shown)
}

fn invalid(violations: Vec<Violation>) -> Denial {
    let message = match violations.len() {
        1 => "The file is invalid. Nothing was changed.".to_owned(),
        count => format!("The file is invalid in {count} places. Nothing was changed."),
    };
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID", message)
        .with_violations(violations)
}
