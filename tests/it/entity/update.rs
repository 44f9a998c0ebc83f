//! Tests of `PATCH /user/{uid}`: changing users.

use serde_json::{Value, json};

use super::{fixture, single_value, value};

#[test]
fn an_update_responds_200_with_the_entity() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    let name = fixture.unique("changed");
    let response = fixture.patch(&fixture.admin(), uid, &single_value("name", name.clone()));
    let entity = response.entity(200);
    assert_eq!(value(&entity, "name"), &json!(name));
    assert_eq!(response.header("location"), None);
    assert_eq!(fixture.get(&fixture.admin(), uid).entity(200), entity);
}

/// The bodies contain current values: one field each, all fields, or no field. The revision in the
/// admin API shows that nothing was written.
#[test]
fn an_update_without_changes_responds_200_and_writes_nothing() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("same"));
    let record = json!({ "mail": mail, "timezone": "UTC", "roles": [fixture.role(&[])] });
    let uid = fixture.user_with_record(record, &[]).uid;
    let before = fixture.get(&fixture.admin(), uid);
    let revision = || {
        let response = fixture.server.admin_api("GET", &format!("/api/v1/users/{uid}")).send();
        response.header("etag").unwrap().to_owned()
    };
    let revision_before = revision();
    let entity = before.json();
    let mut bodies: Vec<Value> =
        entity.as_object().unwrap().iter().map(|(name, items)| json!({ name: items })).collect();
    bodies.push(json!({}));
    bodies.push(entity);
    for body in bodies {
        let response = fixture.patch(&fixture.admin(), uid, &body);
        assert_eq!((response.status, &response.body), (200, &before.body), "{body}");
    }
    assert_eq!(revision(), revision_before, "something was written");
}

/// The entity that users read of their own account is a valid body for a change of this account.
#[test]
fn a_user_can_send_back_their_own_entity() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("same"));
    let caller = fixture.user_with_record(json!({ "mail": mail }), &[]);
    let before = fixture.get(&caller, caller.uid);
    let response = fixture.patch(&caller, caller.uid, &before.json());
    assert_eq!((response.status, response.body), (200, before.body.clone()));
    let mut changed = before.json();
    changed["timezone"] = json!([{ "value": "Asia/Tokyo" }]);
    let entity = fixture.patch(&caller, caller.uid, &changed).entity(200);
    assert_eq!(value(&entity, "timezone"), &json!("Asia/Tokyo"));
}

#[test]
fn updating_another_user_requires_the_permission() {
    let fixture = fixture();
    let message = "Users can only update their own account, unless they have the 'administer users' permission.";
    let other = fixture.user(&[]);
    for permissions in [&[][..], &["access user profiles", "change own username", "cancel account"]]
    {
        let user = fixture.user(permissions);
        for change in [single_value("timezone", "UTC"), json!({})] {
            fixture.patch(&user, other.uid, &change).assert_message(403, message);
        }
    }
    let manager = fixture.user(&["administer users"]);
    assert_eq!(fixture.patch(&manager, other.uid, &single_value("timezone", "UTC")).status, 200);
}

#[test]
fn a_user_manager_may_set_every_field_that_the_server_does_not_set() {
    let fixture = fixture();
    let manager = fixture.user(&["administer users"]);
    let (uid, role) = (fixture.user(&[]).uid, fixture.role(&[]));
    let mail = format!("{}@example.com", fixture.unique("set"));
    let time = json!([{ "value": "1973-11-29T21:33:09+00:00", "format": "Y-m-d\\TH:i:sP" }]);
    let body = json!({
        "langcode": [{ "value": "de" }],
        "preferred_langcode": [{ "value": "fr" }],
        "preferred_admin_langcode": [{ "value": "es" }],
        "name": [{ "value": fixture.unique("set") }],
        "mail": [{ "value": mail }],
        "timezone": [{ "value": "Europe/Berlin" }],
        "status": [{ "value": false }],
        "created": time,
        "access": time,
        "login": time,
        "init": [{ "value": "init@example.com" }],
    });
    let entity = fixture.patch(&manager, uid, &body).entity(200);
    for (field, expected) in body.as_object().unwrap() {
        assert_eq!(&entity[field], expected, "{field}");
    }
    let body = json!({ "roles": [{ "target_id": role }] });
    let entity = fixture.patch(&manager, uid, &body).entity(200);
    assert_eq!(entity["roles"][0]["target_id"], json!(role));
    let entity = fixture.patch(&manager, uid, &json!({ "roles": [] })).entity(200);
    assert_eq!(entity["roles"], json!([]));
    let entity = fixture.patch(&manager, uid, &single_value("status", "1")).entity(200);
    assert_eq!(value(&entity, "status"), &json!(true));
}

/// The server sets these fields, and even an administrator may not change them.
#[test]
fn fields_set_by_the_server_cannot_be_updated() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    for (field, given) in [
        ("uid", json!(uid + 1)),
        ("uid", json!(null)),
        ("uuid", json!("0198c5a0-0000-7000-8000-000000000000")),
        ("changed", json!(1)),
        ("default_langcode", json!(false)),
    ] {
        let response = fixture.patch(&fixture.admin(), uid, &single_value(field, given));
        response.assert_message(403, &format!("Access denied on updating field '{field}'."));
    }
}

/// The response names the first field in the request that the user may not set.
#[test]
fn the_first_forbidden_field_is_reported_and_nothing_is_written() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    let body = r#"{"timezone":["UTC"],"login":[1],"status":[0],"access":[1]}"#;
    let request = fixture.request_as(&caller, "PATCH", &format!("/user/{}", caller.uid));
    let response = request.header("Content-Type", "application/json").body(body).send();
    response.assert_message(403, "Access denied on updating field 'login'.");
    assert_eq!(fixture.get(&caller, caller.uid).json()["timezone"], json!([]));
}

/// Only an administrator may change or create an administrator.
#[test]
fn a_user_manager_cannot_change_or_create_administrators() {
    let fixture = fixture();
    let manager = fixture.user(&["administer users"]);
    let admin = fixture.user_with_record(json!({ "roles": ["administrator"] }), &[]);
    fixture.server.forbid_in_log("taken over by me");
    for (field, given) in [
        ("name", json!([{ "value": "renamed" }])),
        ("pass", json!([{ "value": "taken over by me" }])),
        ("mail", json!([{ "value": "taken@example.com" }])),
        ("status", json!([{ "value": false }])),
        ("roles", json!([])),
        ("timezone", json!([{ "value": "UTC" }])),
        ("langcode", json!([{ "value": "de" }])),
        ("preferred_langcode", json!([{ "value": "de" }])),
        ("init", json!([{ "value": "taken@example.com" }])),
        ("created", json!([{ "value": 1 }])),
        ("access", json!([{ "value": 1 }])),
        ("login", json!([{ "value": 1 }])),
    ] {
        let response = fixture.patch(&manager, admin.uid, &json!({ field: given }));
        response.assert_message(403, &format!("Access denied on updating field '{field}'."));
    }
    let response = fixture.delete(&manager, admin.uid);
    response.assert_message(403, "Only an administrator can delete an administrator.");
    let promotion = json!({ "roles": ["administrator"] });
    for uid in [manager.uid, fixture.user(&[]).uid] {
        let message = "Access denied on updating field 'roles'.";
        fixture.patch(&manager, uid, &promotion).assert_message(403, message);
    }
    let mut body = single_value("name", fixture.unique("never"));
    body["roles"] = json!(["administrator"]);
    fixture.post(&manager, &body).assert_message(403, "Access denied on creating field 'roles'.");
    assert_eq!(fixture.get(&admin, 1).status, 200);
}

#[test]
fn blocking_a_user_takes_effect_at_once() {
    let fixture = fixture();
    let user = fixture.user(&["access user profiles"]);
    assert_eq!(fixture.get(&user, 1).status, 200);
    assert_eq!(
        fixture.patch(&fixture.admin(), user.uid, &single_value("status", false)).status,
        200
    );
    fixture.get(&user, 1).assert_error(403, "USER_BLOCKED", "The user is blocked or inactive.");
    assert_eq!(
        fixture.patch(&fixture.admin(), user.uid, &single_value("status", true)).status,
        200
    );
    assert_eq!(fixture.get(&user, 1).status, 200);
    // The removal of a role takes effect at once too.
    assert_eq!(fixture.patch(&fixture.admin(), user.uid, &json!({ "roles": [] })).status, 200);
    assert_eq!(fixture.get(&user, 1).status, 403);
}
