//! Tests of the structure of a request body: the forms of a field, and the fields that a request
//! may have.

use serde_json::json;

use super::{fixture, single_value, value};

#[test]
fn a_field_must_be_an_array_or_an_object() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    for scalar in [json!("x"), json!(7), json!(true), json!(null)] {
        let message = "Field values for \"name\" must use an array structure";
        let body = json!({ "name": scalar });
        fixture.post(&fixture.admin(), &body).assert_message(422, message);
        fixture.patch(&fixture.admin(), uid, &body).assert_message(422, message);
    }
    for field in ["mail", "status", "roles", "pass", "created", "uid"] {
        let message = format!("Field values for \"{field}\" must use an array structure");
        fixture.patch(&fixture.admin(), uid, &json!({ field: "x" })).assert_message(422, &message);
    }
}

#[test]
fn a_field_with_two_values_is_rejected() {
    let fixture = fixture();
    let body = json!({ "name": [{ "value": "a" }, { "value": "b" }] });
    let message = "name: Name: this field cannot hold more than 1 values.";
    fixture.post(&fixture.admin(), &body).assert_violations(&[message]);
    let uid = fixture.user(&[]).uid;
    fixture.patch(&fixture.admin(), uid, &body).assert_violations(&[message]);
    for (field, label) in [
        ("mail", "Email"),
        ("pass", "Password"),
        ("timezone", "Timezone"),
        ("status", "User status"),
        ("created", "Created"),
        ("langcode", "Language code"),
    ] {
        let message = format!("{field}: {label}: this field cannot hold more than 1 values.");
        let body = json!({ field: [1, 1] });
        fixture.patch(&fixture.admin(), uid, &body).assert_violations(&[&message]);
    }
}

#[test]
fn an_unknown_field_is_rejected() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    for name in ["foo", "Name", "name ", "user_picture", "password", "_links", ""] {
        let message = format!("Field {name} is unknown.");
        let mut body = single_value("name", fixture.unique("unknown"));
        body[name] = json!([{ "value": "x" }]);
        fixture.post(&fixture.admin(), &body).assert_message(422, &message);
        fixture.patch(&fixture.admin(), uid, &body).assert_message(422, &message);
    }
}

#[test]
fn an_unknown_property_is_rejected() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    for (body, property) in [
        (json!({ "name": [{ "foo": "x" }] }), "foo"),
        (json!({ "name": { "value": "x", "0": "y" } }), "0"),
        (json!({ "name": [["x"]] }), "0"),
        (json!({ "pass": [{ "value": "x", "pre_hashed": true }] }), "pre_hashed"),
        (json!({ "pass": [{ "hashed": "x" }] }), "hashed"),
        (json!({ "roles": [{ "value": "x" }] }), "value"),
        (json!({ "name": [{ "value": "x", "existing": "y" }] }), "existing"),
    ] {
        let message = format!("Property {property} is unknown.");
        fixture.patch(&fixture.admin(), uid, &body).assert_message(422, &message);
    }
}

#[test]
fn a_value_of_another_type_is_rejected() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    let message = "This value should be of the correct primitive type.";
    for (field, given) in [
        ("name", json!(true)),
        ("name", json!({})),
        ("name", json!(["x"])),
        ("mail", json!([])),
        ("status", json!("on")),
        ("timezone", json!(false)),
        ("pass", json!(["x"])),
        ("created", json!(true)),
    ] {
        let violation = format!("{field}.0.value: {message}");
        fixture
            .patch(&fixture.admin(), uid, &single_value(field, given))
            .assert_violations(&[&violation]);
    }
    let violation = format!("roles.0.target_id: {message}");
    fixture
        .patch(&fixture.admin(), uid, &json!({ "roles": [true] }))
        .assert_violations(&[&violation]);
    let violation = format!("pass.0.existing: {message}");
    let body = json!({ "pass": [{ "existing": [] }] });
    fixture.patch(&fixture.admin(), uid, &body).assert_violations(&[&violation]);
    // A text field accepts a number, because some clients cannot send a number as text.
    let number = 700_000 + uid;
    let entity = fixture.patch(&fixture.admin(), uid, &single_value("name", number)).entity(200);
    assert_eq!(value(&entity, "name"), &json!(number.to_string()));
}

#[test]
fn a_time_is_a_unix_timestamp_or_an_iso_8601_text() {
    let fixture = fixture();
    let uid = fixture.user(&[]).uid;
    for (sent, expected) in [
        (json!(0), "1970-01-01T00:00:00+00:00"),
        (json!("0"), "1970-01-01T00:00:00+00:00"),
        (json!(-1), "1969-12-31T23:59:59+00:00"),
        (json!("2026-11-24T10:00:00Z"), "2026-11-24T10:00:00+00:00"),
        (json!("2026-11-24T10:00:00+02:00"), "2026-11-24T08:00:00+00:00"),
        (json!("2026-11-24T10:00:00+0200"), "2026-11-24T08:00:00+00:00"),
    ] {
        let entity = fixture
            .patch(&fixture.admin(), uid, &single_value("created", sent.clone()))
            .entity(200);
        assert_eq!(value(&entity, "created"), &json!(expected), "{sent}");
    }
    for bad in ["yesterday", "2026-11-24", "2026-13-01T00:00:00Z", "99999999999999", "1e3"] {
        let message = format!(
            "The specified date \"{bad}\" is not in an accepted format: \"U\" (UNIX timestamp), \"Y-m-d\\TH:i:sO\" (ISO 8601), \"Y-m-d\\TH:i:sP\" (RFC 3339)."
        );
        fixture
            .patch(&fixture.admin(), uid, &single_value("created", bad))
            .assert_message(422, &message);
    }
    let body = json!({ "created": [] });
    fixture
        .patch(&fixture.admin(), uid, &body)
        .assert_violations(&["created: This value should not be null."]);
}

/// A request for a new user may not have the fields that the server sets.
#[test]
fn fields_set_by_the_server_cannot_be_created() {
    let fixture = fixture();
    for (field, given) in [
        ("uid", json!([{ "value": 7 }])),
        ("uid", json!([{ "value": null }])),
        ("uid", json!([])),
        ("uuid", json!([{ "value": "0198c5a0-0000-7000-8000-000000000000" }])),
        ("changed", json!([{ "value": 1 }])),
        ("default_langcode", json!([{ "value": false }])),
    ] {
        let mut body = single_value("name", fixture.unique("never"));
        body[field] = given;
        let response = fixture.post(&fixture.admin(), &body);
        response.assert_message(403, &format!("Access denied on creating field '{field}'."));
    }
}

/// The checks come in this order: structure, access, values.
#[test]
fn structure_is_checked_before_access_and_access_before_values() {
    let fixture = fixture();
    let caller = fixture.user(&[]);
    let message = "Access denied on updating field 'status'.";
    fixture
        .patch(&caller, caller.uid, &json!({ "status": ["maybe"] }))
        .assert_message(403, message);
    fixture.patch(&caller, caller.uid, &json!({ "status": [1, 1] })).assert_message(403, message);
    let body = json!({ "status": ["maybe"], "foo": [] });
    fixture.patch(&caller, caller.uid, &body).assert_message(422, "Field foo is unknown.");
    let body = json!({ "name": [""], "uid": [7] });
    fixture
        .post(&fixture.admin(), &body)
        .assert_message(403, "Access denied on creating field 'uid'.");
}

#[test]
fn the_last_of_two_equal_field_names_counts() {
    let fixture = fixture();
    let (first, last) = (fixture.unique("first"), fixture.unique("last"));
    let body = format!(r#"{{"name":["{first}"],"name":["{last}"]}}"#);
    let request = fixture.request_as(&fixture.admin(), "POST", "/entity/user");
    let response = request.header("Content-Type", "application/json").body(body).send();
    assert_eq!(value(&response.entity(201), "name"), &json!(last));
}
