//! The formats of a line.

use std::{borrow::Cow, fmt::Write as _};

use serde_json::{Value, json};

use super::LineFormat;
use crate::{
    model::redact_keys,
    pipeline::record::{FinishedRequest, Target},
};

/// The maximum number of bytes of a path or host in a line.
const MAX_TEXT: usize = 2048;

/// A request with its time.
pub(super) struct Line<'a> {
    pub request: &'a FinishedRequest<'a>,
    pub time: jiff::Timestamp,
}

impl Line<'_> {
    /// The line, without its end.
    pub fn format(&self, format: LineFormat) -> String {
        match format {
            LineFormat::Json => self.json(),
            LineFormat::Logfmt => self.logfmt(),
            LineFormat::Combined => self.combined(),
        }
    }

    /// The fields in their order. A field without a value is left out.
    fn fields(&self) -> Vec<(&'static str, Value)> {
        let FinishedRequest {
            listener,
            id,
            trace_id,
            duration,
            status,
            method,
            head,
            denial,
            facts,
        } = self.request;
        // The most fields that a line has.
        let mut fields = Vec::with_capacity(22);
        let mut add = |name: &'static str, value: Value| fields.push((name, value));
        add("time", json!(self.time.to_string()));
        if let Some(id) = id.and_then(|id| id.to_str().ok()) {
            add("request_id", json!(text(id)));
        }
        if let Some(id) = trace_id {
            add("trace_id", json!(id));
        }
        add("listener", json!(listener.name()));
        if let Some(head) = head {
            add("client", json!(head.client));
            if let Some(host) = head.host {
                add("host", json!(text(host)));
            }
        }
        add("method", json!(text(method.as_str())));
        if let Some(head) = head {
            add("path", json!(text(head.path)));
        }
        add("status", json!(denial.map_or(*status, |denial| denial.status).as_u16()));
        add("duration_ms", millis(*duration));
        add("outcome", json!(if denial.is_some() { "denied" } else { "allowed" }));
        if let Some(denial) = denial {
            add("phase", json!(denial.phase.name()));
            add("code", json!(text(denial.code)));
        }
        match &facts.target {
            Some(Target::Resource(id)) => add("resource", json!(id)),
            Some(Target::Admin | Target::Program | Target::Nowhere) | None => {}
        }
        if let Some(application) = &facts.application {
            add("application", json!(application));
        }
        if let Some(uid) = facts.subject.uid {
            add("uid", json!(uid));
        }
        if let Some(user) = &facts.user {
            add("user", json!(user));
        }
        if let Some(key) = facts.subject.key {
            add("key", json!(key.to_string()));
        }
        if let Some(decided_in) = facts.decided_in {
            add("decision_ms", millis(decided_in));
        }
        if let Some(upstream) = &facts.upstream {
            add("upstream", json!(*upstream.name));
            if let Some(status) = upstream.status {
                add("upstream_status", json!(status.as_u16()));
            }
            add("upstream_ms", millis(upstream.duration));
        }
        fields
    }

    fn json(&self) -> String {
        let mut line = String::with_capacity(512);
        let mut separator = '{';
        for (name, value) in self.fields() {
            // Writing into a string cannot fail.
            let _ = write!(line, "{separator}\"{name}\":{value}");
            separator = ',';
        }
        line.push('}');
        line
    }

    fn logfmt(&self) -> String {
        let mut line = String::with_capacity(256);
        for (name, value) in self.fields() {
            if !line.is_empty() {
                line.push(' ');
            }
            // Writing into a string cannot fail.
            let _ = match &value {
                Value::String(text) if is_bare(text) => write!(line, "{name}={text}"),
                value => write!(line, "{name}={value}"),
            };
        }
        line
    }

    /// `client - user [time] "METHOD path HTTP" status - "-" "-"`. Keyward does not record the
    /// version, the size, the referrer and the user agent.
    fn combined(&self) -> String {
        let FinishedRequest { status, method, head, denial, facts, .. } = self.request;
        let client = head.map_or_else(|| "-".into(), |head| head.client.to_string());
        let user = facts.user.as_deref().map_or(Cow::Borrowed("-"), quotable);
        let time = self.time.strftime("%d/%b/%Y:%H:%M:%S +0000");
        let path = head.map_or(Cow::Borrowed("-"), |head| text(head.path));
        let (method, path) = (quotable(method.as_str()), quotable(&path));
        let status = denial.map_or(*status, |denial| denial.status).as_u16();
        format!("{client} - {user} [{time}] \"{method} {path} HTTP\" {status} - \"-\" \"-\"")
    }
}

/// A text of the client, without keys and not longer than [`MAX_TEXT`].
fn text(text: &str) -> Cow<'_, str> {
    let end = text.floor_char_boundary(MAX_TEXT);
    let redacted = redact_keys(&text[..end]);
    if end < text.len() { Cow::Owned(format!("{redacted}…")) } else { redacted }
}

fn millis(duration: std::time::Duration) -> Value {
    json!(duration.as_micros() as f64 / 1000.0)
}

/// Whether logfmt needs no quotes around a text.
fn is_bare(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_graphic() && !['"', '=', '\\'].contains(&c);
    !text.is_empty() && text.chars().all(is_plain)
}

/// A text as it may stand between quotes and spaces: everything else is escaped as Apache does.
fn quotable(text: &str) -> Cow<'_, str> {
    let is_plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if !text.is_empty() && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if is_plain(byte) {
            escaped.push(byte.into());
        } else {
            let _ = write!(escaped, "\\x{byte:02x}");
        }
    }
    if escaped.is_empty() { Cow::Borrowed("-") } else { Cow::Owned(escaped) }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ::http::{Method, StatusCode};

    use super::*;
    use crate::{
        limits::Subject,
        pipeline::{
            Phase,
            record::{DenialFacts, Head, ListenerKind, RequestFacts},
        },
    };

    fn lines(path: &str, user: &str, denied: bool) -> [String; 3] {
        let id = ::http::HeaderValue::from_static("r-1");
        let code = Cow::Borrowed("NOT_PERMITTED");
        let denial =
            DenialFacts { phase: Phase::Permit, code: &code, status: StatusCode::FORBIDDEN };
        let facts = RequestFacts {
            decided_in: Some(Duration::from_micros(12)),
            target: Some(Target::Resource("orders".into())),
            application: Some("default".into()),
            subject: Subject { uid: Some(7), ..Subject::default() },
            user: (!denied).then(|| user.into()),
            ..RequestFacts::default()
        };
        let head = Head { path, host: Some("api.example"), client: [203, 0, 113, 7].into() };
        let request = FinishedRequest {
            listener: ListenerKind::Public,
            id: Some(&id),
            trace_id: Some("4bf92f3577b34da6a3ce929d0e0e4736"),
            duration: Duration::from_micros(1500),
            status: StatusCode::OK,
            method: &Method::GET,
            head: Some(head),
            denial: denied.then_some(denial),
            facts: &facts,
        };
        let time = jiff::Timestamp::from_microsecond(1_700_000_000_123_456).unwrap();
        let line = Line { request: &request, time };
        [LineFormat::Json, LineFormat::Logfmt, LineFormat::Combined].map(|one| line.format(one))
    }

    #[test]
    fn formats_say_one_thing() {
        let [json, logfmt, combined] = lines("/orders/1", "ann", false);
        assert_eq!(
            json,
            r#"{"time":"2023-11-14T22:13:20.123456Z","request_id":"r-1","trace_id":"4bf92f3577b34da6a3ce929d0e0e4736","listener":"public","client":"203.0.113.7","host":"api.example","method":"GET","path":"/orders/1","status":200,"duration_ms":1.5,"outcome":"allowed","resource":"orders","application":"default","uid":7,"user":"ann","decision_ms":0.012}"#
        );
        assert_eq!(
            logfmt,
            "time=2023-11-14T22:13:20.123456Z request_id=r-1 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 listener=public client=203.0.113.7 host=api.example method=GET path=/orders/1 status=200 duration_ms=1.5 outcome=allowed resource=orders application=default uid=7 user=ann decision_ms=0.012"
        );
        assert_eq!(
            combined,
            r#"203.0.113.7 - ann [14/Nov/2023:22:13:20 +0000] "GET /orders/1 HTTP" 200 - "-" "-""#
        );
        let [json, logfmt, combined] = lines("/orders/1", "ann", true);
        assert!(json.contains(r#""status":403,"#) && !json.contains("ann"), "{json}");
        assert!(json.contains(r#""outcome":"denied","phase":"permit","code":"NOT_PERMITTED""#));
        assert!(logfmt.contains("outcome=denied phase=permit code=NOT_PERMITTED"), "{logfmt}");
        assert!(combined.contains(" 403 "), "{combined}");
    }

    #[test]
    fn client_cannot_forge_a_line_or_a_field() {
        for text in ["/a\n{\"x\":1}", "/a\" 200 - \"", "/a b=c", "/\u{1b}[2J", "/é\u{202e}"] {
            let [json, logfmt, combined] = lines(text, text, false);
            let read: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["path"], text);
            for line in [&json, &logfmt, &combined] {
                assert!(!line.contains('\n') && !line.contains('\u{1b}'), "{line}");
            }
            assert!(combined.is_ascii() && combined.matches('"').count() == 6, "{combined}");
            assert_eq!(logfmt.matches(" status=").count(), 1, "{logfmt}");
        }
    }

    #[test]
    fn key_in_a_path_is_removed_and_a_long_path_is_cut() {
        let key = "kw_VTbmcRWV_7Jq2yXbN4hKd9sLmP3wTzR6vCf8gQa1eUo5iYxBnM";
        for line in lines(&format!("/k/{key}/x"), "ann", false) {
            assert!(!line.contains(&key[13..30]), "{line}");
        }
        for line in lines(&"/a".repeat(5000), "ann", false) {
            assert!(line.len() < MAX_TEXT + 500, "{}", line.len());
        }
    }
}
