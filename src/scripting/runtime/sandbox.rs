//! The sandbox of one `test_…` function: the test's users, keys, secrets and clock, and a function
//! that runs requests through the whole pipeline.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use parking_lot::Mutex;
use rhai::{Array, Dynamic, Map};

use super::outbox::ScriptOutbox;
use crate::{
    model::{ADMINISTRATOR, Clock, Entropy, KeyText, Secret, Timestamp, fold},
    scripting::values::{
        records::{KeyView, Records, RoleView, UserParts, UserView},
        request::ScriptRequest,
    },
};

/// The result of `decide()`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestDecision {
    /// Whether the request was allowed.
    pub allowed: bool,
    /// 200, or the status of the denial.
    pub status: u16,
    /// The error code of the denial.
    pub code: Option<String>,
    /// The description that the client would get.
    pub description: Option<String>,
    /// The detail that only the operator's log would get.
    pub detail: Option<String>,
    /// The name of the authenticated user.
    pub user: Option<String>,
    /// The phase that denied the request.
    pub phase: Option<String>,
}

/// A user of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestUser {
    /// The user's number, which the sandbox assigns.
    pub uid: u64,
    /// The name.
    pub name: String,
    /// The ids of the user's roles.
    pub roles: Vec<String>,
    /// The user's permissions, independent of the roles. An administrator has all permissions.
    pub permissions: BTreeSet<String>,
    /// The user's attributes.
    pub attributes: BTreeMap<String, String>,
    /// Whether the user is active; `false` means blocked.
    pub active: bool,
}

/// The maximum number of users that a test may create.
const MAX_USERS: usize = 100;
/// The initial time of a test's clock: 2026-01-05T12:00:00Z, a Monday.
const INITIAL_TIME: Timestamp = Timestamp(1_767_614_400);

/// Runs a request through the pipeline, with the scripts under test and the users of the sandbox.
///
/// An `Err` is a sentence that tells the script's author why no decision was possible.
pub(in crate::scripting) type Decide =
    Box<dyn Fn(&Sandbox, ScriptRequest) -> Result<TestDecision, String> + Send + Sync>;

pub(in crate::scripting) struct Sandbox {
    users: Mutex<Vec<TestUser>>,
    keys: Mutex<Vec<(u64, Secret)>>,
    secrets: Mutex<BTreeMap<String, Arc<Secret>>>,
    clock: Clock,
    webhooks: ScriptOutbox,
    /// The lines that the test's functions have logged.
    log: Mutex<Vec<String>>,
    decide: Decide,
}

impl Sandbox {
    pub fn new(decide: Decide) -> Self {
        Self {
            users: Mutex::default(),
            keys: Mutex::default(),
            secrets: Mutex::default(),
            clock: Clock::fixed(INITIAL_TIME),
            webhooks: ScriptOutbox::default(),
            log: Mutex::default(),
            decide,
        }
    }

    /// A sandbox in which `decide()` is an error, because no pipeline is available.
    pub fn without_gate() -> Self {
        let error = "decide() needs the whole pipeline; run this test with `keyward script test`";
        Self::new(Box::new(move |_, _| Err(error.into())))
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The webhooks that the test's functions requested.
    pub fn webhooks(&self) -> &ScriptOutbox {
        &self.webhooks
    }

    /// Keeps a line of the log for the test's author. The budget of a call limits the lines.
    pub fn add_log(&self, line: String) {
        const MAX_LINES: usize = 256;
        let mut log = self.log.lock();
        if log.len() < MAX_LINES {
            log.push(line);
        }
    }

    /// The lines that were logged.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.log.lock())
    }

    pub fn users(&self) -> Vec<TestUser> {
        self.users.lock().clone()
    }

    /// The keys that the test has requested, each with the number of the key's user.
    pub fn keys(&self) -> Vec<(u64, Secret)> {
        self.keys.lock().clone()
    }

    pub fn add_user(&self, mut user: TestUser) -> Result<UserView, String> {
        let mut users = self.users.lock();
        if users.len() >= MAX_USERS {
            return Err(format!("a test has at most {MAX_USERS} users"));
        }
        if users.iter().any(|other| fold(&other.name) == fold(&user.name)) {
            return Err(format!("the test already has a user {}", user.name));
        }
        // Uid 1 is reserved for the administrator.
        user.uid = users.len() as u64 + 2;
        let view = user.view();
        users.push(user);
        Ok(view)
    }

    /// The key of a user, generated on first use. The pipeline of this test accepts the key.
    pub fn key_of(&self, uid: u64) -> Secret {
        let mut keys = self.keys.lock();
        if let Some((_, key)) = keys.iter().find(|(owner, _)| *owner == uid) {
            return key.clone();
        }
        let key = KeyText::generate("kw", &Entropy::system()).text;
        keys.push((uid, key.clone()));
        key
    }

    pub fn set_secret(&self, name: &str, value: &str) {
        self.secrets.lock().insert(name.to_owned(), Arc::new(Secret::new(value)));
    }

    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        self.secrets.lock().get(name).cloned()
    }

    pub fn decide(&self, request: ScriptRequest) -> Result<TestDecision, String> {
        (self.decide)(self, request)
    }
}

impl Records for Sandbox {
    fn user_by_name(&self, name: &str) -> Option<UserView> {
        let name = fold(name);
        self.users.lock().iter().find(|user| fold(&user.name) == name).map(TestUser::view)
    }

    fn user_by_id(&self, uid: u64) -> Option<UserView> {
        self.users.lock().iter().find(|user| user.uid == uid).map(TestUser::view)
    }

    fn key_by_id(&self, _: &str) -> Option<KeyView> {
        None
    }

    fn role(&self, _: &str) -> Option<RoleView> {
        None
    }
}

impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sandbox({} users)", self.users.lock().len())
    }
}

impl TestUser {
    fn view(&self) -> UserView {
        let permissions = self.permissions.clone();
        let is_admin = self.roles.iter().any(|role| role == ADMINISTRATOR);
        UserView::new(UserParts {
            uid: self.uid,
            name: self.name.clone(),
            is_active: self.active,
            roles: self.roles.clone(),
            attributes: self.attributes.clone(),
            allows: Arc::new(move |permission| is_admin || permissions.contains(permission)),
        })
    }

    /// Reads the argument of `test_user()`.
    pub(in crate::scripting) fn read(fields: &Map) -> Result<Self, String> {
        let mut user = Self { active: true, ..Self::default() };
        for (field, value) in fields {
            match field.as_str() {
                "name" => user.name = text(field, value)?,
                "roles" => user.roles = texts(field, value)?,
                "permissions" => user.permissions = texts(field, value)?.into_iter().collect(),
                "active" => {
                    user.active =
                        value.as_bool().map_err(|_| "test_user: active must be true or false")?;
                }
                "attributes" => {
                    let map = value.clone().try_cast::<Map>();
                    let map = map.ok_or("test_user: attributes must be a map of texts")?;
                    for (key, value) in map {
                        let value = text("attributes", &value)?;
                        user.attributes.insert(key.to_string(), value);
                    }
                }
                unknown => {
                    return Err(format!(
                        "test_user has no field {unknown}; its fields are name, roles, permissions, attributes, active"
                    ));
                }
            }
        }
        if user.name.is_empty() { Err("test_user needs a name".into()) } else { Ok(user) }
    }
}

fn text(field: &str, value: &Dynamic) -> Result<String, String> {
    value.clone().into_string().map_err(|_| format!("test_user: {field} must be a text"))
}

fn texts(field: &str, value: &Dynamic) -> Result<Vec<String>, String> {
    let items = value.clone().try_cast::<Array>();
    let items = items.ok_or_else(|| format!("test_user: {field} must be an array of texts"))?;
    items.iter().map(|item| text(field, item)).collect()
}
