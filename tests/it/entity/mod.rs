//! The user entity over HTTP: every row of its tables, compared with the exact text.

mod create;
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

use crate::harness::{Answer, Request, Server, credential};

/// The server that tests share which only make users and roles of their own. It goes, and its log is searched for secrets, when the last of
/// those that use it at the same time is done.
static SHARED: Mutex<Weak<World>> = Mutex::new(Weak::new());

/// A server, and people with fresh names on it.
pub struct World {
    pub server: Server,
    numbers: AtomicU64,
}

/// Somebody with a key.
pub struct Person {
    pub uid: u64,
    pub name: String,
    pub credential: String,
}

/// The shared server.
pub fn world() -> Arc<World> {
    // A test that failed while the server started leaves it to the next one.
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(world) = shared.upgrade() {
        return world;
    }
    let world = Arc::new(World::new(Server::new()));
    *shared = Arc::downgrade(&world);
    world
}

impl World {
    /// A world of one's own.
    pub fn new(server: Server) -> Self {
        Self { server, numbers: AtomicU64::new(1) }
    }

    /// A word that nobody else uses.
    pub fn fresh(&self, word: &str) -> String {
        format!("{word}-{}", self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// The first administrator.
    pub fn admin(&self) -> Person {
        Person { uid: 1, name: "admin".into(), credential: self.server.administrator() }
    }

    /// A role with these permissions.
    pub fn role(&self, permissions: &[&str]) -> String {
        let id = self.fresh("role");
        let role = json!({ "id": id, "label": "A role", "permissions": permissions });
        self.manages("POST", "/api/v1/roles", &role);
        id
    }

    /// An active user with these permissions and a key.
    pub fn person(&self, permissions: &[&str]) -> Person {
        self.person_with(json!({}), permissions)
    }

    /// The same, with more in the user's record.
    pub fn person_with(&self, mut record: Value, permissions: &[&str]) -> Person {
        if record.get("name").is_none() {
            record["name"] = self.fresh("person").into();
        }
        if !permissions.is_empty() {
            record["roles"] = json!([self.role(permissions)]);
        }
        if let Some(password) = record.get("password") {
            self.server.hide(password.as_str().unwrap());
        }
        let made = self.manages("POST", "/api/v1/users", &record);
        let uid = made["uid"].as_u64().unwrap();
        let key = self.manages("POST", &format!("/api/v1/users/{uid}/keys"), &json!({}));
        let name = made["name"].as_str().unwrap().to_owned();
        self.server.hide_key(key["key"].as_str().unwrap());
        let credential = credential(&name, key["key"].as_str().unwrap());
        self.server.hide(&credential);
        Person { uid, name, credential }
    }

    /// Asks the admin API, which must do it.
    pub fn manages(&self, method: &str, target: &str, body: &Value) -> Value {
        let answer = self.server.manages(method, target).json(body).send();
        assert!([200, 201].contains(&answer.status), "{method} {target}: {}", answer.body);
        answer.json()
    }

    /// A request of somebody.
    pub fn asks(&self, who: &Person, method: &str, target: &str) -> Request {
        self.server.request(method, target).header("API-KEY", &who.credential)
    }

    pub fn post(&self, who: &Person, body: &Value) -> Answer {
        self.asks(who, "POST", "/entity/user?_format=json").json(body).send()
    }

    pub fn get(&self, who: &Person, uid: u64) -> Answer {
        self.asks(who, "GET", &format!("/user/{uid}?_format=json")).send()
    }

    pub fn patch(&self, who: &Person, uid: u64, body: &Value) -> Answer {
        self.asks(who, "PATCH", &format!("/user/{uid}?_format=json")).json(body).send()
    }

    pub fn delete(&self, who: &Person, uid: u64) -> Answer {
        self.asks(who, "DELETE", &format!("/user/{uid}?_format=json")).send()
    }

    /// What an absolute URL of this server begins with.
    pub fn origin(&self) -> String {
        format!("http://{}", self.server.public)
    }
}

impl Answer {
    /// The entity, with the status that says that it is one.
    #[track_caller]
    pub fn entity(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        assert_eq!(self.header("content-type"), Some("application/json"));
        self.json()
    }

    /// The faults that validation found, a line each.
    #[track_caller]
    pub fn finds(&self, faults: &[&str]) {
        let lines: String = faults.iter().map(|fault| format!("{fault}\n")).collect();
        self.says(422, &format!("Unprocessable Entity: validation failed.\n{lines}"));
    }
}

/// The value of a field that holds one.
#[track_caller]
pub fn value<'a>(entity: &'a Value, field: &str) -> &'a Value {
    let items = entity[field].as_array().unwrap_or_else(|| panic!("no {field}: {entity}"));
    assert_eq!(items.len(), 1, "{field}: {entity}");
    &items[0]["value"]
}

/// A body with this one value.
pub fn one(field: &str, value: impl Into<Value>) -> Value {
    let value: Value = value.into();
    json!({ field: [{ "value": value }] })
}

/// The names of an entity's fields, in their order.
pub fn names(entity: &Value) -> Vec<&str> {
    entity.as_object().unwrap().keys().map(String::as_str).collect()
}
