//! Tests of custom fields of the user entity.

use serde_json::json;

use crate::harness::{Server, Site};

const FIELDS: &str = "field_first_name = first_name, field_age: integer = age, field_news: boolean = news, field_tag: string[2] = tags";

fn server() -> Server {
    let site = Site::new().with_env("KEYWARD_ENTITY_USER__FIELDS", FIELDS);
    site.with_env("KEYWARD_ENTITY_USER__OWN_FIELDS", "field_first_name").start()
}

#[test]
fn custom_fields_are_attributes_of_the_user() {
    let server = server();
    let body = json!({
        "name": ["lena"],
        "status": [1],
        "field_first_name": [{ "value": "Lena" }],
        "field_age": ["42"],
        "field_news": [1],
        "field_tag": ["a", { "value": "b" }],
    });
    let created = server.request_as_admin("POST", "/entity/user").json(&body).send();
    assert_eq!(created.status, 201, "{}", created.body);
    let entity = created.json();
    let shown = ["field_age", "field_first_name", "field_news", "field_tag"]
        .map(|name| entity[name].clone());
    let expected = [
        json!([{ "value": 42 }]),
        json!([{ "value": "Lena" }]),
        json!([{ "value": true }]),
        json!([{ "value": "a" }, { "value": "b" }]),
    ];
    assert_eq!(shown, expected);
    let names: Vec<&String> = entity.as_object().unwrap().keys().collect();
    assert_eq!(
        names[names.len() - 5..],
        ["default_langcode", "field_age", "field_first_name", "field_news", "field_tag"]
    );
    let user = server.site.json(&["user", "show", "lena"]);
    let attributes =
        json!({ "age": "42", "first_name": "Lena", "news": "true", "tags": "[\"a\",\"b\"]" });
    assert_eq!(user["attributes"], attributes);
    // An empty field removes the attribute, and the entity can be sent back.
    let uid = user["uid"].as_u64().unwrap();
    let target = format!("/user/{uid}");
    let patch = |body| server.request_as_admin("PATCH", &target).json(&body).send();
    let changed = patch(json!({ "field_tag": [], "field_age": [{ "value": 43 }] }));
    assert_eq!(
        (changed.status, &changed.json()["field_tag"]),
        (200, &json!([])),
        "{}",
        changed.body
    );
    assert_eq!(
        server.site.json(&["user", "show", "lena"])["attributes"],
        json!({ "age": "43", "first_name": "Lena", "news": "true" })
    );

    for (field, message) in [
        (
            json!({ "field_age": ["x"] }),
            "field_age.0.value: This value should be of the correct primitive type.",
        ),
        (
            json!({ "field_age": [1.5] }),
            "field_age.0.value: This value should be of the correct primitive type.",
        ),
        (
            json!({ "field_news": [2] }),
            "field_news.0.value: This value should be of the correct primitive type.",
        ),
        (
            json!({ "field_tag": ["a", "b", "c"] }),
            "field_tag: field_tag: this field cannot hold more than 2 values.",
        ),
        (
            json!({ "field_first_name": ["x".repeat(256)] }),
            "field_first_name.0.value: field_first_name: may not be longer than 255 characters.",
        ),
    ] {
        let refused = patch(field);
        let message = format!("Unprocessable Entity: validation failed.\n{message}\n");
        refused.assert_message(422, &message);
    }
    patch(json!({ "field_last_name": ["x"] }))
        .assert_message(422, "Field field_last_name is unknown.");
    patch(json!({ "field_age": 1 }))
        .assert_message(422, "Field values for \"field_age\" must use an array structure");
}

#[test]
fn users_see_their_custom_fields_and_change_those_of_their_own() {
    let server = server();
    let key = server.user_with_permissions("lena", &["access user profiles"]);
    let other = server.user_with_permissions("mia", &["access user profiles"]);
    let uid = server.site.json(&["user", "show", "lena"])["uid"].as_u64().unwrap();
    let target = format!("/user/{uid}");
    let patch = |credential: &str, body| {
        server.request("PATCH", &target).header("API-KEY", credential).json(&body).send()
    };
    let changed = patch(&key.credential, json!({ "field_first_name": ["Lena"] }));
    assert_eq!(
        (changed.status, &changed.json()["field_first_name"]),
        (200, &json!([{ "value": "Lena" }]))
    );
    patch(&key.credential, json!({ "field_age": [1] }))
        .assert_message(403, "Access denied on updating field 'field_age'.");
    let seen = server.request("GET", &target).header("API-KEY", &other.credential).send();
    assert_eq!(seen.status, 200);
    assert!(seen.json().get("field_first_name").is_none(), "{}", seen.body);
}

#[test]
fn declarations_of_custom_fields_are_checked() {
    for (fields, own, message) in [
        ("name = a", "", "does not have the name of a custom field"),
        ("field_a = a, field_a = b", "", "declared twice"),
        ("field_a = a, field_b = a", "", "the attribute of an earlier field"),
        ("field_a: date = a", "", "a type that does not exist"),
        ("field_a", "", "names no attribute"),
        ("field_a = a", "field_b", "Field 1 is not a custom field"),
    ] {
        let site = Site::new()
            .with_env("KEYWARD_ENTITY_USER__FIELDS", fields)
            .with_env("KEYWARD_ENTITY_USER__OWN_FIELDS", own);
        let output = site.run(&["config", "check"]);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(message), "{fields}: {text}");
    }
    let site = Site::new().with_env("KEYWARD_ENTITY_USER__FIELDS", FIELDS);
    assert!(site.run(&["config", "check"]).status.success());
}
