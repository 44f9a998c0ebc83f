//! `GET /user/{uid}`: the exact shape, and who sees what.

use serde_json::{Value, json};

use super::{World, names, one, value, world};
use crate::harness::exchange;

const FULL: [&str; 16] = [
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

/// A user with a value in each field, and what an administrator was told of it.
fn whole(world: &World) -> (u64, Value) {
    let mail = format!("{}@example.com", world.fresh("whole"));
    let body = json!({
        "name": [{ "value": world.fresh("Llama") }],
        "mail": [{ "value": mail }],
        "preferred_langcode": [{ "value": "fr" }],
        "preferred_admin_langcode": [{ "value": "de" }],
        "timezone": [{ "value": "Europe/Berlin" }],
        "status": [{ "value": true }],
        "created": [{ "value": 123_456_789 }],
        "roles": [{ "target_id": world.role(&[]) }],
    });
    let entity = world.post(&world.admin(), &body).entity(201);
    (value(&entity, "uid").as_u64().unwrap(), entity)
}

#[test]
fn the_short_form_is_exact() {
    let world = world();
    let viewer = world.person(&["access user profiles"]);
    let (uid, full) = whole(&world);
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
    let answer = world.get(&viewer, uid);
    assert_eq!((answer.status, answer.body), (200, expected));
}

#[test]
fn the_full_form_is_exact() {
    let world = world();
    let (uid, full) = whole(&world);
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
    for reader in [world.admin(), world.person(&["administer users"])] {
        let answer = world.get(&reader, uid);
        assert_eq!((answer.status, answer.body.as_str()), (200, expected.as_str()));
    }
    assert_eq!(names(&full), FULL);
}

/// Fields without a value are there, and empty.
#[test]
fn the_barest_user_has_all_fields() {
    let world = world();
    let entity = world.post(&world.admin(), &one("name", world.fresh("bare"))).entity(201);
    assert_eq!(names(&entity), FULL);
    let empty = entity.as_object().unwrap().iter().filter(|(_, items)| **items == json!([]));
    let empty: Vec<&str> = empty.map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        empty,
        ["preferred_langcode", "preferred_admin_langcode", "mail", "timezone", "init", "roles"]
    );
    // A time stamp is now, in UTC, in whole seconds.
    let at = value(&entity, "created").as_str().unwrap();
    let now = keyward::model::Clock::system().now();
    let made = keyward::model::Timestamp::parse(at).unwrap();
    assert!((0..60).contains(&(now.0 - made.0)), "{at}");
    assert_eq!((at.len(), &at[19..]), (25, "+00:00"));
}

#[test]
fn a_mail_address_takes_a_permission_of_its_own() {
    let world = world();
    let (uid, full) = whole(&world);
    let reader = world.person(&["access user profiles", "view user email addresses"]);
    let entity = world.get(&reader, uid).entity(200);
    assert_eq!(
        names(&entity),
        ["uid", "uuid", "langcode", "name", "mail", "created", "changed", "default_langcode"]
    );
    assert_eq!(entity["mail"], full["mail"]);
    // By itself it opens nothing.
    let reader = world.person(&["view user email addresses"]);
    world.get(&reader, uid).says(403, "The 'access user profiles' permission is required.");
}

#[test]
fn each_viewer_gets_its_own_view_however_often_and_whoever_looked_before() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("seen"));
    let own = world.person_with(json!({ "mail": mail, "timezone": "UTC" }), &[]);
    let others = [
        (world.admin(), 16),
        (world.person(&["access user profiles", "view user email addresses"]), 8),
        (world.person(&["access user profiles"]), 7),
    ];
    for _ in 0..3 {
        assert_eq!(names(&world.get(&own, own.uid).entity(200)).len(), 11);
        for (viewer, fields) in &others {
            let entity = world.get(viewer, own.uid).entity(200);
            assert_eq!(names(&entity).len(), *fields, "{entity}");
            assert_eq!(value(&entity, "name"), &json!(own.name));
        }
    }
    // After a change nobody gets what was made before.
    let changed = world.fresh("changed");
    world.patch(&world.admin(), own.uid, &one("name", &*changed)).entity(200);
    for (viewer, fields) in &others {
        let entity = world.get(viewer, own.uid).entity(200);
        assert_eq!((value(&entity, "name"), names(&entity).len()), (&json!(changed), *fields));
    }
}

#[test]
fn ones_own_account_shows_more() {
    let world = world();
    let mail = format!("{}@example.com", world.fresh("own"));
    let own = world.person_with(json!({ "mail": mail, "timezone": "UTC" }), &[]);
    let entity = world.get(&own, own.uid).entity(200);
    assert_eq!(
        names(&entity),
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
fn the_permission_is_required() {
    let world = world();
    let other = world.person(&[]);
    for permissions in [&[][..], &["change own username", "cancel account"]] {
        let answer = world.get(&world.person(permissions), other.uid);
        answer.says(403, "The 'access user profiles' permission is required.");
    }
}

#[test]
fn a_blocked_user_is_shown_to_those_who_administer_users() {
    let world = world();
    let blocked = world.person_with(json!({ "active": false }), &[]);
    let said = "The 'access user profiles' permission is required and the user must be active.";
    world.get(&world.person(&["access user profiles"]), blocked.uid).says(403, said);
    // Without the permission nobody is told whether it is blocked.
    let said = "The 'access user profiles' permission is required.";
    world.get(&world.person(&[]), blocked.uid).says(403, said);
    let manager = world.person(&["administer users"]);
    let entity = world.get(&manager, blocked.uid).entity(200);
    assert_eq!(value(&entity, "status"), &json!(false));
}

#[test]
fn a_user_who_does_not_exist() {
    let world = world();
    let nobody = world.person(&[]);
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
            let asked = world.asks(&nobody, method, &format!("/user/{uid}?_format=json"));
            let answer = asked.json(&json!({})).send();
            if method == "HEAD" {
                assert_eq!((answer.status, answer.body.as_str()), (404, ""), "{uid}");
                continue;
            }
            answer.says(
                404,
                &format!("The \"user\" parameter was not converted for the path \"/user/{{user}}\" (route name: \"rest.entity.user.{route}\")"),
            );
        }
    }
}

#[test]
fn the_roles_that_everybody_has_are_not_listed() {
    let world = world();
    let role = world.role(&[]);
    let mut body = one("name", world.fresh("roles"));
    body["roles"] = json!(["authenticated", role, "authenticated", role]);
    let entity = world.post(&world.admin(), &body).entity(201);
    let ids: Vec<_> = entity["roles"].as_array().unwrap().iter().collect();
    assert_eq!(ids.len(), 1, "{entity}");
    assert_eq!(ids[0]["target_id"], json!(role));
    // Nobody who is known is anonymous.
    let mut body = one("name", world.fresh("roles"));
    body["roles"] = json!(["anonymous"]);
    world.post(&world.admin(), &body).finds(&[
        "roles.0.target_id: The referenced entity (user_role: anonymous) does not exist.",
    ]);
}

#[test]
fn a_password_is_never_shown() {
    let world = world();
    world.server.hide("first secret of theirs");
    world.server.hide("second secret of theirs");
    let mut body = one("name", world.fresh("secret"));
    body["pass"] = json!([{ "value": "first secret of theirs" }]);
    let made = world.post(&world.admin(), &body);
    let uid = value(&made.entity(201), "uid").as_u64().unwrap();
    let pass = json!({ "pass": [{ "value": "second secret of theirs" }] });
    let changed = world.patch(&world.admin(), uid, &pass);
    for answer in [made, changed, world.get(&world.admin(), uid)] {
        assert!(answer.json().get("pass").is_none(), "{}", answer.body);
        for secret in ["secret of theirs", "argon2"] {
            assert!(!answer.body.contains(secret), "{}", answer.body);
        }
    }
}

#[test]
fn head_is_get_without_the_body() {
    let world = world();
    let (uid, _) = whole(&world);
    let head = |method: &str, target: &str| {
        let mut answer = world.asks(&world.admin(), method, target).send();
        answer.headers.retain(|(name, _)| name != "date");
        answer.headers.sort();
        answer
    };
    for target in [format!("/user/{uid}?_format=json"), "/user/0".into()] {
        let (with, without) = (head("GET", &target), head("HEAD", &target));
        assert_eq!(with.status, without.status, "{target}");
        assert_eq!(without.body, "", "{target}");
        let length = with.body.len().to_string();
        assert_eq!(without.header("content-length"), Some(length.as_str()), "{target}");
        assert_eq!(with.headers, without.headers, "{target}");
    }
}

/// An answer for one is not kept for another.
#[test]
fn an_entity_is_not_for_shared_caches() {
    let world = world();
    let answer = world.get(&world.admin(), 1);
    assert_eq!(answer.header("cache-control"), Some("no-cache, private"));
}

#[test]
fn every_spelling_of_the_path_shows_the_same() {
    let world = world();
    let plain = world.get(&world.admin(), 1);
    for target in ["/user/%31", "//user/1", "/./user/1", "/x/../user/1", "/%75ser/1"] {
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: {}\r\nAPI-KEY: {}\r\nConnection: close\r\n\r\n",
            world.server.public,
            world.admin().credential
        );
        let answer = exchange(world.server.public, head.as_bytes());
        assert_eq!(answer.body, plain.body, "{target}");
    }
}
