//! The exact texts of configuration errors.

use super::*;

#[test]
fn line_that_is_not_toml_is_shown() {
    let cases = [
        (
            "[server]\nlisten = 127.0.0.1:8080\n",
            "config.toml:2:15: the line is not TOML: the value is text without quotes.\n  listen = 127.0.0.1:8080\n\
             Put the value in double quotes: key = \"value\".",
        ),
        (
            "[log]\nlevel = info # all\n",
            "config.toml:2:9: the line is not TOML: the value is text without quotes.\n  level = info # all\n\
             Put the value in double quotes: key = \"value\".",
        ),
        (
            "[log]\r\nlevel = \"in\r\n",
            "config.toml:2:12: the line is not TOML: the text has no closing quote.\n  level = \"in\n\
             End the text with a double quote on the same line.",
        ),
        (
            "\u{feff}[server\nlisten = 1\n",
            "config.toml:1:8: the line is not TOML: the bracket is not closed.\n  [server\n\
             Write the section's name in brackets, such as [server].",
        ),
        (
            "[server]\n\n  listen\n",
            "config.toml:3:9: the line is not TOML: the key has no = after it.\n    listen\n\
             Write key = value; put # before a comment.",
        ),
        (
            "[server]\nworkers =\n",
            "config.toml:2:10: the line is not TOML: the value is missing.\n  workers =\n\
             Write a value after the =, or remove the line.",
        ),
        (
            "[server]\nworkers = 1\nworkers = 2\n",
            "config.toml:3:1: the line is not TOML: the section has this key twice.\n  workers = 2\n\
             Keep one of the two lines.",
        ),
        (
            "[server]\n[log]\n[server]\n",
            "config.toml:3:2: the line is not TOML: the file has this section twice.\n  [server]\n\
             Put all keys of the section below one heading.",
        ),
        (
            "[store]\npath = \"C:\\data\"\n",
            "config.toml:2:12: the line is not TOML: the backslash begins an unknown escape sequence.\n  path = \"C:\\data\"\n\
             Write \\\\ for a backslash.",
        ),
        (
            "{}",
            "config.toml:1:1: the line is not TOML: invalid key-value pair, expected key.\n  {}\n\
             Write sections as [server] and values as key = \"text\" or key = 10.",
        ),
    ];
    for (text, expected) in cases {
        assert_refused(text, expected);
    }
    let control = load_text("é\u{1b}[2J\n", &[]).unwrap_err();
    assert!(control.contains("\n  é [2J\n"), "{control:?}");
    let long = load_text(format!("a{}", "é".repeat(500)), &[]).unwrap_err();
    assert!(long.contains(&format!("\n  a{}…\n", "é".repeat(119))), "{long}");
}

#[test]
fn unknown_name_is_refused_with_the_nearest_known_one() {
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
            "log.x y: There is no such key. The keys of [log] are clients, format, level.",
        ),
        (
            "[log]\n\"\\u001b[2J\" = 1\n",
            "log. [2J: There is no such key. The keys of [log] are clients, format, level.",
        ),
        ("\n[sever]\nlisten = 1\n", "[sever]: There is no such section. Did you mean [server]?"),
        (
            "\n[tls]\n",
            "[tls]: There is no such section. The sections are access_log, admin, audit, backup, entity_user, events, identity, limits, log, metrics, proxy, scripts, server, store, verify.",
        ),
        (
            "\nlisten = \"x\"\n",
            "listen: Every key belongs in a section. Move the key below [admin] or [server] or [verify].",
        ),
        (
            "\nformt = \"json\"\n",
            "formt: Every key belongs in a section. Did you mean `format` in [access_log] or [log]?",
        ),
        (
            "\nqqq = 1\n",
            "qqq: Every key belongs in a section. The sections are access_log, admin, audit, backup, entity_user, events, identity, limits, log, metrics, proxy, scripts, server, store, verify.",
        ),
        (
            "\nserver = \"127.0.0.1:8080\"\n",
            "server: This is a section, not a key. Write [server] on a separate line, with the keys of the section below it.",
        ),
        (
            "\n[[server]]\n",
            "server: This is a section, not a key. Write [server] on a separate line, with the keys of the section below it.",
        ),
    ];
    for (text, expected) in cases {
        assert_refused(text, &format!("config.toml:2: {expected}"));
    }
}

#[test]
fn value_of_another_type_is_refused() {
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
            let fix = match &known.schema["default"] {
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
            assert_refused(
                &format!("# one\n[{}]\n# three\n{} = {value}\n", known.section, known.key),
                &format!("config.toml:4: {}: The value is {kind}. {fix}", known.name()),
            );
        }
    }
    assert_refused(
        "[limits]\nheaders = 99999999999999999999\n",
        "config.toml:2: limits.headers: This number is far out of range. Use a whole number, such as 100.",
    );
    assert_refused(
        "[store]\npath = \"a\\nb\"\n",
        "config.toml:2: store.path: The value contains a control character, or bytes that are not UTF-8. \
         Use text, such as \"data/keyward\".",
    );
    let numbers = load_text("[limits]\nconnections = 1_000\nheader_bytes = 0x4000\n", &[]).unwrap();
    assert_eq!(numbers.settings.limits.connections, 1000);
    assert_eq!(numbers.settings.limits.header_bytes, 16_384);
}

#[test]
fn listen_address_is_an_ip_address_with_a_port() {
    let fix = "Use an IP address with a port, such as 127.0.0.1:8080, [::1]:8080, or 0.0.0.0:8080 for all interfaces.";
    for bad in
        ["", "localhost:8080", ":8080", "8080", "127.0.0.1", "127.0.0.1:65536", "::1:80", "*:80"]
    {
        let expected = format!("The value is not an address to listen on. {fix}");
        assert_refused(
            &format!("[server]\nlisten = {bad:?}\n"),
            &format!("config.toml:2: server.listen: {expected}"),
        );
        assert_refused(
            &format!("[admin]\nlisten = {bad:?}\n"),
            &format!(
                "config.toml:2: admin.listen: {expected} Write a Unix socket as unix:/path/to.sock."
            ),
        );
    }
    let loaded = load_text("[server]\nlisten = \"[::1]:0\"\n", &[]).unwrap();
    assert_eq!(loaded.settings.server.listen, "[::1]:0".parse().unwrap());
}

#[test]
fn unix_socket_has_a_path_of_limited_length() {
    let listen = |path: &str| load_text(format!("[admin]\nlisten = \"unix:{path}\"\n"), &[]);
    let longest = format!("/{}", "x".repeat(106));
    for good in ["/run/keyward.sock", &longest] {
        let loaded = listen(good).unwrap();
        assert_eq!(loaded.settings.admin.listen, ListenAddress::Unix(good.into()));
        assert_eq!(loaded.settings.admin.listen.to_string(), format!("unix:{good}"));
    }
    for bad in ["", "run/", "/run/", &format!("{longest}x"), &longest[1..]] {
        assert_eq!(
            listen(bad).unwrap_err(),
            "config.toml:2: admin.listen: The value is not the path of a Unix socket. Use unix: and a path that has \
             at most 107 bytes with its folder, such as unix:/run/keyward/admin.sock."
        );
    }
}

#[test]
fn listeners_need_different_ports() {
    let load_listeners = |server: &str, admin: &str| {
        load_text(format!("[server]\nlisten = {server:?}\n[admin]\nlisten = {admin:?}\n"), &[])
    };
    let problem = "The public listener and the admin listener have the same port. Give server.listen and admin.listen different ports.";
    for (server, admin) in [
        ("127.0.0.1:80", "127.0.0.1:80"),
        ("0.0.0.0:80", "127.0.0.1:80"),
        ("127.0.0.1:80", "[::]:80"),
    ] {
        let expected = format!("config.toml:4: admin.listen: {problem}");
        assert_eq!(load_listeners(server, admin).unwrap_err(), expected, "{server} {admin}");
    }
    for (server, admin) in [
        ("127.0.0.1:0", "127.0.0.1:0"),
        ("127.0.0.1:80", "127.0.0.1:81"),
        ("127.0.0.1:80", "127.0.0.2:80"),
        ("0.0.0.0:80", "unix:/run/80"),
    ] {
        assert!(load_listeners(server, admin).is_ok(), "{server} {admin}");
    }
    // The key that was set is blamed, not the default that it collides with.
    assert_refused(
        "[server]\nlisten = \"0.0.0.0:8081\"\n",
        &format!("config.toml:2: server.listen: {problem}"),
    );
    assert_variable_refused(
        "KEYWARD_SERVER__LISTEN",
        "0.0.0.0:8081",
        &format!("KEYWARD_SERVER__LISTEN: {problem}"),
    );
}

#[test]
fn health_path_is_an_absolute_path() {
    let path = |text: &str| {
        let loaded = load_text(format!("[server]\nhealth_path = {text:?}\n"), &[]);
        loaded.map(|loaded| loaded.settings.server.health_path)
    };
    for (given, expected) in [("", None), ("/healthz", Some("/healthz")), ("/", Some("/"))] {
        assert_eq!(path(given).unwrap().as_deref(), expected);
    }
    let start = "config.toml:2: server.health_path: The value is not an absolute path.";
    for bad in ["healthz", "http://a/", "//a", "/a/../b", "/a?b", "/a#b", "/a;b", "/-/x", "/ä", "*"]
    {
        let problem = path(bad).unwrap_err();
        assert!(problem.starts_with(start), "{bad}: {problem}");
    }
}

#[test]
fn public_url_is_a_base_url() {
    let url = |text: &str| {
        let loaded = load_text(format!("[server]\npublic_url = {text:?}\n"), &[]);
        loaded.map(|loaded| loaded.settings.server.public_url.unwrap())
    };
    for (given, expected) in [
        ("https://api.example.com", "https://api.example.com"),
        ("http://localhost:8080/", "http://localhost:8080"),
        ("https://[2001:db8::1]:8443/v1//", "https://[2001:db8::1]:8443/v1"),
        ("http://key_ward/a/b", "http://key_ward/a/b"),
    ] {
        assert_eq!(url(given).as_deref(), Ok(expected));
    }
    let expected = "config.toml:2: server.public_url: The value is not a base URL. Use http:// or https:// and a host, \
                without a user, query or fragment, such as https://api.example.com/v1.";
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
        assert_eq!(url(bad), Err(expected.into()), "{bad}");
    }
}

#[test]
fn store_path_is_a_folder_and_the_pepper_file_is_outside_of_it() {
    let store =
        |text: &str| load_text(format!("[store]\n{text}"), &[]).map(|loaded| loaded.settings.store);
    let settings = store("path = \"/var/lib//keyward/\"\n").unwrap();
    assert_eq!(settings.path, Path::new("/var/lib/keyward"));
    assert_eq!(settings.pepper_file, Path::new("/var/lib/keyward.pepper"));
    assert_eq!(settings.control_file, Path::new("/var/lib/keyward.control"));
    for bad in ["", " ", "/", ".", "..", "data/.."] {
        assert_eq!(
            store(&format!("path = {bad:?}\n")).unwrap_err(),
            "config.toml:2: store.path: The path does not end with the name of a folder. \
             Use the path of a folder that only the store uses, such as data/keyward.",
            "{bad}"
        );
    }
    for bad in ["data/keyward", "data/keyward/pepper", "./data/keyward/deep/pepper"] {
        assert_eq!(
            store(&format!("pepper_file = {bad:?}\n")).unwrap_err(),
            "config.toml:2: store.pepper_file: The pepper would be in the store's folder, and so in every copy of the store. \
             Use a file outside of store.path.",
            "{bad}"
        );
    }
    let outside = store("pepper_file = \"data/pepper\"\n").unwrap();
    assert!(outside.pepper_file.is_absolute() && outside.pepper_file.ends_with("data/pepper"));
    assert_refused(
        "[store]\nengine = \"Sled\"\n",
        "config.toml:2: store.engine: The value is not one of the choices. Use \"sled\" or \"redb\" or \"memory\".",
    );
    assert_refused(
        "[scripts]\ndir = \" \"\n",
        "config.toml:2: scripts.dir: The path is empty. Use the path of a folder.",
    );
}

#[test]
fn log_level_is_a_level_or_directives() {
    let level = |text: &str| {
        load_text(format!("[log]\nlevel = {text:?}\n"), &[]).map(|loaded| loaded.settings.log.level)
    };
    for (given, expected) in [
        ("DEBUG", "DEBUG"),
        ("off", "off"),
        ("info, keyward=debug", "info,keyward=debug"),
        ("warn,keyward::server[request{id=1}]=trace", "warn,keyward::server[request{id=1}]=trace"),
    ] {
        assert_eq!(level(given).as_deref(), Ok(expected));
    }
    for bad in ["", "inof", "info,", "keyward", "keyward=", "keyward=inof", "info;debug", "=info"] {
        assert_eq!(
            level(bad).unwrap_err(),
            "config.toml:2: log.level: The value is not a log level. Use error, warn, info, debug, trace or off, \
             or directives such as info,keyward=debug.",
            "{bad}"
        );
    }
}

#[test]
fn credential_limit_is_at_most_the_header_limit() {
    let text = "[limits]\nheader_bytes = 8192\ncredential_bytes = ";
    assert!(load_text(format!("{text}8192\n"), &[]).is_ok());
    assert_refused(
        &format!("{text}8193\n"),
        "config.toml:3: limits.credential_bytes: The number is greater than limits.header_bytes, which is checked first. \
         Use a smaller number, or raise limits.header_bytes.",
    );
}

#[test]
fn all_problems_are_reported_together_in_order() {
    let text = "[store]\nengine = \"etcd\"\ncach_mib = 1\n[server]\nworkers = \"all\"\nlisten = \"here\"\n[tls]\n";
    let variables =
        [("KEYWARD_LOG__LEVEL", "loud"), ("KEYWARD_LIMITS__HEADERS", "0"), ("KEYWARD_A__B", "1")];
    let problem = load_text(text, &variables).unwrap_err();
    let places: Vec<&str> = problem.lines().map(|line| line.split(": ").next().unwrap()).collect();
    assert_eq!(
        places,
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
fn errors_do_not_contain_values() {
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
fn webhook_needs_a_valid_section() {
    let good = "[webhooks.ops]\nurl = \"https://hooks.example.com/in\"\nsecret = \"hook\"\n";
    let loaded = load_text(good, &[]).unwrap();
    let webhook = &loaded.settings.events.webhooks["ops"];
    assert_eq!((webhook.target.port, webhook.timeout.as_secs()), (443, 15));
    let printed = print(&loaded);
    assert_eq!(load_text(&printed, &[]).unwrap().settings, loaded.settings, "{printed}");
    let by_variable = load_text(good, &[("KEYWARD_WEBHOOKS__OPS__TIMEOUT_SECONDS", "7")]).unwrap();
    assert_eq!(by_variable.settings.events.webhooks["ops"].timeout.as_secs(), 7);
    for (text, expected) in [
        (
            "[webhooks]\nurl = \"x\"\n",
            "config.toml:2: webhooks.url: Every webhook needs a section. Write [webhooks.NAME] on a separate line, with url and secret below it.",
        ),
        (
            "[webhooks.ops]\nsecret = \"hook\"\n",
            "config.toml:1: webhooks.ops.url: The value is not the URL of a receiver: it does not begin with http:// or https://. Use a URL such as https://hooks.example.com/keyward.",
        ),
        (
            "[webhooks.ops]\nurl = \"http://x\"\n",
            "config.toml:1: webhooks.ops.secret: The value is not the name of a signing secret. Use the name of a file in scripts.secrets_dir, without a folder.",
        ),
        (
            "[webhooks.ops]\nurl = \"http://x\"\nsecret = \"../x\"\n",
            "config.toml:3: webhooks.ops.secret: The value is not the name of a signing secret. Use the name of a file in scripts.secrets_dir, without a folder.",
        ),
        (
            "[webhooks.ops]\nurl = \"http://x\"\nsecret = \"x\"\ntimeout = 3\n",
            "config.toml:4: webhooks.ops.timeout: There is no such key. Did you mean `timeout_seconds`?",
        ),
        (
            "[webhooks.ops]\nurl = \"http://x\"\nsecret = \"x\"\ntimeout_seconds = 0\n",
            "config.toml:4: webhooks.ops.timeout_seconds: This number is out of range. Use a whole number from 1 to 120.",
        ),
        (
            "[events]\nexpiring_days = \"30, soon\"\n",
            "config.toml:2: events.expiring_days: The value is not a list of numbers of days. Use at most 16 whole numbers from 1 to 3650 with commas between them, such as \"30, 7, 1\".",
        ),
    ] {
        assert_refused(text, expected);
    }
    assert!(load_text("[webhooks.\"a b\"]\nurl = \"http://x\"\nsecret = \"x\"\n", &[]).is_err());
    assert!(
        load_text("[events]\nexpiring_days = \"\"\n", &[])
            .unwrap()
            .settings
            .events
            .expiring_days
            .is_empty()
    );
}

#[test]
fn only_variables_with_our_prefix_are_read() {
    assert!(environment().all(|(name, _)| name.starts_with("KEYWARD_")));
}
