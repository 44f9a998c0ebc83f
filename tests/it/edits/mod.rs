//! Tests of edits: an edit changes what it names, and nothing else.

mod elements;
mod keys;
mod partial;
mod removal;

use std::process::Output;

use serde_json::Value;

use crate::harness::{Server, Site};

/// The exit code, standard output and standard error of a command.
fn ran(site: &Site, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = site.run(args);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// The exit code and standard error of a command that must be refused.
fn refused(site: &Site, args: &[&str]) -> String {
    let (code, _, errors) = ran(site, args);
    assert!(code != 0 && errors.starts_with("error: "), "{args:?}: {code} {errors}");
    errors
}

/// Changes a record with the admin API as the administrator.
fn patch(server: &Server, target: &str, change: &Value) -> (u16, Value) {
    let response = server.admin_api("PATCH", target).json(change).send();
    (response.status, response.json())
}

/// Adds the resource `orders`, which requires a permission of its own for each method.
fn add_orders(server: &Server) {
    server.site.json(&[
        "resource",
        "add",
        "orders",
        "--handler",
        "respond",
        "--path",
        "/o/{id}",
        "--method",
        "GET",
        "--method",
        "DELETE",
        "--format",
        "any",
        "--authentication",
        "*",
        "--permission",
        "GET=see orders",
        "--permission",
        "DELETE=cancel orders",
        "--body",
        "1",
    ]);
}
