//! Tells the person who has created a key how a client sends it: a command line with the place and
//! the form that the application wants.
//!
//! The command line has the key in a shell variable, and curl reads the header field from standard
//! input. So the key is in no argument list, which every user of the machine can read, and not in
//! the history of the shell.

use serde_json::Value;

use crate::{
    cli::{
        Output, Session,
        client::paths::path,
        instance::control_file::{self, ControlState},
        terminal::welcome::{base_url, shell_quoted},
    },
    config::{ListenAddress, Settings},
};

/// The variable of the shell that has the key.
const KEY: &str = "\"$KEY\"";

/// Notes how to send a new key. `created` is the record of the key.
pub async fn note(created: &Value, session: &Session, settings: &Settings) {
    let Some(user) = created["username"].as_str() else { return };
    let Some(application) = application_of(created, session).await else {
        let text = "\nNo application accepts this key. Create one: keyward app add --help\n";
        return session.screen.note(text);
    };
    let url = match (settings_url(settings), created["user"].as_u64()) {
        (Some(url), Some(uid)) if serves_user_entity(session).await => format!("{url}/user/{uid}"),
        (Some(url), _) => format!("{url}/PATH"),
        (None, _) => "http://HOST:PORT/PATH".into(),
    };
    session.screen.note(&text(&application, &shell_quoted(user), &url));
}

/// Notes how to send the keys that `key generate --all` has created.
pub async fn note_all(record: &Value, session: &Session, settings: &Settings) {
    if session.output == Output::Json {
        return;
    }
    let Some(application) = application_of(record, session).await else { return };
    let url = settings_url(settings).unwrap_or_else(|| "http://HOST:PORT".into());
    session.screen.note(&text(&application, "\"$USERNAME\"", &format!("{url}/PATH")));
}

/// The application that accepts a key: the key's only application, or else the default one, or else
/// the first one that takes such keys.
async fn application_of(key: &Value, session: &Session) -> Option<Value> {
    if let Some(id) = key["application"].as_str() {
        return Some(session.client.get(&path(&["applications", id])).await.ok()?.body);
    }
    let (all, _) = session.page(&path(&["applications"]), 100, None).await.ok()?;
    let accepts = |application: &&Value| {
        application["enabled"] == true
            && application["type"] != "basic"
            && application["key_source"] == "per_user"
    };
    let mut accepting: Vec<&Value> = all.iter().filter(accepts).collect();
    accepting.sort_by_key(|application| application["is_default"] != true);
    accepting.first().map(|application| (*application).clone())
}

/// Whether the resource of a new store is still there, in which each user can read their own
/// record.
async fn serves_user_entity(session: &Session) -> bool {
    let resource = session.client.get(&path(&["resources", "entity.user"])).await;
    resource.is_ok_and(|resource| {
        let methods = resource.body["methods"].as_array();
        resource.body["enabled"] == true
            && methods.is_some_and(|methods| methods.contains(&"GET".into()))
    })
}

/// The URL of the public listener for clients on this machine: of the running server or, without a
/// server, of the configuration.
fn settings_url(settings: &Settings) -> Option<String> {
    let public = match control_file::find(&settings.store.control_file) {
        Ok(ControlState::Found(found)) => found.public,
        _ => None,
    };
    let listen = match public {
        Some(ListenAddress::Tcp(address)) => address,
        _ => settings.server.listen,
    };
    base_url(settings, listen)
}

/// The advice for one application. `user` is a word of a shell.
fn text(application: &Value, user: &str, url: &str) -> String {
    let id = application["id"].as_str().unwrap_or_default();
    if application["enabled"] == false {
        return format!("\nThe application {id} is disabled: it accepts no key yet.\n");
    }
    let auth_type = application["type"].as_str().unwrap_or_default();
    if auth_type == "basic" {
        return format!(
            "\nThe application {id} has the type basic: it accepts passwords, and no keys.\n"
        );
    }
    let Some((field, value)) = header_field(application, auth_type, user) else {
        return format!(
            "\nThe script auth/{auth_type}.rhai of the application {id} says how a client sends \
             the key{}.\n",
            scripted_place(application)
        );
    };
    let named = if application["is_default"] == true {
        String::new()
    } else {
        format!(" -H {}", shell_quoted(&format!("AUTH-METHOD: {id}")))
    };
    let field = shell_quoted(&format!("{field}\\n"));
    format!(
        "\nTo send it, put the key into the shell variable KEY. A request for the application \
         {id}:\n\n    printf {field} {value} | curl -H @-{named} {}\n",
        shell_quoted(url)
    )
}

/// The format of the header field for `printf`, and its argument. `None` means that only the
/// application's script knows them.
fn header_field(application: &Value, auth_type: &str, user: &str) -> Option<(String, String)> {
    let header = application["header"].as_str()?;
    let scheme = |scheme: &str| {
        let is_authorization = header.eq_ignore_ascii_case("authorization");
        let scheme = if is_authorization { format!("{scheme} ") } else { String::new() };
        format!("{header}: {scheme}%s")
    };
    match auth_type {
        "api_key" => {
            let encoded = format!("\"$(printf '%s:%s' {user} {KEY} | base64 | tr -d '\\n')\"");
            Some((scheme("Basic"), encoded))
        }
        "bearer" => Some((scheme("Bearer"), KEY.into())),
        _ => None,
    }
}

/// The place that a script declares, from its challenge.
fn scripted_place(application: &Value) -> String {
    match application["challenge"].as_str() {
        Some(challenge) => format!(". It declares: {challenge}"),
        None => {
            let header = application["header"].as_str().unwrap_or_default();
            format!(". It reads the header field {header}")
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The header field that the command line sends to curl.
    fn sent(application: &Value, user: &str, key: &str) -> String {
        let text = text(application, user, "http://127.0.0.1:8080/x");
        let line = text.lines().map(str::trim).find(|line| line.starts_with("printf")).unwrap();
        let (field, curl) = line.split_once(" | curl -H @-").unwrap();
        assert!(!curl.contains("KEY\""), "{curl}");
        let run = std::process::Command::new("sh").args(["-c", field]).env("KEY", key).output();
        String::from_utf8(run.unwrap().stdout).unwrap() + curl
    }

    #[test]
    fn command_sends_the_form_that_the_application_wants() {
        let key = "kw_1";
        let app = |auth_type: &str, header: &str, is_default: bool| {
            json!({ "id": "a", "enabled": true, "type": auth_type, "header": header,
                    "is_default": is_default })
        };
        let url = " http://127.0.0.1:8080/x";
        for (application, user, expected) in [
            (app("api_key", "API-KEY", true), "ann", format!("API-KEY: YW5uOmt3XzE=\n{url}")),
            (
                app("api_key", "Authorization", false),
                "'O'\\''Neil'",
                format!("Authorization: Basic TydOZWlsOmt3XzE=\n -H 'AUTH-METHOD: a'{url}"),
            ),
            (
                app("bearer", "Authorization", true),
                "ann",
                format!("Authorization: Bearer kw_1\n{url}"),
            ),
            (app("bearer", "X-Token", true), "ann", format!("X-Token: kw_1\n{url}")),
        ] {
            assert_eq!(sent(&application, user, key), expected);
        }
        // A long credential is one line.
        let long = sent(&app("api_key", "API-KEY", true), "ann", &"k".repeat(200));
        assert_eq!(long.lines().count(), 2);
    }

    #[test]
    fn applications_without_a_built_in_form_are_described() {
        let app = |auth_type: &str, challenge: Option<&str>, is_enabled: bool| {
            let mut app = json!({ "id": "a", "enabled": is_enabled, "type": auth_type,
                                  "header": "X-Sig" });
            if let Some(challenge) = challenge {
                app["challenge"] = challenge.into();
            }
            app
        };
        for (application, part) in [
            (app("basic", None, true), "accepts passwords"),
            (app("signed", None, true), "reads the header field X-Sig"),
            (app("signed", Some("HMAC realm=\"K\""), true), "It declares: HMAC realm"),
            (app("bearer", None, false), "is disabled"),
        ] {
            let text = text(&application, "ann", "http://x");
            assert!(text.contains(part) && !text.contains("curl"), "{text}");
        }
    }
}
