//! The way to the records: the server that runs, or else the store.
//!
//! The store's lock is the truth about whether a server runs. The control file only says where it is, and one that a killed server left
//! behind is removed by whoever holds the lock.

use std::fs;

use super::{Client, local::Local, remote::Remote};
use crate::{
    accounts::Accounts,
    cli::{
        Exit, Failure,
        instance::{
            accounts,
            admin_service::AdminFace,
            control_file::{self, Found},
            scripts,
        },
    },
    config::Settings,
    pipeline::Gate,
};

/// A client of whoever has the records.
///
/// # Errors
/// The control file is not to be trusted; there is no store, it cannot be opened, or a process holds it that cannot be reached.
pub async fn client(settings: &Settings) -> Result<Client, Failure> {
    reach(settings, Scripts::Left).await
}

/// The same, for what needs the scripts: where no server runs they are loaded here.
///
/// # Errors
/// The same; or the scripts are not in order.
pub async fn client_with_scripts(settings: &Settings) -> Result<Client, Failure> {
    reach(settings, Scripts::Loaded).await
}

/// A client of accounts that were opened here, or are in memory alone.
pub async fn client_here(settings: &Settings, accounts: Accounts) -> Result<Client, Failure> {
    in_this_process(settings, accounts, Scripts::Left).await
}

/// What becomes of the scripts where no server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scripts {
    /// Nothing, until a key or a user is made: other records can be kept without.
    Left,
    /// They are loaded.
    Loaded,
}

async fn reach(settings: &Settings, scripts: Scripts) -> Result<Client, Failure> {
    let Some(found) = control_file::find(&settings.store.control_file)? else {
        return match accounts::existing(settings)? {
            Some(accounts) => in_this_process(settings, accounts, scripts).await,
            None => Err(held_without_a_file(settings)),
        };
    };
    let server = Remote::new(found.address.clone());
    let is_listening = server.is_listening().await;
    if is_listening && found.is_alive() {
        return Ok(Client::new(server, found.key));
    }
    match accounts::existing(settings)? {
        Some(accounts) => {
            // We hold the lock: whoever wrote the file is gone.
            let _ = fs::remove_file(&settings.store.control_file);
            in_this_process(settings, accounts, scripts).await
        }
        // It answers, and its process has no such number here: it runs in another container.
        None if is_listening => Ok(Client::new(server, found.key)),
        None => Err(held_and_silent(settings, &found)),
    }
}

async fn in_this_process(
    settings: &Settings,
    accounts: Accounts,
    scripts: Scripts,
) -> Result<Client, Failure> {
    let accounts = match scripts {
        Scripts::Left => scripts::load_late(&settings.scripts, accounts),
        Scripts::Loaded => {
            let loaded = scripts::load(&settings.scripts, &accounts).await;
            loaded.map_err(|problem| Failure::new(Exit::Refused, format!("{problem:#}")))?;
            accounts
        }
    };
    let operator = accounts.create_operator_key();
    let gate = Gate::new(&accounts, settings.limits.credential_bytes);
    Ok(Client::new(Local(AdminFace::new(gate, accounts, settings)), operator.key))
}

fn held_without_a_file(settings: &Settings) -> Failure {
    let store = &settings.store;
    let (path, control) = (store.path.display(), store.control_file.display());
    Failure::new(
        Exit::Unreachable,
        format!(
            "the store {path} is in use by another process, and there is no control file {control} that says how to reach it. \
             A server that is starting or stopping, or another keyward command, lets go in a moment: try again. \
             If it does not, stop that process"
        ),
    )
}

fn held_and_silent(settings: &Settings, found: &Found) -> Failure {
    let path = settings.store.path.display();
    Failure::new(
        Exit::Unreachable,
        format!(
            "the store {path} is in use by a server (process {}) that does not answer at {}. \
             If it is stopping, try again in a moment; else restart it",
            found.pid, found.address
        ),
    )
}
