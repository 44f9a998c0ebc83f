//! The handler `respond`: a fixed answer behind the same Gate.

use serde_json::{Value, json};

use super::World;
use crate::harness::{Request, Server};

/// A world with one resource.
fn with(resource: Value) -> World {
    let world = World::new(Server::new());
    let mut whole = json!({
        "id": "motd", "handler": "respond", "granularity": "resource",
        "methods": ["GET"], "formats": ["any"], "authentication": ["*"],
    });
    whole.as_object_mut().unwrap().extend(resource.as_object().unwrap().clone());
    world.manages("POST", "/api/v1/resources", &whole);
    world
}

#[test]
fn it_answers_what_is_configured() {
    let world = with(json!({
        "path": "/motd",
        "respond": { "status": 203, "content_type": "text/plain; charset=utf-8", "body": "Grüße\n" },
    }));
    let answer = world.asks(&world.admin(), "GET", "/motd").send();
    assert_eq!((answer.status, answer.body.as_str()), (203, "Grüße\n"));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    let head = world.asks(&world.admin(), "HEAD", "/motd").send();
    assert_eq!((head.status, head.body.as_str()), (203, ""));
    assert_eq!(head.header("content-length"), Some("8"));
    // A change is in force with the next request.
    let change = json!({ "respond": { "status": 200, "body": "other" } });
    world.manages("PATCH", "/api/v1/resources/motd", &change);
    let answer = world.asks(&world.admin(), "GET", "/motd").send();
    assert_eq!((answer.status, answer.body.as_str()), (200, "other"));
}

#[test]
fn it_answers_with_json_and_nothing_by_default() {
    let world = with(json!({ "path": "/empty" }));
    let answer = world.asks(&world.admin(), "GET", "/empty").send();
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-type"), Some("application/json"));
}

#[test]
fn it_is_guarded_like_everything() {
    let world = with(json!({
        "path": "/motd", "methods": ["GET", "POST"],
        "permissions": { "GET": ["read it"], "POST": ["read it", "write it"] },
    }));
    let asked = world.server.request("GET", "/motd").send();
    asked.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    let (nobody, reader) = (world.person(&[]), world.person(&["read it"]));
    world.asks(&nobody, "GET", "/motd").send().says(403, "The 'read it' permission is required.");
    assert_eq!(world.asks(&reader, "GET", "/motd").send().status, 200);
    world.asks(&reader, "POST", "/motd").send().says(403, "The 'write it' permission is required.");
    let writer = world.person(&["read it", "write it"]);
    assert_eq!(world.asks(&writer, "POST", "/motd").send().status, 200);
    let answer = world.asks(&writer, "PUT", "/motd").send();
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, POST, HEAD")));
    world.manages("PATCH", "/api/v1/resources/motd", &json!({ "enabled": false }));
    let said = format!("No route found for \"GET {}/motd\"", world.origin());
    world.asks(&writer, "GET", "/motd").send().says(404, &said);
}

#[test]
fn it_is_open_where_anonymous_is_listed() {
    let world = with(json!({ "path": "/open", "authentication": ["anonymous"] }));
    assert_eq!(world.server.request("GET", "/open").send().status, 200);
    // An application that is not listed is not let in, not even with a good key.
    let said = "The used authentication method is not allowed on this route.";
    world.asks(&world.admin(), "GET", "/open").send().says(403, said);
}

#[test]
fn its_formats_are_those_of_the_resource() {
    let world = with(json!({
        "path": "/form", "methods": ["GET", "POST"], "formats": ["xml", "form"],
    }));
    let said = "No route found for the specified format. Supported formats: form, xml.";
    world.asks(&world.admin(), "GET", "/form?_format=json").send().says(406, said);
    assert_eq!(world.asks(&world.admin(), "GET", "/form?_format=xml").send().status, 200);
    let post = |media_type: &str| {
        let asked = world.asks(&world.admin(), "POST", "/form");
        asked.header("Content-Type", media_type).body("x").send()
    };
    for taken in ["application/xml", "text/xml", "application/x-www-form-urlencoded"] {
        assert_eq!(post(taken).status, 200, "{taken}");
    }
    let said = "No route found that matches \"Content-Type: application/json\"";
    post("application/json").says(415, said);
    let any = with(json!({ "path": "/any", "methods": ["GET", "POST"] }));
    let asked = any.asks(&any.admin(), "POST", "/any?_format=whatever");
    assert_eq!(asked.body("x").send().status, 200);
}

#[test]
fn its_path_is_a_pattern() {
    let world = with(json!({ "path": "/orders/{id}/lines" }));
    let status = |path: &str| world.asks(&world.admin(), "GET", path).send().status;
    for path in ["/orders/1/lines", "/orders/a%20b/lines", "//orders/./1/x/../lines"] {
        assert_eq!(status(path), 200, "{path}");
    }
    for path in
        ["/orders//lines", "/orders/1", "/orders/1/lines/", "/orders/1/2/lines", "/Orders/1/lines"]
    {
        assert_eq!(status(path), 404, "{path}");
    }
    let world = with(json!({ "path": "/files/{*rest}" }));
    let status = |path: &str| world.asks(&world.admin(), "GET", path).send().status;
    assert_eq!([status("/files/a"), status("/files/a/b/c"), status("/files")], [200, 200, 404]);
    // Nothing leads out of it.
    assert_eq!(status("/files/../user/1"), 200);
    let entity = world.asks(&world.admin(), "GET", "/files/../user/1").send();
    assert_eq!(entity.json()["uid"][0]["value"], json!(1));
    assert_eq!(status("/files/..%2fuser/1"), 400);
}

#[test]
fn its_host_is_the_one_that_was_asked() {
    let world = with(json!({ "path": "/hosted", "host": "api.example" }));
    let status = |host: &str| {
        let head = format!(
            "GET /hosted HTTP/1.1\r\nHost: {host}\r\nAPI-KEY: {}\r\nConnection: close\r\n\r\n",
            world.admin().credential
        );
        crate::harness::exchange(world.server.public, head.as_bytes()).status
    };
    for host in ["api.example", "API.EXAMPLE", "api.example:8080"] {
        assert_eq!(status(host), 200, "{host}");
    }
    for host in ["example", "x.api.example", "127.0.0.1"] {
        assert_eq!(status(host), 404, "{host}");
    }
    assert_eq!(Request::new(world.server.public, "GET", "/hosted").send().status, 401);
}
