//! Lists come in parts that miss nothing and repeat nothing.

use serde_json::{Value, json};

use crate::harness::Server;

/// Follows a list in parts of `limit` to its end.
fn follow(server: &Server, list: &str, limit: usize, field: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut target = format!("{list}?limit={limit}");
    for _ in 0..100 {
        let part = server.manages("GET", &target).send();
        assert_eq!(part.status, 200, "{}", part.body);
        let part = part.json();
        let items = part["items"].as_array().unwrap();
        assert!(items.len() <= limit);
        found.extend(items.iter().map(|item| item[field].clone()));
        match part["next"].as_str() {
            Some(next) => target = format!("{list}?limit={limit}&after={next}"),
            None => return found,
        }
    }
    panic!("{list} has no end");
}

#[test]
fn every_record_comes_once() {
    let server = Server::new();
    for at in 0..7 {
        server.user(&format!("user {at}"), &[]);
        server.key(&format!("user {at}"), &[]);
        let role = json!({ "id": format!("r{at}"), "label": "R" });
        assert_eq!(server.manages("POST", "/api/v1/roles").json(&role).send().status, 201);
    }
    for limit in [1, 2, 3, 7, 8, 1000] {
        let uids: Vec<Value> = (1..=8).map(Value::from).collect();
        assert_eq!(follow(&server, "/api/v1/users", limit, "uid"), uids);
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
        assert_eq!(follow(&server, "/api/v1/roles", limit, "id"), ids.map(Value::from));
        assert_eq!(follow(&server, "/api/v1/keys", limit, "id").len(), 8);
        assert_eq!(follow(&server, "/api/v1/users/3/keys", limit, "user"), [json!(3)]);
        assert_eq!(follow(&server, "/api/v1/applications", limit, "id"), [json!("default")]);
        assert_eq!(follow(&server, "/api/v1/resources", limit, "id"), [json!("entity.user")]);
    }
}

#[test]
fn a_user_is_found_by_name() {
    let server = Server::new();
    server.user("O'Neil", &[]);
    let named = |name: &str| {
        let found = server.manages("GET", &format!("/api/v1/users?name={name}")).send().json();
        assert_eq!(found["next"], Value::Null);
        found["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|user| user["uid"].clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(named("o%27NEIL"), [json!(2)]);
    assert_eq!(named("o"), [] as [Value; 0]);
    assert_eq!(named(""), [] as [Value; 0]);
    // The person at the machine is in no store.
    assert_eq!(named("keyward.operator"), [] as [Value; 0]);
}

#[test]
fn a_query_that_is_not_in_order() {
    let server = Server::new();
    for (target, place) in [
        ("/api/v1/users?limit=0", "limit"),
        ("/api/v1/users?limit=1001", "limit"),
        ("/api/v1/users?after=x", "after"),
        ("/api/v1/keys?after=%00", "after"),
        ("/api/v1/roles?page=2", "page"),
        ("/api/v1/roles?name=x", "name"),
    ] {
        let answer = server.manages("GET", target).send();
        assert_eq!(answer.status, 400, "{target}: {}", answer.body);
        assert_eq!(answer.json()["errors"][0]["location"], place, "{target}");
    }
}
