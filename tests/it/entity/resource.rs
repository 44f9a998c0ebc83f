//! Tests of the configuration of the user resource: routes, methods and applications.

use serde_json::{Value, json};

use super::{Fixture, fixture, single_value};
use crate::harness::Server;

const NOT_ALLOWED: &str = "The used authentication method is not allowed on this route.";

fn new_fixture() -> Fixture {
    Fixture::new(Server::new())
}

/// The statuses of a POST, GET, PATCH and DELETE request by an administrator.
fn statuses(fixture: &Fixture) -> [u16; 4] {
    let name = fixture.unique("called");
    let uid = fixture.user(&[]).uid;
    [
        fixture.post(&fixture.admin(), &single_value("name", name)).status,
        fixture.get(&fixture.admin(), uid).status,
        fixture.patch(&fixture.admin(), uid, &single_value("timezone", "UTC")).status,
        fixture.delete(&fixture.admin(), uid).status,
    ]
}

/// A change after which the resource has separate rules for each method.
fn by_method(methods: Value) -> Value {
    json!({ "granularity": "method", "methods": methods, "formats": null, "authentication": null, "permissions": null })
}

#[test]
fn a_disabled_resource_has_no_route() {
    let fixture = new_fixture();
    assert_eq!(statuses(&fixture), [201, 200, 200, 204]);
    fixture.server.patch_resource(json!({ "enabled": false }));
    assert_eq!(statuses(&fixture), [404; 4]);
    let response = fixture.post(&fixture.admin(), &single_value("name", "never"));
    let message = format!("No route found for \"POST {}/entity/user\"", fixture.origin());
    response.assert_message(404, &message);
    assert_eq!(response.header("allow"), None);
    // An unauthenticated client does not learn that the route is missing.
    let request = fixture.server.request("POST", "/entity/user").json(&json!({})).send();
    request.assert_error(401, "MISSING_API_KEY_HEADER", "API key header is missing.");
    fixture.server.patch_resource(json!({ "enabled": true }));
    assert_eq!(statuses(&fixture), [201, 200, 200, 204]);
}

#[test]
fn a_deleted_resource_has_no_route() {
    let fixture = new_fixture();
    let target = "/api/v1/resources/entity.user";
    assert_eq!(fixture.server.admin_api("DELETE", target).send().status, 204);
    assert_eq!(statuses(&fixture), [404; 4]);
}

#[test]
fn a_method_that_is_not_configured_gets_405_or_404() {
    let fixture = new_fixture();
    fixture.server.patch_resource(json!({ "methods": ["GET", "POST"] }));
    assert_eq!(statuses(&fixture), [201, 200, 405, 405]);
    let response = fixture.patch(&fixture.admin(), 1, &json!({}));
    response.assert_message(
        405,
        &format!(
            "No route found for \"PATCH {}/user/1\": Method Not Allowed (Allow: GET, HEAD)",
            fixture.origin()
        ),
    );
    assert_eq!(response.header("allow"), Some("GET, HEAD"));
    // A path for which no method is configured has no route.
    fixture.server.patch_resource(json!({ "methods": ["POST"] }));
    assert_eq!(statuses(&fixture), [201, 404, 404, 404]);
    fixture.server.patch_resource(json!({ "methods": ["DELETE", "GET", "PATCH"] }));
    assert_eq!(statuses(&fixture), [404, 200, 200, 204]);
}

#[test]
fn an_application_that_the_resource_does_not_list_gets_403() {
    let fixture = new_fixture();
    let application = json!({ "id": "machines", "name": "Machines", "header": "X-Machine" });
    fixture.call_admin_api("POST", "/api/v1/applications", &application);
    fixture.server.patch_resource(json!({ "authentication": ["machines"] }));
    assert_eq!(statuses(&fixture), [403; 4]);
    fixture.get(&fixture.admin(), 1).assert_message(403, NOT_ALLOWED);
    let request = fixture.server.request("GET", "/user/1").header("AUTH-METHOD", "machines");
    assert_eq!(request.header("X-Machine", fixture.server.admin_credential()).send().status, 200);
    // Errors of the method, content type and format are reported before this error.
    assert_eq!(fixture.request_as(&fixture.admin(), "PUT", "/user/1").send().status, 405);
    assert_eq!(fixture.request_as(&fixture.admin(), "PATCH", "/user/1").send().status, 415);
    assert_eq!(
        fixture.request_as(&fixture.admin(), "GET", "/user/1?_format=xml").send().status,
        406
    );
    fixture.server.patch_resource(json!({ "authentication": ["default", "machines"] }));
    assert_eq!(statuses(&fixture), [201, 200, 200, 204]);
    // Requests with a key are rejected if the resource allows only anonymous requests.
    fixture.server.patch_resource(json!({ "authentication": ["anonymous"] }));
    assert_eq!(statuses(&fixture), [403; 4]);
}

#[test]
fn each_method_can_have_its_own_rules() {
    let fixture = new_fixture();
    let application = json!({ "id": "writers", "name": "Writers" });
    fixture.call_admin_api("POST", "/api/v1/applications", &application);
    fixture.server.patch_resource(by_method(json!({
        "GET": { "formats": ["json"], "authentication": ["*"] },
        "POST": { "formats": ["json"], "authentication": ["writers"] },
        "PATCH": { "formats": ["json"], "authentication": ["default"], "permissions": ["mend"] },
    })));
    assert_eq!(statuses(&fixture), [403, 200, 200, 405]);
    fixture.post(&fixture.admin(), &single_value("name", "never")).assert_message(403, NOT_ALLOWED);
    let request = fixture
        .request_as(&fixture.admin(), "POST", "/entity/user")
        .header("AUTH-METHOD", "writers");
    assert_eq!(request.json(&single_value("name", "written")).send().status, 201);
    let response = fixture.delete(&fixture.admin(), 1);
    assert_eq!(response.header("allow"), Some("GET, PATCH, HEAD"));
    // The permissions of a method are required in addition to the permissions of the entity.
    let manager = fixture.user(&["administer users"]);
    let other = fixture.user(&[]);
    let change = single_value("timezone", "UTC");
    let message = "The 'mend' permission is required.";
    fixture.patch(&manager, other.uid, &change).assert_message(403, message);
    let mender = fixture.user(&["mend"]);
    let message = "Users can only update their own account, unless they have the 'administer users' permission.";
    fixture.patch(&mender, other.uid, &change).assert_message(403, message);
    let manager_and_mender = fixture.user(&["mend", "administer users"]);
    assert_eq!(fixture.patch(&manager_and_mender, other.uid, &change).status, 200);
    // Change the resource back to one set of rules for all methods.
    fixture.server.patch_resource(json!({
        "granularity": "resource", "methods": ["GET", "POST", "PATCH", "DELETE"],
        "formats": ["json"], "authentication": ["*"], "permissions": { "DELETE": ["end"] }
    }));
    assert_eq!(statuses(&fixture), [201, 200, 200, 204]);
    fixture.delete(&manager, other.uid).assert_message(403, "The 'end' permission is required.");
}

/// The error messages are those of Drupal's form for REST resources.
#[test]
fn an_incomplete_resource_is_rejected() {
    let fixture = new_fixture();
    let method = "At least one HTTP method must be selected.";
    let format = "At least one request format must be selected.";
    let provider = "At least one authentication provider must be selected";
    for (change, expected) in [
        (json!({ "methods": [] }), method),
        (json!({ "formats": [] }), format),
        (json!({ "authentication": [] }), provider),
        (by_method(json!({})), method),
        (by_method(json!({ "GET": { "authentication": ["*"] } })), format),
        (by_method(json!({ "GET": { "formats": ["json"] } })), provider),
    ] {
        let target = "/api/v1/resources/entity.user";
        let response = fixture.server.admin_api("PATCH", target).json(&change).send();
        assert_eq!(response.status, 422, "{change}: {}", response.body);
        let errors = response.json()["errors"].clone();
        let messages: Vec<&str> = errors
            .as_array()
            .unwrap()
            .iter()
            .map(|error| error["message"].as_str().unwrap())
            .collect();
        assert!(
            messages.iter().any(|message| message.starts_with(expected)),
            "{change}: {messages:?}"
        );
    }
    assert_eq!(statuses(&fixture), [201, 200, 200, 204]);
}

#[test]
fn anonymous_requests_need_the_permissions_of_the_anonymous_role() {
    let fixture = new_fixture();
    fixture.server.patch_resource(json!({ "authentication": ["*", "anonymous"] }));
    let send =
        |method: &str, target: &str| fixture.server.request(method, target).json(&json!({})).send();
    let other = fixture.user(&["access user profiles"]);
    let target = format!("/user/{}", other.uid);
    send("GET", &target).assert_message(403, "The 'access user profiles' permission is required.");
    send("POST", "/entity/user")
        .assert_message(403, "The 'administer users' permission is required.");
    let message = "Users can only update their own account, unless they have the 'administer users' permission.";
    send("PATCH", &target).assert_message(403, message);
    send("DELETE", &target).assert_message(403, "The 'cancel account' permission is required.");
    let permissions =
        json!({ "permissions": ["access user profiles", "cancel account", "change own username"] });
    fixture.call_admin_api("PATCH", "/api/v1/roles/anonymous", &permissions);
    // An anonymous client gets the same fields as a user with the permission
    // `access user profiles`.
    let viewer = fixture.user(&["access user profiles"]);
    assert_eq!(send("GET", &target).entity(200), fixture.get(&viewer, other.uid).entity(200));
    // The other two permissions are for the user's own account. They have no effect, because an
    // anonymous client has no account.
    send("PATCH", &target).assert_message(403, message);
    send("DELETE", &target).assert_message(403, "The 'cancel account' permission is required.");
}

/// A granted or revoked permission applies to the next request.
#[test]
fn a_change_of_a_role_takes_effect_at_once() {
    let fixture = fixture();
    let role = fixture.role(&[]);
    let user = fixture.user_with_record(json!({ "roles": [role] }), &[]);
    for permissions in [json!(["access user profiles"]), json!([])] {
        let target = format!("/api/v1/roles/{role}");
        fixture.call_admin_api("PATCH", &target, &json!({ "permissions": permissions }));
        let expected = if permissions == json!([]) { 403 } else { 200 };
        assert_eq!(fixture.get(&user, 1).status, expected);
    }
}
