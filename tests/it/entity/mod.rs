//! Tests of the user resource over HTTP, with the exact text of each entity and each error.

mod create;
mod custom;
mod delete;
mod fields;
mod formats;
mod order;
mod own;
mod races;
mod read;
mod resource;
mod respond;
mod rules;
mod update;

use std::sync::{
    Arc, Mutex, Weak,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use crate::harness::{Request, Response, Server, credential};

/// The shared fixture. A test may use it if the test changes only its own users and roles. When no
/// running test uses the fixture, the server stops, and the log of the server is searched for
/// secrets.
static SHARED: Mutex<Weak<Fixture>> = Mutex::new(Weak::new());

/// A server, and helpers that create users with unique names on it.
pub struct Fixture {
    pub server: Server,
    numbers: AtomicU64,
}

/// A user with a key.
pub struct TestUser {
    pub uid: u64,
    pub name: String,
    pub credential: String,
}

/// The fixture with the shared server.
pub fn fixture() -> Arc<Fixture> {
    // The lock is poisoned if another test panicked while it started the server. In this case the
    // caller starts a server.
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(fixture) = shared.upgrade() {
        return fixture;
    }
    let fixture = Arc::new(Fixture::new(Server::new()));
    *shared = Arc::downgrade(&fixture);
    fixture
}

impl Fixture {
    /// A fixture with a server that other tests do not use.
    pub fn new(server: Server) -> Self {
        Self { server, numbers: AtomicU64::new(1) }
    }

    /// A name that no other test uses.
    pub fn unique(&self, word: &str) -> String {
        format!("{word}-{}", self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// The first administrator.
    pub fn admin(&self) -> TestUser {
        TestUser { uid: 1, name: "admin".into(), credential: self.server.admin_credential() }
    }

    /// Creates a role with these permissions, and returns its id.
    pub fn role(&self, permissions: &[&str]) -> String {
        let id = self.unique("role");
        let role = json!({ "id": id, "label": "A role", "permissions": permissions });
        self.call_admin_api("POST", "/api/v1/roles", &role);
        id
    }

    /// Creates an active user with these permissions and a key.
    pub fn user(&self, permissions: &[&str]) -> TestUser {
        self.user_with_record(json!({}), permissions)
    }

    /// Like `user`, with more fields in the user's record.
    pub fn user_with_record(&self, mut record: Value, permissions: &[&str]) -> TestUser {
        if record.get("name").is_none() {
            record["name"] = self.unique("person").into();
        }
        if !permissions.is_empty() {
            record["roles"] = json!([self.role(permissions)]);
        }
        if let Some(password) = record.get("password") {
            self.server.forbid_in_log(password.as_str().unwrap());
        }
        let created = self.call_admin_api("POST", "/api/v1/users", &record);
        let uid = created["uid"].as_u64().unwrap();
        let key = self.call_admin_api("POST", &format!("/api/v1/users/{uid}/keys"), &json!({}));
        let name = created["name"].as_str().unwrap().to_owned();
        self.server.forbid_key_in_log(key["key"].as_str().unwrap());
        let credential = credential(&name, key["key"].as_str().unwrap());
        self.server.forbid_in_log(&credential);
        TestUser { uid, name, credential }
    }

    /// Sends a request to the admin API, which must succeed, and returns the body.
    pub fn call_admin_api(&self, method: &str, target: &str, body: &Value) -> Value {
        let response = self.server.admin_api(method, target).json(body).send();
        assert!([200, 201].contains(&response.status), "{method} {target}: {}", response.body);
        response.json()
    }

    /// A request to the public listener with this user's key.
    pub fn request_as(&self, user: &TestUser, method: &str, target: &str) -> Request {
        self.server.request(method, target).header("API-KEY", &user.credential)
    }

    pub fn post(&self, user: &TestUser, body: &Value) -> Response {
        self.request_as(user, "POST", "/entity/user?_format=json").json(body).send()
    }

    pub fn get(&self, user: &TestUser, uid: u64) -> Response {
        self.request_as(user, "GET", &format!("/user/{uid}?_format=json")).send()
    }

    pub fn patch(&self, user: &TestUser, uid: u64, body: &Value) -> Response {
        self.request_as(user, "PATCH", &format!("/user/{uid}?_format=json")).json(body).send()
    }

    pub fn delete(&self, user: &TestUser, uid: u64) -> Response {
        self.request_as(user, "DELETE", &format!("/user/{uid}?_format=json")).send()
    }

    /// The origin of this server's URLs.
    pub fn origin(&self) -> String {
        format!("http://{}", self.server.public)
    }
}

impl Response {
    /// Checks the status and the content type, and returns the entity in the body.
    #[track_caller]
    pub fn entity(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()
    }

    /// Checks for a 422 response with exactly these violations, one per line.
    #[track_caller]
    pub fn assert_violations(&self, violations: &[&str]) {
        let lines: String = violations.iter().map(|line| format!("{line}\n")).collect();
        self.assert_message(422, &format!("Unprocessable Entity: validation failed.\n{lines}"));
    }
}

/// The value of a field that has exactly one value.
#[track_caller]
pub fn value<'a>(entity: &'a Value, field: &str) -> &'a Value {
    let items = entity[field].as_array().unwrap_or_else(|| panic!("no {field}: {entity}"));
    assert_eq!(items.len(), 1, "{field}: {entity}");
    &items[0]["value"]
}

/// A request body with one field that has one value.
pub fn single_value(field: &str, value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    json!({ field: [{ "value": value }] })
}

/// The names of an entity's fields, in their order.
pub fn field_names(entity: &Value) -> Vec<&str> {
    entity.as_object().unwrap().keys().map(String::as_str).collect()
}
