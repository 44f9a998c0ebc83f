//! An axum program whose routes require API keys. A guard of Keyward checks the requests, and
//! handlers take the caller as an argument.
//!
//! ```sh
//! cargo run --example axum --features axum
//! ```
//! The program keeps its users in memory and prints a `curl` command with the first key.

use std::{io::Write as _, net::SocketAddr};

use axum::{Router, routing::get};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use keyward::{ClientSource, Identity, Keyward};
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let keyward = Keyward::memory().client(ClientSource::connect_info()).start().await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    if let Some(first) = keyward.first_start() {
        let credential = STANDARD.encode(format!("{}:{}", first.username, first.key.expose()));
        writeln!(std::io::stdout(), "curl http://{address}/reports -H 'API-KEY: {credential}'")?;
    }
    let service = app(&keyward).into_make_service_with_connect_info::<SocketAddr>();
    axum::serve(listener, service).await?;
    keyward.stop().await;
    Ok(())
}

/// The routes: `/alive` is public, `/reports` needs a permission.
pub fn app(keyward: &Keyward) -> Router {
    let readers = keyward.guard().requires("read reports");
    let reports = Router::new().route("/reports", get(reports)).layer(readers);
    Router::new().route("/alive", get(async || "yes")).merge(reports)
}

async fn reports(caller: Identity) -> String {
    format!("All reports, for {}.\n", caller.name().unwrap_or("nobody"))
}
