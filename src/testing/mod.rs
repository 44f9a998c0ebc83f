//! A test kit for programs that embed Keyward (feature `testing`): a Keyward in memory in one line,
//! with a clock that the test sets, users with credentials, the tests of scripts, and the contract
//! of stores.
//!
//! ```
//! # #[cfg(feature = "axum")]
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use axum::{Router, body::Body, routing::get};
//! use keyward::testing::TestKeyward;
//! use tower::ServiceExt as _;
//!
//! let kit = TestKeyward::new().await;
//! let ada = kit.user("ada", &["read reports"]).await;
//! let guard = kit.guard().requires("read reports");
//! let app: Router = Router::new().route("/reports", get(async || "all")).layer(guard);
//!
//! let request = ada.sign(http::Request::get("/reports").body(Body::empty()).unwrap());
//! assert_eq!(app.oneshot(request).await.unwrap().status(), 200);
//! # });
//! ```

pub mod contract;

use std::{net::IpAddr, path::Path, sync::Arc};

use ::http::{HeaderName, HeaderValue, Request};
use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    accounts::{AccountError, NewKey, NewUser},
    embedding::{Keyward, KeywardBuilder, StartError},
    layer::{ClientAddress, ClientSource, GuardLayer},
    model::{Clock, Entropy, KeyId, Role, Secret, Timestamp},
    pipeline::TestGate,
    scripting::{CheckedScripts, ScriptError, ScriptLimits, ScriptTestGate, TestOutcome},
};

/// The time at which the clock of a new kit stands: 2027-01-15 08:00 UTC.
const START: Timestamp = Timestamp(1_800_000_000);
/// The address of clients whose request has no [`ClientAddress`].
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

/// A Keyward in memory, for tests. Its clock stands still until the test sets it, and its random
/// bytes are the same in each run.
#[derive(Debug, Clone)]
pub struct TestKeyward {
    keyward: Keyward,
    clock: Clock,
}

/// A user of a test with a key.
#[derive(Clone)]
pub struct Credential {
    /// The number of the user.
    pub uid: u64,
    /// The public id of the key.
    pub key: KeyId,
    name: String,
    text: Secret,
}

impl TestKeyward {
    /// A new Keyward. The client of a request is the extension [`ClientAddress`], or else
    /// 127.0.0.1.
    ///
    /// # Panics
    /// It does not start.
    pub async fn new() -> Self {
        match Self::start(|builder| builder).await {
            Ok(kit) => kit,
            Err(problem) => panic!("the test kit does not start: {problem}"),
        }
    }

    /// A new Keyward with further settings, for example scripts.
    ///
    /// # Errors
    /// It does not start, for example because a script has an error.
    pub async fn start(
        configure: impl FnOnce(KeywardBuilder<ClientSource>) -> KeywardBuilder<ClientSource>,
    ) -> Result<Self, StartError> {
        let clock = Clock::fixed(START);
        let client = ClientSource::from_fn(|parts| {
            Some(parts.extensions.get::<ClientAddress>().map_or(CLIENT, |client| client.0))
        });
        let builder = Keyward::memory_with(clock.clone(), Entropy::seeded(1)).client(client);
        let keyward = configure(builder).start().await?;
        Ok(Self { keyward, clock })
    }

    /// The Keyward.
    pub fn keyward(&self) -> &Keyward {
        &self.keyward
    }

    /// A guard: [`Keyward::guard`].
    pub fn guard(&self) -> GuardLayer {
        self.keyward.guard()
    }

    /// The clock, which the test can set.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Lets this number of seconds pass.
    pub fn advance(&self, seconds: i64) {
        self.clock.set(self.clock.now().plus(seconds));
    }

    /// Creates a user with a key. The user has exactly these permissions, through a role of its
    /// own.
    ///
    /// # Panics
    /// The user cannot be created, for example because the name is taken.
    pub async fn user(&self, name: &str, permissions: &[&str]) -> Credential {
        self.user_with_key(name, permissions, NewKey::default()).await
    }

    /// [`TestKeyward::user`] with this key.
    ///
    /// # Panics
    /// The user or the key cannot be created.
    pub async fn user_with_key(&self, name: &str, permissions: &[&str], key: NewKey) -> Credential {
        match self.create(name, permissions, key).await {
            Ok(credential) => credential,
            Err(problem) => panic!("cannot create the user {name}: {problem}"),
        }
    }

    async fn create(
        &self,
        name: &str,
        permissions: &[&str],
        key: NewKey,
    ) -> Result<Credential, AccountError> {
        let writer = self.keyward.unbounded();
        let id = format!("test_{}", hex::encode(name));
        let role = Role {
            id: id.chars().take(60).collect(),
            label: format!("Role of {name}"),
            weight: 0,
            is_admin: false,
            permissions: permissions.iter().map(|name| (*name).to_owned()).collect(),
        };
        let roles = vec![role.id.clone()];
        writer.create(role).await?;
        let new = NewUser { name: name.to_owned(), status: true, roles, ..NewUser::default() };
        let uid = writer.create_user(new).await?.record.uid;
        let issued = writer.issue_key(uid, key).await?;
        let key = issued.key.record.id;
        Ok(Credential { uid, key, name: name.to_owned(), text: issued.text })
    }
}

impl Credential {
    /// The header field that a client of the default application sends.
    ///
    /// # Panics
    /// Never: base64 is a valid value.
    pub fn header(&self) -> (HeaderName, HeaderValue) {
        let text = STANDARD.encode(format!("{}:{}", self.name, self.text.expose()));
        let value = HeaderValue::try_from(text);
        let mut value = value.unwrap_or_else(|_| unreachable!("base64 is a valid value"));
        value.set_sensitive(true);
        (HeaderName::from_static("api-key"), value)
    }

    /// The request with the credential.
    pub fn sign<B>(&self, mut request: Request<B>) -> Request<B> {
        let (name, value) = self.header();
        request.headers_mut().insert(name, value);
        request
    }
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credential({}, key {})", self.name, self.key)
    }
}

/// Runs the `test_…` functions of a folder of scripts, as `keyward script test` does. May be called
/// in an async test.
///
/// # Errors
/// The scripts do not compile.
pub async fn rehearse(folder: impl AsRef<Path>) -> Result<Vec<TestOutcome>, Vec<ScriptError>> {
    let folder = folder.as_ref().to_owned();
    let run = move || {
        let scripts = CheckedScripts::new(&folder, ScriptLimits::default())?;
        let gate: Arc<dyn ScriptTestGate> = Arc::new(TestGate);
        Ok(scripts.test(None, &gate, |_| {}))
    };
    let interrupted = |_| Err(vec![ScriptError::of_folder("", "the tests were interrupted")]);
    tokio::task::spawn_blocking(run).await.unwrap_or_else(interrupted)
}
