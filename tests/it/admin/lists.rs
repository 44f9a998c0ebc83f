//! Paged lists contain every record exactly once.

use serde_json::{Value, json};

use crate::harness::Server;

/// Reads all pages of a list, with `limit` items per page, and returns one field of each item.
fn read_all_pages(server: &Server, list: &str, limit: usize, field: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut target = format!("{list}?limit={limit}");
    for _ in 0..100 {
        let page = server.admin_api("GET", &target).send();
        assert_eq!(page.status, 200, "{}", page.body);
        let page = page.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        found.extend(items.iter().map(|item| item[field].clone()));
        match page["next"].as_str() {
            Some(next) => target = format!("{list}?limit={limit}&after={next}"),
            None => return found,
        }
    }
    panic!("{list} has more than 100 pages");
}

#[test]
fn every_record_is_listed_once() {
    let server = Server::new();
    for number in 0..7 {
        server.add_user(&format!("user {number}"), &[]);
        server.generate_key(&format!("user {number}"), &[]);
        let role = json!({ "id": format!("r{number}"), "label": "R" });
        assert_eq!(server.admin_api("POST", "/api/v1/roles").json(&role).send().status, 201);
    }
    for limit in [1, 2, 3, 7, 8, 1000] {
        let uids: Vec<Value> = (1..=8).map(Value::from).collect();
        assert_eq!(read_all_pages(&server, "/api/v1/users", limit, "uid"), uids);
        let ids = [
            "administrator",
            "anonymous",
            "authenticated",
            "r0",
            "r1",
            "r2",
            "r3",
            "r4",
            "r5",
            "r6",
        ];
        assert_eq!(read_all_pages(&server, "/api/v1/roles", limit, "id"), ids.map(Value::from));
        assert_eq!(read_all_pages(&server, "/api/v1/keys", limit, "id").len(), 8);
        assert_eq!(read_all_pages(&server, "/api/v1/users/3/keys", limit, "user"), [json!(3)]);
        assert_eq!(
            read_all_pages(&server, "/api/v1/applications", limit, "id"),
            [json!("default")]
        );
        assert_eq!(
            read_all_pages(&server, "/api/v1/resources", limit, "id"),
            [json!("entity.user")]
        );
    }
}

#[test]
fn a_user_is_found_by_name() {
    let server = Server::new();
    server.add_user("O'Neil", &[]);
    let uids_by_name = |name: &str| {
        let found = server.admin_api("GET", &format!("/api/v1/users?name={name}")).send().json();
        assert_eq!(found["next"], Value::Null);
        found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["uid"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(uids_by_name("o%27NEIL"), [json!(2)]);
    assert_eq!(uids_by_name("o"), [] as [Value; 0]);
    assert_eq!(uids_by_name(""), [] as [Value; 0]);
    // The operator's built-in application is not a user.
    assert_eq!(uids_by_name("keyward.operator"), [] as [Value; 0]);
}

#[test]
fn an_invalid_query_parameter_is_rejected() {
    let server = Server::new();
    for (target, parameter) in [
        ("/api/v1/users?limit=0", "limit"),
        ("/api/v1/users?limit=1001", "limit"),
        ("/api/v1/users?after=x", "after"),
        ("/api/v1/keys?after=%00", "after"),
        ("/api/v1/roles?page=2", "page"),
        ("/api/v1/roles?mail=x", "mail"),
    ] {
        let response = server.admin_api("GET", target).send();
        assert_eq!(response.status, 400, "{target}: {}", response.body);
        assert_eq!(response.json()["errors"][0]["location"], parameter, "{target}");
    }
}
