//! Kills each command that writes to the disk at different moments. The store stays as it was or
//! becomes what the command makes of it, a revocation stays, and the command can be repeated.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    harness::{Server, Site},
    restore::kill_rounds,
};

const USERS: usize = 200;

/// A store with users who have a key each, of which one is revoked, and a backup of it.
fn template() -> Site {
    let site = Site::new();
    site.json(&["init"]);
    let rows = |from: usize| -> String {
        (from..from + USERS).map(|at| format!("user{at:04},a-key-of-user-{at}\n")).collect()
    };
    fs::write(site.path().join("rows.csv"), rows(0)).unwrap();
    fs::write(site.path().join("more.csv"), rows(USERS)).unwrap();
    site.json(&["key", "import", "rows.csv", "--create-users"]);
    site.json(&["backup", "before.backup"]);
    let key = site.json(&["key", "list", "user0007"]);
    site.json(&["key", "revoke", key[0]["id"].as_str().unwrap()]);
    let export = String::from_utf8(site.run(&["export"]).stdout).unwrap();
    let pepper = export.lines().find(|line| line.starts_with("pepper")).unwrap();
    let users: String = (0..USERS).map(|at| format!("[[users]]\nname = \"new{at}\"\n")).collect();
    fs::write(site.path().join("state.toml"), format!("version = 1\n{pepper}\n{users}")).unwrap();
    site
}

fn copy(template: &Site) -> Site {
    let site = Site::new();
    let from = template.path().join(".");
    assert!(Command::new("cp").arg("-a").args([&*from, site.path()]).status().unwrap().success());
    site
}

/// Starts the command and kills it after a share of the time that a whole run takes.
fn kill_at(site: &Site, args: &[&str], whole: Duration, round: u64) {
    let mut command = site.command(args);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let share = u32::try_from(round * 7919 % 101).unwrap();
    thread::sleep(whole * share / 100 + Duration::from_micros(round * 131 % 1000));
    let _ = child.kill();
    child.wait().unwrap();
}

/// The number of users and of revoked keys of a store whose audit trail is intact.
fn counts(site: &Site) -> (usize, usize) {
    assert_eq!(site.json(&["audit", "verify"])["state"], "intact");
    let users = site.json(&["user", "list"]).as_array().unwrap().len();
    let keys = site.json(&["key", "list"]);
    let is_revoked = |key: &&Value| key["state"] == "revoked";
    (users, keys.as_array().unwrap().iter().filter(is_revoked).count())
}

/// Kills `args` at different moments on copies of the template, and checks what is there after it.
fn killed(template: &Site, args: &[&str], check: impl Fn(Site, u64)) {
    let whole = copy(template);
    let started = Instant::now();
    assert!(whole.run(args).status.success(), "keyward {args:?}");
    let time = started.elapsed();
    for round in 0..kill_rounds(3) {
        let site = copy(template);
        kill_at(&site, args, time, round);
        check(site, round);
    }
}

fn has_all_records(site: &Site, round: u64) {
    assert_eq!(counts(site), (USERS + 1, 1), "round {round}");
}

#[test]
fn killed_start_keeps_all_records() {
    let template = template();
    let started = Instant::now();
    let mut server = Server::start(copy(&template), String::new());
    let time = started.elapsed();
    assert!(server.stop().success());
    for round in 0..kill_rounds(3) {
        let site = copy(&template);
        kill_at(&site, &["serve"], time, round);
        has_all_records(&site, round);
    }
}

#[test]
fn killed_first_start_is_no_obstacle() {
    let started = Instant::now();
    assert!(Server::start(Site::new(), String::new()).stop().success());
    let time = started.elapsed();
    for round in 0..kill_rounds(3) {
        let site = Site::new();
        kill_at(&site, &["serve"], time, round);
        let mut server = Server::start(site, String::new());
        assert_eq!(counts(&server.site), (1, 0), "round {round}");
        assert!(server.stop().success());
    }
}

#[test]
fn killed_backup_leaves_the_store_and_no_half_file() {
    killed(&template(), &["backup", "all.backup"], |site, round| {
        has_all_records(&site, round);
        if site.path().join("all.backup").exists() {
            site.json(&["restore", "all.backup", "--check"]);
        } else {
            site.json(&["backup", "all.backup"]);
        }
    });
}

#[test]
fn killed_restore_is_whole_or_not_there() {
    let args = ["restore", "before.backup", "--keep-revocations"];
    killed(&template(), &args, |site, round| {
        has_all_records(&site, round);
        site.run(&args);
        has_all_records(&site, round);
    });
}

/// Kills a command that adds users in one batch. It adds all of them or none, and can be repeated.
fn killed_addition(args: &[&str]) {
    killed(&template(), args, |site, round| {
        let (users, revoked) = counts(&site);
        assert!(users == USERS + 1 || users == 2 * USERS + 1, "{users} users in round {round}");
        assert_eq!(revoked, 1, "round {round}");
        site.json(args);
        assert_eq!(counts(&site), (2 * USERS + 1, 1), "round {round}");
    });
}

#[test]
fn killed_offline_import_is_whole_or_not_there() {
    killed_addition(&["key", "import", "more.csv", "--create-users"]);
}

#[test]
fn killed_offline_apply_is_whole_or_not_there() {
    killed_addition(&["apply", "state.toml"]);
}

#[test]
fn killed_compaction_keeps_all_records() {
    killed(&template(), &["store", "compact"], |site, round| {
        has_all_records(&site, round);
        assert!(site.run(&["store", "compact"]).status.success(), "round {round}");
        has_all_records(&site, round);
    });
}

#[test]
fn killed_conversion_can_be_repeated() {
    let args = ["store", "convert", "--to", "redb"];
    killed(&template(), &args, |site, round| {
        let mut site = site;
        if !site.store().join("store.redb").exists() {
            has_all_records(&site, round);
            let output = site.run(&args);
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "round {round}: {errors}");
        }
        site = site.with_env("KEYWARD_STORE__ENGINE", "redb");
        has_all_records(&site, round);
    });
}
