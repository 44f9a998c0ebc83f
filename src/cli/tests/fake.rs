//! An admin API of a few lines, which remembers what it was asked.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write},
    rc::Rc,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderValue, Response, StatusCode, request::Parts};
use serde_json::{Value, json};

use crate::{
    cli::{
        Cli, Command, Session,
        client::{
            AdminClient,
            local::{InProcessApi, ApiFuture, LocalApi},
        },
        on_records,
        terminal::screen::Screen,
    },
    handlers::{Payload, PayloadResponse},
    model::Secret,
};

pub const KEY: &str = "kwop_test";

/// The records by path, and every request that came.
#[derive(Default)]
pub struct State {
    pub records: BTreeMap<String, Value>,
    pub asked: Vec<(String, Value)>,
    /// How many changes fail because somebody else was faster.
    pub races: usize,
    /// Whether lists name the same next page again and again.
    pub is_stuck: bool,
}

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<State>>);

impl Fake {
    /// An API with these records: `users/1` and the like.
    pub fn with(records: &[(&str, Value)]) -> Self {
        let fake = Self::default();
        for (path, record) in records {
            fake.0.lock().unwrap().records.insert((*path).into(), record.clone());
        }
        fake
    }

    /// What came with `method`: path and body.
    pub fn asked(&self, method: &str) -> Vec<(String, Value)> {
        let state = self.0.lock().unwrap();
        let of = |(line, body): &(String, Value)| {
            line.strip_prefix(method).map(|path| (path.trim().to_owned(), body.clone()))
        };
        state.asked.iter().filter_map(of).collect()
    }

    fn answer(&self, request: &Parts, body: &[u8]) -> PayloadResponse {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = format!("Bearer {KEY}");
        if header("auth-method") != Some("keyward.operator")
            || header("authorization") != Some(&bearer)
        {
            let envelope = json!({ "status": "error", "error_description": "Who are you?" });
            return reply(401, &envelope);
        }
        let mut state = self.0.lock().unwrap();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        state.asked.push((format!("{} {}", request.method, request.uri), body.clone()));
        let path = request.uri.path().strip_prefix("/api/v1/").unwrap();
        let is_list = path.ends_with('s') && !state.records.contains_key(path);
        match request.method.as_str() {
            "GET" if is_list => list(&state, path, request.uri.query().unwrap_or_default()),
            "GET" => found(&state, path),
            "POST" if body["name"] == "bad" => invalid(),
            "POST" => made(&mut state, path, body),
            "PATCH" => patched(&mut state, path, &body, header("if-match")),
            "DELETE" if state.records.remove(path).is_some() => {
                Response::builder().status(204).body(Payload::default()).unwrap()
            }
            _ => missing(),
        }
    }
}

/// At most two on a page, so that every list of three has to be followed.
fn list(state: &State, path: &str, query: &str) -> PayloadResponse {
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let limit = query["limit"].parse::<usize>().unwrap().min(2);
    let after: usize = query.get("after").map_or(0, |cursor| cursor.parse().unwrap());
    let inside = format!("{path}/");
    let named = |record: &Value| {
        // By the beginning of the name, to see who compares the rest.
        let name = query.get("name").map(|name| name.to_lowercase()).unwrap_or_default();
        record["name"].as_str().unwrap_or_default().to_lowercase().starts_with(&name)
    };
    let all: Vec<&Value> = state
        .records
        .iter()
        .filter(|(key, record)| key.starts_with(&inside) && named(record))
        .map(|(_, record)| record)
        .collect();
    let items: Vec<&Value> = all.iter().copied().skip(after).take(limit).collect();
    let end = after + items.len();
    let next = match state.is_stuck {
        true => Some("1".to_owned()),
        false => (end < all.len()).then(|| end.to_string()),
    };
    reply(200, &json!({ "items": items, "next": next }))
}

fn found(state: &State, path: &str) -> PayloadResponse {
    let Some(record) = state.records.get(path) else { return missing() };
    let mut reply = reply(200, record);
    reply.headers_mut().insert("etag", HeaderValue::from_static("\"7\""));
    reply
}

fn made(state: &mut State, path: &str, mut body: Value) -> PayloadResponse {
    if let Some(key) = path.strip_suffix("/revoke") {
        return match state.records.get_mut(key) {
            Some(record) => {
                record["state"] = json!("revoked");
                reply(200, record)
            }
            None => missing(),
        };
    }
    let fields = body.as_object_mut().unwrap();
    if path.ends_with("/rotate") {
        let old = json!({ "id": "00000001", "rotated": { "to": "0000aZ19", "until": "tomorrow" } });
        fields.insert("replaces".into(), old);
    }
    if path.ends_with("/rotate") || path.ends_with("/keys") {
        fields
            .extend([("id".into(), json!("0000aZ19")), ("key".into(), json!("kw_0000aZ19_text"))]);
    }
    if path == "users" {
        fields.insert("uid".into(), json!(9));
    }
    reply(201, &body)
}

fn patched(state: &mut State, path: &str, patch: &Value, etag: Option<&str>) -> PayloadResponse {
    if etag != Some("\"7\"") || state.races > 0 {
        state.races = state.races.saturating_sub(1);
        return reply(412, &json!({ "status": 412, "detail": "It was changed meanwhile." }));
    }
    let Some(record) = state.records.get_mut(path) else { return missing() };
    for (name, value) in patch.as_object().unwrap() {
        record[name] = value.clone();
    }
    reply(200, record)
}

fn missing() -> PayloadResponse {
    reply(404, &json!({ "status": 404, "detail": "There is no such record." }))
}

fn invalid() -> PayloadResponse {
    let error = json!({ "location": "name", "message": "It is bad.", "fix": "Choose a good one." });
    reply(422, &json!({ "status": 422, "detail": "The user is not in order.", "errors": [error] }))
}

fn reply(status: u16, body: &Value) -> PayloadResponse {
    let mut reply = PayloadResponse::new(body.to_string().into());
    *reply.status_mut() = StatusCode::from_u16(status).unwrap();
    reply
}

impl InProcessApi for Fake {
    fn decide<'a>(&'a self, request: &'a Parts, body: Bytes) -> ApiFuture<'a> {
        Box::pin(async move { self.answer(request, &body) })
    }
}

/// What a command wrote, and how it ended.
#[derive(Debug)]
pub struct Ran {
    pub out: String,
    pub err: String,
    pub result: anyhow::Result<()>,
}

impl Ran {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|problem| panic!("{problem}: {self:?}"))
    }

    pub fn exit(&self) -> u8 {
        match &self.result {
            Ok(()) => 0,
            Err(problem) => crate::cli::terminal::exit::code(problem) as u8,
        }
    }
}

#[derive(Clone, Default)]
struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Buffer {
    fn text(&self) -> String {
        String::from_utf8(self.0.borrow().clone()).unwrap()
    }
}

/// Runs a command line against a client.
pub async fn run_with(client: AdminClient, args: &[&str]) -> Ran {
    let cli = Cli::try_parse_from([&["keyward"], args].concat()).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let screen = Screen::new(out.clone(), err.clone());
    let session = Session { client, output: cli.output, screen };
    let Some(Command::Records(noun)) = cli.command else { panic!("{args:?}") };
    let result = on_records(noun, &session).await;
    Ran { out: out.text(), err: err.text(), result }
}

/// Runs a command line against an API in this process.
pub async fn run(fake: &Fake, args: &[&str]) -> Ran {
    run_with(AdminClient::new(LocalApi(fake.clone()), Secret::new(KEY)), args).await
}

/// The same, with JSON for an answer.
pub async fn json(fake: &Fake, args: &[&str]) -> Value {
    let ran = run(fake, &[args, &["--output", "json"]].concat()).await;
    assert!(ran.result.is_ok(), "{ran:?}");
    ran.json()
}
