//! `keyward healthcheck`: reports whether the local server is ready, for containers and
//! supervisors.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use serde_json::{Value, json};

use crate::{
    cli::{
        CliError, Exit, Output,
        client::{ApiTransport as _, remote::RemoteServer},
        instance::control_file,
        terminal::screen,
    },
    config::{AdminListen, Settings},
};

/// The time limit of the response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);
const TARGET: &str = "/health/ready";

/// Asks the server whether it is ready. Sends no key, because the health route is public.
///
/// # Errors
/// The server is not ready or does not respond. The exit code is 1 in both cases, as supervisors
/// expect.
pub async fn run(settings: &Settings, output: Output) -> anyhow::Result<()> {
    let address = address(settings);
    let failed = |text: String| CliError::new(Exit::Failed, text);
    let request = Request::get(TARGET).body(Bytes::new())?;
    let server = RemoteServer::new(address.clone()).with_timeout(RESPONSE_TIMEOUT);
    let response = server.send(request).await.map_err(|problem| failed(problem.to_string()))?;
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    if !status.is_success() {
        return Err(unready(status.as_u16(), &address, body).into());
    }
    if let Some(problem) = body["audit_problem"].as_str() {
        screen::note(&format!("warning: {}\n", screen::printable(problem)));
    }
    Ok(screen::print(&match output {
        Output::Table => ready_text(&address, &body),
        Output::Json => format!("{body:#}\n"),
    })?)
}

fn ready_text(address: &AdminListen, body: &Value) -> String {
    let mut text = format!("The server at {address} is ready.\n");
    if let Some(problem) = body["backup_problem"].as_str() {
        let problem = screen::printable(problem);
        text.push_str(&format!("The last scheduled backup was not written: {problem}\n"));
    }
    text
}

fn unready(status: u16, address: &AdminListen, body: Value) -> CliError {
    let text = format!("the server at {address} is not ready: it responds with status {status}");
    let mut failure = CliError::new(Exit::Failed, text);
    if !body.is_null() {
        failure.problem["health"] = json!(body);
    }
    failure
}

/// Returns the server's address. A valid control file contains this address, with the actual port.
/// Without a valid control file, the address comes from the settings. If the admin listener uses
/// TLS, the address is the Unix socket that the server opens for the command line. Otherwise the
/// address is the configured listen address.
fn address(settings: &Settings) -> AdminListen {
    match control_file::find(&settings.store.control_file) {
        Ok(Some(found)) => found.address,
        _ if settings.admin.tls.is_some() => AdminListen::Unix(settings.store.socket_file.clone()),
        _ => settings.admin.listen.clone(),
    }
}
