//! Tests of events. Scripts can deny all new users and keys. Webhooks are signed and retried, and
//! pending webhooks are sent after a kill of the server.

mod delivery;
mod denial;
mod monitor;
mod receiver;

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::harness::Site;

/// The secret that signs the webhooks.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Writes `events.rhai`, the script that handles events.
fn write_events_script(site: &Site, text: &str) {
    let folder = site.path().join("scripts");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("events.rhai"), text).unwrap();
}

/// A site with the webhook `ops`, which sends to this port and has a secret.
fn site_with_webhook(port: u16) -> Site {
    let site = Site::new();
    let secrets = site.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("hook"), SECRET).unwrap();
    fs::set_permissions(secrets.join("hook"), fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[events]\nwebhook_retry_seconds = 1\n[webhooks.ops]\nurl = \"http://127.0.0.1:{port}/in\"\nsecret = \"hook\"\ntimeout_seconds = 2\n"
    );
    fs::write(site.path().join("config.toml"), text).unwrap();
    site
}
