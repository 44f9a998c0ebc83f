//! What is promised of the configuration, and the exact words in which it is refused.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::*;

/// Loads `text` as the only file there is. In what went wrong, the file is called config.toml.
fn load_text(text: impl AsRef<[u8]>, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    load_among(Some(&path), env(variables), &[]).map_err(|problem| {
        problem.to_string().replace(&format!("{}/", folder.path().display()), "")
    })
}

fn env(variables: &[(&str, &str)]) -> impl Iterator<Item = (String, String)> {
    let owned: Vec<_> =
        variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    owned.into_iter()
}

fn defaults() -> Loaded {
    load_among(None, env(&[]), &[]).unwrap()
}

#[track_caller]
fn refused(text: &str, expected: &str) {
    assert_eq!(load_text(text, &[]).expect_err(text), expected, "{text}");
}

#[track_caller]
fn refused_variable(name: &str, value: &str, expected: &str) {
    assert_eq!(load_text("", &[(name, value)]).expect_err(name), expected, "{name}={value}");
}

/// A key as the schema has it, with its section and name.
struct Known {
    section: String,
    key: String,
    schema: Json,
}

impl Known {
    fn all() -> Vec<Self> {
        let schema: Json = serde_json::from_str(&schema()).unwrap();
        let mut all = Vec::new();
        for (section, reference) in schema["properties"].as_object().unwrap() {
            let pointer = reference["$ref"].as_str().unwrap().trim_start_matches('#');
            let properties = &schema.pointer(pointer).unwrap()["properties"];
            for (key, schema) in properties.as_object().unwrap() {
                let (section, key) = (section.clone(), key.clone());
                all.push(Self { section, key, schema: schema.clone() });
            }
        }
        assert_eq!(all.len(), Draft::new().keys.len(), "the schema has every key");
        assert!(!all.is_empty());
        all
    }

    fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    fn variable(&self) -> String {
        format!("KEYWARD_{}__{}", self.section.to_uppercase(), self.key.to_uppercase())
    }

    fn bounds(&self) -> Option<(i64, i64)> {
        let is_number = self.schema["type"] == "integer";
        is_number.then(|| {
            let bound = |name: &str| self.schema[name].as_i64().unwrap_or_else(|| panic!("{name}"));
            (bound("minimum"), bound("maximum"))
        })
    }

    /// A value that is allowed and is not the default.
    fn other_value(&self) -> String {
        if let Some((_, most)) = self.bounds() {
            let default = self.schema["default"].as_i64().unwrap();
            // 0 stands for the number of cores, which 1 could equal.
            return if default == 0 { most - 1 } else { default + 1 }.to_string();
        }
        let texts = BTreeMap::from([
            ("server.listen", "0.0.0.0:80"),
            ("server.public_url", "https://api.example.com/v1"),
            ("admin.listen", "unix:/run/keyward.sock"),
            ("store.engine", "memory"),
            ("store.path", "/var/lib/keyward"),
            ("store.pepper_file", "/etc/keyward/pepper"),
            ("scripts.dir", "/etc/keyward/scripts"),
            ("log.level", "warn,keyward=debug"),
            ("log.format", "json"),
        ]);
        texts[self.name().as_str()].into()
    }

    fn in_toml(&self, value: &str) -> String {
        let quoted = format!("{value:?}");
        let value = if self.bounds().is_some() { value } else { &quoted };
        format!("[{}]\n{} = {value}\n", self.section, self.key)
    }

    fn value_in(&self, file: &File) -> Json {
        serde_json::to_value(file).unwrap()[&self.section][&self.key].clone()
    }
}

#[test]
fn the_shipped_file_holds_the_defaults() {
    let shipped = load_text(SHIPPED, &[]).unwrap();
    assert_eq!(shipped.file, File::default());
    assert_eq!(shipped.settings, defaults().settings);
}

#[test]
fn every_key_stands_in_the_shipped_file_below_its_sentence() {
    let mut section = "";
    let mut sentences = BTreeMap::new();
    let mut comment = String::new();
    for line in SHIPPED.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment = format!("{comment} {text}").trim().into();
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ") {
            sentences.insert(format!("{section}.{key}"), std::mem::take(&mut comment));
        }
        comment.clear();
    }
    for known in Known::all() {
        let described = known.schema["description"].as_str().unwrap();
        assert!(described.ends_with('.'), "{}", known.name());
        assert_eq!(sentences.get(&known.name()).unwrap(), described, "{}", known.name());
    }
    assert_eq!(sentences.len(), Known::all().len());
}

#[test]
fn the_defaults_are_resolved() {
    let Loaded { settings, source, overrides, .. } = defaults();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!((source, overrides), (None, vec![]));
    assert_eq!(settings.server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(settings.server.public_url, None);
    assert_eq!(settings.server.workers, cores);
    assert_eq!(settings.server.shutdown.as_secs(), 10);
    assert_eq!(settings.admin.listen, AdminListen::Tcp("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(settings.store.engine, Engine::Sled);
    assert_eq!(settings.store.path, Path::new("data/keyward"));
    assert_eq!(settings.store.pepper_file, Path::new("data/keyward.pepper"));
    assert_eq!(settings.store.control_file, Path::new("data/keyward.control"));
    assert_eq!(settings.store.cache_mib, 32);
    assert_eq!(settings.scripts.dir, Path::new("scripts"));
    assert_eq!(settings.limits.password_checks, cores);
    assert_eq!((settings.limits.header_bytes, settings.limits.headers), (16_384, 100));
    assert_eq!((settings.limits.body_bytes, settings.limits.credential_bytes), (1_048_576, 4096));
    assert_eq!((settings.limits.connections, settings.limits.http2_streams), (10_000, 128));
    assert_eq!(settings.limits.header_read.as_secs(), 10);
    assert_eq!(settings.limits.body_read.as_secs(), 30);
    assert_eq!(settings.limits.idle.as_secs(), 75);
    assert_eq!((settings.log.level.as_str(), settings.log.format), ("info", LogFormat::Text));
}

#[test]
fn every_key_is_effective_in_the_file_and_in_the_environment() {
    let defaults = defaults();
    for known in Known::all() {
        let (name, value) = (known.name(), known.other_value());
        let by_file = load_text(known.in_toml(&value), &[]).unwrap();
        let by_variable = load_text("", &[(&known.variable(), &value)]).unwrap();
        assert_eq!(by_file.settings, by_variable.settings, "{name}");
        assert_ne!(by_variable.settings, defaults.settings, "{name} has no effect");
        assert_eq!(by_file.overrides, Vec::<String>::new());
        assert_eq!(by_variable.overrides, [known.variable()]);
        for one in Known::all() {
            let is_same = one.value_in(&by_variable.file) == one.value_in(&defaults.file);
            assert_eq!(is_same, one.name() != name, "{name} also changed {}", one.name());
        }
    }
}

#[test]
fn the_environment_is_stronger_than_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n";
    let variables = [("KEYWARD_SERVER__LISTEN", "127.0.0.1:2"), ("KEYWARD_LOG__LEVEL", "debug")];
    let loaded = load_text(text, &variables).unwrap();
    assert_eq!(loaded.settings.server.listen.port(), 2);
    assert_eq!(loaded.settings.server.workers, 3);
    assert_eq!(loaded.overrides, ["KEYWARD_LOG__LEVEL", "KEYWARD_SERVER__LISTEN"]);
    // A mistake in the file is mended by the variable, and one in the variable is not blamed on the file.
    let broken = "[server]\nlisten = \"nowhere\"\n";
    assert!(load_text(broken, &variables).is_ok());
    let problem = load_text(text, &[("KEYWARD_SERVER__LISTEN", "nowhere")]).unwrap_err();
    assert!(problem.starts_with("KEYWARD_SERVER__LISTEN: This is not an address"), "{problem}");
}

#[test]
fn a_variable_without_a_key_names_the_nearest() {
    for known in Known::all() {
        let name = format!("{}X", known.variable());
        let right = known.variable();
        let expected = format!("{name}: No key has this variable. Did you mean {right}?");
        refused_variable(&name, "1", &expected);
    }
    for (name, near) in [
        ("KEYWARD_server__listen", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_SERVER__LISTEN__PORT", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_STORE__PEPPER", "KEYWARD_STORE__PATH"),
    ] {
        let expected = format!("{name}: No key has this variable. Did you mean {near}?");
        refused_variable(name, "a-secret", &expected);
    }
}

#[test]
fn other_variables_are_passed_over() {
    let variables = [
        ("KEYWARD_PORT", "tcp://10.0.0.1:8080"),
        ("KEYWARD_LISTEN", "x"),
        ("PATH", "/bin"),
        ("OTHER_SERVER__LISTEN", "x"),
    ];
    let loaded = load_text("", &variables).unwrap();
    assert_eq!(loaded.settings, defaults().settings);
    assert_eq!(loaded.overrides, Vec::<String>::new());
}

#[test]
fn a_variable_is_read_with_the_type_of_its_key() {
    let workers = "KEYWARD_SERVER__WORKERS";
    assert_eq!(load_text("", &[(workers, "7")]).unwrap().settings.server.workers, 7);
    for bad in ["", "many", "1.5", "0x10", "\"7\""] {
        let expected =
            format!("{workers}: This is not a whole number. Use a whole number, such as 0.");
        refused_variable(workers, bad, &expected);
    }
    refused_variable(
        workers,
        "99999999999999999999",
        "KEYWARD_SERVER__WORKERS: This number is far out of range. Use a whole number, such as 0.",
    );
    for bad in ["data/\u{fffd}", "data/\n", "\u{1b}[2J"] {
        refused_variable(
            "KEYWARD_STORE__PATH",
            bad,
            "KEYWARD_STORE__PATH: This holds a control character, or bytes that are not UTF-8. \
             Use text, such as \"data/keyward\".",
        );
    }
    // The environment knows no quotes: an address that is all digits is still text.
    refused_variable(
        "KEYWARD_LOG__FORMAT",
        "1",
        "KEYWARD_LOG__FORMAT: There is no such choice. Use \"text\" or \"json\".",
    );
}

#[test]
fn a_number_has_the_bounds_that_its_schema_names() {
    let mut checked = 0;
    for known in Known::all() {
        let Some((least, most)) = known.bounds() else { continue };
        let name = known.name();
        let room = if name == "limits.header_bytes" {
            vec![]
        } else {
            vec![("KEYWARD_LIMITS__HEADER_BYTES", "1048576")]
        };
        for good in [least, most] {
            let text = known.in_toml(&good.to_string());
            assert!(load_text(text, &room).is_ok(), "{name} = {good}");
        }
        for bad in [least - 1, most + 1, i64::MIN, i64::MAX] {
            let said =
                format!("This number is out of range. Use a whole number from {least} to {most}.");
            refused(&known.in_toml(&bad.to_string()), &format!("config.toml:2: {name}: {said}"));
            let variable = known.variable();
            refused_variable(&variable, &bad.to_string(), &format!("{variable}: {said}"));
        }
        checked += 1;
    }
    assert_eq!(checked, 13);
}

#[test]
fn a_file_that_cannot_be_read_is_named_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let said = |path: &Path| load_among(Some(path), env(&[]), &[]).unwrap_err().to_string();
    assert_eq!(
        said(&missing),
        format!(
            "cannot read the configuration file {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    assert_eq!(
        said(folder.path()),
        format!(
            "cannot read the configuration file {}: Is a directory (os error 21)",
            folder.path().display()
        )
    );
    assert_eq!(
        load_text(b"# one\n# t\xffo\n", &[]).unwrap_err(),
        "config.toml:2: this is not UTF-8 text. Save the file as UTF-8."
    );
}

#[test]
fn the_file_is_looked_for_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, port: u16| {
        let path = folder.path().join(name);
        fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
        path
    };
    let (explicit, named) = (file("explicit", 1), file("named", 2));
    let (here, etc) = (file("here", 3), file("etc", 4));
    let port = |explicit: Option<&Path>, named: &str, usual: &[&Path]| {
        let loaded = load_among(explicit, env(&[("KEYWARD_CONFIG", named)]), usual).unwrap();
        (loaded.settings.server.listen.port(), loaded.source, loaded.overrides.len())
    };
    let name = named.to_str().unwrap();
    let missing = folder.path().join("missing");
    assert_eq!(port(Some(&explicit), name, &[&here, &etc]), (1, Some(explicit.clone()), 0));
    assert_eq!(port(None, name, &[&here, &etc]), (2, Some(named.clone()), 0));
    assert_eq!(port(None, "", &[&here, &etc]), (3, Some(here.clone()), 0));
    assert_eq!(port(None, "", &[&missing, &etc]), (4, Some(etc.clone()), 0));
    assert_eq!(port(None, "", &[&missing, &missing]), (8080, None, 0));
    assert_eq!(USUAL, ["config.toml", "/etc/keyward/config.toml"]);

    // A file that was named has to be there, and a link that leads nowhere is not passed over.
    let named_missing = [("KEYWARD_CONFIG", missing.to_str().unwrap())];
    assert!(load_among(None, env(&named_missing), &[&here]).is_err());
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink(&missing, &dangling).unwrap();
    assert!(load_among(None, env(&[]), &[&dangling, &etc]).is_err());
}

#[test]
fn a_file_that_is_not_toml_is_shown_with_its_line() {
    let cases = [
        (
            "[server]\nlisten = 127.0.0.1:8080\n",
            "config.toml:2:15: this is not TOML: text stands without quotes.\n  listen = 127.0.0.1:8080\n\
             Put the value in double quotes: key = \"value\".",
        ),
        (
            "[log]\nlevel = info # all\n",
            "config.toml:2:9: this is not TOML: text stands without quotes.\n  level = info # all\n\
             Put the value in double quotes: key = \"value\".",
        ),
        (
            "[log]\r\nlevel = \"in\r\n",
            "config.toml:2:12: this is not TOML: the text is not closed.\n  level = \"in\n\
             End it with a double quote on the same line.",
        ),
        (
            "\u{feff}[server\nlisten = 1\n",
            "config.toml:1:8: this is not TOML: the bracket is not closed.\n  [server\n\
             Write the section's name in brackets, such as [server].",
        ),
        (
            "[server]\n\n  listen\n",
            "config.toml:3:9: this is not TOML: there is no = here.\n    listen\n\
             Write key = value; put # before a comment.",
        ),
        (
            "[server]\nworkers =\n",
            "config.toml:2:10: this is not TOML: the value is missing.\n  workers =\n\
             Write it after the =, or remove the line.",
        ),
        (
            "[server]\nworkers = 1\nworkers = 2\n",
            "config.toml:3:1: this is not TOML: the key stands twice in its section.\n  workers = 2\n\
             Keep one of the two lines.",
        ),
        (
            "[server]\n[log]\n[server]\n",
            "config.toml:3:2: this is not TOML: the section stands twice.\n  [server]\n\
             Put the keys of both below one heading.",
        ),
        (
            "[store]\npath = \"C:\\data\"\n",
            "config.toml:2:12: this is not TOML: a backslash begins a special character.\n  path = \"C:\\data\"\n\
             Write \\\\ for the backslash itself.",
        ),
        (
            "{}",
            "config.toml:1:1: this is not TOML: invalid key-value pair, expected key.\n  {}\n\
             Write sections as [server] and values as key = \"text\" or key = 10.",
        ),
    ];
    for (text, expected) in cases {
        refused(text, expected);
    }
    let control = load_text("é\u{1b}[2J\n", &[]).unwrap_err();
    assert!(control.contains("\n  é [2J\n"), "{control:?}");
    let long = load_text(format!("a{}", "é".repeat(500)), &[]).unwrap_err();
    assert!(long.contains(&format!("\n  a{}…\n", "é".repeat(119))), "{long}");
}

#[test]
fn an_unknown_name_is_met_with_the_nearest_known_one() {
    let cases = [
        ("[server]\nlisen = \"x\"\n", "server.lisen: There is no such key. Did you mean `listen`?"),
        (
            "\nserver.Listen = \"x\"\n",
            "server.Listen: There is no such key. Did you mean `listen`?",
        ),
        (
            "[store]\npepper = \"a-secret\"\n",
            "store.pepper: There is no such key. Did you mean `pepper_file`?",
        ),
        (
            "[server]\nbody_bytes = 1\n",
            "server.body_bytes: There is no such key. `body_bytes` belongs in [limits].",
        ),
        (
            "[log]\n\"x y\" = 1\n",
            "log.x y: There is no such key. The keys of [log] are format, level.",
        ),
        (
            "[log]\n\"\\u001b[2J\" = 1\n",
            "log. [2J: There is no such key. The keys of [log] are format, level.",
        ),
        ("\n[sever]\nlisten = 1\n", "[sever]: There is no such section. Did you mean [server]?"),
        (
            "\n[tls]\n",
            "[tls]: There is no such section. The sections are admin, limits, log, scripts, server, store.",
        ),
        (
            "\nlisten = \"x\"\n",
            "listen: Every key stands in a section. Move it below [admin] or [server].",
        ),
        (
            "\nformt = \"json\"\n",
            "formt: Every key stands in a section. Did you mean `format` in [log]?",
        ),
        (
            "\nqqq = 1\n",
            "qqq: Every key stands in a section. The sections are admin, limits, log, scripts, server, store.",
        ),
        (
            "\nserver = \"127.0.0.1:8080\"\n",
            "server: This is the name of a section. Write [server] on a line of its own, with its keys below.",
        ),
        (
            "\n[[server]]\n",
            "server: This is the name of a section. Write [server] on a line of its own, with its keys below.",
        ),
    ];
    for (text, expected) in cases {
        refused(text, &format!("config.toml:2: {expected}"));
    }
}

#[test]
fn a_value_of_another_type_is_refused() {
    let kinds = [
        ("7", "a number"),
        ("1.5", "a number with a fraction"),
        ("true", "true or false"),
        ("2026-11-23", "a date or time"),
        ("[\"x\"]", "a list"),
        ("{ x = 1 }", "a table"),
        ("\"7\"", "text"),
    ];
    for known in Known::all() {
        for (value, kind) in kinds {
            let use_this = match &known.schema["default"] {
                Json::Number(default) if kind != "a number" => {
                    format!("Use a whole number, such as {default}.")
                }
                Json::String(default) if kind != "text" && default.is_empty() => {
                    "Use text, or \"\" for none.".into()
                }
                Json::String(default) if kind != "text" => {
                    format!("Use text, such as {default:?}.")
                }
                _ => continue,
            };
            refused(
                &format!("# one\n[{}]\n# three\n{} = {value}\n", known.section, known.key),
                &format!("config.toml:4: {}: This is {kind}. {use_this}", known.name()),
            );
        }
    }
    refused(
        "[limits]\nheaders = 99999999999999999999\n",
        "config.toml:2: limits.headers: This number is far out of range. Use a whole number, such as 100.",
    );
    refused(
        "[store]\npath = \"a\\nb\"\n",
        "config.toml:2: store.path: This holds a control character, or bytes that are not UTF-8. \
         Use text, such as \"data/keyward\".",
    );
    let numbers = load_text("[limits]\nconnections = 1_000\nheader_bytes = 0x4000\n", &[]).unwrap();
    assert_eq!(numbers.settings.limits.connections, 1000);
    assert_eq!(numbers.settings.limits.header_bytes, 16_384);
}

#[test]
fn an_address_is_an_ip_address_with_a_port() {
    let fix = "Use an IP address with a port, such as 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 for every interface.";
    for bad in
        ["", "localhost:8080", ":8080", "8080", "127.0.0.1", "127.0.0.1:65536", "::1:80", "*:80"]
    {
        let said = format!("This is not an address to listen on. {fix}");
        refused(
            &format!("[server]\nlisten = {bad:?}\n"),
            &format!("config.toml:2: server.listen: {said}"),
        );
        refused(
            &format!("[admin]\nlisten = {bad:?}\n"),
            &format!("config.toml:2: admin.listen: {said} A unix socket is unix:/path/to.sock."),
        );
    }
    let loaded = load_text("[server]\nlisten = \"[::1]:0\"\n", &[]).unwrap();
    assert_eq!(loaded.settings.server.listen, "[::1]:0".parse().unwrap());
}

#[test]
fn a_unix_socket_has_an_absolute_path_that_fits_its_address() {
    let listen = |path: &str| load_text(format!("[admin]\nlisten = \"unix:{path}\"\n"), &[]);
    let longest = format!("/{}", "x".repeat(106));
    for good in ["/run/keyward.sock", &longest] {
        let loaded = listen(good).unwrap();
        assert_eq!(loaded.settings.admin.listen, AdminListen::Unix(good.into()));
        assert_eq!(loaded.settings.admin.listen.to_string(), format!("unix:{good}"));
    }
    for bad in ["", "admin.sock", "/run/", &format!("{longest}x")] {
        assert_eq!(
            listen(bad).unwrap_err(),
            "config.toml:2: admin.listen: This is not the path of a unix socket. Use unix: and an absolute path \
             of at most 107 bytes, such as unix:/run/keyward/admin.sock."
        );
    }
}

#[test]
fn two_listeners_have_two_ports() {
    let both = |server: &str, admin: &str| {
        load_text(format!("[server]\nlisten = {server:?}\n[admin]\nlisten = {admin:?}\n"), &[])
    };
    let said = "The public and the admin listener have the same port. Give server.listen and admin.listen different ports.";
    for (server, admin) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "[::]:80"),
    ] {
        let expected = format!("config.toml:4: admin.listen: {said}");
        assert_eq!(both(server, admin).unwrap_err(), expected, "{server} {admin}");
    }
    for (server, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "unix:/run/80"),
    ] {
        assert!(both(server, admin).is_ok(), "{server} {admin}");
    }
    // The one that somebody gave is blamed, not the default that it met.
    refused(
        "[server]\nlisten = \"0.0.0.0:8081\"\n",
        &format!("config.toml:2: server.listen: {said}"),
    );
    refused_variable(
        "KEYWARD_SERVER__LISTEN",
        "0.0.0.0:8081",
        &format!("KEYWARD_SERVER__LISTEN: {said}"),
    );
}

#[test]
fn a_public_url_is_a_base() {
    let url = |text: &str| {
        let loaded = load_text(format!("[server]\npublic_url = {text:?}\n"), &[]);
        loaded.map(|loaded| loaded.settings.server.public_url.unwrap())
    };
    for (given, kept) in [
        ("https://api.example.com", "https://api.example.com"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("https://[2001:db8::1]:8443/v1//", "https://[2001:db8::1]:8443/v1"),
        ("http://key_ward/a/b", "http://key_ward/a/b"),
    ] {
        assert_eq!(url(given).as_deref(), Ok(kept));
    }
    let said = "config.toml:2: server.public_url: This is not the base of a web address. Use http:// or https://, a host, \
                and no user, query or fragment, such as https://api.example.com/v1.";
    for bad in [
        "/",
        "/v1",
        "api.example.com",
        "//api.example.com",
        "ftp://api.example.com",
        "https://",
        "https:///v1",
        "https://user:a-secret@api.example.com",
        "https://api.example.com?x=1",
        "https://api.example.com/#x",
        "https://api.example.com:0",
        "https://api.example.com:",
        "https://api.example.com:99999",
        "https://[::1",
        "https://[v1]",
        "https://a*b",
        "https://a b",
        " https://a",
    ] {
        assert_eq!(url(bad), Err(said.into()), "{bad}");
    }
}

#[test]
fn the_store_has_a_folder_of_its_own_and_the_pepper_lies_outside() {
    let store = |text: &str| load_text(format!("[store]\n{text}"), &[]).map(|it| it.settings.store);
    let kept = store("path = \"/var/lib//keyward/\"\n").unwrap();
    assert_eq!(kept.path, Path::new("/var/lib/keyward"));
    assert_eq!(kept.pepper_file, Path::new("/var/lib/keyward.pepper"));
    assert_eq!(kept.control_file, Path::new("/var/lib/keyward.control"));
    for bad in ["", " ", "/", ".", "..", "data/.."] {
        assert_eq!(
            store(&format!("path = {bad:?}\n")).unwrap_err(),
            "config.toml:2: store.path: This does not name a folder that the store can have for itself. \
             Use a path that ends with a name, such as data/keyward.",
            "{bad}"
        );
    }
    for bad in ["data/keyward", "data/keyward/pepper", "./data/keyward/deep/pepper"] {
        assert_eq!(
            store(&format!("pepper_file = {bad:?}\n")).unwrap_err(),
            "config.toml:2: store.pepper_file: The pepper would lie in the store's own folder, and in every copy of it. \
             Name a file outside of store.path.",
            "{bad}"
        );
    }
    let outside = store("pepper_file = \"data/pepper\"\n").unwrap();
    assert_eq!(outside.pepper_file, Path::new("data/pepper"));
    refused(
        "[store]\nengine = \"Sled\"\n",
        "config.toml:2: store.engine: There is no such choice. Use \"sled\" or \"memory\".",
    );
    refused(
        "[scripts]\ndir = \" \"\n",
        "config.toml:2: scripts.dir: The path is empty. Name a folder.",
    );
}

#[test]
fn a_log_level_is_a_level_or_directives() {
    let level = |text: &str| {
        load_text(format!("[log]\nlevel = {text:?}\n"), &[]).map(|it| it.settings.log.level)
    };
    for (given, kept) in [
        ("DEBUG", "DEBUG"),
        ("off", "off"),
        ("info, keyward=debug", "info,keyward=debug"),
        ("warn,keyward::http[request{id=1}]=trace", "warn,keyward::http[request{id=1}]=trace"),
    ] {
        assert_eq!(level(given).as_deref(), Ok(kept));
    }
    for bad in ["", "inof", "info,", "keyward", "keyward=", "keyward=inof", "info;debug", "=info"] {
        assert_eq!(
            level(bad).unwrap_err(),
            "config.toml:2: log.level: This is not a log level. Use error, warn, info, debug, trace or off, \
             or directives such as info,keyward=debug.",
            "{bad}"
        );
    }
}

#[test]
fn a_credential_fits_in_the_headers() {
    let text = "[limits]\nheader_bytes = 8192\ncredential_bytes = ";
    assert!(load_text(format!("{text}8192\n"), &[]).is_ok());
    refused(
        &format!("{text}8193\n"),
        "config.toml:3: limits.credential_bytes: This is more than limits.header_bytes, which is checked first. \
         Lower it, or raise limits.header_bytes.",
    );
}

#[test]
fn everything_that_is_wrong_is_said_at_once_and_in_order() {
    let text = "[store]\nengine = \"etcd\"\ncach_mib = 1\n[server]\nworkers = \"all\"\nlisten = \"here\"\n[tls]\n";
    let variables =
        [("KEYWARD_LOG__LEVEL", "loud"), ("KEYWARD_LIMITS__HEADERS", "0"), ("KEYWARD_A__B", "1")];
    let problem = load_text(text, &variables).unwrap_err();
    let heads: Vec<&str> = problem.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        heads,
        [
            "config.toml:2",
            "config.toml:3",
            "config.toml:5",
            "config.toml:6",
            "config.toml:7",
            "KEYWARD_A__B",
            "KEYWARD_LIMITS__HEADERS",
            "KEYWARD_LOG__LEVEL",
        ],
        "{problem}"
    );
}

#[test]
fn no_value_is_repeated() {
    let secret = "a-secret-in-the-wrong-place";
    for known in Known::all() {
        let wrong = [
            format!("[{}]\n{} = [\"{secret}\"]\n", known.section, known.key),
            format!("[{}]\n{}x = \"{secret}\"\n", known.section, known.key),
            format!("[{}]\n{} = \"{secret}\\n\"\n", known.section, known.key),
        ];
        for text in wrong {
            let problem = load_text(&text, &[]).expect_err(&text);
            assert!(!problem.contains(secret), "{problem}");
        }
        for name in [known.variable(), format!("{}X", known.variable())] {
            if let Err(problem) = load_text("", &[(&name, secret)]) {
                assert!(!problem.contains(secret), "{problem}");
            }
        }
    }
}

#[test]
fn what_is_printed_can_be_loaded_again() {
    let all = Known::all();
    let values: Vec<_> = all.iter().map(|one| (one.variable(), one.other_value())).collect();
    let variables: Vec<_> = values.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
    let loaded = load_text("", &variables).unwrap();
    let again = load_text(print(&loaded), &[]).unwrap();
    assert_eq!(again.file, loaded.file);
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn what_is_printed_says_where_it_came_from() {
    let head = |loaded: &Loaded| -> Vec<String> {
        print(loaded).lines().take(4).map(String::from).collect()
    };
    let mut loaded = defaults();
    assert_eq!(
        head(&loaded),
        [
            "# There is no configuration file: these are the built-in defaults.",
            "",
            "[server]",
            "listen = \"127.0.0.1:8080\"",
        ]
    );
    loaded.source = Some("odd\nname.toml".into());
    loaded.overrides = vec!["KEYWARD_LOG__LEVEL".into(), "KEYWARD_STORE__PATH".into()];
    assert_eq!(
        head(&loaded),
        [
            "# Read from \"odd\\nname.toml\".",
            "# Overridden by the environment: KEYWARD_LOG__LEVEL, KEYWARD_STORE__PATH.",
            "",
            "[server]",
        ]
    );
}

#[test]
fn the_schema_describes_the_file_and_refuses_what_it_does_not_know() {
    let schema: Json = serde_json::from_str(&schema()).unwrap();
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["title"], "Keyward configuration");
    assert_eq!(schema["additionalProperties"], false);
    for (name, section) in schema["$defs"].as_object().unwrap() {
        assert_eq!(section["additionalProperties"], false, "{name}");
    }
    assert_eq!(schema["$defs"]["Store"]["properties"]["engine"]["enum"][1], "memory");
}

#[test]
fn the_environment_of_this_process_is_narrowed_to_ours() {
    assert!(environment().all(|(name, _)| name.starts_with("KEYWARD_")));
}
