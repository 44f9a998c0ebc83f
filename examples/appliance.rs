//! An appliance in one process: an embedded store in a folder, a script as policy, and the
//! application's own handlers behind Keyward's layer.
//!
//! ```sh
//! cargo run --example appliance -- /tmp/appliance
//! ```
//! The folder contains the store, the pepper and the script. The program creates missing files. The
//! first start prints a `curl` command with the first key. Users and keys survive a restart.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow};
use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    Layer,
    accounts::{Accounts, Passwords},
    layer::CallerIdentity,
    pipeline::Gate,
    scripting::{ScriptLimits, Secrets},
    store::SledStore,
};
use tokio::net::TcpListener;

/// The initial policy. The owner of the appliance may edit the file, which is read at each start.
const POLICY: &str = r#"
fn on_request(req) {
    if req.path == "/valves/main" && req.method != "GET" { deny(403, "SEALED", "The main valve is sealed."); }
}
"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: appliance FOLDER")?);
    let accounts = open(&folder)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{address}")?;
    // Creates the first records, among them the user `admin` with a key. `None` means that the
    // store already has records.
    if let Some(first) = accounts.first_start().await? {
        let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
        writeln!(out, "curl http://{address}/valves/main -H 'API-KEY: {credential}'")?;
    }
    let service = app(&accounts).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// Opens the accounts in `folder`. Creates the store, the pepper and the policy if they are
/// missing.
pub fn open(folder: &Path) -> anyhow::Result<Accounts> {
    let scripts = folder.join("scripts");
    fs::create_dir_all(&scripts)?;
    let policy = scripts.join("hooks.rhai");
    if !policy.exists() {
        fs::write(policy, POLICY)?;
    }
    // The page cache of the store has 16 MiB.
    let store = Arc::new(SledStore::open(&folder.join("store"), 16)?);
    // The store contains only digests of keys. Without the pepper nobody can compute or check these
    // digests, so a copy of the store alone is useless to a thief. At most two passwords are
    // checked at the same time.
    let accounts = Accounts::open(store, &folder.join("pepper"), Passwords::new(2))?;
    accounts
        .load_scripts(&scripts, ScriptLimits::default(), Secrets::default(), None)
        .map_err(|errors| anyhow!("the policy does not load: {errors:?}"))?;
    Ok(accounts)
}

/// The routes. Valves need an authenticated user, and the policy may restrict them further.
pub fn app(accounts: &Accounts) -> Router {
    // The header field with the credential has at most 4096 bytes.
    let guard = Layer::new(Gate::new(accounts, 4096))
        .requires_user()
        .client_from(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    Router::new().route("/valves/{name}", get(show_valve).post(turn_valve)).layer(guard)
}

async fn show_valve() -> &'static str {
    "open\n"
}

async fn turn_valve(Extension(identity): Extension<CallerIdentity>) -> String {
    format!("Turned by {}.\n", identity.name().unwrap_or("nobody"))
}
