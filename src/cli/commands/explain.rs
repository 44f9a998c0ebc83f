//! `keyward explain`: runs a request through every phase and prints the result of each
//! phase.

use std::{
    fs::File,
    io::{self, Read as _},
};

use clap::Args;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use crate::cli::{
    CliError, Exit, Output, Session,
    client::paths::path,
    terminal::{
        screen::printable,
        table::{Column, Listing, cell},
    },
};

/// The maximum size of a file of header fields and of a body, in bytes.
const MAX_BYTES: u64 = 1 << 20;

const COLUMNS: &[Column] = &[
    Column::new("PHASE", |step| cell(&step["phase"])),
    Column::state("VERDICT", |step| cell(&step["verdict"])),
    Column::new("TIME", |step| match step["microseconds"].as_u64() {
        Some(micros) => format!("{micros} µs"),
        None => cell(&Value::Null),
    })
    .leaves(1),
    Column::wrapped("FOUND", |step| cell(&step["found"])),
];

/// The request, with options named as in curl.
#[derive(Debug, Args)]
pub struct Request {
    /// The path, optionally with a query; or the URL, whose host counts if there is no --host
    target: String,
    /// The method [default: GET, or POST with a body]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// A header field "Name: value", or @FILE with one header field per line. Other users of the
    /// machine can read arguments, so put credentials into a file
    #[arg(short = 'H', long, value_name = "FIELD")]
    header: Vec<String>,
    /// Read header fields from a file, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    headers: Vec<String>,
    /// The host [default: localhost]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client: std::net::IpAddr,
    /// The body, or @FILE with the body
    #[arg(short = 'd', long, value_name = "BODY")]
    data: Option<String>,
}

/// Explains a request. The exit code is 0 even if the explained request is refused.
pub async fn run(request: Request, session: &Session) -> anyhow::Result<()> {
    let body = request.body()?;
    let response = session.client.post(&path(&["explain"]), &body).await?.body;
    let screen = &session.screen;
    match session.output {
        Output::Json => screen.print(&format!("{response:#}\n"))?,
        Output::Table => {
            screen.say(&headline(&response))?;
            let phases = response["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
            screen.print_styled(&Listing::new(COLUMNS, screen.display()).page(phases))?;
            screen.say(&verdict(&response))?;
        }
    }
    Ok(())
}

/// The request, as it was read.
fn headline(response: &Value) -> String {
    let request = &response["request"];
    let field = |value: &Value| printable(value.as_str().unwrap_or_default());
    format!(
        "{} {} from {} to {}\n\n",
        field(&request["method"]),
        field(&request["path"]),
        field(&request["client"]),
        field(&request["host"])
    )
}

/// The outcome, as a sentence.
fn verdict(response: &Value) -> String {
    let field = |value: &Value| printable(value.as_str().unwrap_or_default());
    let denial = &response["response"];
    let preflight = &response["phases"][0]["found"]["preflight"];
    match denial["status"].as_u64() {
        None if preflight.is_string() => {
            "\nAllowed: this is a CORS preflight, which needs no credential.\n".to_owned()
        }
        None => "\nAllowed: a real request would now go to its handler. The explained request does not.\n".to_owned(),
        Some(status) => format!(
            "\nRefused: the client gets {status} {}: {}\n",
            field(&denial["error"]),
            field(&denial["description"])
        ),
    }
}

impl Request {
    fn body(self) -> Result<Value, CliError> {
        let mut headers = Map::new();
        for field in &self.header {
            match field.strip_prefix('@') {
                Some(file) => add_all(&mut headers, file)?,
                None => add(&mut headers, field)?,
            }
        }
        for file in &self.headers {
            add_all(&mut headers, file)?;
        }
        let (host, target) = host_and_target(&self.target)?;
        let default_method = if self.data.is_some() { "POST" } else { "GET" };
        let data = match self.data.as_deref().and_then(|data| data.strip_prefix('@')) {
            Some(file) => Some(read(file)?.to_string()),
            None => self.data,
        };
        Ok(json!({
            "method": self.method.as_deref().unwrap_or(default_method),
            "target": target,
            "host": self.host.as_deref().or(host).unwrap_or("localhost"),
            "client": self.client,
            "headers": headers,
            "body": data,
        }))
    }
}

/// The host and the target of a URL, or a target alone. The target stays as it is, because the
/// server decides about the target as it was sent.
fn host_and_target(text: &str) -> Result<(Option<&str>, String), CliError> {
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| text.strip_prefix(scheme));
    let Some(rest) = rest else { return Ok((None, text.to_owned())) };
    let (host, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if host.contains('@') {
        let text = "a URL must not contain a user or a password: put the credential into a file of header fields (--headers FILE)";
        return Err(CliError::new(Exit::Usage, text));
    }
    // Clients do not send the fragment.
    let target = target.split('#').next().unwrap_or_default();
    let slash = if target.starts_with('/') { "" } else { "/" };
    Ok((Some(host), format!("{slash}{target}")))
}

fn add_all(headers: &mut Map<String, Value>, file: &str) -> Result<(), CliError> {
    let text = read(file)?;
    text.lines().filter(|line| !line.trim().is_empty()).try_for_each(|line| add(headers, line))
}

/// Adds a header field `Name: value`. The error does not show the field, because it may contain a
/// credential.
fn add(headers: &mut Map<String, Value>, field: &str) -> Result<(), CliError> {
    let Some((name, value)) = field.split_once(':').filter(|(name, _)| !name.trim().is_empty())
    else {
        let text = "a header field must have the form \"Name: value\"";
        return Err(CliError::new(Exit::Usage, text));
    };
    let values = headers.entry(name.trim().to_lowercase()).or_insert_with(|| json!([]));
    if let Some(values) = values.as_array_mut() {
        values.push(value.trim().into());
    }
    Ok(())
}

fn read(file: &str) -> Result<Zeroizing<String>, CliError> {
    let mut text = Zeroizing::new(String::new());
    let read = match file {
        "-" => io::stdin().lock().take(MAX_BYTES).read_to_string(&mut text),
        file => File::open(file).and_then(|open| open.take(MAX_BYTES).read_to_string(&mut text)),
    };
    let name = if file == "-" { "standard input" } else { file };
    read.map_err(|problem| CliError::new(Exit::Usage, format!("{name}: {problem}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_has_a_host_and_a_target() {
        for (text, host, target) in [
            ("/a?b", None, "/a?b"),
            (
                "http://api.example:8080/a/../b?c=http://x#d",
                Some("api.example:8080"),
                "/a/../b?c=http://x",
            ),
            ("https://[::1]", Some("[::1]"), "/"),
            ("http://x?a=1", Some("x"), "/?a=1"),
            ("ftp://x/a", None, "ftp://x/a"),
        ] {
            assert_eq!(host_and_target(text).unwrap(), (host, target.to_owned()), "{text}");
        }
        let error = host_and_target("http://ann:s3cret@x/").unwrap_err().to_string();
        assert!(!error.contains("s3cret"), "{error}");
    }

    #[test]
    fn header_fields_are_parsed_and_errors_do_not_show_them() {
        let mut headers = Map::new();
        add(&mut headers, "API-KEY: a:b").unwrap();
        add(&mut headers, "api-key:c").unwrap();
        assert_eq!(Value::from(headers.clone()), json!({ "api-key": ["a:b", "c"] }));
        for wrong in ["s3cret", ": s3cret", " :s3cret"] {
            let error = add(&mut headers, wrong).unwrap_err().to_string();
            assert!(!error.contains("s3cret"), "{error}");
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("fields");
        std::fs::write(&file, "A: 1\n\nB: 2\r\n").unwrap();
        let mut headers = Map::new();
        add_all(&mut headers, file.to_str().unwrap()).unwrap();
        assert_eq!(Value::from(headers), json!({ "a": ["1"], "b": ["2"] }));
        assert_eq!(read("/no/such/file").unwrap_err().exit, Exit::Usage);
    }
}
