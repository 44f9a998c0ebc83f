//! What is told first when several things are wrong.

use serde_json::json;

use super::{Person, one, world};
use crate::harness::Answer;

const NO_FORMAT: &str = "No route found for the specified format. Supported formats: json.";
const NO_TYPE: &str = "No route found that matches \"Content-Type: text/xml\"";

/// One request, a fault less each time.
#[test]
fn a_patch_from_the_first_fault_to_the_last() {
    let world = world();
    let (stranger, target) = (world.person(&[]), world.person(&[]));
    let ask =
        |who: Option<&Person>, method: &str, path: &str, media_type: &str, body: &str| -> Answer {
            let asked = world.server.request(method, path).header("Content-Type", media_type);
            let asked = match who {
                Some(who) => asked.header("API-KEY", &who.credential),
                None => asked,
            };
            asked.body(body).send()
        };
    let (absent, there) = ("/user/999999?_format=xml", format!("/user/{}", target.uid));
    let broken = "{";
    // Who nobody knows learns nothing of routes.
    for (method, path) in
        [("PUT", absent), ("PATCH", absent), ("PATCH", "/nowhere"), ("PATCH", &there)]
    {
        let answer = ask(None, method, path, "text/xml", broken);
        answer.refuses(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    }
    let answer = ask(Some(&stranger), "PUT", absent, "text/xml", broken);
    let said = format!(
        "No route found for \"PUT {}/user/999999\": Method Not Allowed (Allow: GET, PATCH, DELETE, HEAD)",
        world.origin()
    );
    answer.says(405, &said);
    ask(Some(&stranger), "PATCH", absent, "text/xml", broken).says(415, NO_TYPE);
    ask(Some(&stranger), "PATCH", absent, "application/json", broken).says(406, NO_FORMAT);
    let absent = "/user/999999?_format=json";
    let answer = ask(Some(&stranger), "PATCH", absent, "application/json", broken);
    answer.says(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.PATCH\")");
    let answer = ask(Some(&stranger), "PATCH", &there, "application/json", broken);
    answer.says(403, "Users can only update their own account, unless they have the 'administer users' permission.");
    let json = "application/json";
    ask(Some(&target), "PATCH", &there, json, "").says(400, "No entity content received.");
    ask(Some(&target), "PATCH", &there, json, broken).says(400, "Syntax error");
    let body = r#"{"status":[1],"foo":[]}"#;
    ask(Some(&target), "PATCH", &there, json, body).says(422, "Field foo is unknown.");
    let said = "Access denied on updating field 'status'.";
    ask(Some(&target), "PATCH", &there, json, r#"{"timezone":["x"],"status":[1]}"#).says(403, said);
    let said = "timezone.0.value: The value you selected is not a valid choice.";
    ask(Some(&target), "PATCH", &there, json, r#"{"timezone":["x"]}"#).finds(&[said]);
    assert_eq!(ask(Some(&target), "PATCH", &there, json, r#"{"timezone":["UTC"]}"#).status, 200);
}

#[test]
fn a_post_from_the_first_fault_to_the_last() {
    let world = world();
    let stranger = world.person(&[]);
    let ask = |who: &Person, target: &str, media_type: &str, body: &str| {
        let asked = world.asks(who, "POST", target).header("Content-Type", media_type);
        asked.body(body).send()
    };
    let xml = "/entity/user?_format=xml";
    ask(&stranger, xml, "text/xml", "{").says(415, NO_TYPE);
    ask(&stranger, xml, "application/json", "{").says(406, NO_FORMAT);
    let (target, json) = ("/entity/user?_format=json", "application/json");
    let said = "The 'administer users' permission is required.";
    for body in ["{", "", r#"{"foo":[]}"#] {
        ask(&stranger, target, json, body).says(403, said);
    }
    ask(&world.admin(), target, json, "").says(400, "No entity content received.");
    ask(&world.admin(), target, json, "{").says(400, "Syntax error");
    let said = "The request's body must be a JSON object with the fields of the entity.";
    for body in ["[]", "null", "7", "\"x\"", " [{}] "] {
        ask(&world.admin(), target, json, body).says(400, said);
    }
    ask(&world.admin(), target, json, r#"{"foo":[]}"#).says(422, "Field foo is unknown.");
    let body = one("name", world.fresh("ordered")).to_string();
    assert_eq!(ask(&world.admin(), target, json, &body).status, 201);
}

#[test]
fn a_get_from_the_first_fault_to_the_last() {
    let world = world();
    let (stranger, target) = (world.person(&[]), world.person(&[]));
    let absent = world.asks(&stranger, "GET", "/user/999999?_format=xml").send();
    absent.says(406, NO_FORMAT);
    let absent = world.asks(&stranger, "GET", "/user/999999").send();
    absent.says(404, "The \"user\" parameter was not converted for the path \"/user/{user}\" (route name: \"rest.entity.user.GET\")");
    let said = "The 'access user profiles' permission is required.";
    world.get(&stranger, target.uid).says(403, said);
    assert_eq!(world.get(&target, target.uid).status, 200);
}

/// A wrong key is told before anything about the route, and before the method of a path that is not there.
#[test]
fn a_wrong_key_beats_them_all() {
    let world = world();
    let wrong = Person {
        uid: 1,
        name: "admin".into(),
        credential: crate::harness::credential("admin", "some other system's key"),
    };
    for (method, target) in [
        ("PUT", "/user/1"),
        ("GET", "/nothing"),
        ("GET", "/user/999999"),
        ("POST", "/entity/user?_format=xml"),
        ("OPTIONS", "/"),
    ] {
        let answer = world.asks(&wrong, method, target).json(&json!({})).send();
        answer.refuses(401, "AUTHENTICATION_FAILED", "Sorry, you are using an invalid API Key.");
    }
}
