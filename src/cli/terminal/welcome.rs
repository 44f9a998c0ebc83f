//! What the first start says: the first key, once, and a line that works when pasted.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::screen;
use crate::{accounts::FirstStart, config::Settings, model::Secret};

/// Prints the first key and a line to try it with.
///
/// # Errors
/// Standard output is closed. The key is then known to nobody.
pub fn print(first: &FirstStart, base_url: &str) -> anyhow::Result<()> {
    Ok(screen::print(&text(first, Some(base_url)))?)
}

/// The same as text; without a line to paste where it is not known where the server will listen.
pub fn text(first: &FirstStart, base_url: Option<&str>) -> String {
    let FirstStart { username, key, .. } = first;
    let mut text = format!(
        "The store is new. Its first user is {username}, an administrator with this key. It is not shown again:\n\n    {}\n",
        key.expose()
    );
    if let Some(base_url) = base_url {
        let line = curl(base_url, username, key);
        text.push_str(&format!("\nWith the server running, this makes a user:\n\n    {line}\n\n"));
    }
    text
}

/// A command that makes a user, for a POSIX shell.
pub fn curl(base_url: &str, username: &str, key: &Secret) -> String {
    let credential = STANDARD.encode(format!("{username}:{}", key.expose()));
    let url = quoted(&format!("{base_url}/entity/user"));
    format!(
        "curl -i -X POST {url} -H 'API-KEY: {credential}' -H 'Content-Type: application/json' \
         -d '{{\"name\":[{{\"value\":\"llama\"}}],\"status\":[{{\"value\":true}}]}}'"
    )
}

/// Where the configuration says that clients reach the server. None: a free port, which is known only once it runs.
pub fn base_url(settings: &Settings) -> Option<String> {
    let server = &settings.server;
    server.public_url.clone().or_else(|| {
        let address = crate::cli::client::remote::near(server.listen);
        (address.port() != 0).then(|| format!("{}://{address}", scheme(settings)))
    })
}

/// What the public listener speaks.
pub fn scheme(settings: &Settings) -> &'static str {
    match settings.server.tls {
        Some(_) => "https",
        None => "http",
    }
}

/// A word as a shell reads it back. A plain one stays as it is, for people's eyes.
fn quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-%".contains(&b);
    if word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_line_is_the_one_that_the_first_page_of_the_manual_shows() {
        let line = curl("http://127.0.0.1:8080", "admin", &Secret::new("kw_1"));
        assert_eq!(
            line,
            r#"curl -i -X POST http://127.0.0.1:8080/entity/user -H 'API-KEY: YWRtaW46a3dfMQ==' -H 'Content-Type: application/json' -d '{"name":[{"value":"llama"}],"status":[{"value":true}]}'"#
        );
    }

    #[test]
    fn a_shell_reads_every_word_as_it_was_meant() {
        let url = "http://[::1]:8080/a'b;c$(d)&e f";
        let line = curl(url, "O'Neil", &Secret::new("kw_1")).replacen("curl", "printf '%s\\n'", 1);
        let output = std::process::Command::new("sh").args(["-c", &line]).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words[3], format!("{url}/entity/user"));
        assert_eq!(words[5], format!("API-KEY: {}", STANDARD.encode("O'Neil:kw_1")));
        assert_eq!(words.len(), 10);
    }

    #[test]
    fn the_key_stands_there_once() {
        let key = Secret::new("kw_1");
        let first = FirstStart { username: "admin".into(), key, application: "default".into() };
        let with_line = text(&first, Some("http://x"));
        assert_eq!(with_line.matches("kw_1").count(), 1);
        assert!(with_line.lines().any(|line| line.trim().starts_with("curl ")));
        assert!(!text(&first, None).contains("curl"));
    }
}
