//! Tests of `export` and `apply`: an exported file restores the same records, and a file is applied
//! entirely or not at all.

mod authorization;
mod equivalence;
mod file;
mod invalid;
mod lookups;
mod prune;

use std::{
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use keyward::{
    accounts::{Accounts, AuditOrder, NewUser, Passwords},
    api::Api,
    handlers::{BodyLimits, RequestBody},
    model::{Actor, Clock, Entropy, Pepper, Timestamp},
    pipeline::Gate,
    store::{MemoryStore, Store},
};
use serde_json::{Value, json};

use crate::{faces::fixture::TIMEOUT, harness::credential};

const NOW: Timestamp = Timestamp(1_800_000_000);
/// The first line of every file.
const HEAD: &str = "version = 1\n";

fn pepper() -> Pepper {
    Pepper::from_bytes([7; 32])
}

fn accounts_on(store: Arc<dyn Store>) -> Accounts {
    let (passwords, clock) = (Passwords::new(1), Clock::fixed(NOW));
    Accounts::with(store, pepper(), passwords, clock, Entropy::seeded(1)).unwrap()
}

/// A client that calls the admin API without HTTP, and the accounts that the API changes.
struct ApiClient {
    accounts: Accounts,
    api: Api,
    /// The header fields of the credential.
    credential: Vec<(&'static str, String)>,
}

impl ApiClient {
    /// A client with the operator's credential.
    fn operator(accounts: Accounts) -> Self {
        let key = accounts.create_operator_key().key.expose().to_owned();
        let gate = Gate::new(&accounts, 4096);
        let api = Api::new(gate, accounts.clone(), BodyLimits { bytes: 1 << 20, read: TIMEOUT });
        let credential = vec![
            ("auth-method", "keyward.operator".to_owned()),
            ("authorization", format!("Bearer {key}")),
        ];
        Self { accounts, api, credential }
    }

    /// A client with the operator's credential and an empty store.
    fn on_empty_store() -> Self {
        Self::operator(accounts_on(Arc::new(MemoryStore::new())))
    }

    /// A client with the operator's credential and the records that a first start creates. Also
    /// returns the administrator's credential.
    async fn after_first_start() -> (Self, String) {
        let client = Self::on_empty_store();
        let first = client.accounts.first_start().await.unwrap().unwrap();
        let credential = credential(&first.username, first.key.expose());
        (client, credential)
    }

    /// A client of the same API with this credential.
    fn with_credential(&self, credential: &str) -> Self {
        let credential = vec![("api-key", credential.to_owned())];
        Self { accounts: self.accounts.clone(), api: self.api.clone(), credential }
    }

    async fn send(&self, method: &str, target: &str, media: &str, body: &str) -> (u16, Bytes) {
        let mut request =
            Request::builder().method(method).uri(target).header("content-type", media);
        for (name, value) in &self.credential {
            request = request.header(*name, value);
        }
        let (parts, body) = request.body(Bytes::from(body.to_owned())).unwrap().into_parts();
        let client: IpAddr = "127.0.0.1".parse().unwrap();
        let response = match self.api.decide(&parts, RequestBody::Full(body), client).await {
            Ok(response) => response,
            Err(denial) => keyward::http::response::from_denial(&denial),
        };
        let (parts, body) = response.into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
    }

    /// Applies a file with these query parameters. A field that the file leaves out is cleared.
    async fn apply(&self, text: &str, query: &str) -> (u16, Value) {
        let target = format!("/api/v1/state?clear=true&{query}");
        let (status, body) = self.send("POST", &target, "application/toml", text).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Applies a file, which must succeed.
    async fn apply_ok(&self, text: &str, query: &str) -> Value {
        let (status, body) = self.apply(text, query).await;
        assert_eq!(status, 200, "{body:#}");
        body
    }

    async fn export(&self) -> String {
        let (status, body) = self.send("GET", "/api/v1/state", "", "").await;
        assert_eq!(status, 200);
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// The actions in the audit trail, newest first.
    fn trail(&self) -> Vec<String> {
        let page = self.accounts.audit(AuditOrder::Newest, None, 100).unwrap();
        page.items.into_iter().map(|entry| entry.entry.act.action).collect()
    }
}

/// A file with this text after the first line.
fn without_mark(export: &str) -> String {
    export.lines().filter(|line| !line.starts_with("# ")).collect::<Vec<_>>().join("\n")
}

fn file(text: &str) -> String {
    format!("{HEAD}{text}")
}

/// The changes in a result, as lines such as `+ user anna`.
fn changes(result: &Value) -> Vec<String> {
    let all = result["changes"].as_array().unwrap();
    let line = |change: &Value| {
        let sign = match change["change"].as_str().unwrap() {
            "add" => '+',
            "remove" => '-',
            _ => '~',
        };
        format!("{sign} {} {}", change["kind"].as_str().unwrap(), change["id"].as_str().unwrap())
    };
    all.iter().map(line).collect()
}

#[tokio::test]
async fn minimal_file_gets_defaults() {
    let (client, _) = ApiClient::after_first_start().await;
    let text = file(
        "[[roles]]\nid = \"reader\"\nlabel = \"Readers\"\npermissions = [\"read\"]\n\
         [[applications]]\nid = \"mobile\"\nname = \"Mobile\"\n\
         [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n\
         [[users]]\nname = \"Anna\"\nroles = [\"reader\"]\n",
    );
    let result = client.apply_ok(&text, "").await;
    assert_eq!(
        changes(&result),
        ["+ role reader", "+ application mobile", "+ resource hi", "+ user Anna"]
    );
    let anna = client.accounts.directory().user_by_name("anna").unwrap();
    assert_eq!((anna.uid, anna.is_active), (2, true));
    let anna = client.accounts.user(2).unwrap().unwrap().record;
    assert_eq!(
        (anna.langcode.as_str(), anna.created, anna.roles[0].as_str()),
        ("en", NOW, "reader")
    );
    assert_eq!(client.trail()[0], "state.apply");
    // A field that the file omits gets its default. Fields that only the server sets keep their
    // values.
    let result =
        client.apply_ok(&file("[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\n"), "").await;
    let change = json!({
        "change": "change", "kind": "user", "id": "Anna",
        "before": { "name": "Anna", "roles": ["reader"] },
        "after": { "name": "anna", "roles": [], "mail": "a@x.example" },
        "cleared": ["roles"],
    });
    assert_eq!(result["changes"], json!([change]));
    let after = client.accounts.user(2).unwrap().unwrap().record;
    assert_eq!((after.uuid, after.created), (anna.uuid, anna.created));
}

#[tokio::test]
async fn second_apply_changes_nothing() {
    let (client, _) = ApiClient::after_first_start().await;
    let text = file("[[users]]\nname = \"anna\"\n[[roles]]\nid = \"r\"\nlabel = \"R\"\n");
    let result = client.apply_ok(&text, "dry_run=true").await;
    assert_eq!((&result["added"], &result["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(client.trail(), ["store.first-start"]);
    assert!(client.accounts.directory().user_by_name("anna").is_none());
    assert_eq!(client.apply_ok(&text, "").await["added"], 2);
    let (trail, export) = (client.trail(), client.export().await);
    let result = client.apply_ok(&text, "").await;
    assert_eq!((&result["changes"], &result["unchanged"]), (&json!([]), &json!(2)));
    let result = client.apply_ok(&export, "prune=true").await;
    assert_eq!((&result["changes"], &result["unchanged"]), (&json!([]), &json!(9)));
    assert_eq!((client.trail(), client.export().await), (trail, export));
}

/// Another writer creates users while files are applied.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writes_are_not_lost() {
    let (client, _) = ApiClient::after_first_start().await;
    let writer = client.accounts.as_actor(Actor::Program);
    let other = tokio::spawn(async move {
        for number in 0..60 {
            let name = format!("other{number}");
            let new = NewUser { name, status: true, ..NewUser::default() };
            writer.create_user(new).await.unwrap();
        }
    });
    for last in 0..30 {
        let user = |number: usize| format!("[[users]]\nname = \"mine{number}\"\n");
        let users: String = (0..=last).map(user).collect();
        let result = client.apply_ok(&file(&users), "").await;
        assert_eq!((&result["added"], &result["unchanged"]), (&json!(1), &json!(last)));
    }
    other.await.unwrap();
    let users = client.accounts.users(None, 1000).unwrap().items;
    assert_eq!(users.len(), 1 + 60 + 30);
    for user in users {
        let cached = client.accounts.directory().user_by_name(&user.record.name).unwrap();
        assert_eq!(cached.uid, user.record.uid);
    }
}

/// The changes of a large file take longer to plan than the pause between two commits of other
/// writers, so another commit comes between the plan and its commit.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_large_file_is_applied_beside_busy_writers() {
    let (client, _) = ApiClient::after_first_start().await;
    let before = client.accounts.directory().counts().0;
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..3)
        .map(|number| {
            let (writer, stop) = (client.accounts.as_actor(Actor::Program), stop.clone());
            tokio::spawn(async move {
                let mut created = 0;
                while !stop.load(Ordering::Relaxed) {
                    let name = format!("writer{number}.{created}");
                    let new = NewUser { name, ..NewUser::default() };
                    writer.create_user(new).await.unwrap();
                    created += 1;
                }
                created
            })
        })
        .collect();
    let user = |number: usize| format!("[[users]]\nname = \"mine{number}\"\n");
    let users: String = (0..3000).map(user).collect();
    let result = client.apply_ok(&file(&users), "").await;
    stop.store(true, Ordering::Relaxed);
    let mut created = 0;
    for writer in writers {
        created += writer.await.unwrap();
    }
    assert_eq!(
        (&result["added"], &result["changed"], &result["unchanged"]),
        (&json!(3000), &json!(0), &json!(0))
    );
    assert!(created > 0);
    assert_eq!(client.accounts.directory().counts().0, before + 3000 + created);
}
