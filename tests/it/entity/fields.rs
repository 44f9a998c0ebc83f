//! The structure of a request: what a field may look like, and which ones may be given at all.

use serde_json::json;

use super::{one, value, world};

#[test]
fn a_bare_value_is_no_field() {
    let world = world();
    let uid = world.person(&[]).uid;
    for bare in [json!("x"), json!(7), json!(true), json!(null)] {
        let said = "Field values for \"name\" must use an array structure";
        let body = json!({ "name": bare });
        world.post(&world.admin(), &body).says(422, said);
        world.patch(&world.admin(), uid, &body).says(422, said);
    }
    for field in ["mail", "status", "roles", "pass", "created", "uid"] {
        let said = format!("Field values for \"{field}\" must use an array structure");
        world.patch(&world.admin(), uid, &json!({ field: "x" })).says(422, &said);
    }
}

#[test]
fn two_values_are_too_many() {
    let world = world();
    let body = json!({ "name": [{ "value": "a" }, { "value": "b" }] });
    let said = "name: Name: this field cannot hold more than 1 values.";
    world.post(&world.admin(), &body).finds(&[said]);
    let uid = world.person(&[]).uid;
    world.patch(&world.admin(), uid, &body).finds(&[said]);
    for (field, label) in [
        ("mail", "Email"),
        ("pass", "Password"),
        ("timezone", "Timezone"),
        ("status", "User status"),
        ("created", "Created"),
        ("langcode", "Language code"),
    ] {
        let said = format!("{field}: {label}: this field cannot hold more than 1 values.");
        let body = json!({ field: [1, 1] });
        world.patch(&world.admin(), uid, &body).finds(&[&said]);
    }
}

#[test]
fn a_field_that_does_not_exist() {
    let world = world();
    let uid = world.person(&[]).uid;
    for name in ["foo", "Name", "name ", "user_picture", "password", "_links", ""] {
        let said = format!("Field {name} is unknown.");
        let mut body = one("name", world.fresh("unknown"));
        body[name] = json!([{ "value": "x" }]);
        world.post(&world.admin(), &body).says(422, &said);
        world.patch(&world.admin(), uid, &body).says(422, &said);
    }
}

#[test]
fn a_property_that_does_not_exist() {
    let world = world();
    let uid = world.person(&[]).uid;
    for (body, property) in [
        (json!({ "name": [{ "foo": "x" }] }), "foo"),
        (json!({ "name": { "value": "x", "0": "y" } }), "0"),
        (json!({ "name": [["x"]] }), "0"),
        (json!({ "pass": [{ "value": "x", "pre_hashed": true }] }), "pre_hashed"),
        (json!({ "pass": [{ "hashed": "x" }] }), "hashed"),
        (json!({ "roles": [{ "value": "x" }] }), "value"),
        (json!({ "name": [{ "value": "x", "existing": "y" }] }), "existing"),
    ] {
        let said = format!("Property {property} is unknown.");
        world.patch(&world.admin(), uid, &body).says(422, &said);
    }
}

#[test]
fn a_value_of_another_kind() {
    let world = world();
    let uid = world.person(&[]).uid;
    let said = "This value should be of the correct primitive type.";
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
        let fault = format!("{field}.0.value: {said}");
        world.patch(&world.admin(), uid, &one(field, given)).finds(&[&fault]);
    }
    let fault = format!("roles.0.target_id: {said}");
    world.patch(&world.admin(), uid, &json!({ "roles": [true] })).finds(&[&fault]);
    let fault = format!("pass.0.existing: {said}");
    let body = json!({ "pass": [{ "existing": [] }] });
    world.patch(&world.admin(), uid, &body).finds(&[&fault]);
    // A number is text to clients without types.
    let number = 700_000 + uid;
    let entity = world.patch(&world.admin(), uid, &one("name", number)).entity(200);
    assert_eq!(value(&entity, "name"), &json!(number.to_string()));
}

#[test]
fn a_time_has_two_forms() {
    let world = world();
    let uid = world.person(&[]).uid;
    for (sent, at) in [
        (json!(0), "1970-01-01T00:00:00+00:00"),
        (json!("0"), "1970-01-01T00:00:00+00:00"),
        (json!(-1), "1969-12-31T23:59:59+00:00"),
        (json!("2026-11-24T10:00:00Z"), "2026-11-24T10:00:00+00:00"),
        (json!("2026-11-24T10:00:00+02:00"), "2026-11-24T08:00:00+00:00"),
        (json!("2026-11-24T10:00:00+0200"), "2026-11-24T08:00:00+00:00"),
    ] {
        let entity = world.patch(&world.admin(), uid, &one("created", sent.clone())).entity(200);
        assert_eq!(value(&entity, "created"), &json!(at), "{sent}");
    }
    for bad in ["yesterday", "2026-11-24", "2026-13-01T00:00:00Z", "99999999999999", "1e3"] {
        let said = format!(
            "The specified date \"{bad}\" is not in an accepted format: \"U\" (UNIX timestamp), \"Y-m-d\\TH:i:sO\" (ISO 8601), \"Y-m-d\\TH:i:sP\" (RFC 3339)."
        );
        world.patch(&world.admin(), uid, &one("created", bad)).says(422, &said);
    }
    let body = json!({ "created": [] });
    world.patch(&world.admin(), uid, &body).finds(&["created: This value should not be null."]);
}

/// What the server gives, a new account cannot bring.
#[test]
fn some_fields_cannot_be_created() {
    let world = world();
    for (field, given) in [
        ("uid", json!([{ "value": 7 }])),
        ("uid", json!([{ "value": null }])),
        ("uid", json!([])),
        ("uuid", json!([{ "value": "0198c5a0-0000-7000-8000-000000000000" }])),
        ("changed", json!([{ "value": 1 }])),
        ("default_langcode", json!([{ "value": false }])),
    ] {
        let mut body = one("name", world.fresh("never"));
        body[field] = given;
        let answer = world.post(&world.admin(), &body);
        answer.says(403, &format!("Access denied on creating field '{field}'."));
    }
}

/// Access is asked before a value is looked at, and a structure is read before either.
#[test]
fn the_first_thing_that_is_wrong_is_told() {
    let world = world();
    let own = world.person(&[]);
    let said = "Access denied on updating field 'status'.";
    world.patch(&own, own.uid, &json!({ "status": ["maybe"] })).says(403, said);
    world.patch(&own, own.uid, &json!({ "status": [1, 1] })).says(403, said);
    let body = json!({ "status": ["maybe"], "foo": [] });
    world.patch(&own, own.uid, &body).says(422, "Field foo is unknown.");
    let body = json!({ "name": [""], "uid": [7] });
    world.post(&world.admin(), &body).says(403, "Access denied on creating field 'uid'.");
}

/// Of a name that comes twice the last one counts.
#[test]
fn a_field_that_comes_twice() {
    let world = world();
    let (first, last) = (world.fresh("twice"), world.fresh("twice"));
    let body = format!(r#"{{"name":["{first}"],"name":["{last}"]}}"#);
    let asked = world.asks(&world.admin(), "POST", "/entity/user");
    let answer = asked.header("Content-Type", "application/json").body(body).send();
    assert_eq!(value(&answer.entity(201), "name"), &json!(last));
}
