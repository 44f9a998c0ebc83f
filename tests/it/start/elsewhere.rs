//! Commands that start in another folder than the configuration file, and the shipped unit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

use super::{assert_fails, end_of};
use crate::harness::{Server, Site};

/// A site with a configuration file, an empty folder beside it, and no store.
fn site_with_file(text: &str) -> (Site, PathBuf) {
    let site = Site::new();
    fs::write(site.path().join("config.toml"), text).unwrap();
    let folder = site.path().join("elsewhere");
    fs::create_dir(&folder).unwrap();
    (site, folder)
}

/// Runs a command in a folder, without the variables with which the server was started.
fn run_in(site: &Site, folder: &Path, args: &[&str]) -> Output {
    let mut command = site.command(args);
    for name in ["SERVER", "ADMIN", "VERIFY"] {
        command.env_remove(format!("KEYWARD_{name}__LISTEN"));
    }
    command.current_dir(folder).output().unwrap()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn commands_find_the_server_of_a_configuration_from_every_folder() {
    let (site, folder) = site_with_file("[store]\npath = \"data/keyward\"\n");
    let mut command = site.command(&["serve", "--config", "../config.toml"]);
    command.current_dir(&folder);
    let server = Server::start_with(site, String::new(), command);
    let file = server.site.path().join("config.toml").display().to_string();
    for (from, file) in [
        (folder.as_path(), "../config.toml"),
        (server.site.path(), "config.toml"),
        (Path::new("/"), file.as_str()),
    ] {
        for args in [&["healthcheck"][..], &["user", "list"], &["key", "generate", "admin"]] {
            let output = run_in(&server.site, from, &[args, &["--config", file]].concat());
            assert!(output.status.success(), "{from:?} {args:?}: {}", errors(&output));
        }
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn missing_store_is_named_with_the_place_that_was_searched() {
    let (site, folder) = site_with_file("");
    for args in [&["user", "list"][..], &["key", "revoke", "00000000"], &["store", "check"]] {
        let output = run_in(&site, &folder, args);
        let errors = errors(&output);
        assert_eq!(output.status.code(), Some(5), "{errors}");
        let path = folder.join("data/keyward").display().to_string();
        assert!(errors.contains(&format!("there is no store at {path}")), "{errors}");
        assert!(errors.contains(&format!("config.toml in {}", folder.display())), "{errors}");
        let place = |text: &str| errors.find(text).unwrap_or(usize::MAX);
        assert!(place("--config FILE") < place("keyward init"), "{errors}");
    }
    let output = run_in(&site, &folder, &["healthcheck"]);
    assert_eq!(output.status.code(), Some(1));
    let control = folder.join("data/keyward.control").display().to_string();
    assert!(errors(&output).contains(&control), "{}", errors(&output));
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn store_of_an_earlier_version_is_not_replaced_by_a_new_one() {
    let site = Site::new();
    site.json(&["init"]);
    fs::create_dir(site.path().join("etc")).unwrap();
    fs::write(site.path().join("etc/config.toml"), "[store]\npath = \"data/keyward\"\n").unwrap();
    let former = site.store().display().to_string();
    let now = site.path().join("etc/data/keyward").display().to_string();
    for args in [&["serve"][..], &["init"], &["user", "list"]] {
        let args = [&["--config", "etc/config.toml"], args].concat();
        assert_fails(&site, &args, 5, &[&former, &now, "set store.path", "count from"]);
        assert!(!site.path().join("etc/data").exists(), "{args:?}");
    }
    // The fix in the message works.
    let text = format!("[store]\npath = \"{former}\"\n");
    fs::write(site.path().join("etc/config.toml"), text).unwrap();
    assert_eq!(site.json(&["--config", "etc/config.toml", "user", "show", "admin"])["uid"], 1);
}

#[test]
fn variable_that_looks_like_a_key_stops_every_command() {
    for (name, meant) in [
        ("KEYWARD_SERVER_LISTEN", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_LISTEN", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_STORE_PATH", "KEYWARD_STORE__PATH"),
    ] {
        let site = Site::new().with_env(name, "127.0.0.1:1");
        for args in [&["config", "check"][..], &["serve"], &["user", "list"]] {
            assert_fails(&site, args, 2, &[name, meant]);
        }
    }
}

#[test]
fn variable_without_effect_is_named_by_check_and_in_the_log() {
    let site = Site::new().with_env("KEYWARD_IMAGE_TAG", "7").with_env("KEYWARD_TEST_X", "1");
    let (code, errors) = end_of(site.command(&["config", "check"]));
    assert_eq!(code, Some(0));
    assert!(errors.contains("without effect: KEYWARD_IMAGE_TAG"), "{errors}");
    assert!(!errors.contains("KEYWARD_TEST_X"), "{errors}");
    let server = Server::start(site, String::new());
    server.wait_for_log("without effect: KEYWARD_IMAGE_TAG");
}

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

#[test]
fn configuration_of_the_service_page_works_with_the_command_of_the_unit() {
    let unit = read("examples/systemd/keyward.service");
    let page = read("docs/service.md");
    let (_, config) = page.split_once("```toml\n").unwrap();
    let (config, _) = config.split_once("```").unwrap();
    let site = Site::new();
    let at = |name: &str| site.path().join(name).display().to_string();
    let config = config.replace("/var/lib/keyward/store", &at("data/keyward"));
    let config = config.replace("/var/lib/keyward/pepper", &at("data/keyward.pepper"));
    let config = config.replace("/etc/keyward", &at("etc"));
    assert!(!config.contains("/var/"), "{config}");
    fs::create_dir_all(site.path().join("etc")).unwrap();
    fs::create_dir_all(site.path().join("data")).unwrap();
    fs::write(site.path().join("etc/config.toml"), config).unwrap();
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let start = start.replace("/etc/keyward", &at("etc"));
    let args: Vec<&str> = start.split_whitespace().skip(1).collect();
    let mut command = site.command(&args);
    // systemd starts the service in its state directory, and sets this variable.
    command.current_dir(site.path().join("data")).env("INVOCATION_ID", "1");
    let server = Server::start_with(site, String::new(), command);
    let file = server.site.path().join("data/keyward.first-key");
    let text = fs::read_to_string(&file).unwrap();
    let key = text.split_whitespace().find(|word| word.starts_with("kw_")).unwrap();
    server.forbid_key_in_log(key);
    let listed = run_in(
        &server.site,
        Path::new("/"),
        &[&args[..2], &["user", "list", "--output", "json"]].concat(),
    );
    let users: Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(users[0]["name"], "admin");
}

#[test]
fn unit_is_accepted_by_systemd() {
    let folder = tempfile::tempdir().unwrap();
    let program = env!("CARGO_BIN_EXE_keyward");
    // The user of the service need not exist on this machine.
    let unit = read("examples/systemd/keyward.service").replace("/usr/local/bin/keyward", program);
    let unit: String = unit
        .lines()
        .filter(|line| !line.starts_with("User=") && !line.starts_with("Group="))
        .map(|line| format!("{line}\n"))
        .collect();
    for wanted in ["NoNewPrivileges=yes", "ProtectSystem=strict", "UMask=0077", "Type=exec"] {
        assert!(unit.contains(wanted), "{wanted}");
    }
    let file = folder.path().join("keyward.service");
    fs::write(&file, unit).unwrap();
    let verify = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&file).output();
    // Machines without systemd cannot ask it.
    let Ok(verify) = verify else { return };
    let complaints = errors(&verify);
    let complaints: Vec<&str> =
        complaints.lines().filter(|line| line.contains("keyward.service")).collect();
    assert!(complaints.is_empty(), "{complaints:?}");
}
