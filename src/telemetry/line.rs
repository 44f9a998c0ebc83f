//! The last step of each log line: it contains no key, and no more than a few kilobytes, whatever a
//! client sent.

use std::{
    borrow::Cow,
    io::{self, Write},
};

use serde_json::Value;
use tracing_subscriber::fmt::MakeWriter;

use crate::model::redact_keys;

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

/// The maximum length of a line, in bytes.
const LINE_BYTES: usize = 4096;
/// The maximum length of a text in a line of JSON that is too long, in bytes.
const TEXT_BYTES: usize = 512;

/// Makes writers to standard error that finish each line.
#[derive(Debug, Clone, Copy)]
pub(super) struct FinishedLines(pub LogFormat);

/// Writes one line. The subscriber writes each line with one call.
pub(super) struct LineWriter {
    format: LogFormat,
    output: io::Stderr,
}

impl MakeWriter<'_> for FinishedLines {
    type Writer = LineWriter;

    fn make_writer(&self) -> LineWriter {
        LineWriter { format: self.0, output: io::stderr() }
    }
}

impl Write for LineWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(line);
        self.output.write_all(finished(&text, self.format).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

/// The line without the secrets of keys, and shortened if it is too long.
fn finished(line: &str, format: LogFormat) -> Cow<'_, str> {
    let line = redact_keys(line);
    if line.len() <= LINE_BYTES {
        return line;
    }
    let shortened = match format {
        LogFormat::Text => cut(line.trim_end(), LINE_BYTES),
        LogFormat::Json => match serde_json::from_str::<Value>(&line) {
            Ok(mut value) => {
                cut_texts(&mut value);
                value.to_string()
            }
            // Such a line is not JSON of this subscriber.
            Err(_) => cut(line.trim_end(), LINE_BYTES),
        },
    };
    Cow::Owned(shortened + "\n")
}

/// The beginning of a text, with the number of bytes that were left out.
fn cut(text: &str, length: usize) -> String {
    let end = text.floor_char_boundary(length);
    format!("{}… ({} bytes were left out)", &text[..end], text.len() - end)
}

fn cut_texts(value: &mut Value) {
    match value {
        Value::String(text) if text.len() > TEXT_BYTES => *text = cut(text, TEXT_BYTES),
        Value::Array(values) => values.iter_mut().for_each(cut_texts),
        Value::Object(fields) => fields.values_mut().for_each(cut_texts),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_line_is_cut_and_stays_valid() {
        let path = "é".repeat(10_000);
        let text = finished(&format!("INFO refused path=/{path}\n"), LogFormat::Text).into_owned();
        assert!(text.len() < LINE_BYTES + 64 && text.ends_with("bytes were left out)\n"), "{text}");
        let json = format!("{}\n", serde_json::json!({ "path": path, "code": "X", "at": [1] }));
        let json = finished(&json, LogFormat::Json).into_owned();
        assert!(json.len() < 1024 && json.ends_with('\n'), "{json}");
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&json["code"], &json["at"][0]), (&"X".into(), &1.into()));
        assert!(json["path"].as_str().unwrap().ends_with("(19488 bytes were left out)"));
        assert!(matches!(finished("short\n", LogFormat::Json), Cow::Borrowed("short\n")));
    }
}
