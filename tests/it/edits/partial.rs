//! State files that leave fields out.

use serde_json::json;

use super::{add_orders, ran, refused};
use crate::harness::Server;

/// A server with the user carla and the resource `orders`, and a file that leaves most of their
/// fields out.
fn server_and_partial_file() -> Server {
    let server = Server::new();
    add_orders(&server);
    server.add_user(
        "carla",
        &["--mail", "carla@example.com", "--attribute", "team=blue", "--blocked"],
    );
    let file = "version = 1\n\n[[users]]\nname = \"carla\"\nroles = [\"administrator\"]\n\n\
                [[resources]]\nid = \"orders\"\nhandler = \"respond\"\npath = \"/o/{id}\"\n\
                methods = [\"GET\", \"DELETE\"]\nformats = [\"any\"]\nauthentication = [\"*\"]\n\
                [resources.permissions]\nDELETE = [\"void orders\"]\n\
                [resources.respond]\nbody = \"2\"\n";
    std::fs::write(server.site.path().join("s.toml"), file).unwrap();
    server
}

#[test]
fn file_that_would_clear_fields_is_refused_and_says_which() {
    let server = server_and_partial_file();
    let site = &server.site;
    let before = site.run(&["export"]).stdout;
    let (code, plan, notes) = ran(site, &["apply", "s.toml", "--dry-run"]);
    assert_eq!(code, 0, "{notes}");
    assert!(plan.contains("~ user carla: "), "{plan}");
    let cleared =
        "user carla: the file leaves out mail, active, attributes, which loses its value.";
    assert!(notes.contains(cleared) || notes.contains("leaves out mail"), "{notes}");
    assert!(notes.contains("resource orders: the file leaves out permissions.GET"), "{notes}");
    assert!(notes.contains("use --patch. To clear it, use --clear."), "{notes}");
    assert!(notes.contains("resource orders: GET: no permission is required any more."), "{notes}");
    let errors = refused(site, &["apply", "s.toml"]);
    for line in [
        "line 3, column 1: user carla: mail: The file leaves mail out",
        "user carla: active: The file leaves active out",
        "resource orders: permissions.GET: The file leaves permissions.GET out",
    ] {
        assert!(errors.contains(line), "{line}\n{errors}");
    }
    assert!(errors.contains("--patch or --clear"), "{errors}");
    assert_eq!(site.run(&["export"]).stdout, before);
    let report = site.json(&["apply", "s.toml", "--clear"]);
    assert_eq!(report["changed"], 2, "{report}");
    assert_eq!(site.json(&["user", "show", "carla"])["mail"], json!(null));
}

#[test]
fn patch_keeps_what_the_file_leaves_out() {
    let server = server_and_partial_file();
    let site = &server.site;
    let report = site.json(&["apply", "s.toml", "--patch"]);
    // No guard goes. The new permission is one that no role has.
    let warnings = report["warnings"].as_array().unwrap();
    assert_eq!((&report["changed"], warnings.len()), (&json!(2), 1), "{report}");
    assert!(warnings[0].as_str().unwrap().contains("No role grants"), "{report}");
    let carla = site.json(&["user", "show", "carla"]);
    assert_eq!(
        (&carla["mail"], &carla["active"], &carla["attributes"], &carla["roles"]),
        (
            &json!("carla@example.com"),
            &json!(false),
            &json!({ "team": "blue" }),
            &json!(["administrator"])
        )
    );
    let orders = site.json(&["resource", "show", "orders"]);
    let expected = json!({ "DELETE": ["void orders"], "GET": ["see orders"] });
    assert_eq!((&orders["permissions"], &orders["respond"]["body"]), (&expected, &json!("2")));
    assert_eq!(site.json(&["apply", "s.toml", "--patch"])["changes"], json!([]));
    // A patch creates records that are not there, and a key keeps its digest.
    let key = server.generate_key("carla", &["--label", "old"]);
    let export = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let pepper = export.lines().find(|line| line.starts_with("pepper = ")).unwrap();
    let file = format!(
        "version = 1\n{pepper}\n[[keys]]\nid = \"{}\"\nlabel = \"new\"\n\
         [[roles]]\nid = \"extra\"\nlabel = \"Extra\"\n",
        key.id
    );
    std::fs::write(site.path().join("k.toml"), file).unwrap();
    let report = site.json(&["apply", "k.toml", "--patch"]);
    assert_eq!((&report["added"], &report["changed"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(site.json(&["key", "show", &key.id])["label"], "new");
    assert_eq!(ran(site, &["apply", "k.toml", "--patch", "--prune"]).0, 2);
    let both =
        server.admin_api("POST", "/api/v1/state?patch=true&prune=true").body("version = 1\n");
    assert_eq!(both.header("Content-Type", "application/toml").send().status, 400);
}

#[test]
fn exit_code_of_a_dry_run_tells_whether_something_would_change() {
    let server = server_and_partial_file();
    let site = &server.site;
    let dry = ["apply", "s.toml", "--dry-run", "--patch", "--exit-code"];
    let (code, plan, notes) = ran(site, &dry);
    assert!(code == 7 && plan.contains("~ user carla"), "{code} {plan}");
    assert!(notes.contains("the file would change 2 records"), "{notes}");
    assert_eq!(ran(site, &["apply", "s.toml", "--dry-run", "--patch"]).0, 0);
    assert_eq!(ran(site, &["apply", "s.toml", "--patch"]).0, 0);
    assert_eq!(ran(site, &dry).0, 0);
    // Without a dry run, the option has no meaning.
    assert_eq!(ran(site, &["apply", "s.toml", "--exit-code"]).0, 2);
    assert_eq!(site.json(&["apply", "s.toml", "--dry-run", "--patch"])["changes"], json!([]));
}
