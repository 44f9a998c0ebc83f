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
        instance::control_file::{self, ControlState},
        terminal::{screen, times},
    },
    config::{ListenAddress, Settings},
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
    let (socket, address, is_found) = addresses(settings);
    let control = settings.store.control_file.display();
    let failed = |problem: String| {
        let text = if is_found {
            problem
        } else {
            format!(
                "{problem}. There is no file {control}, which a running server writes, so this is \
                 the address in the configuration. For another server, name its file: keyward \
                 --config FILE healthcheck"
            )
        };
        CliError::new(Exit::Failed, text)
    };
    let request = Request::get(TARGET).body(Bytes::new())?;
    let server =
        RemoteServer::new(socket.unwrap_or_else(|| address.clone())).with_timeout(RESPONSE_TIMEOUT);
    let response = server.send(request).await.map_err(|problem| failed(problem.to_string()))?;
    let status = response.status();
    let body: Value = serde_json::from_slice(response.body()).unwrap_or_default();
    if !status.is_success() {
        return Err(unready(status.as_u16(), &address, body).into());
    }
    if let Some(problem) = body["audit_problem"].as_str() {
        screen::note(&format!("warning: {}\n", screen::printable(problem)));
    }
    match output {
        Output::Table => screen::say(&ready_text(&address, &body))?,
        Output::Json => screen::print(&format!("{body:#}\n"))?,
    }
    Ok(())
}

fn ready_text(address: &ListenAddress, body: &Value) -> String {
    let mut text = format!("The server at {address} is ready.\n");
    if let Some(problem) = body["backup_problem"].as_str() {
        let problem = screen::printable(problem);
        text.push_str(&format!("The last scheduled backup was not written: {problem}\n"));
    }
    if let Some(problem) = body["certificate_problem"].as_str() {
        text.push_str(&format!("Certificates: {}.\n", screen::printable(problem)));
    }
    if let Some(count) = body["script_problems"].as_u64() {
        text.push_str(&format!(
            "Problems of the scripts: {count}. GET /api/v1/scripts shows them, and keyward script check finds those in files.\n"
        ));
    }
    if let Some(seconds) = body["clock_behind_seconds"].as_i64() {
        let span = times::span(seconds);
        text.push_str(&format!(
            "The machine's clock is {span} behind the newest time that was seen or stored. Set the clock.\n"
        ));
    }
    text
}

fn unready(status: u16, address: &ListenAddress, body: Value) -> CliError {
    let text = format!("the server at {address} is not ready: it responds with status {status}");
    let mut failure = CliError::new(Exit::Failed, text);
    if !body.is_null() {
        failure.problem["health"] = json!(body);
    }
    failure
}

/// The socket in the control file, which only this user can fill, and the address in that file,
/// which has the actual port. Without a control file, the address is the configured one, or the
/// socket if that address has TLS.
///
/// The last value says whether there is a control file.
fn addresses(settings: &Settings) -> (Option<ListenAddress>, ListenAddress, bool) {
    match control_file::find(&settings.store.control_file) {
        Ok(ControlState::Found(found)) => {
            let is_there = |socket: &ListenAddress| match socket {
                ListenAddress::Unix(path) => path.exists(),
                ListenAddress::Tcp(_) => true,
            };
            (found.socket.filter(is_there), found.address, true)
        }
        _ if settings.admin.tls.is_some() => {
            (None, ListenAddress::Unix(settings.store.socket_file.clone()), false)
        }
        _ => (None, settings.admin.listen.clone(), false),
    }
}
