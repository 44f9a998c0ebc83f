//! The world of one `test_…` function: users, secrets and a clock of its own, and the way to the Gate that the wiring lends it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use rhai::{Array, Dynamic, Map};

use super::outbox::Outbox;
use crate::{
    model::{ADMINISTRATOR, Clock, Entropy, KeyText, Secret, Timestamp, fold},
    scripting::{
        Kind, Set,
        values::{
            records::{KeyView, Records, RoleView, UserParts, UserView},
            request::ScriptRequest,
        },
    },
};

/// Runs a request through the whole Gate with a set of scripts that is being tested. Whoever has a Gate implements it.
pub trait ScriptTestGate: Send + Sync {
    /// Decides about one request. It runs inside a script's call: it must not wait for anything outside of memory.
    ///
    /// # Errors
    /// Why there is no verdict, as a sentence for the script's author.
    fn decide(&self, trial: &TestRequest) -> Result<TestDecision, String>;
}

/// What is to be decided in a test.
pub struct TestRequest {
    /// The scripts under test. Their calls see the test's users, secrets and clock, and run on the calling thread.
    pub set: Arc<Set>,
    /// What the script that is being tested is.
    pub kind: Kind,
    /// Its name: the authentication type's, the resource's, the handler's; empty for `hooks.rhai`.
    pub name: String,
    /// The request.
    pub request: ScriptRequest,
    /// The users of the test.
    pub users: Vec<TestUser>,
    /// A key's text for each of these users, by the user's number.
    pub keys: Vec<(u64, Secret)>,
    /// The clock of the test.
    pub clock: Clock,
}

/// A verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TestDecision {
    /// Whether the request was let through.
    pub allowed: bool,
    /// 200, or the status of the refusal.
    pub status: u16,
    /// The stable name of the refusal.
    pub code: Option<String>,
    /// What the client would be told.
    pub description: Option<String>,
    /// What the operator's log would be told besides.
    pub detail: Option<String>,
    /// The name of the user who was let through.
    pub user: Option<String>,
    /// The room that refused.
    pub room: Option<String>,
}

/// A user of a test.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TestUser {
    /// The number; given when it is added.
    pub uid: u64,
    /// The name.
    pub name: String,
    /// The ids of its roles.
    pub roles: Vec<String>,
    /// Its permissions, whatever its roles give; an administrator has all.
    pub permissions: BTreeSet<String>,
    /// Its small facts.
    pub attributes: BTreeMap<String, String>,
    /// Active, or blocked.
    pub active: bool,
}

/// How many users a test may make.
const MOST_USERS: usize = 100;
/// The clock of a test that sets none: 2026-01-05T12:00:00Z, a Monday.
const NOON: Timestamp = Timestamp(1_767_614_400);

pub(in crate::scripting) struct Sandbox {
    users: Mutex<Vec<TestUser>>,
    keys: Mutex<Vec<(u64, Secret)>>,
    secrets: Mutex<BTreeMap<String, Arc<Secret>>>,
    clock: Clock,
    webhooks: Outbox,
    subject: Option<Subject>,
}

/// What a test is about.
pub(in crate::scripting) struct Subject {
    pub gate: Arc<dyn ScriptTestGate>,
    /// Weak, because the set's scripts know their world.
    pub set: Weak<Set>,
    pub kind: Kind,
    pub name: String,
}

impl Sandbox {
    pub fn new(subject: Option<Subject>) -> Self {
        let clock = Clock::fixed(NOON);
        Self {
            users: Mutex::default(),
            keys: Mutex::default(),
            secrets: Mutex::default(),
            clock,
            webhooks: Outbox::default(),
            subject,
        }
    }

    pub fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// The webhooks that the test's functions wanted sent.
    pub fn webhooks(&self) -> &Outbox {
        &self.webhooks
    }

    pub fn add(&self, mut user: TestUser) -> Result<UserView, String> {
        let mut users = lock(&self.users);
        if users.len() >= MOST_USERS {
            return Err(format!("a test has at most {MOST_USERS} users"));
        }
        if users.iter().any(|other| fold(&other.name) == fold(&user.name)) {
            return Err(format!("the test has a user {} already", user.name));
        }
        // Uid 1 is the administrator's.
        user.uid = users.len() as u64 + 2;
        let view = user.view();
        users.push(user);
        Ok(view)
    }

    /// The text of a user's key. The Gate of the same test takes it.
    pub fn key(&self, uid: u64) -> Secret {
        let mut keys = lock(&self.keys);
        if let Some((_, key)) = keys.iter().find(|(of, _)| *of == uid) {
            return key.clone();
        }
        let key = KeyText::generate("kw", &Entropy::system()).text;
        keys.push((uid, key.clone()));
        key
    }

    pub fn set_secret(&self, name: &str, value: &str) {
        lock(&self.secrets).insert(name.to_owned(), Arc::new(Secret::new(value)));
    }

    pub fn secret(&self, name: &str) -> Option<Arc<Secret>> {
        lock(&self.secrets).get(name).cloned()
    }

    pub fn decide(&self, request: ScriptRequest) -> Result<TestDecision, String> {
        let nowhere = "decide() needs a whole server; `keyward script test` has one";
        let subject = self.subject.as_ref().ok_or(nowhere)?;
        let trial = TestRequest {
            set: subject.set.upgrade().ok_or(nowhere)?,
            kind: subject.kind,
            name: subject.name.clone(),
            request,
            users: lock(&self.users).clone(),
            keys: lock(&self.keys).clone(),
            clock: self.clock(),
        };
        subject.gate.decide(&trial)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Records for Sandbox {
    fn user_by_name(&self, name: &str) -> Option<UserView> {
        let name = fold(name);
        lock(&self.users).iter().find(|user| fold(&user.name) == name).map(TestUser::view)
    }

    fn user_by_id(&self, uid: u64) -> Option<UserView> {
        lock(&self.users).iter().find(|user| user.uid == uid).map(TestUser::view)
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
        write!(f, "Sandbox({} users)", lock(&self.users).len())
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
                        value.as_bool().map_err(|_| "test_user: active is true or false")?;
                }
                "attributes" => {
                    let map = value.clone().try_cast::<Map>();
                    let map = map.ok_or("test_user: attributes is a map of texts")?;
                    for (key, value) in map {
                        let value = text("attributes", &value)?;
                        user.attributes.insert(key.to_string(), value);
                    }
                }
                other => {
                    return Err(format!(
                        "test_user has no field {other}; there are name, roles, permissions, attributes, active"
                    ));
                }
            }
        }
        match user.name.is_empty() {
            true => Err("test_user needs a name".into()),
            false => Ok(user),
        }
    }
}

fn text(field: &str, value: &Dynamic) -> Result<String, String> {
    value.clone().into_string().map_err(|_| format!("test_user: {field} is a text"))
}

fn texts(field: &str, value: &Dynamic) -> Result<Vec<String>, String> {
    let items = value.clone().try_cast::<Array>();
    let items = items.ok_or_else(|| format!("test_user: {field} is an array of texts"))?;
    items.iter().map(|item| text(field, item)).collect()
}
