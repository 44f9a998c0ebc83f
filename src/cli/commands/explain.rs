//! `keyward explain`: runs a request through every phase and prints the result of each.

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
const LONGEST: u64 = 1 << 20;

const COLUMNS: &[Column] = &[
    ("PHASE", |step| cell(&step["phase"])),
    ("VERDICT", |step| cell(&step["verdict"])),
    ("TIME", |step| match step["microseconds"].as_u64() {
        Some(micros) => format!("{micros} µs"),
        None => cell(&Value::Null),
    }),
    ("FOUND", |step| cell(&step["found"])),
];

/// The request, with options named as in curl.
#[derive(Debug, Args)]
pub struct Request {
    /// The path, with the query if there is one
    target: String,
    /// The method [default: GET; with a body POST]
    #[arg(short = 'X', long, value_name = "METHOD")]
    method: Option<String>,
    /// A header field "Name: value", or @FILE with one per line. Other users of the machine can
    /// read arguments, so put credentials into a file
    #[arg(short = 'H', long, value_name = "FIELD")]
    header: Vec<String>,
    /// Read header fields from a file, one per line; - is standard input
    #[arg(long, value_name = "FILE")]
    headers: Vec<String>,
    /// The host
    #[arg(long, value_name = "HOST", default_value = "localhost")]
    host: String,
    /// The client's address
    #[arg(long, value_name = "IP", default_value = "127.0.0.1")]
    client: std::net::IpAddr,
    /// The body, or @FILE
    #[arg(short = 'd', long, value_name = "BODY")]
    data: Option<String>,
}

/// Explains a request. The exit code is 0 even if the request is refused.
pub async fn run(request: Request, session: &Session) -> anyhow::Result<()> {
    let asked = request.body()?;
    let response = session.client.post(&path(&["explain"]), &asked).await?.body;
    let text = match session.output {
        Output::Json => format!("{response:#}\n"),
        Output::Table => text(&response),
    };
    Ok(session.screen.print(&text)?)
}

fn text(response: &Value) -> String {
    let request = &response["request"];
    let said = |value: &Value| printable(value.as_str().unwrap_or_default());
    let mut text = format!(
        "{} {} from {} to {}\n\n",
        said(&request["method"]),
        said(&request["path"]),
        said(&request["client"]),
        said(&request["host"])
    );
    let phases = response["phases"].as_array().map(Vec::as_slice).unwrap_or_default();
    text.push_str(&Listing::new(COLUMNS).page(phases));
    let refusal = &response["response"];
    text.push_str(&match refusal["status"].as_u64() {
        None => "\nAllowed: the request goes on to its handler, which was not run.\n".to_owned(),
        Some(status) => format!(
            "\nRefused: the client is told {status} {}: {}\n",
            said(&refusal["error"]),
            said(&refusal["description"])
        ),
    });
    text
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
        let usual = if self.data.is_some() { "POST" } else { "GET" };
        let data = match self.data.as_deref().and_then(|data| data.strip_prefix('@')) {
            Some(file) => Some(read(file)?.to_string()),
            None => self.data,
        };
        Ok(json!({
            "method": self.method.as_deref().unwrap_or(usual),
            "target": self.target,
            "host": self.host,
            "client": self.client,
            "headers": headers,
            "body": data,
        }))
    }
}

fn add_all(headers: &mut Map<String, Value>, file: &str) -> Result<(), CliError> {
    let text = read(file)?;
    text.lines().filter(|line| !line.trim().is_empty()).try_for_each(|line| add(headers, line))
}

/// Adds `Name: value`. The error does not repeat it, because it may be a credential.
fn add(headers: &mut Map<String, Value>, field: &str) -> Result<(), CliError> {
    let Some((name, value)) = field.split_once(':').filter(|(name, _)| !name.trim().is_empty())
    else {
        let text = "a header field is written \"Name: value\"";
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
        "-" => io::stdin().lock().take(LONGEST).read_to_string(&mut text),
        file => File::open(file).and_then(|open| open.take(LONGEST).read_to_string(&mut text)),
    };
    let named = if file == "-" { "standard input" } else { file };
    read.map_err(|problem| CliError::new(Exit::Usage, format!("{named}: {problem}")))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_and_a_wrong_one_is_not_repeated() {
        let mut headers = Map::new();
        add(&mut headers, "API-KEY: a:b").unwrap();
        add(&mut headers, "api-key:c").unwrap();
        assert_eq!(Value::from(headers.clone()), json!({ "api-key": ["a:b", "c"] }));
        for wrong in ["s3cret", ": s3cret", " :s3cret"] {
            let said = add(&mut headers, wrong).unwrap_err().to_string();
            assert!(!said.contains("s3cret"), "{said}");
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
