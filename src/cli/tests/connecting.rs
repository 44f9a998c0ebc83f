//! Tests of how the command line finds the server or the store.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    fake::{Fake, KEY, run_with},
    transports::over_tcp,
};
use crate::{
    cli::{
        Exit,
        client::connect,
        instance::{
            accounts::{self, NewStore},
            control_file::ControlFile,
        },
    },
    config::{Settings, load},
    model::Secret,
};

fn new_folder(engine: &str) -> (TempDir, Settings) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data/keyward").display().to_string();
    let variables = [
        ("KEYWARD_STORE__PATH", path.as_str()),
        ("KEYWARD_STORE__ENGINE", engine),
        ("KEYWARD_LIMITS__PASSWORD_CHECKS", "1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = load(None, variables.into_iter()).unwrap().settings;
    (folder, settings)
}

async fn folder_with_store(engine: &str) -> (TempDir, Settings) {
    let (folder, settings) = new_folder(engine);
    let accounts = accounts::open(&settings, NewStore::OnlyWithNewPepper).unwrap();
    accounts.first_start().await.unwrap().unwrap();
    (folder, settings)
}

async fn assert_unreachable(settings: &Settings, text: &str) {
    let Err(error) = connect::client(settings).await else { panic!("{text}: it is connected") };
    assert_eq!(error.exit, Exit::Unreachable, "{error}");
    assert!(error.to_string().contains(text), "{error}");
}

/// Returns a fake API with one user, whose name shows that the fake API responded.
fn fake_server() -> Fake {
    Fake::with(&[("users/5", json!({ "uid": 5, "name": "from the server" }))])
}

async fn assert_server_responds(settings: &Settings) {
    let client = connect::client(settings).await.unwrap();
    let ran = run_with(client, &["user", "list"]).await;
    assert!(ran.out.contains("from the server"), "{ran:?}");
}

fn edit_json(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut content = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut content);
    fs::write(path, content.to_string()).unwrap();
}

/// The id of a process that has ended.
fn ended_process_id() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[tokio::test]
async fn missing_store_is_not_created() {
    let (folder, settings) = new_folder("sled");
    assert_unreachable(&settings, "To make a new store at that path, run keyward init").await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let (_folder, settings) = new_folder("memory");
    assert_unreachable(&settings, "memory").await;
}

#[tokio::test]
async fn store_is_opened_if_no_server_runs() {
    let (_folder, settings) = folder_with_store("sled").await;
    assert!(connect::client(&settings).await.is_ok());
    // Dropping the first client closed the store, so a second client can open it.
    assert!(connect::client(&settings).await.is_ok());
}

#[tokio::test]
async fn running_server_gets_the_request() {
    let (_folder, settings) = folder_with_store("sled").await;
    let address = over_tcp(fake_server()).await;
    let key = Secret::new(KEY);
    let _control =
        ControlFile::write(&settings.store.control_file, address, None, "-", None, &key).unwrap();
    assert_server_responds(&settings).await;
}

#[tokio::test]
async fn control_file_of_a_killed_server_is_removed() {
    let (_folder, settings) = folder_with_store("sled").await;
    let file = &settings.store.control_file;
    let key = Secret::new(KEY);
    // No server listens at the address, although a process with the process id exists.
    let control = ControlFile::write(file, "127.0.0.1:1", None, "-", None, &key).unwrap();
    assert!(connect::client(&settings).await.is_ok());
    assert!(!file.exists());
    drop(control);
    // Another program listens at the address. The request must not be sent to that program.
    let other = fake_server();
    let address = over_tcp(other.clone()).await;
    let control = ControlFile::write(file, address, None, "-", None, &key).unwrap();
    edit_json(file, |content| content["pid"] = json!(ended_process_id()));
    assert!(connect::client(&settings).await.is_ok());
    assert!(!file.exists());
    assert!(other.0.lock().requests.is_empty());
    drop(control);
}

#[tokio::test]
async fn locked_store_is_reached_through_its_server_only() {
    let (_folder, settings) = folder_with_store("sled").await;
    let file = &settings.store.control_file;
    let open_accounts = accounts::open(&settings, NewStore::OnlyWithNewPepper).unwrap();
    assert_unreachable(&settings, "no control file").await;
    let key = Secret::new(KEY);
    let silent = ControlFile::write(file, "127.0.0.1:1", None, "-", None, &key).unwrap();
    assert_unreachable(&settings, "does not respond at 127.0.0.1:1").await;
    assert!(file.exists());
    drop(silent);
    // The server responds, but no process on this machine has the server's process id, as if the
    // server ran in another container.
    let address = over_tcp(fake_server()).await;
    let _control = ControlFile::write(file, address, None, "-", None, &key).unwrap();
    edit_json(file, |content| content["pid"] = json!(ended_process_id()));
    assert_server_responds(&settings).await;
    assert!(file.exists());
    drop(open_accounts);
}

#[tokio::test]
async fn control_file_that_others_can_read_is_not_used() {
    let (_folder, settings) = folder_with_store("sled").await;
    let file = &settings.store.control_file;
    let address = over_tcp(fake_server()).await;
    let _control = ControlFile::write(file, address, None, "-", None, &Secret::new(KEY)).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    assert_unreachable(&settings, "read by others").await;
}
