//! Methods, content types and formats: 405, 415, 406.

use super::{one, world};

#[test]
fn a_method_that_is_not_there() {
    let world = world();
    let origin = world.origin();
    for (method, target, path, allow) in [
        ("PUT", "/user/1?_format=json", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("POST", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("OPTIONS", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("TRACE", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("get", "/user/1", "/user/1", "GET, PATCH, DELETE, HEAD"),
        ("PURGE", "/user/999999", "/user/999999", "GET, PATCH, DELETE, HEAD"),
        ("GET", "/entity/user?_format=json", "/entity/user", "POST"),
        ("PATCH", "/entity/user", "/entity/user", "POST"),
        ("DELETE", "/entity/user", "/entity/user", "POST"),
        ("OPTIONS", "//entity/./user", "/entity/user", "POST"),
    ] {
        let answer = world.asks(&world.admin(), method, target).send();
        answer.says(
            405,
            &format!("No route found for \"{method} {origin}{path}\": Method Not Allowed (Allow: {allow})"),
        );
        assert_eq!(answer.header("allow"), Some(allow), "{method} {target}");
    }
    let head = world.asks(&world.admin(), "HEAD", "/entity/user").send();
    assert_eq!((head.status, head.header("allow")), (405, Some("POST")));
}

#[test]
fn a_path_that_leads_nowhere() {
    let world = world();
    let origin = world.origin();
    for path in [
        "/",
        "/user",
        "/user/",
        "/user/1/",
        "/user/1/edit",
        "/entity",
        "/entity/user/1",
        "/User/1",
        "/users/1",
    ] {
        for method in ["GET", "POST"] {
            let answer = world.asks(&world.admin(), method, &format!("{path}?_format=json")).send();
            answer.says(404, &format!("No route found for \"{method} {origin}{path}\""));
        }
    }
}

#[test]
fn no_content_type() {
    let world = world();
    let said = "No \"Content-Type\" request header specified";
    let uid = world.person(&[]).uid;
    for (method, target) in [("POST", "/entity/user".into()), ("PATCH", format!("/user/{uid}"))] {
        let asked = || world.asks(&world.admin(), method, &target);
        asked().body("{}").send().says(415, said);
        asked().send().says(415, said);
    }
}

#[test]
fn another_content_type() {
    let world = world();
    for given in [
        "text/xml",
        "application/hal+json",
        "application/jsonx",
        "json",
        "*/*",
        "text/xml; application/json",
        "application/json, text/xml",
        "",
    ] {
        let asked = world.asks(&world.admin(), "POST", "/entity/user");
        let answer = asked.header("Content-Type", given).body("{}").send();
        answer.says(415, &format!("No route found that matches \"Content-Type: {given}\""));
    }
    let asked = world.asks(&world.admin(), "PATCH", "/user/1");
    let answer = asked.header("Content-Type", "text/xml").body("<a/>").send();
    answer.says(415, "No route found that matches \"Content-Type: text/xml\"");
    // Two are not one of them.
    let asked = world.asks(&world.admin(), "POST", "/entity/user");
    let twice = asked.header("Content-Type", "application/json");
    let answer = twice.header("Content-Type", "application/json").body("{}").send();
    assert_eq!(answer.status, 415);
}

#[test]
fn json_is_json_with_parameters_too() {
    let world = world();
    for given in [
        "application/json; charset=utf-8",
        "APPLICATION/JSON",
        "application/json;",
        " application/json ",
    ] {
        let asked = world.asks(&world.admin(), "POST", "/entity/user");
        let body = one("name", world.fresh("typed")).to_string();
        let answer = asked.header("Content-Type", given).body(body).send();
        assert_eq!(answer.status, 201, "{given}: {}", answer.body);
    }
    // What has no body needs no type.
    let asked = world.asks(&world.admin(), "GET", "/user/1");
    assert_eq!(asked.header("Content-Type", "text/xml").send().status, 200);
}

#[test]
fn another_format() {
    let world = world();
    let said = "No route found for the specified format. Supported formats: json.";
    for query in [
        "_format=xml",
        "_format=hal_json",
        "_format=JSON",
        "_format=",
        "_format=html&a=1",
        "_format=json&_format=xml",
        "%5Fformat=xml",
        "_format=any",
    ] {
        let answer = world.asks(&world.admin(), "GET", &format!("/user/1?{query}")).send();
        answer.says(406, said);
        let asked = world.asks(&world.admin(), "POST", &format!("/entity/user?{query}"));
        asked.json(&one("name", world.fresh("never"))).send().says(406, said);
    }
}

#[test]
fn json_is_the_format_when_none_is_asked_for() {
    let world = world();
    for query in [
        "",
        "?",
        "?_format=json",
        "?a=1&_format=json",
        "?_format=xml&_format=json",
        "?format=xml",
        "?_FORMAT=xml",
        "?x_format=xml",
    ] {
        let answer = world.asks(&world.admin(), "GET", &format!("/user/1{query}")).send();
        answer.entity(200);
    }
    let asked = world.asks(&world.admin(), "GET", "/user/1");
    asked.header("Accept", "text/html").send().entity(200);
}
