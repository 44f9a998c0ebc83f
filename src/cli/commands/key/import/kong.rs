//! Reads keys from Kong's declarative configuration (YAML or JSON). Everything else in it is
//! ignored.

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Fault, collect, row};

/// The maximum number of values of a YAML file: about ten for each of a million keys.
const MOST_VALUES: usize = 10_000_000;
/// The maximum size of all its texts, in bytes.
const MOST_BYTES: usize = 1 << 30;

/// The part of the configuration that is read.
#[derive(Deserialize)]
struct Config {
    consumers: Option<Vec<Consumer>>,
    keyauth_credentials: Option<Vec<Spanned<Credential>>>,
}

#[derive(Deserialize)]
struct Consumer {
    #[serde(default)]
    username: Value,
    keyauth_credentials: Option<Vec<Spanned<Credential>>>,
}

#[derive(Deserialize)]
struct Credential {
    #[serde(default)]
    key: Value,
    #[serde(default)]
    consumer: Value,
}

/// Parses the rows of a file.
pub(in crate::cli) fn read(text: &str, faults: &mut Vec<Fault>) -> Vec<Value> {
    let mut rows = Vec::new();
    if text.trim_start().starts_with(['{', '[']) {
        from_json(text, &mut rows, faults);
    } else {
        from_yaml(text, &mut rows, faults);
    }
    if rows.is_empty() && faults.is_empty() {
        faults.push((1, "There are no keyauth_credentials in it.".into()));
    }
    rows
}

/// JSON often has one line, so errors number the credentials.
fn from_json(text: &str, rows: &mut Vec<Value>, faults: &mut Vec<Fault>) {
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        faults.push((1, "This is not JSON, though it begins so.".into()));
        return;
    };
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut add = |username: &Value, credential: &Value| {
        let line = rows.len() as u64 + faults.len() as u64 + 1;
        take(line, username, &credential["key"], rows, faults);
    };
    for consumer in list(&whole["consumers"]) {
        for credential in list(&consumer["keyauth_credentials"]) {
            add(&consumer["username"], &credential);
        }
    }
    for credential in list(&whole["keyauth_credentials"]) {
        add(owner(&credential["consumer"]), &credential);
    }
}

fn from_yaml(text: &str, rows: &mut Vec<Value>, faults: &mut Vec<Fault>) {
    // The expansion of aliases is limited by the reader's defaults.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MOST_VALUES,
            max_nodes: MOST_VALUES,
            max_total_scalar_bytes: MOST_BYTES,
        },
    };
    let config: Config = match serde_saphyr::from_str_with_options(text, options) {
        Ok(config) => config,
        Err(problem) => {
            // The reader's message repeats the line, which may contain a key.
            let line = problem.location().map_or(1, |place| place.line());
            let said = "This is not YAML as Kong writes it: the line cannot be read, or a list or text is expected here.";
            faults.push((line, said.into()));
            return;
        }
    };
    for consumer in config.consumers.unwrap_or_default() {
        for Spanned { value, referenced, .. } in consumer.keyauth_credentials.unwrap_or_default() {
            take(referenced.line(), &consumer.username, &value.key, rows, faults);
        }
    }
    for Spanned { value, referenced, .. } in config.keyauth_credentials.unwrap_or_default() {
        take(referenced.line(), owner(&value.consumer), &value.key, rows, faults);
    }
}

/// A consumer is a name, or a record with a name.
fn owner(consumer: &Value) -> &Value {
    if consumer.is_object() { &consumer["username"] } else { consumer }
}

fn take(line: u64, username: &Value, key: &Value, rows: &mut Vec<Value>, faults: &mut Vec<Fault>) {
    // 0123 and 1e3 are numbers in YAML, so the text that clients send is unknown.
    if key.is_number() || username.is_number() {
        let said = "A key and a username are text: put them in quotes.";
        faults.push((line, said.into()));
        return;
    }
    let field = |name: &str| match name {
        "username" => username.as_str().map(str::to_owned),
        "key" => key.as_str().map(str::to_owned),
        _ => None,
    };
    collect(row(line, field), rows, faults);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(text: &str) -> (Vec<Value>, Vec<Fault>) {
        let mut faults = Vec::new();
        (read(text, &mut faults), faults)
    }

    fn pair(line: u64, username: &str, key: &str) -> Value {
        json!({ "line": line, "username": username, "key": key })
    }

    #[test]
    fn kong_has_its_credentials_in_two_places() {
        let whole = json!({
            "_format_version": "3.0",
            "consumers": [
                { "username": "ann", "keyauth_credentials": [{ "key": "k1" }, { "key": "k2" }] },
                { "username": "no key" },
            ],
            "keyauth_credentials": [
                { "consumer": "bob", "key": "k3" },
                { "consumer": { "username": "eve" }, "key": "k4" },
            ],
        });
        let (rows, faults) = read_all(&whole.to_string());
        let expected = [
            pair(1, "ann", "k1"),
            pair(2, "ann", "k2"),
            pair(3, "bob", "k3"),
            pair(4, "eve", "k4"),
        ];
        assert_eq!((rows.as_slice(), faults), (&expected[..], vec![]));
        for bad in ["{}", "[]", "{"] {
            let (rows, faults) = read_all(bad);
            assert_eq!((rows.len(), faults.len(), faults[0].0), (0, 1, 1), "{bad}");
        }
        let without = json!({ "consumers": [{ "keyauth_credentials": [{ "key": "k" }] }] });
        assert_eq!(read_all(&without.to_string()).1[0].0, 1);
    }

    #[test]
    fn yaml_has_the_lines_of_its_credentials() {
        let text = "_format_version: '3.0'
services:
- name: x
  routes: [{ paths: [/a] }]
consumers:
- username: ann
  tags: &tags [a, b]
  keyauth_credentials:
  - key: k1
  - tags: *tags
    key: \"k2\"
- username: no key
keyauth_credentials:
- { consumer: bob, key: k3 }
- consumer: { username: eve }
  key: k4
";
        let expected = [
            pair(9, "ann", "k1"),
            pair(10, "ann", "k2"),
            pair(14, "bob", "k3"),
            pair(15, "eve", "k4"),
        ];
        assert_eq!(read_all(text), (expected.to_vec(), vec![]));
        assert_eq!(
            read_all(
                "\r\nconsumers:\r\n- username: ann\r\n  keyauth_credentials:\r\n  - key: k\r\n"
            )
            .0,
            [pair(5, "ann", "k")]
        );
    }

    #[test]
    fn yaml_that_is_wrong_is_told_with_its_line_and_without_its_keys() {
        let head = "consumers:\n- username: ann\n  keyauth_credentials:\n";
        for (tail, line) in [
            ("  - key: 12345678\n", 4),
            ("  - key: 01234567\n", 4),
            ("  - key: secret-1\n  - label: secret-2\n", 5),
            ("  - key: [secret-1]\n", 4),
            ("  - key: null\n", 4),
            ("  - key: secret-1\n  - key: \"secret-2\n", 5),
            ("  - key: secret-1\n    key: secret-2\n", 5),
            ("  - secret-1\n", 4),
            ("  - key: secret-1\n\t- key: secret-2\n", 4),
            ("  - key: *secret\n", 4),
        ] {
            let (_, faults) = read_all(&format!("{head}{tail}"));
            assert_eq!(faults.len(), 1, "{tail}: {faults:?}");
            assert_eq!(faults[0].0, line, "{tail}: {faults:?}");
            assert!(!faults[0].1.contains("secret"), "{faults:?}");
            assert_eq!(faults[0].1.contains("quotes"), tail.contains("1234567"), "{faults:?}");
        }
        for bad in ["consumers:\n- username: ann\n", "a", "consumers: x\n", ""] {
            let (rows, faults) = read_all(bad);
            assert_eq!((rows.len(), faults.len()), (0, 1), "{bad}");
        }
    }

    #[test]
    fn many_keys_are_read() {
        let mut text = "consumers:\n- username: ann\n  keyauth_credentials:\n".to_owned();
        for at in 0..50_000 {
            text.push_str(&format!("  - {{ key: key-{at}, tags: [a], ttl: 5 }}\n"));
        }
        let (rows, faults) = read_all(&text);
        assert_eq!((rows.len(), faults), (50_000, vec![]));
        assert_eq!(rows[49_999], pair(50_003, "ann", "key-49999"));
    }
}
