//! The message of the first start: the first key, and a `curl` command that uses the key.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::screen;
use crate::{
    accounts::FirstStart, cli::client::remote::local_address, config::Settings, model::Secret,
};

/// Prints the first key, and a `curl` command that uses the key.
///
/// # Errors
/// Standard output is closed. The key is lost, because it cannot be shown again.
pub fn print(first: &FirstStart, base_url: Option<&str>) -> anyhow::Result<()> {
    Ok(screen::print(&text(first, base_url))?)
}

/// Whether a service manager keeps the standard output, so that a printed key would stay in a
/// journal.
pub fn is_kept_output() -> bool {
    let is_service = ["INVOCATION_ID", "JOURNAL_STREAM"].map(std::env::var_os);
    is_service.iter().any(Option::is_some) && !io::stdout().is_terminal()
}

/// The file that gets the first key where standard output is kept. Only its owner can read it.
pub struct KeyFile {
    file: File,
    path: PathBuf,
}

impl KeyFile {
    /// Creates the file beside the store. A file of an earlier store is replaced: its key is not
    /// valid for the new store.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn create(store: &Path) -> anyhow::Result<Self> {
        let mut path = store.as_os_str().to_owned();
        path.push(".first-key");
        let path = PathBuf::from(path);
        let create = || {
            match fs::remove_file(&path) {
                Err(problem) if problem.kind() != io::ErrorKind::NotFound => return Err(problem),
                _ => {}
            }
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)
        };
        let file = create()
            .with_context(|| format!("cannot create {}, for the first key", path.display()))?;
        Ok(Self { file, path })
    }

    /// Removes the file, because the store has users already and no first key is created.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn remove(self) -> anyhow::Result<()> {
        Ok(fs::remove_file(&self.path)?)
    }

    /// Writes the first key and a command to try it, and logs where they are.
    ///
    /// # Errors
    /// The disk is full. The key is then lost.
    pub fn write(mut self, first: &FirstStart, base_url: Option<&str>) -> anyhow::Result<()> {
        let write = self.file.write_all(text(first, base_url).as_bytes());
        write.and_then(|()| self.file.sync_all()).with_context(|| {
            format!(
                "cannot write the first key to {}. Make another one: keyward key generate {}",
                self.path.display(),
                first.username
            )
        })?;
        tracing::warn!(
            file = %self.path.display(),
            "the store is new: the key of its administrator is in this file. Read it, and delete \
             the file"
        );
        Ok(())
    }
}

/// Formats the first key and the command. Without a base URL there is no command.
fn text(first: &FirstStart, base_url: Option<&str>) -> String {
    let FirstStart { username, key, .. } = first;
    let mut text = format!(
        "The store is new. Its first user is {username}, an administrator with the following key. The key is not shown again:\n\n    {}\n",
        key.expose()
    );
    if let Some(base_url) = base_url {
        let command = curl_command(base_url, username, key);
        text.push_str(&format!(
            "\nWhile the server runs, this command creates a user:\n\n    {command}\n\n"
        ));
    }
    text
}

/// Returns a command that creates a user, for a POSIX shell.
pub fn curl_command(base_url: &str, username: &str, key: &Secret) -> String {
    let credential = STANDARD.encode(format!("{username}:{}", key.expose()));
    let url = shell_quoted(&format!("{base_url}/entity/user"));
    format!(
        "curl -i -X POST {url} -H 'API-KEY: {credential}' -H 'Content-Type: application/json' \
         -d '{{\"name\":[{{\"value\":\"llama\"}}],\"status\":[{{\"value\":true}}]}}'"
    )
}

/// Returns the URL of the public listener for clients on this machine. `None` means that `listen`
/// has port 0, because the actual port is only known while the server runs.
pub fn base_url(settings: &Settings, listen: SocketAddr) -> Option<String> {
    let server = &settings.server;
    server.public_url.clone().or_else(|| {
        let scheme = if server.tls.is_some() { "https" } else { "http" };
        (listen.port() != 0).then(|| format!("{scheme}://{}", local_address(listen)))
    })
}

/// Quotes a word for a POSIX shell. A word without special characters is returned unquoted, because
/// it is easier to read.
pub fn shell_quoted(word: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"/:._-%".contains(&b);
    if word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curl_command_sends_the_credential_and_a_user() {
        let command = curl_command("http://127.0.0.1:8080", "admin", &Secret::new("kw_1"));
        assert_eq!(
            command,
            r#"curl -i -X POST http://127.0.0.1:8080/entity/user -H 'API-KEY: YWRtaW46a3dfMQ==' -H 'Content-Type: application/json' -d '{"name":[{"value":"llama"}],"status":[{"value":true}]}'"#
        );
    }

    #[test]
    fn shell_parses_the_command_into_the_intended_words() {
        let url = "http://[::1]:8080/a'b;c$(d)&e f";
        let command =
            curl_command(url, "O'Neil", &Secret::new("kw_1")).replacen("curl", "printf '%s\\n'", 1);
        let output = std::process::Command::new("sh").args(["-c", &command]).output().unwrap();
        let words = String::from_utf8(output.stdout).unwrap();
        let words: Vec<&str> = words.lines().collect();
        assert_eq!(words[3], format!("{url}/entity/user"));
        assert_eq!(words[5], format!("API-KEY: {}", STANDARD.encode("O'Neil:kw_1")));
        assert_eq!(words.len(), 10);
    }

    #[test]
    fn key_is_shown_once() {
        let key = Secret::new("kw_1");
        let first = FirstStart { username: "admin".into(), key, application: "default".into() };
        let with_command = text(&first, Some("http://x"));
        assert_eq!(with_command.matches("kw_1").count(), 1);
        assert!(with_command.lines().any(|line| line.trim().starts_with("curl ")));
        assert!(!text(&first, None).contains("curl"));
    }
}
