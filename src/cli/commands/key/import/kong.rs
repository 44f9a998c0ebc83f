//! Reads keys from Kong's declarative configuration (YAML or JSON). Everything else in the
//! file is ignored.

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{Fault, collect, row};

/// The maximum number of values in a YAML file: enough for a million keys with ten values each.
const MAX_VALUES: usize = 10_000_000;
/// The maximum size of all texts in a YAML file together, in bytes.
const MAX_BYTES: usize = 1 << 30;

/// The part of Kong's configuration that is read.
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
        faults.push((1, "The file contains no keyauth_credentials.".into()));
    }
    rows
}

/// Reads rows from JSON. A JSON file often has only one line, so the number of a credential stands
/// in for the line number.
fn from_json(text: &str, rows: &mut Vec<Value>, faults: &mut Vec<Fault>) {
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        faults.push((1, "The file begins like JSON but is not valid JSON.".into()));
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
    // The defaults of the YAML reader limit the expansion of aliases.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: MAX_VALUES,
            max_nodes: MAX_VALUES,
            max_total_scalar_bytes: MAX_BYTES,
        },
    };
    let config: Config = match serde_saphyr::from_str_with_options(text, options) {
        Ok(config) => config,
        Err(problem) => {
            // The YAML reader's message is not used: it repeats the line, which may contain a key.
            let line = problem.location().map_or(1, |place| place.line());
            let message =
                "The line is not valid YAML, or Kong's format requires a list or text here.";
            faults.push((line, message.into()));
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

/// Returns the username of a consumer, which is a username or an object that contains one.
fn owner(consumer: &Value) -> &Value {
    if consumer.is_object() { &consumer["username"] } else { consumer }
}

fn take(line: u64, username: &Value, key: &Value, rows: &mut Vec<Value>, faults: &mut Vec<Fault>) {
    // Values such as 0123 and 1e3 are numbers in YAML, so the text that clients send is lost.
    if key.is_number() || username.is_number() {
        let message = "Keys and usernames are text: put the value in quotes.";
        faults.push((line, message.into()));
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
    fn credentials_are_read_from_consumers_and_from_the_top_level() {
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
        let without_username =
            json!({ "consumers": [{ "keyauth_credentials": [{ "key": "k" }] }] });
        assert_eq!(read_all(&without_username.to_string()).1[0].0, 1);
    }

    #[test]
    fn yaml_rows_have_line_numbers() {
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
    fn yaml_errors_name_the_line_and_do_not_show_keys() {
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
        const COUNT: usize = 50_000;
        let mut text = "consumers:\n- username: ann\n  keyauth_credentials:\n".to_owned();
        for index in 0..COUNT {
            text.push_str(&format!("  - {{ key: key-{index}, tags: [a], ttl: 5 }}\n"));
        }
        let (rows, faults) = read_all(&text);
        assert_eq!((rows.len(), faults), (COUNT, vec![]));
        assert_eq!(rows[COUNT - 1], pair(50_003, "ann", "key-49999"));
    }
}
