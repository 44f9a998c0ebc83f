//! Tests of the configuration.

mod faces;
mod paths;
mod refused;

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::{show::SHIPPED, *};

/// Loads `text` as the only file. In error texts, the file's name is config.toml. Relative paths
/// count from the working directory, so that the settings are comparable.
fn load_text(text: impl AsRef<[u8]>, variables: &[(&str, &str)]) -> Result<Loaded, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    let origin = |_: Option<&Path>, file: &File| Origin::new(None, file);
    load_from(Some(&path), env(variables), &[], origin).map_err(|problem| {
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
fn assert_refused(text: &str, expected: &str) {
    assert_eq!(load_text(text, &[]).expect_err(text), expected, "{text}");
}

#[track_caller]
fn assert_variable_refused(name: &str, value: &str, expected: &str) {
    assert_eq!(load_text("", &[(name, value)]).expect_err(name), expected, "{name}={value}");
}

/// A key of the schema, with its section and name.
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
            // The operator chooses the names of webhooks' sections, so the schema has no such
            // section.
            let Some(pointer) = reference["$ref"].as_str() else {
                assert_eq!(section, "webhooks");
                continue;
            };
            let pointer = pointer.trim_start_matches('#');
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

    fn range(&self) -> Option<(i64, i64)> {
        let is_number = self.schema["type"] == "integer";
        is_number.then(|| {
            let limit = |name: &str| self.schema[name].as_i64().unwrap_or_else(|| panic!("{name}"));
            (limit("minimum"), limit("maximum"))
        })
    }

    /// A valid value other than the default.
    fn other_value(&self) -> String {
        if let Some((_, max)) = self.range() {
            let default = self.schema["default"].as_i64().unwrap();
            // 0 means the number of cores, which could be 1.
            return if default == 0 { max - 1 } else { default + 1 }.to_string();
        }
        let texts = BTreeMap::from([
            ("server.listen", "0.0.0.0:80"),
            ("server.public_url", "https://api.example.com/v1"),
            ("server.health_path", "/healthz"),
            ("verify.listen", "0.0.0.0:82"),
            ("verify.grpc_listen", "0.0.0.0:83"),
            ("verify.trusted_proxies", "10.0.0.1, 192.168.0.0/16"),
            ("verify.tls_certificate", "verify.pem"),
            ("verify.tls_key", "verify.key"),
            ("verify.tls_client_ca", "proxies.pem"),
            ("verify.tls_client_certificates", "optional"),
            ("server.proxy_protocol", "on"),
            ("server.runtime", "per_worker"),
            ("server.tls_certificate", "server.pem"),
            ("server.tls_key", "server.key"),
            ("server.tls_client_ca", "clients.pem"),
            ("server.tls_client_certificates", "optional"),
            ("admin.tls_certificate", "admin.pem"),
            ("admin.tls_key", "admin.key"),
            ("admin.tls_client_ca", "admins.pem"),
            ("admin.tls_client_certificates", "optional"),
            ("server.trusted_proxies", "10.0.0.1, 192.168.0.0/16"),
            ("identity.user", "Remote-User"),
            ("identity.user_id", "Remote-User-Id"),
            ("identity.roles", "Remote-Groups"),
            ("identity.key_id", "Remote-Key"),
            ("identity.application", "Remote-Application"),
            ("identity.scopes", "Remote-Scopes"),
            ("admin.listen", "0.0.0.0:81"),
            ("admin.names", "admin.example.com, 10.0.0.9"),
            ("proxy.allowed_networks", "10.0.0.0/8, ::1"),
            ("entity_user.fields", "field_city = city"),
            ("entity_user.own_fields", "field_city"),
            ("store.engine", "memory"),
            ("store.path", "/var/lib/keyward"),
            ("store.pepper_file", "/etc/keyward/pepper"),
            ("store.hmac_key_file", "/etc/keyward/hmac"),
            ("backup.every", "24h"),
            ("backup.dir", "/var/backups/keyward"),
            ("scripts.dir", "/etc/keyward/scripts"),
            ("scripts.secrets_dir", "/run/secrets"),
            ("limits.failure_exempt", "10.0.0.0/8"),
            ("audit.denials", "all"),
            ("events.expiring_days", "14"),
            ("log.level", "warn,keyward=debug"),
            ("log.format", "json"),
            ("log.clients", "all"),
            ("metrics.counts", "off"),
            ("metrics.networks", "10.0.0.0/8"),
            ("metrics.token_file", "/run/secrets/metrics"),
            ("access_log.output", "/var/log/keyward/access.log"),
            ("access_log.format", "logfmt"),
            ("access_log.requests", "denied"),
            ("access_log.resources", "orders, invoices"),
        ]);
        texts[self.name().as_str()].into()
    }

    /// Returns the variables that must be set for this key to have an effect, with their values.
    fn required_keys(&self) -> Vec<(String, &'static str)> {
        let variable = |key: &str| format!("KEYWARD_{}__{key}", self.section.to_uppercase());
        let mut keys = Vec::new();
        if self.key.starts_with("tls_") && self.key != "tls_certificate" {
            keys.push((variable("TLS_CERTIFICATE"), "required.pem"));
        }
        if self.key == "proxy_protocol" {
            keys.push((variable("TRUSTED_PROXIES"), "10.0.0.1"));
        }
        for (section, key, value) in
            [("backup", "every", "12h"), ("access_log", "output", "stderr")]
        {
            if self.section == section && self.key != key {
                keys.push((variable(&key.to_uppercase()), value));
            }
        }
        if self.key == "tls_client_certificates" {
            keys.push((variable("TLS_CLIENT_CA"), "required.pem"));
        }
        if self.key == "own_fields" {
            keys.push((variable("FIELDS"), "field_city = city"));
        }
        keys
    }

    fn in_toml(&self, value: &str) -> String {
        let quoted = format!("{value:?}");
        let value = if self.range().is_some() { value } else { &quoted };
        format!("[{}]\n{} = {value}\n", self.section, self.key)
    }

    fn value_in(&self, file: &File) -> Json {
        serde_json::to_value(file).unwrap()[&self.section][&self.key].clone()
    }
}

#[test]
fn shipped_file_contains_the_defaults() {
    let shipped = load_text(SHIPPED, &[]).unwrap();
    assert_eq!(shipped.file, File::default());
    assert_eq!(shipped.settings, defaults().settings);
}

#[test]
fn shipped_file_has_every_key_below_its_description() {
    let mut section = "";
    let mut descriptions = BTreeMap::new();
    let mut comment = String::new();
    for line in SHIPPED.lines() {
        if let Some(text) = line.strip_prefix("# ") {
            comment = format!("{comment} {text}").trim().into();
            continue;
        }
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']');
        } else if let Some((key, _)) = line.split_once(" = ") {
            descriptions.insert(format!("{section}.{key}"), std::mem::take(&mut comment));
        }
        comment.clear();
    }
    for known in Known::all() {
        // The comment's lines were joined above, so the description's lines are joined too.
        let described = known.schema["description"].as_str().unwrap().replace('\n', " ");
        assert!(described.ends_with('.'), "{}", known.name());
        assert_eq!(descriptions.get(&known.name()).unwrap(), &described, "{}", known.name());
    }
    assert_eq!(descriptions.len(), Known::all().len());
}

#[test]
fn defaults_are_resolved() {
    let Loaded { settings, source, overrides, .. } = defaults();
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!((source, overrides), (None, vec![]));
    assert_eq!(settings.server.listen, "127.0.0.1:8080".parse().unwrap());
    assert_eq!(settings.server.public_url, None);
    assert_eq!(settings.server.trusted_proxies, [], "nobody is trusted by default");
    let trusted: Vec<_> = settings.verify.trusted_proxies.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["127.0.0.0/8", "::1/128"]);
    let verify = ListenAddress::Tcp("127.0.0.1:8082".parse().unwrap());
    assert_eq!((settings.verify.listen, settings.verify.grpc_listen), (Some(verify), None));
    assert_eq!(settings.identity.user, "x-keyward-user");
    assert_eq!(settings.server.workers, cores);
    assert_eq!(settings.server.shutdown.as_secs(), 10);
    assert_eq!(settings.admin.listen, ListenAddress::Tcp("127.0.0.1:8081".parse().unwrap()));
    assert_eq!(settings.store.engine, Engine::Sled);
    let at = |name| std::path::absolute(name).unwrap();
    assert_eq!(settings.store.path, at("data/keyward"));
    assert_eq!(settings.store.pepper_file, at("data/keyward.pepper"));
    assert_eq!(settings.store.control_file, at("data/keyward.control"));
    assert_eq!(settings.store.cache_mib, 32);
    assert_eq!(settings.scripts.dir, at("scripts"));
    assert_eq!(settings.limits.password_checks, cores);
    assert_eq!((settings.limits.header_bytes, settings.limits.headers), (16_384, 100));
    assert_eq!((settings.limits.body_bytes, settings.limits.credential_bytes), (1_048_576, 4096));
    assert_eq!((settings.limits.connections, settings.limits.http2_streams), (10_000, 128));
    assert_eq!(settings.limits.header_read.as_secs(), 10);
    assert_eq!(settings.limits.body_read.as_secs(), 30);
    assert_eq!(settings.limits.idle.as_secs(), 75);
    assert_eq!(
        (settings.log.level.as_str(), settings.log.format),
        ("info", crate::telemetry::LogFormat::Text)
    );
}

#[test]
fn every_key_is_effective_in_the_file_and_in_the_environment() {
    for known in Known::all() {
        let (name, value) = (known.name(), known.other_value());
        let required = known.required_keys();
        let required: Vec<_> =
            required.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        let variable = known.variable();
        let with_variable = [required.as_slice(), &[(variable.as_str(), value.as_str())]].concat();
        let before = load_text("", &required).unwrap();
        let by_file = load_text(known.in_toml(&value), &required).unwrap();
        let by_variable = load_text("", &with_variable).unwrap();
        assert_eq!(by_file.settings, by_variable.settings, "{name}");
        assert_ne!(by_variable.settings, before.settings, "{name} has no effect");
        assert_eq!(by_file.overrides.len(), required.len());
        assert_eq!(by_variable.overrides.len(), with_variable.len());
        assert!(by_variable.overrides.contains(&variable));
        for other in Known::all() {
            let is_same = other.value_in(&by_variable.file) == other.value_in(&before.file);
            assert_eq!(is_same, other.name() != name, "{name} also changed {}", other.name());
        }
    }
}

#[test]
fn environment_overrides_the_file() {
    let text = "[server]\nlisten = \"127.0.0.1:1\"\nworkers = 3\n";
    let variables = [("KEYWARD_SERVER__LISTEN", "127.0.0.1:2"), ("KEYWARD_LOG__LEVEL", "debug")];
    let loaded = load_text(text, &variables).unwrap();
    assert_eq!(loaded.settings.server.listen.port(), 2);
    assert_eq!(loaded.settings.server.workers, 3);
    assert_eq!(loaded.overrides, ["KEYWARD_LOG__LEVEL", "KEYWARD_SERVER__LISTEN"]);
    // The variable replaces an invalid value in the file. An invalid value of the variable is not
    // blamed on the file.
    let broken = "[server]\nlisten = \"nowhere\"\n";
    assert!(load_text(broken, &variables).is_ok());
    let problem = load_text(text, &[("KEYWARD_SERVER__LISTEN", "nowhere")]).unwrap_err();
    assert!(
        problem.starts_with("KEYWARD_SERVER__LISTEN: The value is not an address"),
        "{problem}"
    );
}

#[test]
fn unknown_variable_is_refused_with_the_nearest_known_one() {
    for known in Known::all() {
        let name = format!("{}X", known.variable());
        let right = known.variable();
        let expected = format!("{name}: There is no key for this variable. Did you mean {right}?");
        assert_variable_refused(&name, "1", &expected);
    }
    for (name, near) in [
        ("KEYWARD_server__listen", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_SERVER__LISTEN__PORT", "KEYWARD_SERVER__LISTEN"),
        ("KEYWARD_STORE__PEPPER", "KEYWARD_STORE__PEPPER_FILE"),
    ] {
        let expected = format!("{name}: There is no key for this variable. Did you mean {near}?");
        assert_variable_refused(name, "a-secret", &expected);
    }
}

#[test]
fn unrelated_variables_are_ignored() {
    let variables =
        [("KEYWARD_PORT", "tcp://10.0.0.1:8080"), ("PATH", "/bin"), ("OTHER_SERVER__LISTEN", "x")];
    let loaded = load_among(None, env(&variables), &[]).unwrap();
    assert_eq!(loaded.settings, defaults().settings);
    assert_eq!(loaded.overrides, Vec::<String>::new());
}

#[test]
fn variable_is_parsed_with_the_type_of_its_key() {
    let workers = "KEYWARD_SERVER__WORKERS";
    assert_eq!(load_text("", &[(workers, "7")]).unwrap().settings.server.workers, 7);
    for bad in ["", "many", "1.5", "0x10", "\"7\""] {
        let expected =
            format!("{workers}: The value is not a whole number. Use a whole number, such as 0.");
        assert_variable_refused(workers, bad, &expected);
    }
    assert_variable_refused(
        workers,
        "99999999999999999999",
        "KEYWARD_SERVER__WORKERS: This number is far out of range. Use a whole number, such as 0.",
    );
    for bad in ["data/\u{fffd}", "data/\n", "\u{1b}[2J"] {
        assert_variable_refused(
            "KEYWARD_STORE__PATH",
            bad,
            "KEYWARD_STORE__PATH: The value contains a control character, or bytes that are not UTF-8. \
             Use text, such as \"data/keyward\".",
        );
    }
    // A variable has no quotes, so digits are text if the key's type is text.
    assert_variable_refused(
        "KEYWARD_LOG__FORMAT",
        "1",
        "KEYWARD_LOG__FORMAT: The value is not one of the choices. Use \"text\" or \"json\".",
    );
}

#[test]
fn number_is_limited_to_the_range_in_the_schema() {
    let mut checked = 0;
    for known in Known::all() {
        let Some((min, max)) = known.range() else { continue };
        let name = known.name();
        let variables = if name == "limits.header_bytes" {
            vec![]
        } else {
            vec![("KEYWARD_LIMITS__HEADER_BYTES", "1048576")]
        };
        for good in [min, max] {
            let text = known.in_toml(&good.to_string());
            assert!(load_text(text, &variables).is_ok(), "{name} = {good}");
        }
        for bad in [min - 1, max + 1, i64::MIN, i64::MAX] {
            let expected =
                format!("This number is out of range. Use a whole number from {min} to {max}.");
            assert_refused(
                &known.in_toml(&bad.to_string()),
                &format!("config.toml:2: {name}: {expected}"),
            );
            let variable = known.variable();
            assert_variable_refused(
                &variable,
                &bad.to_string(),
                &format!("{variable}: {expected}"),
            );
        }
        checked += 1;
    }
    assert_eq!(checked, 56);
}

#[test]
fn error_names_the_unreadable_file_and_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing.toml");
    let error = |path: &Path| load_among(Some(path), env(&[]), &[]).unwrap_err().to_string();
    assert_eq!(
        error(&missing),
        format!(
            "cannot read the configuration file {}: No such file or directory (os error 2)",
            missing.display()
        )
    );
    assert_eq!(
        error(folder.path()),
        format!(
            "cannot read the configuration file {}: Is a directory (os error 21)",
            folder.path().display()
        )
    );
    assert_eq!(
        load_text(b"# one\n# t\xffo\n", &[]).unwrap_err(),
        "config.toml:2: the line is not UTF-8 text. Save the file as UTF-8."
    );
}

#[test]
fn files_are_tried_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, port: u16| {
        let path = folder.path().join(name);
        fs::write(&path, format!("[server]\nlisten = \"127.0.0.1:{port}\"\n")).unwrap();
        path
    };
    let (explicit, named) = (file("explicit", 1), file("named", 2));
    let (here, etc) = (file("here", 3), file("etc", 4));
    let port = |explicit: Option<&Path>, named: &str, default_paths: &[&Path]| {
        let loaded =
            load_among(explicit, env(&[("KEYWARD_CONFIG", named)]), default_paths).unwrap();
        (loaded.settings.server.listen.port(), loaded.source, loaded.overrides.len())
    };
    let name = named.to_str().unwrap();
    let missing = folder.path().join("missing");
    assert_eq!(port(Some(&explicit), name, &[&here, &etc]), (1, Some(explicit.clone()), 0));
    assert_eq!(port(None, name, &[&here, &etc]), (2, Some(named.clone()), 0));
    assert_eq!(port(None, "", &[&here, &etc]), (3, Some(here.clone()), 0));
    assert_eq!(port(None, "", &[&missing, &etc]), (4, Some(etc.clone()), 0));
    assert_eq!(port(None, "", &[&missing, &missing]), (8080, None, 0));
    assert_eq!(DEFAULT_PATHS, ["config.toml", "/etc/keyward/config.toml"]);

    // A file that was named must exist, and a dangling link is an error.
    let named_missing = [("KEYWARD_CONFIG", missing.to_str().unwrap())];
    assert!(load_among(None, env(&named_missing), &[&here]).is_err());
    let dangling = folder.path().join("dangling");
    std::os::unix::fs::symlink(&missing, &dangling).unwrap();
    assert!(load_among(None, env(&[]), &[&dangling, &etc]).is_err());
}

#[test]
fn printed_configuration_can_be_loaded_again() {
    let all = Known::all();
    let values: Vec<_> = all.iter().map(|known| (known.variable(), known.other_value())).collect();
    let variables: Vec<_> =
        values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let loaded = load_text("", &variables).unwrap();
    let again = load_text(print(&loaded), &[]).unwrap();
    assert_eq!(again.file, loaded.file);
    assert_eq!(again.settings, loaded.settings);
}

#[test]
fn printed_configuration_names_its_file_and_variables() {
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
    loaded.settings.origin.folder = "/etc/k".into();
    loaded.overrides = vec!["KEYWARD_LOG__LEVEL".into(), "KEYWARD_STORE__PATH".into()];
    assert_eq!(
        head(&loaded),
        [
            "# Read from \"odd\\nname.toml\". Relative paths count from \"/etc/k\".",
            "# Overridden by the environment: KEYWARD_LOG__LEVEL, KEYWARD_STORE__PATH.",
            "",
            "[server]",
        ]
    );
}
