//! Tests of `GET /user/{uid}`: the exact text of the entity, and the fields that each viewer sees.

use serde_json::{Value, json};

use super::{Fixture, field_names, fixture, single_value, value};
use crate::harness::exchange;

const ALL_FIELDS: [&str; 16] = [
    "uid",
    "uuid",
    "langcode",
    "preferred_langcode",
    "preferred_admin_langcode",
    "name",
    "mail",
    "timezone",
    "status",
    "created",
    "changed",
    "access",
    "login",
    "init",
    "roles",
    "default_langcode",
];

/// Creates a user with a value in each field. Returns the UID, and the entity as an administrator
/// sees it.
fn complete_user(fixture: &Fixture) -> (u64, Value) {
    let mail = format!("{}@example.com", fixture.unique("complete"));
    let body = json!({
        "name": [{ "value": fixture.unique("Llama") }],
        "mail": [{ "value": mail }],
        "preferred_langcode": [{ "value": "fr" }],
        "preferred_admin_langcode": [{ "value": "de" }],
        "timezone": [{ "value": "Europe/Berlin" }],
        "status": [{ "value": true }],
        "created": [{ "value": 123_456_789 }],
        "roles": [{ "target_id": fixture.role(&[]) }],
    });
    let entity = fixture.post(&fixture.admin(), &body).entity(201);
    (value(&entity, "uid").as_u64().unwrap(), entity)
}

#[test]
fn the_short_form_is_exact() {
    let fixture = fixture();
    let viewer = fixture.user(&["access user profiles"]);
    let (uid, full) = complete_user(&fixture);
    let text = |field| value(&full, field).as_str().unwrap().to_owned();
    let expected = format!(
        concat!(
            r#"{{"uid":[{{"value":{}}}],"uuid":[{{"value":"{}"}}],"langcode":[{{"value":"en"}}],"#,
            r#""name":[{{"value":"{}"}}],"#,
            r#""created":[{{"value":"1973-11-29T21:33:09+00:00","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""changed":[{{"value":"{}","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""default_langcode":[{{"value":true}}]}}"#
        ),
        uid,
        text("uuid"),
        text("name"),
        text("changed"),
    );
    let response = fixture.get(&viewer, uid);
    assert_eq!((response.status, response.body), (200, expected));
}

#[test]
fn the_full_form_is_exact() {
    let fixture = fixture();
    let (uid, full) = complete_user(&fixture);
    let text = |field| value(&full, field).as_str().unwrap().to_owned();
    let role = full["roles"][0]["target_id"].as_str().unwrap();
    let expected = format!(
        concat!(
            r#"{{"uid":[{{"value":{uid}}}],"uuid":[{{"value":"{uuid}"}}],"langcode":[{{"value":"en"}}],"#,
            r#""preferred_langcode":[{{"value":"fr"}}],"preferred_admin_langcode":[{{"value":"de"}}],"#,
            r#""name":[{{"value":"{name}"}}],"mail":[{{"value":"{mail}"}}],"#,
            r#""timezone":[{{"value":"Europe/Berlin"}}],"status":[{{"value":true}}],"#,
            r#""created":[{{"value":"1973-11-29T21:33:09+00:00","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""changed":[{{"value":"{changed}","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""access":[{{"value":"1970-01-01T00:00:00+00:00","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""login":[{{"value":"1970-01-01T00:00:00+00:00","format":"Y-m-d\\TH:i:sP"}}],"#,
            r#""init":[{{"value":"{mail}"}}],"#,
            r#""roles":[{{"target_id":"{role}","target_type":"user_role","target_uuid":"{role_uuid}"}}],"#,
            r#""default_langcode":[{{"value":true}}]}}"#
        ),
        uid = uid,
        uuid = text("uuid"),
        name = text("name"),
        mail = text("mail"),
        changed = text("changed"),
        role = role,
        role_uuid = keyward::model::Role::uuid(role),
    );
    for reader in [fixture.admin(), fixture.user(&["administer users"])] {
        let response = fixture.get(&reader, uid);
        assert_eq!((response.status, response.body.as_str()), (200, expected.as_str()));
    }
    assert_eq!(field_names(&full), ALL_FIELDS);
}

/// A field without a value is an empty list.
#[test]
fn a_minimal_user_has_all_fields() {
    let fixture = fixture();
    let entity =
        fixture.post(&fixture.admin(), &single_value("name", fixture.unique("bare"))).entity(201);
    assert_eq!(field_names(&entity), ALL_FIELDS);
    let empty = entity.as_object().unwrap().iter().filter(|(_, items)| **items == json!([]));
    let empty: Vec<&str> = empty.map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        empty,
        ["preferred_langcode", "preferred_admin_langcode", "mail", "timezone", "init", "roles"]
    );
    // The field `created` has the current time, in UTC and in whole seconds.
    let text = value(&entity, "created").as_str().unwrap();
    let now = keyward::model::Clock::system().now();
    let created = keyward::model::Timestamp::parse(text).unwrap();
    assert!((0..60).contains(&(now.0 - created.0)), "{text}");
    assert_eq!((text.len(), &text[19..]), (25, "+00:00"));
}

#[test]
fn seeing_a_mail_address_requires_a_separate_permission() {
    let fixture = fixture();
    let (uid, full) = complete_user(&fixture);
    let reader = fixture.user(&["access user profiles", "view user email addresses"]);
    let entity = fixture.get(&reader, uid).entity(200);
    assert_eq!(
        field_names(&entity),
        ["uid", "uuid", "langcode", "name", "mail", "created", "changed", "default_langcode"]
    );
    assert_eq!(entity["mail"], full["mail"]);
    // With only `view user email addresses`, a user cannot read other users.
    let reader = fixture.user(&["view user email addresses"]);
    fixture
        .get(&reader, uid)
        .assert_message(403, "The 'access user profiles' permission is required.");
}

#[test]
fn each_viewer_always_gets_the_fields_for_their_own_permissions() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("seen"));
    let caller = fixture.user_with_record(json!({ "mail": mail, "timezone": "UTC" }), &[]);
    let others = [
        (fixture.admin(), 16),
        (fixture.user(&["access user profiles", "view user email addresses"]), 8),
        (fixture.user(&["access user profiles"]), 7),
    ];
    for _ in 0..3 {
        assert_eq!(field_names(&fixture.get(&caller, caller.uid).entity(200)).len(), 11);
        for (viewer, fields) in &others {
            let entity = fixture.get(viewer, caller.uid).entity(200);
            assert_eq!(field_names(&entity).len(), *fields, "{entity}");
            assert_eq!(value(&entity, "name"), &json!(caller.name));
        }
    }
    // After a change each viewer gets the changed entity.
    let changed = fixture.unique("changed");
    fixture.patch(&fixture.admin(), caller.uid, &single_value("name", &*changed)).entity(200);
    for (viewer, fields) in &others {
        let entity = fixture.get(viewer, caller.uid).entity(200);
        assert_eq!(
            (value(&entity, "name"), field_names(&entity).len()),
            (&json!(changed), *fields)
        );
    }
}

#[test]
fn a_user_sees_more_fields_of_their_own_account() {
    let fixture = fixture();
    let mail = format!("{}@example.com", fixture.unique("own"));
    let caller = fixture.user_with_record(json!({ "mail": mail, "timezone": "UTC" }), &[]);
    let entity = fixture.get(&caller, caller.uid).entity(200);
    assert_eq!(
        field_names(&entity),
        [
            "uid",
            "uuid",
            "langcode",
            "preferred_langcode",
            "preferred_admin_langcode",
            "name",
            "mail",
            "timezone",
            "created",
            "changed",
            "default_langcode"
        ]
    );
    assert_eq!(value(&entity, "mail"), &json!(mail));
}

#[test]
fn reading_another_user_requires_the_permission() {
    let fixture = fixture();
    let other = fixture.user(&[]);
    for permissions in [&[][..], &["change own username", "cancel account"]] {
        let response = fixture.get(&fixture.user(permissions), other.uid);
        response.assert_message(403, "The 'access user profiles' permission is required.");
    }
}

#[test]
fn a_blocked_user_is_shown_only_to_user_managers() {
    let fixture = fixture();
    let blocked = fixture.user_with_record(json!({ "active": false }), &[]);
    let message = "The 'access user profiles' permission is required and the user must be active.";
    fixture.get(&fixture.user(&["access user profiles"]), blocked.uid).assert_message(403, message);
    // The response to a viewer without the permission does not reveal whether the user is blocked.
    let message = "The 'access user profiles' permission is required.";
    fixture.get(&fixture.user(&[]), blocked.uid).assert_message(403, message);
    let manager = fixture.user(&["administer users"]);
    let entity = fixture.get(&manager, blocked.uid).entity(200);
    assert_eq!(value(&entity, "status"), &json!(false));
}

#[test]
fn an_unknown_uid_is_not_found() {
    let fixture = fixture();
    let viewer = fixture.user(&[]);
    for uid in [
        "0",
        "999999",
        "18446744073709551615",
        "18446744073709551616",
        "01",
        "+1",
        "-1",
        "1.0",
        "abc",
        "admin",
        "%20",
        "current",
    ] {
        for (method, route) in
            [("GET", "GET"), ("HEAD", "GET"), ("DELETE", "DELETE"), ("PATCH", "PATCH")]
        {
            let request = fixture.request_as(&viewer, method, &format!("/user/{uid}?_format=json"));
            let response = request.json(&json!({})).send();
            if method == "HEAD" {
                assert_eq!((response.status, response.body.as_str()), (404, ""), "{uid}");
                continue;
            }
            response.assert_message(
                404,
                &format!("The \"user\" parameter was not converted for the path \"/user/{{user}}\" (route name: \"rest.entity.user.{route}\")"),
            );
        }
    }
}

#[test]
fn the_implicit_roles_are_not_listed() {
    let fixture = fixture();
    let role = fixture.role(&[]);
    let mut body = single_value("name", fixture.unique("roles"));
    body["roles"] = json!(["authenticated", role, "authenticated", role]);
    let entity = fixture.post(&fixture.admin(), &body).entity(201);
    let ids: Vec<_> = entity["roles"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 1, "{entity}");
    assert_eq!(ids[0]["target_id"], json!(role));
    // A user cannot have the role `anonymous`.
    let mut body = single_value("name", fixture.unique("roles"));
    body["roles"] = json!(["anonymous"]);
    fixture.post(&fixture.admin(), &body).assert_violations(&[
        "roles.0.target_id: The referenced entity (user_role: anonymous) does not exist.",
    ]);
}

#[test]
fn a_password_is_never_shown() {
    let fixture = fixture();
    fixture.server.forbid_in_log("first secret password");
    fixture.server.forbid_in_log("second secret password");
    let mut body = single_value("name", fixture.unique("secret"));
    body["pass"] = json!([{ "value": "first secret password" }]);
    let created = fixture.post(&fixture.admin(), &body);
    let uid = value(&created.entity(201), "uid").as_u64().unwrap();
    let pass = json!({ "pass": [{ "value": "second secret password" }] });
    let changed = fixture.patch(&fixture.admin(), uid, &pass);
    for response in [created, changed, fixture.get(&fixture.admin(), uid)] {
        assert!(response.json().get("pass").is_none(), "{}", response.body);
        for secret in ["secret password", "argon2"] {
            assert!(!response.body.contains(secret), "{}", response.body);
        }
    }
}

#[test]
fn head_responds_like_get_without_the_body() {
    let fixture = fixture();
    let (uid, _) = complete_user(&fixture);
    let send_sorted = |method: &str, target: &str| {
        let mut response = fixture.request_as(&fixture.admin(), method, target).send();
        response.headers.retain(|(name, _)| name != "date");
        response.headers.sort();
        response
    };
    for target in [format!("/user/{uid}?_format=json"), "/user/0".into()] {
        let (get, head) = (send_sorted("GET", &target), send_sorted("HEAD", &target));
        assert_eq!(get.status, head.status, "{target}");
        assert_eq!(head.body, "", "{target}");
        let length = get.body.len().to_string();
        assert_eq!(head.header("content-length"), Some(length.as_str()), "{target}");
        assert_eq!(get.headers, head.headers, "{target}");
    }
}

/// A shared cache must not serve one user's response to another user.
#[test]
fn an_entity_is_not_stored_by_shared_caches() {
    let fixture = fixture();
    let response = fixture.get(&fixture.admin(), 1);
    assert_eq!(response.header("cache-control"), Some("no-cache, private"));
}

#[test]
fn every_spelling_of_the_path_gets_the_same_entity() {
    let fixture = fixture();
    let expected = fixture.get(&fixture.admin(), 1);
    for target in ["/user/%31", "//user/1", "/./user/1", "/x/../user/1", "/%75ser/1"] {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nAPI-KEY: {}\r\nConnection: close\r\n\r\n",
            fixture.server.public,
            fixture.admin().credential
        );
        let response = exchange(fixture.server.public, head.as_bytes());
        assert_eq!(response.body, expected.body, "{target}");
    }
}
