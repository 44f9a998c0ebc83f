//! The filters and orders of lists, in the admin API and on the command line.

use serde_json::{Value, json};

use crate::harness::{Server, Site};

/// The field `field` of the records that a list has.
fn found(server: &Server, target: &str, field: &str) -> Vec<Value> {
    let response = server.admin_api("GET", target).send();
    assert_eq!(response.status, 200, "{target}: {}", response.body);
    let body = response.json();
    assert_eq!(body["next"], Value::Null, "{target}");
    body["items"].as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}

fn listed(site: &Site, args: &[&str], field: &str) -> Vec<Value> {
    let list = site.json(args);
    list.as_array().unwrap().iter().map(|item| item[field].clone()).collect()
}

/// A server with three users besides the administrator, and five keys.
fn filled() -> (Server, [String; 4]) {
    let server = Server::new();
    server.site.json(&["role", "add", "editor", "--label", "Editor", "--permission", "edit"]);
    server.site.json(&["app", "add", "partners", "--type", "bearer"]);
    server.add_user("ann", &["--mail", "ann@example.com", "--role", "editor"]);
    server.add_user("anna", &["--mail", "anna@example.com"]);
    server.add_user("Bob", &["--blocked"]);
    let generate = |name: &str, args: &[&str]| server.generate_key(name, args).id;
    let keys = [
        generate("ann", &["--label", "ci laptop"]),
        generate("ann", &["--label", "CI", "--expires", "10d"]),
        generate("anna", &["--label", "phone", "--application", "partners"]),
        generate("Bob", &["--label", "old"]),
    ];
    server.site.json(&["key", "revoke", &keys[3]]);
    (server, keys)
}

#[test]
fn keys_are_found_by_each_filter() {
    let (server, keys) = filled();
    let [laptop, ci, phone, old] = &keys;
    let all = |query: &str| {
        let mut ids = found(&server, &format!("/api/v1/keys?{query}"), "id");
        ids.sort_by_key(|id| keys.iter().position(|known| id == known));
        ids
    };
    for (query, expected) in [
        ("state=revoked", vec![old]),
        ("label=ci", vec![ci]),
        ("label=ci*", vec![laptop, ci]),
        ("label=no%20such", vec![]),
        ("user=ann", vec![laptop, ci]),
        ("user=2", vec![laptop, ci]),
        ("user=%232&state=active", vec![laptop, ci]),
        ("user=ANN&label=CI", vec![ci]),
        ("application=partners", vec![phone]),
        ("expires_before=11d", vec![ci]),
        ("expires_before=9d", vec![]),
        ("expires_before=9999-01-01", vec![ci]),
        ("created_before=2020-01-01", vec![]),
        ("created_after=2020-01-01T00:00:00Z&state=revoked", vec![old]),
        ("created_after=1h&user=anna", vec![phone]),
        ("unused_since=1h&label=phone", vec![]),
        ("unused_since=9999-01-01&label=phone", vec![phone]),
        ("last_used_before=9999-01-01&user=ann", vec![]),
    ] {
        let expected: Vec<Value> = expected.into_iter().map(|id| json!(id)).collect();
        assert_eq!(all(query), expected, "{query}");
    }
    let used = server.request_as_admin("GET", "/user/1?_format=json").send();
    assert_eq!(used.status, 200);
    assert_eq!(all("last_used_before=9999-01-01").len(), 1);
    assert_eq!(found(&server, "/api/v1/users/2/keys?label=ci", "id"), [json!(ci)]);
    let own = server.admin_api("GET", "/api/v1/me/keys?state=revoked").send();
    assert_eq!(own.json()["items"], json!([]));
    let site = &server.site;
    assert_eq!(listed(site, &["key", "list", "--state", "revoked"], "id"), [json!(old)]);
    assert_eq!(listed(site, &["key", "list", "ann", "--label", "ci"], "id"), [json!(ci)]);
    assert_eq!(listed(site, &["key", "list", "--expires-before", "11d"], "id"), [json!(ci)]);
    let application = ["key", "list", "--application", "partners"];
    assert_eq!(listed(site, &application, "id"), [json!(phone)]);
}

#[test]
fn keys_and_users_are_sorted_in_both_directions() {
    let (server, [laptop, ci, phone, old]) = filled();
    let labels = |query: &str| found(&server, &format!("/api/v1/keys?{query}"), "label");
    let sorted = ["CI", "ci laptop", "first key", "old", "phone"].map(Value::from);
    assert_eq!(labels("sort=label"), sorted);
    let reversed: Vec<Value> = sorted.iter().rev().cloned().collect();
    assert_eq!(labels("sort=-label"), reversed);
    let ids = |query: &str| found(&server, &format!("/api/v1/keys?{query}"), "id");
    assert_eq!(ids("sort=expires&user=ann"), [json!(ci), json!(laptop)]);
    assert_eq!(ids("sort=-user&created_after=1h")[..2], [json!(old), json!(phone)]);
    let by_id = ids("sort=id");
    assert_eq!(ids("sort=-id"), by_id.iter().rev().cloned().collect::<Vec<_>>());
    let names = |query: &str| found(&server, &format!("/api/v1/users?{query}"), "name");
    assert_eq!(names("sort=name"), ["admin", "ann", "anna", "Bob"].map(Value::from));
    assert_eq!(names("sort=-name&name=ann*"), ["anna", "ann"].map(Value::from));
    assert_eq!(names("sort=-uid"), ["Bob", "anna", "ann", "admin"].map(Value::from));
    let sorted = listed(&server.site, &["user", "list", "--sort", "-name", "--limit", "2"], "name");
    assert_eq!(sorted, ["Bob", "anna"].map(Value::from));
}

#[test]
fn users_and_policy_records_are_found_by_each_filter() {
    let (server, _) = filled();
    let resource = json!({
        "id": "orders", "handler": "respond", "path": "/orders/{id}", "host": "shop.example",
        "methods": ["GET"], "formats": ["any"], "authentication": ["partners"],
        "permissions": { "GET": ["edit"] }, "respond": { "body": "x" },
    });
    assert_eq!(server.admin_api("POST", "/api/v1/resources").json(&resource).send().status, 201);
    for (list, field, expected) in [
        ("users?name=ann", "name", vec!["ann"]),
        ("users?name=AN*", "name", vec!["ann", "anna"]),
        ("users?name=*", "name", vec!["admin", "ann", "anna", "Bob"]),
        ("users?name=x*", "name", vec![]),
        ("users?mail=ANNA@example.com", "name", vec!["anna"]),
        ("users?mail=ann*", "name", vec!["ann", "anna"]),
        ("users?role=editor", "name", vec!["ann"]),
        ("users?role=authenticated&active=false", "name", vec!["Bob"]),
        ("users?active=true&name=b*", "name", vec![]),
        ("users?created_before=2020-01-01", "name", vec![]),
        ("users?created_after=1h&mail=*", "name", vec!["ann", "anna"]),
        ("roles?name=ed*", "id", vec!["editor"]),
        ("roles?permission=edit", "id", vec!["administrator", "editor"]),
        ("roles?sort=-id&name=a*", "id", vec!["authenticated", "anonymous", "administrator"]),
        ("applications?type=bearer", "id", vec!["partners"]),
        ("applications?name=Default&enabled=true", "id", vec!["default"]),
        ("applications?enabled=false", "id", vec![]),
        ("resources?path=/orders*", "id", vec!["orders"]),
        ("resources?host=SHOP.example", "id", vec!["orders"]),
        ("resources?application=partners&sort=path", "id", vec!["entity.user", "orders"]),
        ("resources?permission=edit", "id", vec!["orders"]),
        ("resources?handler=entity*", "id", vec!["entity.user"]),
        ("resources?application=anonymous", "id", vec![]),
        ("resources?name=o*&enabled=true", "id", vec!["orders"]),
    ] {
        let expected: Vec<Value> = expected.into_iter().map(Value::from).collect();
        assert_eq!(found(&server, &format!("/api/v1/{list}"), field), expected, "{list}");
    }
    for (args, field, expected) in [
        (&["user", "list", "--name", "an*"][..], "name", vec!["ann", "anna"]),
        (&["user", "list", "--blocked"], "name", vec!["Bob"]),
        (&["user", "list", "--role", "editor", "--active"], "name", vec!["ann"]),
        (&["role", "list", "--permission", "edit", "--limit", "1"], "id", vec!["administrator"]),
        (&["app", "list", "--type", "bearer", "--enabled"], "id", vec!["partners"]),
        (&["resource", "list", "--path", "/orders*"], "id", vec!["orders"]),
        (&["resource", "list", "--disabled"], "id", vec![]),
    ] {
        let expected: Vec<Value> = expected.into_iter().map(Value::from).collect();
        assert_eq!(listed(&server.site, args, field), expected, "{args:?}");
    }
}

#[test]
fn pages_of_a_filtered_list_have_every_record_once() {
    let (server, _) = filled();
    for list in ["keys?state=active", "keys?sort=-created", "users?name=*", "users?sort=-mail"] {
        let (mut items, mut target) = (Vec::new(), format!("/api/v1/{list}&limit=2"));
        loop {
            let page = server.admin_api("GET", &target).send().json();
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { break };
            target = format!("/api/v1/{list}&limit=2&after={next}");
            // The cursor is refused with any other filters.
            let other = format!("/api/v1/{}?limit=2&after={next}", list.split('?').next().unwrap());
            for other in [format!("{other}&created_after=1h"), other] {
                let response = server.admin_api("GET", &other).send();
                assert_eq!(response.status, 400, "{other}: {}", response.body);
                assert_eq!(response.json()["errors"][0]["location"], "after");
            }
        }
        let field = if list.starts_with("keys") { "id" } else { "uid" };
        let paged: Vec<Value> = items.iter().map(|item| item[field].clone()).collect();
        assert_eq!(paged, found(&server, &format!("/api/v1/{list}"), field), "{list}");
    }
}

#[test]
fn invalid_filter_says_which_values_are_possible() {
    let server = Server::new();
    for (target, location, fix) in [
        ("keys?state=gone", "state", "Use active, expired, rotated or revoked."),
        ("keys?user=nobody", "user", "Send the number or the name of a user."),
        ("keys?user=99", "user", "Send the number or the name of a user."),
        ("keys?application=none", "application", "Send the id of an application."),
        ("keys?expires_before=soon", "expires_before", "30d for 30 days from now"),
        ("keys?unused_since=", "unused_since", "90d for 90 days ago"),
        ("keys?sort=colour", "sort", "Use id, user, label, created, expires or last_used"),
        ("keys?lable=x", "lable", "Did you mean label?"),
        ("keys?state=active&state=active", "state", "Send it once."),
        ("users/1/keys?user=1", "user", "There is no such parameter."),
        ("users?active=perhaps", "active", "Use true or false."),
        ("users?role=none", "role", "Send the id of a role."),
        ("roles?path=/", "path", "Use limit, after, sort, name or permission."),
        ("resources?enabled=1", "enabled", "Use true or false."),
        ("audit?key=short", "key", "An id is 8 letters and digits."),
        ("audit?user=nobody", "user", "Send the number or the name of a user."),
        ("audit?since=never", "since", "is not a time"),
        ("audit?sort=time", "sort", "Use limit, after, order"),
    ] {
        let response = server.admin_api("GET", &format!("/api/v1/{target}")).send();
        assert_eq!(response.status, 400, "{target}: {}", response.body);
        let error = &response.json()["errors"][0];
        assert_eq!(error["location"], location, "{target}");
        let text = format!("{} {}", error["message"], error["fix"]);
        assert!(text.contains(fix), "{target}: {text}");
    }
}

#[test]
fn audit_entries_are_found_by_each_filter() {
    let (server, keys) = filled();
    server.site.run(&["user", "delete", "Bob", "--yes"]);
    server.site.json(&["key", "revoke", &keys[0]]);
    let actions = |query: &str| found(&server, &format!("/api/v1/audit?{query}"), "action");
    let old = &keys[3];
    for (query, expected) in [
        ("action=key.revoke".to_owned(), vec!["key.revoke", "key.revoke"]),
        (format!("key={old}"), vec!["key.revoke", "key.create"]),
        (format!("object=key/{old}&order=oldest"), vec!["key.create", "key.revoke"]),
        ("user=bob&action=user.*".to_owned(), vec!["user.delete", "user.create"]),
        ("user=bob&action=key.*".to_owned(), vec!["key.revoke", "key.create"]),
        ("object=user/3".to_owned(), vec!["user.create"]),
        ("user=anna".to_owned(), vec!["key.create", "user.create"]),
        (
            "user=ann&action=key.*&order=oldest".to_owned(),
            vec!["key.create", "key.create", "key.revoke"],
        ),
        ("since=9999-01-01".to_owned(), vec![]),
        ("until=2020-01-01".to_owned(), vec![]),
        ("since=1h&until=9999-01-01&action=role.*".to_owned(), vec!["role.create"]),
    ] {
        let expected: Vec<Value> = expected.into_iter().map(Value::from).collect();
        assert_eq!(actions(&query), expected, "{query}");
    }
    // The name of a deleted user is beside the number.
    let entries = server.site.json(&["audit", "list", "--user", "Bob", "--oldest-first"]);
    assert_eq!(entries[0]["user"], json!({ "uid": 4, "name": "Bob" }));
    let table = String::from_utf8(server.site.run(&["audit", "list", "--user", "bob"]).stdout);
    let table = table.unwrap();
    assert!(table.contains("user/4 Bob"), "{table}");
    let revoked = server.site.json(&["audit", "list", "--key", old, "--limit", "1"]);
    let time = revoked[0]["after"]["revoked"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with("+00:00"), "{time}");
    let table = server.site.run(&["audit", "list", "--action", "key.revoke"]).stdout;
    let table = String::from_utf8(table).unwrap();
    assert!(table.contains(&format!("key/{} of ann (#2)", keys[0])), "{table}");
}
