//! Which way is taken: the server's, the store's, or none.

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
        instance::{accounts, control_file::ControlFile},
    },
    config::{Settings, load},
    model::Secret,
};

fn site(engine: &str) -> (TempDir, Settings) {
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

async fn filled(engine: &str) -> (TempDir, Settings) {
    let (folder, settings) = site(engine);
    let accounts = accounts::open(&settings).unwrap();
    accounts.first_start().await.unwrap().unwrap();
    (folder, settings)
}

async fn refused(settings: &Settings, says: &str) {
    let Err(failure) = connect::client(settings).await else { panic!("{says}: it is connected") };
    assert_eq!(failure.exit, Exit::Unreachable, "{failure}");
    assert!(failure.to_string().contains(says), "{failure}");
}

/// What the fake lists shows that it is the one that was asked.
fn server() -> Fake {
    Fake::with(&[("users/5", json!({ "uid": 5, "name": "from the server" }))])
}

async fn asks_the_server(settings: &Settings) {
    let client = connect::client(settings).await.unwrap();
    let ran = run_with(client, &["user", "list"]).await;
    assert!(ran.out.contains("from the server"), "{ran:?}");
}

fn alter(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut content = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    change(&mut content);
    fs::write(path, content.to_string()).unwrap();
}

/// The number of a process that has ended.
fn ended() -> u32 {
    let mut child = std::process::Command::new("true").spawn().unwrap();
    child.wait().unwrap();
    child.id()
}

#[tokio::test]
async fn where_nothing_is_nothing_is_made() {
    let (folder, settings) = site("sled");
    refused(&settings, "run keyward init or keyward serve first").await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    let (_folder, settings) = site("memory");
    refused(&settings, "memory").await;
}

#[tokio::test]
async fn without_a_server_the_store_is_opened() {
    let (_folder, settings) = filled("sled").await;
    assert!(connect::client(&settings).await.is_ok());
    // And the store is let go of again.
    assert!(connect::client(&settings).await.is_ok());
}

#[tokio::test]
async fn a_server_that_runs_is_asked() {
    let (_folder, settings) = filled("sled").await;
    let address = over_tcp(server()).await;
    let key = Secret::new(KEY);
    let _control = ControlFile::write(&settings.store.control_file, address, "-", &key).unwrap();
    asks_the_server(&settings).await;
}

#[tokio::test]
async fn a_file_that_a_killed_server_left_is_removed() {
    let (_folder, settings) = filled("sled").await;
    let file = &settings.store.control_file;
    let key = Secret::new(KEY);
    // Nobody listens, though the number of the process is in use again.
    let control = ControlFile::write(file, "127.0.0.1:1", "-", &key).unwrap();
    assert!(connect::client(&settings).await.is_ok());
    assert!(!file.exists());
    drop(control);
    // Somebody listens, who is not the server: it must not get to see what is asked.
    let other = server();
    let address = over_tcp(other.clone()).await;
    let control = ControlFile::write(file, address, "-", &key).unwrap();
    alter(file, |content| content["pid"] = json!(ended()));
    assert!(connect::client(&settings).await.is_ok());
    assert!(!file.exists());
    assert!(other.0.lock().unwrap().asked.is_empty());
    drop(control);
}

#[tokio::test]
async fn a_store_that_another_process_holds() {
    let (_folder, settings) = filled("sled").await;
    let file = &settings.store.control_file;
    let held = accounts::open(&settings).unwrap();
    refused(&settings, "no control file").await;
    let key = Secret::new(KEY);
    let silent = ControlFile::write(file, "127.0.0.1:1", "-", &key).unwrap();
    refused(&settings, "does not answer at 127.0.0.1:1").await;
    assert!(file.exists());
    drop(silent);
    // It answers, and its number means nothing here: it runs in another container.
    let address = over_tcp(server()).await;
    let _control = ControlFile::write(file, address, "-", &key).unwrap();
    alter(file, |content| content["pid"] = json!(ended()));
    asks_the_server(&settings).await;
    assert!(file.exists());
    drop(held);
}

#[tokio::test]
async fn a_file_that_others_can_read_is_not_used() {
    let (_folder, settings) = filled("sled").await;
    let file = &settings.store.control_file;
    let address = over_tcp(server()).await;
    let _control = ControlFile::write(file, address, "-", &Secret::new(KEY)).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).unwrap();
    refused(&settings, "read by others").await;
}
