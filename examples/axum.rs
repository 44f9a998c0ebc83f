//! An axum program whose routes require API keys. A layer of Keyward checks the requests, and
//! handlers get the caller's identity as an extension.
//!
//! ```sh
//! cargo run --example axum
//! ```
//! The program keeps its users in memory and prints a `curl` command with the first key.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    Layer,
    accounts::{Accounts, Passwords},
    layer::CallerIdentity,
    model::{Clock, Entropy, Pepper},
    pipeline::Gate,
    store::MemoryStore,
};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let entropy = Entropy::system();
    let pepper = Pepper::from_bytes(entropy.bytes());
    let store = Arc::new(MemoryStore::new());
    // At most two passwords are checked at the same time.
    let accounts = Accounts::with(store, pepper, Passwords::new(2), Clock::system(), entropy)?;
    // Creates the first records, among them the user `admin` with a key.
    let first = accounts.first_start().await?.context("the new store already has users")?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "curl http://{address}/reports -H 'API-KEY: {credential}'")?;
    let service = app(&accounts).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// The routes: `/alive` is public, `/reports` needs a permission.
fn app(accounts: &Accounts) -> Router {
    // The header field with the credential has at most 4096 bytes.
    let guard = Layer::new(Gate::new(accounts, 4096))
        .requires("read reports")
        // Keys that are restricted to networks need the client's address.
        .client_from(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    let reports = Router::new().route("/reports", get(reports)).layer(guard);
    Router::new().route("/alive", get(async || "yes")).merge(reports)
}

async fn reports(Extension(identity): Extension<CallerIdentity>) -> String {
    format!("All reports, for {}.\n", identity.name().unwrap_or("nobody"))
}
