//! The pipeline behind `decide()` in script tests: the real pipeline, with a store in memory that
//! contains only the test's users.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::Method;
use uuid::Uuid;

use crate::{
    accounts::{Accounts, Passwords},
    model::{
        ADMINISTRATOR, ANONYMOUS, ANY_METHOD, AUTHENTICATED, Application, AuthType, Borrowed,
        Entropy, Handler, Key, KeyId, KeyShape, KeyText, PathOptions, Pepper, PermissionSource,
        Resource, Role, Rules, Scheme, Secret, Timestamp, User, known_method,
    },
    pipeline::{Action, Denial, Face, Gate, Grant, Request, RequestContext},
    scripting::{ScriptKind, ScriptTestGate, TestDecision, TestRequest, TestUser},
    store::{Batch, MemoryStore, Store, Table, encode, table},
};

/// The maximum size of the header field with the credential, in bytes. The configured maximum does
/// not apply to tests.
const CREDENTIAL_BYTES: usize = 65_536;
/// The id of the only application.
const APPLICATION: &str = "default";
/// The id of the only resource, unless the script under test belongs to a resource.
const RESOURCE: &str = "test";

/// Decides about the requests of script tests.
///
/// The only application is called `default`. Its authentication type is the script under test, or
/// `api_key` if this script is not an authentication type. The application reads `Authorization` if
/// the request has `Authorization` and no `API-KEY`; otherwise the application reads `API-KEY`. The
/// only resource has every path and every method, and requires a credential but no permission.
#[derive(Debug, Clone, Copy, Default)]
pub struct TestGate;

impl ScriptTestGate for TestGate {
    fn decide(&self, test: &TestRequest) -> Result<TestDecision, String> {
        // A thread that runs tasks of a runtime must not start another runtime.
        if tokio::runtime::Handle::try_current().is_err() {
            return decide_here(test);
        }
        std::thread::scope(|scope| scope.spawn(|| decide_here(test)).join())
            .unwrap_or_else(|_| Err("decide() panicked".into()))
    }
}

/// Decides in a runtime of its own. The decision does no I/O, but background writes of the gate
/// need a runtime.
fn decide_here(test: &TestRequest) -> Result<TestDecision, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime =
        runtime.map_err(|problem| format!("decide() could not start its runtime: {problem}"))?;
    runtime.block_on(decide(test))
}

async fn decide(test: &TestRequest) -> Result<TestDecision, String> {
    let setup_failed =
        |problem: &dyn std::fmt::Display| format!("decide() could not be set up: {problem}");
    let parts = test.request.parts();
    // As in a listener, a known method may be in any case.
    let method = known_method(&parts.method).unwrap_or(&parts.method);
    let method = Method::from_bytes(method.as_bytes())
        .map_err(|_| "decide() needs a method, such as GET".to_owned())?;
    let pepper = Pepper::from_bytes(Entropy::system().bytes());
    let store = MemoryStore::new();
    store.commit(records(test, &pepper)).await.map_err(|problem| setup_failed(&problem))?;
    let clock = test.clock.clone();
    let accounts =
        Accounts::with(Arc::new(store), pepper, Passwords::new(1), clock, Entropy::system())
            .map_err(|problem| setup_failed(&problem))?;
    let gate = Gate::new(&accounts, CREDENTIAL_BYTES);
    let policy = accounts.directory().borrow_policy();
    let context = RequestContext::new(policy, Borrowed::from_inner(test.set.clone()), gate.clone());
    let found = context.policy.routes.find(parts.host.as_deref().unwrap_or_default(), &parts.path);
    let rule = found.as_ref().and_then(|found| found.rule(method.as_str()));
    let rule = rule.ok_or("decide() accepts every method except TRACE and CONNECT")?;
    let request = Request {
        method: &method,
        path: &parts.path,
        query: parts.query.as_deref(),
        headers: &parts.headers,
        host: parts.host.as_deref(),
        body: parts.body.as_ref(),
        client: parts.client,
        face: Face::Public,
    };
    match gate.authorize(&context, &request, &Action::Use(rule)).await {
        Ok(grant) => Ok(allowed(&grant)),
        Err(denial) => Ok(denied(&gate.on_denied(&context, &request, Some(rule), denial).await)),
    }
}

fn allowed(grant: &Grant<'_>) -> TestDecision {
    TestDecision {
        allowed: true,
        status: 200,
        code: None,
        description: None,
        detail: None,
        user: grant.identity().name().map(str::to_owned),
        phase: None,
    }
}

fn denied(denial: &Denial) -> TestDecision {
    TestDecision {
        allowed: false,
        status: denial.status.as_u16(),
        code: Some(denial.code.to_string()),
        description: Some(denial.external_message.to_string()),
        detail: denial.internal_message.clone().map(Into::into),
        user: None,
        phase: Some(denial.phase.name().to_owned()),
    }
}

/// The records of a test: users, roles, keys, the application and the resource.
fn records(test: &TestRequest, pepper: &Pepper) -> Batch {
    let now = test.clock.now();
    let mut batch = Batch::new();
    let roles = roles(&test.users);
    for user in &test.users {
        batch.put(Table::Users, table::user(user.uid), encode(&user_record(user, &roles, now)));
    }
    for (id, role) in roles {
        batch.put(Table::Roles, id, encode(&role));
    }
    for (uid, text) in &test.keys {
        let KeyShape::Ours(id) = KeyText::shape(text.expose()) else { continue };
        let key = key_record(*uid, id, text, pepper, now);
        batch.put(Table::Keys, table::key(id), encode(&key));
    }
    batch.put(Table::Applications, APPLICATION, encode(&application(test)));
    let resource = resource(test);
    batch.put(Table::Resources, resource.id.clone(), encode(&resource));
    batch
}

fn application(test: &TestRequest) -> Application {
    let mut application = Application::api_key(APPLICATION, "Default");
    application.is_default = true;
    if test.kind == ScriptKind::Auth {
        application.auth_type = AuthType::Script(test.name.clone());
    }
    let headers = &test.request.parts().headers;
    if headers.contains_key("authorization") && !headers.contains_key("api-key") {
        application.header = "Authorization".into();
    }
    application
}

fn resource(test: &TestRequest) -> Resource {
    let set = |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<BTreeSet<_>>();
    Resource {
        id: if test.kind == ScriptKind::Resource { test.name.clone() } else { RESOURCE.into() },
        enabled: true,
        handler: match test.kind {
            ScriptKind::Handler => Handler::Script(test.name.clone()),
            _ => Handler::Respond,
        },
        path: Some("/{*path}".into()),
        host: None,
        path_options: PathOptions::default(),
        rules: Rules::Resource {
            methods: set(&[ANY_METHOD]),
            formats: set(&["any"]),
            authentication: set(&["*"]),
            permissions: BTreeMap::new(),
        },
        applications: Vec::new(),
        permission: PermissionSource::Records,
        buffer_body: true,
        body: crate::model::BodyRules::default(),
        respond: None,
        proxy: None,
        rate_limit: None,
        cors: None,
    }
}

/// The roles of the users.
///
/// A test gives permissions to users, but Keyward gives permissions to roles. So each role gets the
/// permissions that all users with this role have. A user gets the remaining permissions from an
/// extra role that no other user has.
fn roles(users: &[TestUser]) -> BTreeMap<String, Role> {
    let role = |id: &str| Role {
        id: id.to_owned(),
        label: id.to_owned(),
        weight: 0,
        is_admin: id == ADMINISTRATOR,
        permissions: BTreeSet::new(),
    };
    let mut roles: BTreeMap<String, Role> =
        [ANONYMOUS, AUTHENTICATED].map(|id| (id.to_owned(), role(id))).into();
    for user in users {
        for id in user.roles.iter().filter(|id| !Role::is_locked(id)) {
            let mut holders = users.iter().filter(|user| user.roles.contains(id));
            let first = holders.next().map(|user| user.permissions.clone()).unwrap_or_default();
            let shared = holders.fold(first, |shared, user| &shared & &user.permissions);
            let role = roles.entry(id.clone()).or_insert_with(|| role(id));
            role.permissions = shared;
        }
    }
    for user in users {
        let granted: BTreeSet<String> = user
            .roles
            .iter()
            .filter_map(|id| roles.get(id))
            .flat_map(|role| role.permissions.iter().cloned())
            .collect();
        let permissions = &user.permissions - &granted;
        if !permissions.is_empty() {
            let id = extra_role_id(user);
            roles.insert(id.clone(), Role { permissions, ..role(&id) });
        }
    }
    roles
}

fn extra_role_id(user: &TestUser) -> String {
    format!("test.{}", user.uid)
}

fn user_record(user: &TestUser, all_roles: &BTreeMap<String, Role>, now: Timestamp) -> User {
    let extra_role = Some(extra_role_id(user)).filter(|id| all_roles.contains_key(id));
    let roles = user.roles.iter().cloned().chain(extra_role).collect();
    User {
        uid: user.uid,
        uuid: Uuid::nil(),
        name: user.name.clone(),
        mail: None,
        init: None,
        status: user.active,
        roles,
        password: None,
        created: now,
        changed: now,
        access: Timestamp(0),
        login: Timestamp(0),
        langcode: "en".into(),
        preferred_langcode: None,
        preferred_admin_langcode: None,
        timezone: None,
        attributes: user.attributes.clone(),
        rate_limit: None,
        credits: None,
    }
}

fn key_record(uid: u64, id: KeyId, text: &Secret, pepper: &Pepper, now: Timestamp) -> Key {
    Key {
        id,
        user: uid,
        application: None,
        label: String::new(),
        prefix: "kw".into(),
        last_four: String::new(),
        digest: pepper.digest(text.expose()),
        scheme: Scheme::Own,
        slow: None,
        former_digest: None,
        universal: false,
        scopes: None,
        created: now,
        expires: None,
        revoked: None,
        rotated: None,
        networks: Vec::new(),
        rate_limit: None,
        credits: None,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::scripting::{ScriptHost, ScriptLimits, Scripts};

    fn load(file: &str, text: &str) -> Result<usize, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        let host = ScriptHost { gate: Some(Arc::new(TestGate)), ..ScriptHost::default() };
        let scripts = Scripts::load(folder.path(), ScriptLimits::default(), host);
        let scripts = scripts.map_err(|found| found[0].to_string())?;
        Ok(scripts.reload().unwrap().tests)
    }

    #[test]
    fn decide_runs_hooks_with_the_users_of_the_test() {
        let text = r#"
            fn on_permit(req, identity, resource) {
                if resource.id != "orders" || !identity.has_permission("buy") { return false; }
                identity.has_role("buyer")
            }
            fn on_denied(req, denial) { if denial.status == 403 { denial.status = 404; } }
            fn test_permissions() {
                let ann = test_user(#{ name: "ann", roles: ["buyer"], permissions: ["buy"] });
                let bob = test_user(#{ name: "bob", roles: ["buyer"] });
                let off = test_user(#{ name: "off", active: false });
                let req = test_request("POST", "/orders?x=y");
                let verdict = decide(req.with_user(ann));
                assert_eq([verdict.allowed, verdict.status, verdict.user, verdict.error], [true, 200, "ann", ()]);
                verdict = decide(req.with_user(bob));
                assert_eq([verdict.allowed, verdict.status, verdict.error, verdict.room], [false, 404, "PERMISSION_DENIED", "permit"]);
                assert_eq(decide(req.with_user(off)).error, "USER_BLOCKED");
                assert_eq(decide(req).error, "MISSING_API_KEY_HEADER");
                assert_eq(decide(req.with_header("API-KEY", "x")).status, 401);
                assert_eq(decide(test_request("GET", "/").with_user(ann)).status, 200);
            }
            fn test_users_have_their_own_permissions() {
                let a = test_user(#{ name: "a", roles: ["buyer"], permissions: ["buy", "sell"] });
                let b = test_user(#{ name: "b", roles: ["buyer"], permissions: ["sell"] });
                assert_eq(decide(test_request("GET", "/").with_user(a)).status, 200);
                assert_eq(decide(test_request("GET", "/").with_user(b)).status, 404);
            }"#;
        assert_eq!(load("resources/orders.rhai", text), Ok(2));
        // In `hooks.rhai` the same test gets a resource with another id.
        let problem = load("hooks.rhai", text).unwrap_err();
        assert!(problem.contains("test_permissions failed"), "{problem}");
    }

    #[test]
    fn decide_runs_built_in_phases_of_a_scripted_authentication_type() {
        let text = r#"
            fn header(req) { req.param("key") }
            fn decode(req, presented) { #{ key: presented } }
            fn test_a_key() {
                let ann = test_user(#{ name: "ann" });
                let verdict = decide(test_request("GET", "/x?key=" + test_key(ann)));
                assert_eq([verdict.user, verdict.status], ["ann", 200]);
                assert_eq(decide(test_request("GET", "/x?key=other")).error, "AUTHENTICATION_FAILED");
                assert_eq(decide(test_request("GET", "/x")).status, 401);
            }"#;
        assert_eq!(load("auth/query.rhai", text), Ok(1));
        let adopts = r#"
            fn lookup(req, credential) { user_by_name(credential.user) }
            fn verify(req, user, credential) { #{ adopt: credential.secret } }
            fn test_it() {
                test_user(#{ name: "ann" });
                let pair = base64_encode("ann:a key of another system");
                assert_eq(decide(test_request("GET", "/").with_header("Authorization", "Basic " + pair)).user, "ann");
                assert_eq(decide(test_request("BREW", "/")).status, 401);
                assert_eq(decide(test_request("TRACE", "/")).status, 200);
            }"#;
        let problem = load("auth/old.rhai", adopts).unwrap_err();
        assert!(problem.contains("decide() accepts every method"), "{problem}");
    }
}
