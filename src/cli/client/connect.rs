//! Gives commands access to the records: connects to the running server, or opens the store in this
//! process.
//!
//! The store's lock decides whether a server runs. The control file only says where the server
//! listens. A killed server leaves its control file behind. The next process that gets the lock
//! removes the file.

use std::fs;

use super::{AdminClient, local::LocalApi, remote::RemoteServer};
use crate::{
    accounts::Accounts,
    cli::{
        CliError, Exit,
        instance::{
            accounts,
            admin_service::AdminFace,
            control_file::{self, ControlInfo, ControlState},
            scripts,
        },
    },
    config::{ListenAddress, Settings},
    pipeline::Gate,
};

/// Returns a client of the running server, or of the store if no server runs.
///
/// # Errors
/// The control file is not trustworthy; there is no store; the store cannot be opened; or the
/// process that has the store open is not reachable.
pub async fn client(settings: &Settings) -> Result<AdminClient, CliError> {
    connect(settings, ScriptLoading::Lazy).await
}

/// Returns a client like [`client`], for commands that need the scripts. If no server runs, this
/// function loads the scripts.
///
/// # Errors
/// The errors of [`client`]; or the scripts are invalid.
pub async fn client_with_scripts(settings: &Settings) -> Result<AdminClient, CliError> {
    connect(settings, ScriptLoading::Eager).await
}

/// Returns a client of `accounts`, which this process has opened or created in memory.
pub async fn client_of_accounts(
    settings: &Settings,
    accounts: Accounts,
) -> Result<AdminClient, CliError> {
    in_this_process(settings, accounts, ScriptLoading::Lazy).await
}

/// The time at which this process loads the scripts, if no server runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScriptLoading {
    /// When the command first creates a key or a user. Other records need no scripts.
    Lazy,
    /// Before the command starts.
    Eager,
}

async fn connect(settings: &Settings, loading: ScriptLoading) -> Result<AdminClient, CliError> {
    let found = match control_file::find(&settings.store.control_file)? {
        ControlState::Found(found) => found,
        state => {
            let is_left_over = matches!(state, ControlState::Unreadable);
            let accounts = accounts::open_existing(settings)?
                .ok_or_else(|| locked_without_control_file(settings, is_left_over))?;
            if is_left_over {
                // We have the lock, so no server runs that could have written the file.
                let _ = fs::remove_file(&settings.store.control_file);
            }
            return in_this_process(settings, accounts, loading).await;
        }
    };
    let listening = listening_address(&found).await;
    if let Some(address) = listening.as_ref().filter(|_| found.is_alive()) {
        return Ok(AdminClient::new(RemoteServer::new(address.clone()), found.key));
    }
    match (accounts::open_existing(settings)?, listening) {
        (Some(accounts), _) => {
            // This process has the store's lock, so the server that wrote the control file has
            // ended.
            let _ = fs::remove_file(&settings.store.control_file);
            in_this_process(settings, accounts, loading).await
        }
        // The server listens, but no process on this machine has the server's process id: the
        // server runs in another container.
        (None, Some(address)) => Ok(AdminClient::new(RemoteServer::new(address), found.key)),
        (None, None) => Err(locked_by_silent_server(settings, &found)),
    }
}

/// The first address in a control file at which a process listens. `None` means that nothing
/// listens.
async fn listening_address(found: &ControlInfo) -> Option<ListenAddress> {
    for address in found.addresses() {
        if RemoteServer::new(address.clone()).is_listening().await {
            return Some(address.clone());
        }
    }
    None
}

async fn in_this_process(
    settings: &Settings,
    accounts: Accounts,
    loading: ScriptLoading,
) -> Result<AdminClient, CliError> {
    let refreshed = accounts.refresh_name_index().await;
    refreshed.map_err(|problem| CliError::new(Exit::Failed, problem.to_string()))?;
    let accounts = match loading {
        ScriptLoading::Lazy => scripts::load_lazily(&settings.scripts, accounts),
        ScriptLoading::Eager => {
            let loaded = scripts::load(&settings.scripts, &accounts).await;
            loaded.map_err(|problem| CliError::new(Exit::Refused, format!("{problem:#}")))?;
            accounts
        }
    };
    let operator = accounts.create_operator_key();
    let gate = Gate::new(&accounts, settings.limits.credential_bytes);
    Ok(AdminClient::new(LocalApi(AdminFace::new(gate, accounts, settings)), operator.key))
}

fn locked_without_control_file(settings: &Settings, is_left_over: bool) -> CliError {
    let store = &settings.store;
    let (path, control) = (store.path.display(), store.control_file.display());
    let problem = if is_left_over {
        format!("its control file {control} is not complete")
    } else {
        format!("there is no control file {control} to reach it")
    };
    CliError::new(
        Exit::Unreachable,
        format!(
            "another process uses the store {path}, and {problem}. If a server is starting or \
             stopping, or another keyward command is running, try again in a moment. Otherwise \
             restart the server, which writes a new control file, or stop that process"
        ),
    )
}

fn locked_by_silent_server(settings: &Settings, found: &ControlInfo) -> CliError {
    let path = settings.store.path.display();
    CliError::new(
        Exit::Unreachable,
        format!(
            "the server that uses the store {path} (process {}) does not respond at {}. \
             If the server is stopping, try again in a moment; otherwise restart the server",
            found.pid, found.address
        ),
    )
}
