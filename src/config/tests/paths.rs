//! Tests of relative paths in the configuration.

use super::*;

/// Every key that has a path, with a relative one.
const RELATIVE: &str = r#"
[server]
tls_certificate = "t/server.pem"
tls_key = "t/server.key"
tls_client_ca = "t/ca.pem"
[verify]
listen = "unix:run/verify.sock"
tls_certificate = ""
[admin]
listen = "unix:run/admin.sock"
[store]
path = "d/store"
pepper_file = "../pepper"
hmac_key_file = "hmac"
[backup]
every = "1d"
dir = "b"
[scripts]
dir = "./s"
secrets_dir = "x"
[webhooks.w]
url = "https://example.com/"
secret = "w"
ca = "c.pem"
"#;

#[test]
fn relative_paths_count_from_the_folder_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, RELATIVE).unwrap();
    let loaded = load_among(Some(&path), env(&[]), &[]).unwrap();
    let at = |name: &str| folder.path().join(name);
    let Settings { server, verify, admin, store, backup, scripts, events, origin, .. } =
        loaded.settings;
    let tls = server.tls.unwrap();
    assert_eq!((tls.certificate, tls.key), (at("t/server.pem"), at("t/server.key")));
    assert_eq!(tls.clients, crate::tls::ClientAuth::Required(at("t/ca.pem")));
    assert_eq!(verify.listen, Some(ListenAddress::Unix(at("run/verify.sock"))));
    assert_eq!(admin.listen, ListenAddress::Unix(at("run/admin.sock")));
    assert_eq!(store.path, at("d/store"));
    assert_eq!(store.control_file, at("d/store.control"));
    assert_eq!(store.pepper_file, at("../pepper"));
    assert_eq!(store.hmac_key_file, Some(at("hmac")));
    assert_eq!(backup.unwrap().dir, at("b"));
    assert_eq!((scripts.dir, scripts.secrets_dir), (at("s"), at("x")));
    assert_eq!(events.webhooks["w"].ca, Some(at("c.pem")));
    assert_eq!(origin.file.as_deref(), Some(&*path));
    let working_dir = std::env::current_dir().unwrap();
    assert_eq!(origin.store_from_working_dir, Some(working_dir.join("d/store")));
    // The printed configuration is the file as written.
    assert_eq!(loaded.file.store.path, "d/store");
}

#[test]
fn variable_and_default_count_from_the_folder_of_the_file_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, "").unwrap();
    let loaded = load_among(Some(&path), env(&[("KEYWARD_SCRIPTS__DIR", "s")]), &[]).unwrap();
    assert_eq!(loaded.settings.store.path, folder.path().join("data/keyward"));
    assert_eq!(loaded.settings.scripts.dir, folder.path().join("s"));
}

#[test]
fn without_a_file_paths_count_from_the_working_directory() {
    let settings = defaults().settings;
    let working_dir = std::env::current_dir().unwrap();
    assert_eq!(settings.store.path, working_dir.join("data/keyward"));
    assert_eq!((settings.origin.file, settings.origin.store_from_working_dir), (None, None));
    // A pipe is in no folder of its own.
    let (reader, mut writer) = io::pipe().unwrap();
    io::Write::write_all(&mut writer, b"[store]\npath = \"p\"\n").unwrap();
    drop(writer);
    let pipe = format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&reader));
    let loaded = load_among(Some(Path::new(&pipe)), env(&[]), &[]).unwrap();
    assert_eq!(loaded.settings.store.path, working_dir.join("p"));
}

#[test]
fn store_path_without_a_name_is_still_refused() {
    for bad in [".", "..", "a/..", "", " ", "/"] {
        let text = format!("[store]\npath = \"{bad}\"\n");
        let problem = load_text(&text, &[]).expect_err(bad);
        assert!(problem.contains("store.path: The path does not end with the name"), "{problem}");
    }
}

#[test]
fn variable_with_one_underscore_is_named_with_the_nearest_key() {
    for (name, fix) in [
        ("KEYWARD_SERVER_LISTEN", "Did you mean KEYWARD_SERVER__LISTEN?"),
        ("KEYWARD_STORE_PATH", "Did you mean KEYWARD_STORE__PATH?"),
        ("KEYWARD_SERVER_LISEN", "Did you mean KEYWARD_SERVER__LISTEN?"),
        ("KEYWARD_LIMITS_BODY_BYTES", "Did you mean KEYWARD_LIMITS__BODY_BYTES?"),
        ("KEYWARD_LISTEN", "KEYWARD_SERVER__LISTEN or KEYWARD_VERIFY__LISTEN?"),
        ("KEYWARD_PEPPER_FILE", "Did you mean KEYWARD_STORE__PEPPER_FILE?"),
        ("KEYWARD_CONFG", "Did you mean KEYWARD_CONFIG?"),
        ("KEYWARD_LIMITS_NO_SUCH_KEY", "KEYWARD_"),
        ("KEYWARD__SERVER__LISTEN", "Did you mean KEYWARD_SERVER__LISTEN?"),
    ] {
        let problem = load_text("", &[(name, "x")]).expect_err(name);
        assert!(problem.starts_with(name) && problem.contains(fix), "{name}: {problem}");
    }
}

#[test]
fn variables_of_an_orchestrator_and_of_the_tests_are_none_of_ours() {
    // Kubernetes and Docker set these for services named keyward and keyward-admin.
    let harmless = [
        "KEYWARD_PORT",
        "KEYWARD_PORT_8080_TCP",
        "KEYWARD_PORT_8080_TCP_ADDR",
        "KEYWARD_SERVICE_HOST",
        "KEYWARD_SERVICE_PORT_HTTP",
        "KEYWARD_ADMIN_SERVICE_HOST",
        "KEYWARD_ADMIN_SERVICE_PORT",
        "KEYWARD_ADMIN_PORT",
        "KEYWARD_ADMIN_PORT_8081_TCP_PROTO",
        "KEYWARD_TEST_CHILD",
        "KEYWARD_FAULT_DIR",
    ];
    for name in harmless {
        let loaded = load_text("", &[(name, "x")]).unwrap();
        assert_eq!((loaded.overrides, loaded.unknown), (vec![], vec![]), "{name}");
    }
    // Any other name has no effect, and is reported without stopping the program.
    let loaded = load_text("", &[("KEYWARD_IMAGE_TAG", "x")]).unwrap();
    assert_eq!(loaded.unknown, ["KEYWARD_IMAGE_TAG"]);
}
