//! Events: scripts that refuse what is made, by whatever way it comes, and webhooks that are signed, tried again, and survive a kill.

mod delivery;
mod receiver;
mod refusing;
mod telling;

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::harness::Site;

/// Webhooks are signed with this.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Writes the script of events.
fn script(site: &Site, text: &str) {
    let folder = site.path().join("scripts");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("events.rhai"), text).unwrap();
}

/// A site whose webhook `ops` goes to this port, with its secret.
fn site(port: u16) -> Site {
    let site = Site::new();
    let secrets = site.path().join("secrets");
    fs::create_dir(&secrets).unwrap();
    fs::write(secrets.join("hook"), SECRET).unwrap();
    fs::set_permissions(secrets.join("hook"), fs::Permissions::from_mode(0o600)).unwrap();
    let text = format!(
        "[events]\nwebhook_retry_seconds = 1\n[webhooks.ops]\nurl = \"http://127.0.0.1:{port}/in?to=ops\"\nsecret = \"hook\"\ntimeout_seconds = 2\n"
    );
    fs::write(site.path().join("config.toml"), text.replace("?to=ops", "")).unwrap();
    site
}
