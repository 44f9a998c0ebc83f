//! Single elements of lists and maps: permissions of methods, and the lists of all records.

use serde_json::{Value, json};

use super::{add_orders, patch, ran, refused};
use crate::harness::Server;

fn permissions(server: &Server) -> Value {
    server.site.json(&["resource", "show", "orders"])["permissions"].clone()
}

#[test]
fn permission_of_one_method_leaves_the_guards_of_the_others() {
    let server = Server::new();
    let zed = server.user_with_permissions("zed", &[]);
    add_orders(&server);
    let status = |method: &str| {
        server.request(method, "/o/1").header("API-KEY", &zed.credential).send().status
    };
    assert_eq!((status("GET"), status("DELETE")), (403, 403));
    let edit = |args: &[&str]| ran(&server.site, &[&["resource", "edit", "orders"], args].concat());

    let (code, _, notes) = edit(&["--permission", "DELETE=void orders"]);
    assert_eq!(code, 0, "{notes}");
    assert!(!notes.contains("required any more"), "{notes}");
    assert_eq!(permissions(&server), json!({ "DELETE": ["void orders"], "GET": ["see orders"] }));
    assert_eq!((status("GET"), status("DELETE")), (403, 403));

    // Several names for one method replace its list; the method may be in lower case.
    assert_eq!(edit(&["--permission", "get=a", "--permission", "get=b"]).0, 0);
    assert_eq!(edit(&["--add-permission", "GET=c", "--remove-permission", "GET=a"]).0, 0);
    assert_eq!(permissions(&server), json!({ "DELETE": ["void orders"], "GET": ["b", "c"] }));

    let (code, _, notes) = edit(&["--no-permission", "GET"]);
    assert_eq!(code, 0, "{notes}");
    let warning = "Warning: GET: no permission is required any more. Before, \"b\", \"c\" was \
                   required.";
    assert!(notes.contains(warning), "{notes}");
    assert_eq!((status("GET"), status("DELETE")), (200, 403));
    let (_, _, notes) = edit(&["--no-permission", "GET", "--remove-permission", "DELETE=x"]);
    assert!(notes.contains("GET requires no permission: nothing was removed."), "{notes}");
    assert!(notes.contains("DELETE does not require x: nothing was removed."), "{notes}");
}

#[test]
fn permission_of_a_method_that_the_resource_lacks_is_refused_everywhere() {
    let server = Server::new();
    add_orders(&server);
    let expected = "The resource does not have the method \"PUT\".";
    let put = ["--permission", "PUT=x"];
    let edit = [&["resource", "edit", "orders"], &put[..]].concat();
    assert!(refused(&server.site, &edit).contains(expected));
    let add = "resource add other --handler respond --path /p --method GET --format any \
               --authentication *";
    let add = [&add.split_whitespace().collect::<Vec<_>>(), &put[..]].concat();
    assert!(refused(&server.site, &add).contains(expected));
    let target = "/api/v1/resources/orders";
    let (status, body) = patch(&server, target, &json!({ "permissions": { "PUT": ["x"] } }));
    assert_eq!((status, &body["errors"][0]["location"]), (422, &json!("permissions.PUT")));
    let exported = String::from_utf8(server.site.run(&["export"]).stdout).unwrap();
    let changed = exported.replace("DELETE = [\"cancel orders\"]", "PUT = [\"x\"]");
    std::fs::write(server.site.path().join("s.toml"), &changed).unwrap();
    assert_ne!(changed, exported);
    let errors = refused(&server.site, &["apply", "s.toml", "--clear"]);
    assert!(errors.contains("resource orders: permissions.PUT") && errors.contains(expected));
    assert_eq!(permissions(&server)["GET"], json!(["see orders"]));
    // With `any`, the resource has every method.
    server.site.json(&["resource", "edit", "orders", "--method", "any", "--permission", "PUT=x"]);
}

#[test]
fn null_in_a_merge_patch_removes_one_permission() {
    let server = Server::new();
    add_orders(&server);
    let target = "/api/v1/resources/orders";
    let change = json!({ "permissions": { "GET": null } });
    let response = server.admin_api("PATCH", target).json(&change).send();
    let body = response.json();
    assert_eq!(body["permissions"], json!({ "DELETE": ["cancel orders"] }), "{body}");
    let warning = response.header("keyward-warning").unwrap();
    assert!(warning.starts_with("GET: no permission is required any more."), "{warning}");
    // A client may send the record back as it was received.
    assert_eq!(patch(&server, target, &body).0, 200);
}

#[test]
fn methods_and_other_lists_are_changed_by_element() {
    let server = Server::new();
    add_orders(&server);
    let site = &server.site;
    let edit = |args: &[&str]| {
        site.json(&[&["resource", "edit", "orders"], args].concat());
        site.json(&["resource", "show", "orders"])
    };
    let (_, _, notes) = ran(site, &["resource", "edit", "orders", "--add-method", "put"]);
    let warning = "Warning: PUT: no permission is required, although other methods require one.";
    assert!(notes.contains(warning), "{notes}");
    let (_, _, notes) = ran(site, &["resource", "edit", "orders", "--remove-method", "delete"]);
    assert!(notes.contains("DELETE is removed, and with it its permission: cancel orders."));
    let orders = edit(&["--add-format", "json", "--remove-authentication", "nobody"]);
    assert_eq!(orders["methods"], json!(["GET", "PUT"]));
    assert_eq!(orders["permissions"], json!({ "GET": ["see orders"] }));
    assert_eq!(
        (&orders["formats"], &orders["authentication"]),
        (&json!(["any", "json"]), &json!(["*"]))
    );

    let orders =
        edit(&["--cors-origin", "https://a.example", "--add-cors-origin", "https://b.example"]);
    assert_eq!(orders["cors"]["origins"], json!(["https://a.example", "https://b.example"]));
    let orders = edit(&["--remove-cors-origin", "https://a.example"]);
    assert_eq!(orders["cors"]["origins"], json!(["https://b.example"]));
    // The list of methods is not set, which means all methods: one method would narrow it.
    let errors = refused(site, &["resource", "edit", "orders", "--add-cors-method", "GET"]);
    assert!(errors.contains("which means all methods of the resource"), "{errors}");
    let errors = refused(site, &["resource", "edit", "orders", "--add-application", "default"]);
    assert!(errors.contains("which means the default application"), "{errors}");
    assert_eq!(edit(&["--application", "default"])["applications"], json!(["default"]));
    let errors = refused(site, &["resource", "edit", "orders", "--remove-application", "default"]);
    assert!(errors.contains("Use --no-applications for that"), "{errors}");
}

#[test]
fn permission_of_a_method_with_rules_of_its_own_is_changed_there() {
    let server = Server::new();
    let site = &server.site;
    let record = json!({
        "id": "news", "handler": "respond", "path": "/news", "granularity": "method",
        "methods": {
            "GET": { "formats": ["any"], "authentication": ["*"], "permissions": ["see"] },
            "PUT": { "formats": ["any"], "authentication": ["*"], "permissions": ["write"] },
        },
        "respond": { "body": "1" },
    });
    assert_eq!(server.admin_api("POST", "/api/v1/resources").json(&record).send().status, 201);
    site.json(&["resource", "edit", "news", "--permission", "PUT=print"]);
    let methods = site.json(&["resource", "show", "news"])["methods"].clone();
    assert_eq!(methods["GET"], record["methods"]["GET"]);
    assert_eq!(methods["PUT"]["permissions"], json!(["print"]));
    let errors = refused(site, &["resource", "edit", "news", "--permission", "POST=x"]);
    assert!(errors.contains("does not have the method POST"), "{errors}");
    for shared in [["--format", "json"], ["--add-method", "POST"], ["--method", "GET"]] {
        let errors = refused(site, &[&["resource", "edit", "news"], &shared[..]].concat());
        assert!(errors.contains("has separate rules for each method"), "{errors}");
    }
    let news = site.json(&["resource", "edit", "news", "--remove-method", "PUT"]);
    assert!(news["methods"].get("PUT").is_none() && news["methods"].get("GET").is_some());
}

#[test]
fn roles_and_users_keep_the_elements_that_an_edit_does_not_name() {
    let server = Server::new();
    let site = &server.site;
    for id in ["a", "b", "c"] {
        site.json(&["role", "add", id, "--label", id, "--permission", "view audit log"]);
    }
    let add = |permission| ["role", "edit", "a", "--add-permission", permission];
    site.json(&add("access user profiles"));
    // The former names of these options still work.
    site.json(&["role", "edit", "a", "--grant", "cancel account", "--revoke", "view audit log"]);
    let role = site.json(&["role", "show", "a"]);
    assert_eq!(role["permissions"], json!(["access user profiles", "cancel account"]));
    let role = site.json(&["role", "edit", "a", "--permission", "cancel account"]);
    assert_eq!(role["permissions"], json!(["cancel account"]));
    assert_eq!(site.json(&["role", "edit", "a", "--no-permissions"])["permissions"], json!([]));

    site.json(&[
        "user",
        "add",
        "ann",
        "--role",
        "a",
        "--attribute",
        "team=blue",
        "--attribute",
        "n=1",
    ]);
    let ann = site.json(&["user", "edit", "ann", "--add-role", "b"]);
    assert_eq!(ann["roles"], json!(["a", "b"]));
    assert_eq!(site.json(&["user", "edit", "ann", "--role", "c"])["roles"], json!(["c"]));
    assert_eq!(ann["attributes"], json!({ "n": "1", "team": "blue" }));
    let ann = site.json(&["user", "edit", "ann", "--attribute", "team=a=b", "--no-attribute", "n"]);
    assert_eq!(ann["attributes"], json!({ "team": "a=b" }));
    let (_, _, notes) = ran(site, &["user", "edit", "ann", "--no-attribute", "other"]);
    assert!(notes.contains("The user has no attribute other: nothing was removed."), "{notes}");
}

#[test]
fn permission_that_nothing_else_knows_gets_a_warning() {
    let server = Server::new();
    let site = &server.site;
    add_orders(&server);
    let add = ["role", "add", "w", "--label", "W", "--permission", "see oders"];
    let (code, _, notes) = ran(site, &add);
    assert_eq!(code, 0);
    let warning = "Warning: No resource requires the permission \"see oders\", and no other role \
                   has it. Did you mean \"see orders\"?";
    assert!(notes.contains(warning), "{notes}");
    let known =
        ["role", "edit", "w", "--permission", "see orders", "--add-permission", "view audit log"];
    assert_eq!(ran(site, &known).2, "");
    let (_, _, notes) = ran(site, &["resource", "edit", "orders", "--permission", "GET=se orders"]);
    let warning = "Warning: No role grants the permission \"se orders\": only administrators have \
                   it. Did you mean \"see orders\"?";
    assert!(notes.contains(warning), "{notes}");
    assert_eq!(ran(site, &["resource", "edit", "orders", "--permission", "GET=see orders"]).2, "");
    // A permission that only begins alike is not suggested.
    let (_, _, notes) = ran(site, &["role", "edit", "w", "--add-permission", "cancel order lines"]);
    assert!(notes.contains("and no other role has it.\n"), "{notes}");
    let role = json!({ "id": "x", "label": "X", "permissions": ["see odders"] });
    let created = server.admin_api("POST", "/api/v1/roles").json(&role).send();
    assert!(created.status == 201 && created.header("keyward-warning").is_some());
    let file =
        "version = 1\n[[roles]]\nid = \"y\"\nlabel = \"Y\"\npermissions = [\"see ordres\"]\n";
    std::fs::write(site.path().join("s.toml"), file).unwrap();
    let (code, _, notes) = ran(site, &["apply", "s.toml", "--dry-run"]);
    assert_eq!(code, 0);
    assert!(notes.contains("Warning: role y: No resource requires"), "{notes}");
}
