//! A fake admin API that records requests.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, Write},
    rc::Rc,
    sync::Arc,
};

use bytes::Bytes;
use clap::Parser as _;
use http::{HeaderValue, Response, StatusCode, request::Parts};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    cli::{
        Cli, Command, Session,
        client::{
            AdminClient,
            local::{ApiFuture, InProcessApi, LocalApi},
        },
        run_record_command,
        terminal::screen::Screen,
    },
    handlers::{Payload, PayloadResponse},
    model::Secret,
};

pub const KEY: &str = "kwop_test";

/// The records of a fake API by path, and the requests that the API received.
#[derive(Default)]
pub struct FakeState {
    pub records: BTreeMap<String, Value>,
    /// Each request: the method with the path, and the body.
    pub requests: Vec<(String, Value)>,
    /// The number of updates that still fail as if another client had changed the record.
    pub stale_responses_left: usize,
    /// Whether every page of a list names the same next page.
    pub next_page_never_changes: bool,
}

#[derive(Clone, Default)]
pub struct Fake(pub Arc<Mutex<FakeState>>);

impl Fake {
    /// Creates an API with these records by path, for example `users/1`.
    pub fn with(records: &[(&str, Value)]) -> Self {
        let fake = Self::default();
        for (path, record) in records {
            fake.0.lock().records.insert((*path).into(), record.clone());
        }
        fake
    }

    /// Returns the path and the body of each request with this method.
    pub fn requests(&self, method: &str) -> Vec<(String, Value)> {
        let state = self.0.lock();
        let with_method = |(line, body): &(String, Value)| {
            line.strip_prefix(method).map(|path| (path.trim().to_owned(), body.clone()))
        };
        state.requests.iter().filter_map(with_method).collect()
    }

    fn response(&self, request: &Parts, body: &[u8]) -> PayloadResponse {
        let header = |name: &str| request.headers.get(name).and_then(|value| value.to_str().ok());
        let bearer = format!("Bearer {KEY}");
        if header("auth-method") != Some("keyward.operator")
            || header("authorization") != Some(&bearer)
        {
            let envelope = json!({ "status": "error", "error_description": "The key is wrong." });
            return respond(401, &envelope);
        }
        let mut state = self.0.lock();
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        state.requests.push((format!("{} {}", request.method, request.uri), body.clone()));
        let path = request.uri.path().strip_prefix("/api/v1/").unwrap();
        let is_list = path.ends_with('s') && !state.records.contains_key(path);
        match request.method.as_str() {
            "GET" if is_list => list(&state, path, request.uri.query().unwrap_or_default()),
            "GET" => get(&state, path),
            "POST" if body["name"] == "bad" => invalid(),
            "POST" => create(&mut state, path, body),
            "PATCH" => update(&mut state, path, &body, header("if-match")),
            "DELETE" if state.records.remove(path).is_some() => {
                Response::builder().status(204).body(Payload::default()).unwrap()
            }
            _ => missing(),
        }
    }
}

/// Responds with at most two items per page, so that a list of three items needs a second page.
fn list(state: &FakeState, path: &str, query: &str) -> PayloadResponse {
    let query: BTreeMap<String, String> =
        form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    let limit = query["limit"].parse::<usize>().unwrap().min(2);
    let after: usize = query.get("after").map_or(0, |cursor| cursor.parse().unwrap());
    let prefix = format!("{path}/");
    let has_name = |record: &Value| {
        // The filter matches prefixes of names, to test that clients compare the whole name.
        let name = query.get("name").map(|name| name.to_lowercase()).unwrap_or_default();
        record["name"].as_str().unwrap_or_default().to_lowercase().starts_with(&name)
    };
    let all: Vec<&Value> = state
        .records
        .iter()
        .filter(|(key, record)| key.starts_with(&prefix) && has_name(record))
        .map(|(_, record)| record)
        .collect();
    let items: Vec<&Value> = all.iter().copied().skip(after).take(limit).collect();
    let end = after + items.len();
    let next = if state.next_page_never_changes {
        Some("1".to_owned())
    } else {
        (end < all.len()).then(|| end.to_string())
    };
    respond(200, &json!({ "items": items, "next": next }))
}

fn get(state: &FakeState, path: &str) -> PayloadResponse {
    let Some(record) = state.records.get(path) else { return missing() };
    let mut response = respond(200, record);
    response.headers_mut().insert("etag", HeaderValue::from_static("\"7\""));
    response
}

fn create(state: &mut FakeState, path: &str, mut body: Value) -> PayloadResponse {
    if let Some(key) = path.strip_suffix("/revoke") {
        return match state.records.get_mut(key) {
            Some(record) => {
                record["state"] = json!("revoked");
                respond(200, record)
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
    respond(201, &body)
}

fn update(state: &mut FakeState, path: &str, patch: &Value, etag: Option<&str>) -> PayloadResponse {
    if etag != Some("\"7\"") || state.stale_responses_left > 0 {
        state.stale_responses_left = state.stale_responses_left.saturating_sub(1);
        return respond(
            412,
            &json!({ "status": 412, "detail": "Another client changed the record." }),
        );
    }
    let Some(record) = state.records.get_mut(path) else { return missing() };
    for (name, value) in patch.as_object().unwrap() {
        record[name] = value.clone();
    }
    respond(200, record)
}

fn missing() -> PayloadResponse {
    respond(404, &json!({ "status": 404, "detail": "There is no such record." }))
}

fn invalid() -> PayloadResponse {
    let error = json!({ "location": "name", "message": "It is bad.", "fix": "Choose a good one." });
    respond(422, &json!({ "status": 422, "detail": "The user is invalid.", "errors": [error] }))
}

fn respond(status: u16, body: &Value) -> PayloadResponse {
    let mut response = PayloadResponse::new(body.to_string().into());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

impl InProcessApi for Fake {
    fn respond<'a>(&'a self, request: &'a Parts, body: Bytes) -> ApiFuture<'a> {
        Box::pin(async move { self.response(request, &body) })
    }
}

/// The output of a command and its exit code.
#[derive(Debug)]
pub struct CommandRun {
    pub out: String,
    pub err: String,
    pub result: anyhow::Result<()>,
}

impl CommandRun {
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
pub async fn run_with(client: AdminClient, args: &[&str]) -> CommandRun {
    let cli = Cli::try_parse_from([&["keyward"], args].concat()).unwrap();
    let (out, err) = (Buffer::default(), Buffer::default());
    let screen = Screen::new(out.clone(), err.clone());
    let session = Session { client, output: cli.output.into(), screen };
    let Some(Command::Records(command)) = cli.command else { panic!("{args:?}") };
    let loaded = crate::config::load(None, std::iter::empty()).unwrap();
    let result = run_record_command(command, &session, &loaded).await;
    CommandRun { out: out.text(), err: err.text(), result }
}

/// Runs a command line against an API in this process.
pub async fn run(fake: &Fake, args: &[&str]) -> CommandRun {
    run_with(AdminClient::new(LocalApi(fake.clone()), Secret::new(KEY)), args).await
}

/// Runs a command line with JSON output.
pub async fn run_json(fake: &Fake, args: &[&str]) -> Value {
    let ran = run(fake, &[args, &["--output", "json"]].concat()).await;
    assert!(ran.result.is_ok(), "{ran:?}");
    ran.json()
}
