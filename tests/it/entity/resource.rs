//! The user entity's resource as it is configured: its routes, its methods, who is let in.

use serde_json::{Value, json};

use super::{World, one, world};
use crate::harness::Server;

const NOT_ALLOWED: &str = "The used authentication method is not allowed on this route.";

fn own_world() -> World {
    World::new(Server::new())
}

/// The statuses of the four calls, by an administrator.
fn calls(world: &World) -> [u16; 4] {
    let name = world.fresh("called");
    let uid = world.person(&[]).uid;
    [
        world.post(&world.admin(), &one("name", name)).status,
        world.get(&world.admin(), uid).status,
        world.patch(&world.admin(), uid, &one("timezone", "UTC")).status,
        world.delete(&world.admin(), uid).status,
    ]
}

/// Rules for each method.
fn by_method(methods: Value) -> Value {
    json!({ "granularity": "method", "methods": methods, "formats": null, "authentication": null, "permissions": null })
}

#[test]
fn a_resource_that_is_off_has_no_route() {
    let world = own_world();
    assert_eq!(calls(&world), [201, 200, 200, 204]);
    world.server.resource(json!({ "enabled": false }));
    assert_eq!(calls(&world), [404; 4]);
    let answer = world.post(&world.admin(), &one("name", "never"));
    let said = format!("No route found for \"POST {}/entity/user\"", world.origin());
    answer.says(404, &said);
    assert_eq!(answer.header("allow"), None);
    // Nobody is told so who is not known.
    let asked = world.server.request("POST", "/entity/user").json(&json!({})).send();
    asked.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    world.server.resource(json!({ "enabled": true }));
    assert_eq!(calls(&world), [201, 200, 200, 204]);
}

#[test]
fn a_resource_that_is_gone_has_no_route() {
    let world = own_world();
    let target = "/api/v1/resources/entity.user";
    assert_eq!(world.server.manages("DELETE", target).send().status, 204);
    assert_eq!(calls(&world), [404; 4]);
}

#[test]
fn a_method_that_the_resource_does_not_have() {
    let world = own_world();
    world.server.resource(json!({ "methods": ["GET", "POST"] }));
    assert_eq!(calls(&world), [201, 200, 405, 405]);
    let answer = world.patch(&world.admin(), 1, &json!({}));
    answer.says(
        405,
        &format!(
            "No route found for \"PATCH {}/user/1\": Method Not Allowed (Allow: GET, HEAD)",
            world.origin()
        ),
    );
    assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    // A path without any method is no route.
    world.server.resource(json!({ "methods": ["POST"] }));
    assert_eq!(calls(&world), [201, 404, 404, 404]);
    world.server.resource(json!({ "methods": ["DELETE", "GET", "PATCH"] }));
    assert_eq!(calls(&world), [404, 200, 200, 204]);
}

#[test]
fn an_application_that_the_resource_does_not_list() {
    let world = own_world();
    let application = json!({ "id": "machines", "name": "Machines", "header": "X-Machine" });
    world.manages("POST", "/api/v1/applications", &application);
    world.server.resource(json!({ "authentication": ["machines"] }));
    assert_eq!(calls(&world), [403; 4]);
    world.get(&world.admin(), 1).says(403, NOT_ALLOWED);
    let asked = world.server.request("GET", "/user/1").header("AUTH-METHOD", "machines");
    assert_eq!(asked.header("X-Machine", world.server.administrator()).send().status, 200);
    // Method, content type and format are told first.
    assert_eq!(world.asks(&world.admin(), "PUT", "/user/1").send().status, 405);
    assert_eq!(world.asks(&world.admin(), "PATCH", "/user/1").send().status, 415);
    assert_eq!(world.asks(&world.admin(), "GET", "/user/1?_format=xml").send().status, 406);
    world.server.resource(json!({ "authentication": ["default", "machines"] }));
    assert_eq!(calls(&world), [201, 200, 200, 204]);
    // Only nobody.
    world.server.resource(json!({ "authentication": ["anonymous"] }));
    assert_eq!(calls(&world), [403; 4]);
}

#[test]
fn each_method_has_rules_of_its_own() {
    let world = own_world();
    let application = json!({ "id": "writers", "name": "Writers" });
    world.manages("POST", "/api/v1/applications", &application);
    world.server.resource(by_method(json!({
        "GET": { "formats": ["json"], "authentication": ["*"] },
        "POST": { "formats": ["json"], "authentication": ["writers"] },
        "PATCH": { "formats": ["json"], "authentication": ["default"], "permissions": ["mend"] },
    })));
    assert_eq!(calls(&world), [403, 200, 200, 405]);
    world.post(&world.admin(), &one("name", "never")).says(403, NOT_ALLOWED);
    let asked = world.asks(&world.admin(), "POST", "/entity/user").header("AUTH-METHOD", "writers");
    assert_eq!(asked.json(&one("name", "written")).send().status, 201);
    let answer = world.delete(&world.admin(), 1);
    assert_eq!(answer.header("allow"), Some("GET, PATCH, HEAD"));
    // A permission that a method asks for comes on top of those that the entity asks for.
    let manager = world.person(&["administer users"]);
    let other = world.person(&[]);
    let change = one("timezone", "UTC");
    let said = "The 'mend' permission is required.";
    world.patch(&manager, other.uid, &change).says(403, said);
    let mender = world.person(&["mend"]);
    let said = "Users can only update their own account, unless they have the 'administer users' permission.";
    world.patch(&mender, other.uid, &change).says(403, said);
    let both = world.person(&["mend", "administer users"]);
    assert_eq!(world.patch(&both, other.uid, &change).status, 200);
    // And back.
    world.server.resource(json!({
        "granularity": "resource", "methods": ["GET", "POST", "PATCH", "DELETE"],
        "formats": ["json"], "authentication": ["*"], "permissions": { "DELETE": ["end"] }
    }));
    assert_eq!(calls(&world), [201, 200, 200, 204]);
    world.delete(&manager, other.uid).says(403, "The 'end' permission is required.");
}

/// It is refused where it is written, with the texts of the old form; so there is none that half works.
#[test]
fn an_incomplete_resource() {
    let world = own_world();
    let method = "At least one HTTP method must be selected.";
    let format = "At least one request format must be selected.";
    let provider = "At least one authentication provider must be selected";
    for (change, said) in [
        (json!({ "methods": [] }), method),
        (json!({ "formats": [] }), format),
        (json!({ "authentication": [] }), provider),
        (by_method(json!({})), method),
        (by_method(json!({ "GET": { "authentication": ["*"] } })), format),
        (by_method(json!({ "GET": { "formats": ["json"] } })), provider),
    ] {
        let target = "/api/v1/resources/entity.user";
        let answer = world.server.manages("PATCH", target).json(&change).send();
        assert_eq!(answer.status, 422, "{change}: {}", answer.body);
        let errors = answer.json()["errors"].clone();
        let messages: Vec<&str> =
            errors.as_array().unwrap().iter().map(|one| one["message"].as_str().unwrap()).collect();
        assert!(messages.iter().any(|message| message.starts_with(said)), "{change}: {messages:?}");
    }
    assert_eq!(calls(&world), [201, 200, 200, 204]);
}

#[test]
fn anonymous_requests() {
    let world = own_world();
    world.server.resource(json!({ "authentication": ["*", "anonymous"] }));
    let ask =
        |method: &str, target: &str| world.server.request(method, target).json(&json!({})).send();
    let other = world.person(&["access user profiles"]);
    let there = format!("/user/{}", other.uid);
    ask("GET", &there).says(403, "The 'access user profiles' permission is required.");
    ask("POST", "/entity/user").says(403, "The 'administer users' permission is required.");
    let said = "Users can only update their own account, unless they have the 'administer users' permission.";
    ask("PATCH", &there).says(403, said);
    ask("DELETE", &there).says(403, "The 'cancel account' permission is required.");
    let everything =
        json!({ "permissions": ["access user profiles", "cancel account", "change own username"] });
    world.manages("PATCH", "/api/v1/roles/anonymous", &everything);
    // The short form: what somebody with the same permission sees of another.
    let viewer = world.person(&["access user profiles"]);
    assert_eq!(ask("GET", &there).entity(200), world.get(&viewer, other.uid).entity(200));
    // Nobody owns nothing.
    ask("PATCH", &there).says(403, said);
    ask("DELETE", &there).says(403, "The 'cancel account' permission is required.");
}

/// What a change of the configuration allows holds for the next request, and what it forbids too.
#[test]
fn a_change_of_a_role_is_in_force_at_once() {
    let world = world();
    let role = world.role(&[]);
    let person = world.person_with(json!({ "roles": [role] }), &[]);
    for permissions in [json!(["access user profiles"]), json!([])] {
        let target = format!("/api/v1/roles/{role}");
        world.manages("PATCH", &target, &json!({ "permissions": permissions }));
        let expected = if permissions == json!([]) { 403 } else { 200 };
        assert_eq!(world.get(&person, 1).status, expected);
    }
}
