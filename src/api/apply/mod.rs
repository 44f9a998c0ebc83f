//! `/api/v1/state`: all records as one TOML document, and the store made what such a document says. It holds the digests of passwords and keys,
//! and can make administrators, so it is for the operator and for administrators alone.

mod read;
mod source;

use crate::model::Mode;
use ::http::{
    HeaderValue, Method, Response, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use serde_json::json;

use self::{read::read, source::Source};
use super::{Call, keys, response};
use crate::{
    accounts::{AccountError, Accounts, AdminWriter, Applied, Apply, Others},
    handlers::{RequestBody, BodyLimits, Payload, PayloadResponse},
    model::Violation,
    pipeline::{Denial, Phase},
};

/// The media type of TOML, as it is registered.
const TOML: &str = "application/toml";
/// The most bytes of a document: some 100,000 records.
const MOST_BYTES: usize = 64 << 20;
/// The most faults that are told at once.
const MOST_FAULTS: usize = 100;

pub(super) async fn answer(call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let accounts = call.accounts.clone();
    let admin = accounts.admin().ok_or_else(|| {
        response::forbidden("Only the operator and administrators can do this.")
    })?;
    match call.request.method {
        Method::POST => apply(&admin, call).await,
        _ => export(&admin).await,
    }
}

async fn export(admin: &AdminWriter<'_>) -> Result<PayloadResponse, Denial> {
    let text = admin.export().await.map_err(response::denial)?;
    let mut reply = Response::new(Payload::from(text));
    let headers = reply.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(TOML));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(reply)
}

async fn apply(admin: &AdminWriter<'_>, mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let how = how(&call)?;
    // What it makes may be bound less than the key that it is asked with.
    if keys::within_own_bounds(&keys::Wanted::default(), &call).is_err() {
        return Err(response::forbidden(
            "A key that is bound to an application, to networks or to limits cannot do this.",
        ));
    }
    let text = std::sync::Arc::<str>::from(document(&mut call).await?);
    let (read_from, accounts) = (text.clone(), Accounts::clone(admin));
    let stated = aside(move || {
        let source = Source::of(&read_from).map_err(|problem| unfit(vec![problem]))?;
        read(&source, &accounts).map_err(|found| placed(found, &source))
    });
    let applied = match admin.apply(stated.await??, how).await {
        Ok(applied) => applied,
        // Where it stood is looked up once more: meanwhile nobody had to remember it.
        Err(AccountError::Invalid(found)) => {
            let place = move || match Source::of(&text) {
                Ok(source) => placed(found, &source),
                Err(problem) => unfit(vec![problem]),
            };
            return Err(aside(place).await?);
        }
        Err(problem) => return Err(response::denial(problem)),
    };
    Ok(response::json(StatusCode::OK, &view(&applied, how)))
}

fn view(applied: &Applied, how: Apply) -> serde_json::Value {
    let [added, changed, removed] = applied.counts();
    json!({
        "dry_run": how.mode == Mode::DryRun,
        "added": added,
        "changed": changed,
        "removed": removed,
        "unchanged": applied.unchanged,
        "changes": applied.changes,
    })
}

/// `dry_run` and `prune`, each true or false.
fn how(call: &Call<'_>) -> Result<Apply, Denial> {
    let mut how = Apply::default();
    let query = call.request.uri.query().unwrap_or_default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        let is_set = match &*value {
            "true" => true,
            "false" => false,
            _ => return Err(unasked(&name, "This is neither true nor false.")),
        };
        match &*name {
            "dry_run" if is_set => how.mode = Mode::DryRun,
            "prune" if is_set => how.others = Others::Go,
            "dry_run" | "prune" => {}
            _ => return Err(unasked(&name, "There is no such parameter.")),
        }
    }
    Ok(how)
}

fn unasked(name: &str, said: &str) -> Denial {
    let name: String = name.chars().take(64).collect();
    let fix = "Use dry_run=true, prune=true, both or none.";
    Denial::message(
        Phase::Handler,
        StatusCode::BAD_REQUEST,
        "INVALID_QUERY",
        "The query is not in order.",
    )
    .with_violations(vec![Violation::new(name, said, fix)])
}

/// The body, which is TOML.
async fn document(call: &mut Call<'_>) -> Result<String, Denial> {
    let given = call.request.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let essence = given.unwrap_or_default().split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case(TOML) {
        let code = "UNSUPPORTED_MEDIA_TYPE";
        let said = format!("Send {TOML}.");
        return Err(Denial::message(
            Phase::Handler,
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            code,
            said,
        ));
    }
    let body = std::mem::replace(&mut call.body, RequestBody::Full(bytes::Bytes::new()));
    // It is larger than what anybody else may send.
    let limits = BodyLimits { bytes: MOST_BYTES.max(call.limits.bytes), read: call.limits.read };
    let bytes = body.collect(&limits).await?;
    String::from_utf8(bytes.to_vec()).map_err(|problem| {
        let before = &problem.as_bytes()[..problem.utf8_error().valid_up_to()];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let fix = "Save the file as UTF-8.";
        unfit(vec![Violation::new(format!("line {line}"), "This is not UTF-8 text.", fix)])
    })
}

/// Does what takes long on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Denial> {
    let gave_up = |_| {
        let (status, code) = (StatusCode::SERVICE_UNAVAILABLE, "TEMPORARILY_UNAVAILABLE");
        let said = "The file could not be read. Try again in a moment.";
        Denial::message(Phase::Handler, status, code, said).with_retry_after(1)
    };
    tokio::task::spawn_blocking(work).await.map_err(gave_up)
}

/// What is wrong with a file, each fault with its line: the first hundred, and how many there are.
fn placed(found: Vec<Violation>, source: &Source<'_>) -> Denial {
    let count = found.len();
    let told = found.into_iter().take(MOST_FAULTS).map(|one| source.place(one));
    let mut told: Vec<Violation> = told.collect();
    if count > MOST_FAULTS {
        let said = format!("There are {} more faults.", count - MOST_FAULTS);
        told.push(Violation::new("", said, "Mend these first."));
    }
    unfit(told)
}

fn unfit(found: Vec<Violation>) -> Denial {
    let said = match found.len() {
        1 => "The file is not in order, and nothing was changed.".to_owned(),
        count => format!("The file is not in order in {count} places, and nothing was changed."),
    };
    Denial::message(Phase::Handler, StatusCode::UNPROCESSABLE_ENTITY, "INVALID", said)
        .with_violations(found)
}
