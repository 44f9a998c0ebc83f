//! `/api/v1/keys/generate-all`: keys for all users, a part at a time.
//!
//! A client asks again with `after` set to the `next` of the part before, until there is none. `run` is a name that it makes up and keeps to
//! itself: asked again with the same name, a part comes with the same keys.

use ::http::StatusCode;
use serde_json::{Value, json};

use crate::{
    accounts::{BulkIssue, BulkPart, BulkRecipients, Issued, RunId},
    api::{Call, fields::FieldReader, keys, response},
    handlers::PayloadResponse,
    pipeline::Denial,
};

/// The most users of one part.
const MOST: usize = 5000;
const LIMIT: usize = 1000;

pub(in crate::api) async fn generate(mut call: Call<'_>) -> Result<PayloadResponse, Denial> {
    let mut form = FieldReader::new(call.json().await?);
    let bulk = read(&mut form, &call);
    form.finish()?;
    let new = &bulk.new;
    keys::may_hand_out(false, &call)?;
    keys::within_own_bounds(&keys::Wanted::new(new), &call)?;
    let part = call.accounts.issue_for_many(&bulk).await.map_err(response::denial)?;
    Ok(response::json(StatusCode::OK, &view(&part, &bulk, &call)))
}

fn read(form: &mut FieldReader, call: &Call<'_>) -> BulkIssue {
    let run = form.text("run");
    let run = match run {
        Some(text) => run_id(&text).unwrap_or_else(|| {
            form.reject(
                "run",
                "This is not a run's name.",
                "Send 32 hexadecimal digits, drawn at random, or leave it out.",
            );
            RunId::default()
        }),
        None => call.accounts.entropy().bytes(),
    };
    let recipients = match form.flag("missing_only") {
        Some(true) => BulkRecipients::WithoutKey,
        _ => BulkRecipients::All,
    };
    let after = form.text("after");
    let after = after.and_then(|text| {
        let read = text.parse().ok();
        if read.is_none() {
            form.reject(
                "after",
                "This is not a cursor.",
                "Use the `next` of the part before, as it came.",
            );
        }
        read
    });
    let limit = form.number::<usize>("limit").unwrap_or(LIMIT);
    if !(1..=MOST).contains(&limit) {
        form.reject(
            "limit",
            "This is not a number of users.",
            format!("Use a number from 1 to {MOST}."),
        );
    }
    let new = keys::read(form, call.accounts.clock().now());
    if new.universal {
        let fix = "Make one with POST /api/v1/users/{uid}/keys.";
        form.reject("universal", "A universal key is one for all users.", fix);
    }
    BulkIssue { run, recipients, new, after, limit }
}

fn run_id(text: &str) -> Option<RunId> {
    let is_form = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    is_form.then(|| u128::from_str_radix(text, 16).ok().map(u128::to_be_bytes)).flatten()
}

fn view(part: &BulkPart, bulk: &BulkIssue, call: &Call<'_>) -> Value {
    let items: Vec<Value> = part.items.iter().map(|(name, issued)| item(name, issued)).collect();
    let (users, _) = call.accounts.directory().counts();
    json!({
        "items": items,
        "next": part.last.filter(|_| part.has_more).map(|uid| uid.to_string()),
        "last": part.last,
        "skipped": part.skipped,
        "users": users,
        "run": format!("{:032x}", u128::from_be_bytes(bulk.run)),
    })
}

fn item(name: &str, issued: &Issued) -> Value {
    let key = &issued.key.record;
    json!({ "user": key.user, "username": name, "id": key.id, "key": issued.text.expose() })
}
