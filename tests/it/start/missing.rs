//! A store without its pepper, and a pepper without its store: a disk that is not mounted.

use std::fs;

use super::assert_fails;
use crate::harness::{Server, Site};

/// Commands of every kind that open the store.
const COMMANDS: [&[&str]; 10] = [
    &["serve"],
    &["init"],
    &["user", "list"],
    &["key", "list"],
    &["export"],
    &["backup", "all.backup"],
    &["audit", "verify"],
    &["apply", "state.toml"],
    &["apply", "state.toml", "--dry-run"],
    &["explain", "/user/1"],
];

#[test]
fn pepper_without_store_is_refused_by_every_command() {
    let site = Site::new();
    site.json(&["init"]);
    let state = site.run(&["export"]).stdout;
    fs::write(site.path().join("state.toml"), state).unwrap();
    let pepper = site.path().join("data/keyward.pepper");
    let before = fs::read(&pepper).unwrap();
    let disk = site.path().join("disk");
    fs::rename(site.store(), &disk).unwrap();
    for is_mount_point in [false, true] {
        if is_mount_point {
            fs::create_dir(site.store()).unwrap();
        }
        for args in COMMANDS {
            let state = if is_mount_point { "is empty" } else { "is missing" };
            let pepper = format!("the pepper file {} is there", pepper.display());
            let folder = format!("the folder of its store {}", site.store().display());
            let parts = [
                pepper.as_str(),
                folder.as_str(),
                state,
                "not mounted",
                "mistyped path",
                "restore the newest backup",
                "keyward init --new",
            ];
            assert_fails(&site, args, 5, &parts);
            let files = fs::read_dir(site.store()).map_or(0, |files| files.count());
            assert_eq!((site.store().exists(), files), (is_mount_point, 0), "{args:?}");
        }
    }
    assert_eq!(fs::read(&pepper).unwrap(), before);
    // The disk is mounted.
    fs::remove_dir(site.store()).unwrap();
    fs::rename(&disk, site.store()).unwrap();
    assert_eq!(site.json(&["user", "show", "admin"])["uid"], 1);
}

#[test]
fn store_without_pepper_is_refused_by_every_command() {
    let site = Site::new();
    site.json(&["init"]);
    let state = site.run(&["export"]).stdout;
    fs::write(site.path().join("state.toml"), state).unwrap();
    let pepper = site.path().join("data/keyward.pepper");
    let kept = site.path().join("kept");
    fs::rename(&pepper, &kept).unwrap();
    for args in COMMANDS.into_iter().chain([&["init", "--new"][..]]) {
        let store = format!("the store {} is there", site.store().display());
        let missing = format!("its pepper file {} is missing", pepper.display());
        let parts = [
            store.as_str(),
            missing.as_str(),
            "not mounted",
            "mistyped path",
            "put the pepper file back from a backup",
            "keyward init --new",
        ];
        assert_fails(&site, args, 5, &parts);
        assert!(!pepper.exists(), "{args:?} made a pepper for a store that has another one");
    }
    fs::rename(&kept, &pepper).unwrap();
    assert_eq!(site.json(&["user", "show", "admin"])["uid"], 1);
}

#[test]
fn init_new_begins_anew_with_the_same_pepper_and_replaces_nothing() {
    let site = Site::new();
    site.json(&["init"]);
    site.json(&["user", "add", "bob"]);
    let pepper = site.path().join("data/keyward.pepper");
    let before = fs::read(&pepper).unwrap();
    let used = "data/keyward has its users and keys already";
    assert_fails(&site, &["init", "--new"], 4, &[used]);
    assert_eq!(site.json(&["user", "show", "bob"])["name"], "bob");

    fs::rename(site.store(), site.path().join("former")).unwrap();
    let first = site.json(&["init", "--new"]);
    assert_eq!(fs::read(&pepper).unwrap(), before);
    assert_eq!(site.json(&["user", "list"]).as_array().unwrap().len(), 1);
    assert_fails(&site, &["init", "--new"], 4, &[used]);
    let server = Server::start(site, first["key"].as_str().unwrap().to_owned());
    assert_eq!(server.request_as_admin("GET", "/user/1").send().status, 200);
}

#[test]
fn init_on_an_existing_store_does_not_call_it_in_use() {
    let site = Site::new();
    site.json(&["init"]);
    let output = site.run(&["init"]);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("data/keyward has its users and keys already"), "{errors}");
    assert!(!errors.contains("in use"), "{errors}");
    // A running server has the store open.
    let server = Server::start(site, String::new());
    assert_fails(&server.site, &["init"], 4, &["has its users and keys already"]);
}

#[test]
fn interrupted_first_start_is_no_missing_mount() {
    let site = Site::new();
    fs::create_dir_all(site.path().join("scripts")).unwrap();
    let script = site.path().join("scripts/hooks.rhai");
    fs::write(&script, "fn on_request(").unwrap();
    let (code, errors) = super::end_of(site.command(&["serve"]));
    assert_ne!(code, Some(0), "{errors}");
    assert!(site.path().join("data/keyward.pepper").exists(), "{errors}");
    fs::remove_file(&script).unwrap();
    let server = Server::start(site, String::new());
    assert!(server.printed().contains("kw_"), "{}", server.printed());
}
