//! Tests that load folders of scripts and call their functions.

mod blocking;
mod body;
mod hostile;
mod library;
mod loading;
mod natives;
mod return_values;
mod reused_calls;
mod script_tests;
mod tokens;
mod warnings;
mod watch;

use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tempfile::TempDir;

use super::*;
use crate::model::{Secret, Timestamp};

/// A temporary folder of scripts.
struct Folder(TempDir);

impl Folder {
    fn of(files: &[(&str, &str)]) -> Self {
        let folder = Self(TempDir::new().unwrap());
        for (file, text) in files {
            folder.write(file, text);
        }
        folder
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, file: &str, text: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn load(&self) -> Result<Scripts, Vec<ScriptError>> {
        self.load_with(limits(), host())
    }

    fn load_with(
        &self,
        limits: ScriptLimits,
        host: ScriptHost,
    ) -> Result<Scripts, Vec<ScriptError>> {
        Scripts::load(self.path(), limits, host)
    }

    /// Loads the folder, which must fail, and returns the errors as text.
    fn load_errors(&self) -> String {
        let problems = self.load().map(|_| ()).unwrap_err();
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    }
}

/// The default limits with a longer time, because a debug build on a busy machine takes longer for
/// the same steps.
fn limits() -> ScriptLimits {
    ScriptLimits { time: Duration::from_secs(5), ..ScriptLimits::default() }
}

/// Records with one user (`llama`), one key and one role.
struct LlamaRecords;

impl Records for LlamaRecords {
    fn user_by_name(&self, name: &str) -> Option<UserView> {
        (name == "llama").then(llama)
    }

    fn user_by_id(&self, uid: u64) -> Option<UserView> {
        (uid == 7).then(llama)
    }

    fn key_by_id(&self, id: &str) -> Option<KeyView> {
        (id == "abcdefgh").then(|| {
            KeyView::new(KeyParts {
                id: id.to_owned(),
                user: 7,
                is_revoked: false,
                expires: Some(Timestamp(2_000_000_000)),
                application: None,
                scopes: Some(vec!["graze".into()]),
                networks: vec!["192.0.2.0/24".into()],
            })
        })
    }

    fn role(&self, id: &str) -> Option<RoleView> {
        (id == "herd").then(|| {
            RoleView::new(RoleParts {
                id: id.to_owned(),
                label: "The herd".into(),
                is_admin: false,
                permissions: vec!["graze".into()],
            })
        })
    }
}

fn llama() -> UserView {
    UserView::new(UserParts {
        uid: 7,
        name: "llama".into(),
        is_active: true,
        roles: vec!["herd".into()],
        attributes: BTreeMap::from([("tenant".into(), "andes".into())]),
        allows: Arc::new(|permission| permission == "graze"),
    })
}

fn llama_identity() -> IdentityView {
    IdentityView::new(IdentityParts {
        uid: Some(7),
        name: "llama".into(),
        roles: vec!["herd".into()],
        scopes: None,
        key_id: Some("abcdefgh".into()),
        application: Some("default".into()),
        attributes: BTreeMap::from([("tenant".into(), "andes".into())]),
        allows: Arc::new(|permission| permission == "graze"),
    })
}

fn resource() -> ResourceView {
    ResourceView::new(ResourceParts {
        id: "orders".into(),
        handler: "proxy".into(),
        path: "/orders".into(),
        host: None,
        method: "GET".into(),
    })
}

fn host() -> ScriptHost {
    ScriptHost {
        records: Arc::new(LlamaRecords),
        clock: Clock::fixed(Timestamp(1_767_614_400)),
        secrets: Secrets::new([("webhook".to_owned(), Secret::new("a secret that nobody sees"))]),
        webhooks: Arc::new(["ops".to_owned()]),
        gate: None,
        find_missing: None,
    }
}

fn parts() -> RequestParts {
    let mut headers = HeaderMap::new();
    for (name, value) in [("x-one", "1"), ("x-many", "a"), ("x-many", "b")] {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    headers.insert("x-bytes", HeaderValue::from_bytes(b"\xff").unwrap());
    RequestParts {
        method: "POST".into(),
        path: "/orders".into(),
        query: Some("a=1&b=x%20y&a=2".into()),
        headers,
        client: "::ffff:10.1.2.3".parse().unwrap(),
        host: Some("api.example.com".into()),
        body: Some(Bytes::from_static(b"{\"n\":1}")),
    }
}

fn req() -> ScriptRequest {
    ScriptRequest::new(parts())
}

/// Runs a hook `on_permit` with this body, and returns the outcome.
async fn permit_with(limits: ScriptLimits, body: &str) -> Result<PermitResult, Fault> {
    let text = format!("fn on_permit(req, identity, resource) {{ {body} }}");
    let folder = Folder::of(&[("hooks.rhai", &text)]);
    let scripts = folder.load_with(limits, host()).unwrap_or_else(|problems| {
        panic!("{body}: {}", problems.iter().map(ToString::to_string).collect::<String>())
    });
    let set = scripts.current();
    let script = set.hooks(Function::OnPermit, None).next().unwrap();
    script.on_permit(&req(), &llama_identity(), &resource()).await
}

async fn permit(body: &str) -> Result<PermitResult, Fault> {
    permit_with(limits(), body).await
}

/// The detail of a failure.
#[track_caller]
fn detail<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> String {
    match outcome {
        Err(Fault::Failed { detail }) => detail,
        other => panic!("the call did not fail: {other:?}"),
    }
}

/// The refusal that a script threw.
#[track_caller]
fn refusal<T: std::fmt::Debug>(outcome: Result<T, Fault>) -> ScriptRefusal {
    match outcome {
        Err(Fault::Refused(refusal)) => *refusal,
        other => panic!("the script did not refuse: {other:?}"),
    }
}
