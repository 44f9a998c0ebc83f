//! State as files: what is written out is put back, and what a file says becomes so, whole or not at all.

mod alike;
mod caller;
mod file;
mod lookups;
mod prune;
mod refused;

use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::Request;
use http_body_util::BodyExt as _;
use keyward::{
    accounts::{Accounts, Order, Passwords},
    admin::Api,
    handlers::{Body, BodyLimits},
    model::{Actor, Clock, Entropy, Pepper, Timestamp},
    pipeline::Gate,
    store::{MemoryStore, Store},
};
use serde_json::{Value, json};

use crate::{faces::rig::PATIENCE, harness::credential};

const NOW: Timestamp = Timestamp(1_800_000_000);
/// What every file begins with.
const HEAD: &str = "version = 1\n";

fn pepper() -> Pepper {
    Pepper::from_bytes([7; 32])
}

fn on(store: Arc<dyn Store>) -> Accounts {
    let (passwords, clock) = (Passwords::new(1), Clock::fixed(NOW));
    Accounts::with(store, pepper(), passwords, clock, Entropy::seeded(1)).unwrap()
}

/// The admin API of some accounts, and whoever asks it.
struct Desk {
    accounts: Accounts,
    api: Api,
    /// The header fields of whoever asks.
    asks: Vec<(&'static str, String)>,
}

impl Desk {
    /// Asked by the operator.
    fn of(accounts: Accounts) -> Self {
        let key = accounts.admit_operator().key.expose().to_owned();
        let gate = Gate::new(&accounts, 4096);
        let api = Api::new(gate, accounts.clone(), BodyLimits { bytes: 1 << 20, read: PATIENCE });
        let asks = vec![
            ("auth-method", "keyward.operator".to_owned()),
            ("authorization", format!("Bearer {key}")),
        ];
        Self { accounts, api, asks }
    }

    /// On an empty store.
    fn empty() -> Self {
        Self::of(on(Arc::new(MemoryStore::new())))
    }

    /// On a store after its first start, with the administrator's credential.
    async fn first() -> (Self, String) {
        let desk = Self::empty();
        let first = desk.accounts.first_start().await.unwrap().unwrap();
        let credential = credential(&first.username, first.key.expose());
        (desk, credential)
    }

    /// The same, asked with this credential.
    fn asked_with(&self, credential: &str) -> Self {
        let asks = vec![("api-key", credential.to_owned())];
        Self { accounts: self.accounts.clone(), api: self.api.clone(), asks }
    }

    async fn ask(&self, method: &str, target: &str, media: &str, body: &str) -> (u16, Bytes) {
        let mut request =
            Request::builder().method(method).uri(target).header("content-type", media);
        for (name, value) in &self.asks {
            request = request.header(*name, value);
        }
        let (parts, body) = request.body(Bytes::from(body.to_owned())).unwrap().into_parts();
        let client: IpAddr = "127.0.0.1".parse().unwrap();
        let reply = match self.api.decide(&parts, Body::Full(body), client).await {
            Ok(reply) => reply,
            Err(denial) => keyward::front::answer::denial(&denial),
        };
        let (parts, body) = reply.into_parts();
        (parts.status.as_u16(), body.collect().await.unwrap().to_bytes())
    }

    /// Applies a file; the query says how.
    async fn apply(&self, text: &str, query: &str) -> (u16, Value) {
        let target = format!("/api/v1/state?{query}");
        let (status, body) = self.ask("POST", &target, "application/toml", text).await;
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Applies a file that is in order.
    async fn applies(&self, text: &str, query: &str) -> Value {
        let (status, told) = self.apply(text, query).await;
        assert_eq!(status, 200, "{told:#}");
        told
    }

    async fn export(&self) -> String {
        let (status, body) = self.ask("GET", "/api/v1/state", "", "").await;
        assert_eq!(status, 200);
        String::from_utf8(body.to_vec()).unwrap()
    }

    /// The actions in the audit trail, the newest first.
    fn trail(&self) -> Vec<String> {
        let part = self.accounts.audit(Order::Newest, None, 100).unwrap();
        part.items.into_iter().map(|one| one.entry.act.action).collect()
    }
}

/// A file with this after its head.
fn file(text: &str) -> String {
    format!("{HEAD}{text}")
}

/// What changed: `+ user anna`.
fn changes(told: &Value) -> Vec<String> {
    let all = told["changes"].as_array().unwrap();
    let line = |one: &Value| {
        let sign = match one["change"].as_str().unwrap() {
            "add" => '+',
            "remove" => '-',
            _ => '~',
        };
        format!("{sign} {} {}", one["kind"].as_str().unwrap(), one["id"].as_str().unwrap())
    };
    all.iter().map(line).collect()
}

#[tokio::test]
async fn what_a_hand_writes_needs_little() {
    let (desk, _) = Desk::first().await;
    let text = file(
        "[[roles]]\nid = \"reader\"\nlabel = \"Readers\"\npermissions = [\"read\"]\n\
         [[applications]]\nid = \"mobile\"\nname = \"Mobile\"\n\
         [[resources]]\nid = \"hi\"\nhandler = \"respond\"\npath = \"/hi\"\nmethods = [\"GET\"]\nformats = [\"any\"]\nauthentication = [\"mobile\"]\n\
         [[users]]\nname = \"Anna\"\nroles = [\"reader\"]\n",
    );
    let told = desk.applies(&text, "").await;
    assert_eq!(
        changes(&told),
        ["+ role reader", "+ application mobile", "+ resource hi", "+ user Anna"]
    );
    let anna = desk.accounts.directory().user_by_name("anna").unwrap();
    assert_eq!((anna.uid, anna.is_active), (2, true));
    let anna = desk.accounts.user(2).unwrap().unwrap().record;
    assert_eq!(
        (anna.langcode.as_str(), anna.created, anna.roles[0].as_str()),
        ("en", NOW, "reader")
    );
    assert_eq!(desk.trail()[0], "state.apply");
    // What the file does not say has its default; what only the server knows stays.
    let told =
        desk.applies(&file("[[users]]\nname = \"anna\"\nmail = \"a@x.example\"\n"), "").await;
    let change = json!({
        "change": "change", "kind": "user", "id": "Anna",
        "before": { "name": "Anna", "roles": ["reader"] },
        "after": { "name": "anna", "roles": [], "mail": "a@x.example" },
    });
    assert_eq!(told["changes"], json!([change]));
    let after = desk.accounts.user(2).unwrap().unwrap().record;
    assert_eq!((after.uuid, after.created), (anna.uuid, anna.created));
}

#[tokio::test]
async fn what_is_applied_twice_is_done_once() {
    let (desk, _) = Desk::first().await;
    let text = file("[[users]]\nname = \"anna\"\n[[roles]]\nid = \"r\"\nlabel = \"R\"\n");
    let told = desk.applies(&text, "dry_run=true").await;
    assert_eq!((&told["added"], &told["dry_run"]), (&json!(2), &json!(true)));
    assert_eq!(desk.trail(), ["store.first-start"]);
    assert!(desk.accounts.directory().user_by_name("anna").is_none());
    assert_eq!(desk.applies(&text, "").await["added"], 2);
    let (trail, export) = (desk.trail(), desk.export().await);
    let told = desk.applies(&text, "").await;
    assert_eq!((&told["changes"], &told["unchanged"]), (&json!([]), &json!(2)));
    let told = desk.applies(&export, "prune=true").await;
    assert_eq!((&told["changes"], &told["unchanged"]), (&json!([]), &json!(9)));
    assert_eq!((desk.trail(), desk.export().await), (trail, export));
}

/// Accounts that others change all the time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_writes_at_the_same_moment_loses_nothing() {
    let (desk, _) = Desk::first().await;
    let acting = desk.accounts.acting(Actor::Program);
    let other = tokio::spawn(async move {
        for at in 0..60 {
            let name = format!("other{at}");
            let new = keyward::accounts::NewUser {
                name,
                status: true,
                ..keyward::accounts::NewUser::default()
            };
            acting.create_user(new).await.unwrap();
        }
    });
    for at in 0..30 {
        let user = |number: usize| format!("[[users]]\nname = \"mine{number}\"\n");
        let users: String = (0..=at).map(user).collect();
        let told = desk.applies(&file(&users), "").await;
        assert_eq!((&told["added"], &told["unchanged"]), (&json!(1), &json!(at)));
    }
    other.await.unwrap();
    let users = desk.accounts.users(None, 1000).unwrap().items;
    assert_eq!(users.len(), 1 + 60 + 30);
    for user in users {
        let held = desk.accounts.directory().user_by_name(&user.record.name).unwrap();
        assert_eq!(held.uid, user.record.uid);
    }
}
