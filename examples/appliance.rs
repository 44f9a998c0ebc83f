//! An appliance in one process: an embedded store in a folder, a script as policy, and the
//! application's own handlers behind Keyward's guard, among them a page for the caller's own keys.
//!
//! ```sh
//! cargo run --example appliance --features axum -- /tmp/appliance
//! ```
//! The folder contains the store, the pepper and the script. The program creates missing files. The
//! first start prints a `curl` command with the first key. Users, keys and spent credits survive a
//! restart: Ctrl-C ends the program, and the last counts are written.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, path::PathBuf};

use anyhow::Context as _;
use axum::{
    Router,
    extract::State,
    http::StatusCode,
    routing::{get, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{ClientSource, Identity, Keyward, NewKey};
use tokio::net::TcpListener;

/// The initial policy. The owner of the appliance may edit the file, also while the program runs.
const POLICY: &str = r#"
fn on_request(req) {
    if req.path == "/valves/main" && req.method != "GET" { deny(403, "SEALED", "The main valve is sealed."); }
}
"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: appliance FOLDER")?);
    let keyward = open(&folder, ClientSource::connect_info()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{address}")?;
    if let Some(first) = keyward.first_start() {
        let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
        writeln!(out, "curl http://{address}/valves/main -H 'API-KEY: {credential}'")?;
    }
    let service = app(&keyward).into_make_service_with_connect_info::<SocketAddr>();
    let stop = async { drop(tokio::signal::ctrl_c().await) };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    keyward.stop().await;
    Ok(())
}

/// Starts Keyward in `folder`. Creates the store, the pepper and the policy if they are missing.
///
/// The store contains only digests of keys. Without the pepper nobody can compute or check these
/// digests, so a copy of the store alone is useless to a thief.
pub async fn open(folder: &Path, client: ClientSource) -> anyhow::Result<Keyward> {
    let scripts = folder.join("scripts");
    fs::create_dir_all(&scripts)?;
    let policy = scripts.join("hooks.rhai");
    if !policy.exists() {
        fs::write(policy, POLICY)?;
    }
    Ok(Keyward::folder(folder).scripts(scripts).client(client).start().await?)
}

/// The routes. They need an authenticated user, and the policy may restrict them further.
pub fn app(keyward: &Keyward) -> Router {
    Router::new()
        .route("/valves/{name}", get(show_valve).post(turn_valve))
        .route("/keys", post(issue_key))
        .layer(keyward.guard().requires_user())
        .with_state(keyward.clone())
}

async fn show_valve() -> &'static str {
    "open\n"
}

async fn turn_valve(caller: Identity) -> String {
    format!("Turned by {}.\n", caller.name().unwrap_or("nobody"))
}

/// Issues a key to the caller, with the permissions of the caller's credential at most.
async fn issue_key(
    State(keyward): State<Keyward>,
    caller: Identity,
) -> Result<String, (StatusCode, String)> {
    let new = NewKey { label: "from the key page".into(), ..NewKey::default() };
    match keyward.on_behalf_of(&caller).issue_key(new).await {
        Ok(issued) => Ok(format!("{}\n", issued.text.expose())),
        Err(problem) => Err((StatusCode::FORBIDDEN, format!("{problem}\n"))),
    }
}
