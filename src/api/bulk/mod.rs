//! `POST /api/v1/users/bulk` and `POST /api/v1/keys/bulk`: change the records that conditions
//! select, part by part.
//!
//! The client repeats the request until `next` in the response is null. In each further request
//! `after` is the `next` of the previous response.

use ::http::StatusCode;
use serde_json::{Value, json};

use super::{ApiRequest, fields::FieldReader, response};
use crate::{
    accounts::{
        ChangeMany, KeySelection, ManyUsers, PartOfMany, RevokeMany, UserEdit, UserSelection,
    },
    handlers::PayloadResponse,
    model::{KeyId, Mode},
    pipeline::Denial,
};

pub(super) async fn users(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let now = request.accounts.clock().now();
    let text = reader.required_text("where");
    let selection = reader.rule(UserSelection::parse(&text, now));
    let change = read_change(&mut reader);
    let mode = read_mode(&mut reader);
    let after = reader.text("after");
    let after = after.map(|text| text.parse::<u64>().map_err(|_| reject_cursor(&mut reader)));
    reader.finish()?;
    let (Some(selection), Ok(after)) = (selection, after.transpose()) else {
        return Err(response::invalid(Vec::new()));
    };
    let many = ChangeMany { selection, change, mode, after };
    let part = request.accounts.change_many_users(&many).await.map_err(response::denial)?;
    let next = part.next.map(|uid| uid.to_string());
    let total = request.accounts.directory().counts().0;
    Ok(response::json(StatusCode::OK, &view(&part, mode, next, total)))
}

pub(super) async fn keys(mut request: ApiRequest<'_>) -> Result<PayloadResponse, Denial> {
    let mut reader = FieldReader::new(request.json().await?);
    let text = reader.required_text("where");
    let selection = reader.rule(KeySelection::parse(&text, &request.accounts));
    if reader.flag("revoke") != Some(true) {
        reader.reject("revoke", "The change is missing.", "Send revoke with the value true.");
    }
    let mode = read_mode(&mut reader);
    let after = reader.text("after");
    let after = after.map(|text| KeyId::parse(&text).ok_or_else(|| reject_cursor(&mut reader)));
    reader.finish()?;
    let (Some(selection), Ok(after)) = (selection, after.transpose()) else {
        return Err(response::invalid(Vec::new()));
    };
    let many = RevokeMany { selection, mode, after };
    let part = request.accounts.revoke_many_keys(&many).await.map_err(response::denial)?;
    let next = part.next.map(|number| KeyId::from_number(number).to_string());
    let total = request.accounts.directory().counts().1;
    Ok(response::json(StatusCode::OK, &view(&part, mode, next, total)))
}

fn read_change(reader: &mut FieldReader) -> ManyUsers {
    let edit = UserEdit {
        add_roles: reader.words("add_roles").unwrap_or_default(),
        remove_roles: reader.words("remove_roles").unwrap_or_default(),
        active: reader.flag("active"),
    };
    let is_edit =
        !edit.add_roles.is_empty() || !edit.remove_roles.is_empty() || edit.active.is_some();
    let deletes = reader.flag("delete") == Some(true);
    if is_edit == deletes {
        let fix = "Send either delete with the value true, or one of add_roles, remove_roles and \
                   active.";
        reader.reject("delete", "There must be one change.", fix);
    }
    if deletes { ManyUsers::Delete } else { ManyUsers::Edit(edit) }
}

fn read_mode(reader: &mut FieldReader) -> Mode {
    if reader.flag("dry_run") == Some(true) { Mode::DryRun } else { Mode::Live }
}

fn reject_cursor(reader: &mut FieldReader) {
    let fix = "Send the value of `next` in the previous response, unchanged.";
    reader.reject("after", "This is not a cursor.", fix);
}

fn view(part: &PartOfMany, mode: Mode, next: Option<String>, total: usize) -> Value {
    let first = part.first.iter().map(|(id, name)| json!({ "id": id, "name": name }));
    json!({
        "dry_run": mode == Mode::DryRun,
        "matched": part.matched,
        "changed": part.changed,
        "unchanged": part.unchanged,
        "left_out": part.left_out,
        "first": first.collect::<Vec<Value>>(),
        "next": next,
        "total": total,
    })
}
