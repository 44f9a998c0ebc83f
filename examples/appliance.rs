//! An appliance in one process: an embedded store in a folder, a script as policy, and the program's own handler behind Keyward's layer.
//!
//! ```sh
//! cargo run --example appliance -- /tmp/appliance
//! ```
//! The folder is made if it is not there, and holds the store, the pepper and the script. The first start prints a `curl` line with the first key;
//! the program answers until it is stopped, and knows its users again after the next start.

use std::{fs, io::Write as _, net::SocketAddr, path::Path, path::PathBuf, sync::Arc};

use anyhow::{Context as _, anyhow};
use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    Layer,
    accounts::{Accounts, Passwords},
    hooks::{Limits, Secrets},
    layer::Identity,
    pipeline::Gate,
    store::SledStore,
};
use tokio::net::TcpListener;

/// The policy, which the owner of the appliance may change: the file is read at each start.
const POLICY: &str = r#"
fn on_request(req) {
    if req.path == "/valves/main" && req.method != "GET" { deny(403, "SEALED", "The main valve is sealed."); }
}
"#;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("say which folder to use")?);
    let accounts = open(&folder)?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let mut out = std::io::stdout();
    writeln!(out, "http://{address}")?;
    if let Some(first) = accounts.first_start().await? {
        let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
        writeln!(out, "curl http://{address}/valves/main -H 'API-KEY: {credential}'")?;
    }
    let service = app(&accounts).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// The accounts in this folder.
pub fn open(folder: &Path) -> anyhow::Result<Accounts> {
    let scripts = folder.join("scripts");
    fs::create_dir_all(&scripts)?;
    let policy = scripts.join("hooks.rhai");
    if !policy.exists() {
        fs::write(policy, POLICY)?;
    }
    let store = Arc::new(SledStore::open(&folder.join("store"), 16)?);
    // Keys are kept as digests that nobody can make or check without the pepper: a copy of the store alone opens nothing.
    let accounts = Accounts::open(store, &folder.join("pepper"), Passwords::new(2))?;
    accounts
        .load_scripts(&scripts, Limits::default(), Secrets::default(), None)
        .map_err(|errors| anyhow!("the policy cannot be read: {errors:?}"))?;
    Ok(accounts)
}

/// Valves are for known users, as far as the policy lets them.
pub fn app(accounts: &Accounts) -> Router {
    let guard = Layer::new(Gate::new(accounts, 4096))
        .requires_user()
        .client_from(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    Router::new().route("/valves/{name}", get(shown).post(turned)).layer(guard)
}

async fn shown() -> &'static str {
    "open\n"
}

async fn turned(Extension(who): Extension<Identity>) -> String {
    format!("Turned by {}.\n", who.name().unwrap_or("nobody"))
}
