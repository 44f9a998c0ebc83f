//! An axum program whose routes ask for API keys: Keyward's Gate as a layer, and who asks as an extension.
//!
//! ```sh
//! cargo run --example axum
//! ```
//! It keeps its users in memory, prints a `curl` line with the first key, and answers until it is stopped.

use std::{io::Write as _, net::SocketAddr, sync::Arc};

use anyhow::Context as _;
use axum::{Extension, Router, extract::ConnectInfo, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{
    Layer,
    accounts::{Accounts, Passwords},
    layer::Identity,
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
    let accounts = Accounts::with(store, pepper, Passwords::new(2), Clock::system(), entropy)?;
    let first = accounts.first_start().await?.context("a new store is empty")?;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
    let address = listener.local_addr()?;
    writeln!(std::io::stdout(), "curl http://{address}/reports -H 'API-KEY: {credential}'")?;
    let service = app(&accounts).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    Ok(())
}

/// Anybody may see whether the program is there; reports need a permission.
fn app(accounts: &Accounts) -> Router {
    let guard = Layer::new(Gate::new(accounts, 4096))
        .requires("read reports")
        // For keys that may be used from some networks only.
        .client_from(|parts| Some(parts.extensions.get::<ConnectInfo<SocketAddr>>()?.0.ip()));
    let reports = Router::new().route("/reports", get(reports)).layer(guard);
    Router::new().route("/alive", get(async || "yes")).merge(reports)
}

async fn reports(Extension(who): Extension<Identity>) -> String {
    format!("All reports, for {}.\n", who.name().unwrap_or("nobody"))
}
