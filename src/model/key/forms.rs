//! The forms in which a credential is copied: a bare key, a header field, a Basic credential, a
//! command line of curl, a line of a configuration file.

use base64::{
    Engine as _,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde_json::Value;

use crate::model::Secret;

/// The maximum number of candidates in a text.
const MOST: usize = 64;
/// The lengths of the texts that can be keys, in bytes.
const LENGTHS: std::ops::RangeInclusive<usize> = 8..=512;
const PADDING_OPTIONAL: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// A part of a text that can be a key.
#[derive(Debug, Clone)]
pub struct Candidate {
    /// The kind of the text around the key, such as `a Basic credential in Base64`.
    pub form: &'static str,
    /// The user's name in the credential. `None` means that the form has no name.
    pub user: Option<String>,
    /// The text that can be a key.
    pub key: Secret,
}

/// The parts of a text that can be keys, the most likely ones first.
pub fn candidates(text: &str) -> Vec<Candidate> {
    let mut found = Candidates(Vec::new());
    if let Ok(json) = serde_json::from_str::<Value>(text) {
        found.json(&json);
    }
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        found.line(line);
    }
    found.0
}

struct Candidates(Vec<Candidate>);

impl Candidates {
    fn push(&mut self, form: &'static str, user: Option<&str>, key: &str) {
        let is_known = |known: &Candidate| known.key.expose() == key;
        let is_key = LENGTHS.contains(&key.len()) && !key.chars().any(char::is_control);
        if is_key && self.0.len() < MOST && !self.0.iter().any(is_known) {
            let user = user.filter(|name| !name.is_empty()).map(str::to_owned);
            self.0.push(Candidate { form, user, key: Secret::new(key) });
        }
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::String(text) => self.value(text, "a JSON value"),
            Value::Array(items) => items.iter().for_each(|item| self.json(item)),
            Value::Object(fields) => fields.values().for_each(|field| self.json(field)),
            _ => {}
        }
    }

    fn line(&mut self, line: &str) {
        let words = words(line);
        // A long command line is often broken into lines that begin with an option.
        let is_curl = words.iter().any(|word| word.ends_with("curl")) || line.starts_with('-');
        if is_curl {
            for pair in words.windows(2) {
                match pair[0].as_str() {
                    "-H" | "--header" => self.header(&pair[1], "a header field of curl"),
                    "-u" | "--user" => self.pair(&pair[1], "a user of curl"),
                    "--oauth2-bearer" => self.value(&pair[1], "a bearer token of curl"),
                    _ => {}
                }
            }
            for word in &words {
                let (_, query) = word.split_once('?').unwrap_or(("", ""));
                for (_, value) in form_urlencoded::parse(query.as_bytes()) {
                    self.value(&value, "a query parameter");
                }
                if let Some(header) = word.strip_prefix("-H") {
                    self.header(header, "a header field of curl");
                }
                if let Some(pair) = word.strip_prefix("-u") {
                    self.pair(pair, "a user of curl");
                }
            }
        }
        if line.contains(": ") {
            self.header(line, "a header field");
        }
        let assignment = line.strip_prefix("export ").unwrap_or(line);
        if let Some((name, value)) = assignment.split_once('=')
            && name.trim().bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.\"'".contains(&b))
        {
            let value = value.trim().trim_end_matches([',', ';']);
            self.value(unquoted(value), "the value of a setting");
        }
        let is_one_word = !line.contains(char::is_whitespace);
        if is_one_word && !line.contains("://") && !line.contains('=') {
            self.pair(unquoted(line), "a name and a key");
        }
        if let Some((_, value)) = line.split_once(':') {
            let value = value.trim().trim_end_matches([',', ';']);
            self.value(unquoted(value), "the value of a setting");
        }
        self.value(unquoted(line), "a bare key");
    }

    /// A header field: its name, and its value with or without a scheme.
    fn header(&mut self, field: &str, form: &'static str) {
        let Some((_, value)) = field.split_once(':') else { return };
        self.value(value.trim(), form);
    }

    /// A value that can be a key, a pair, a Base64 credential, or a scheme with one of these.
    fn value(&mut self, value: &str, form: &'static str) {
        let value = unquoted(value.trim());
        if let Some((scheme, rest)) = value.split_once(' ') {
            let rest = rest.trim();
            match scheme.to_ascii_lowercase().as_str() {
                "basic" => return self.value(rest, "a Basic credential"),
                "bearer" => return self.value(rest, "a Bearer credential"),
                "apikey" | "token" | "api-key" => return self.value(rest, "an API key"),
                _ => {}
            }
        }
        if let Some(pair) = decoded(value).filter(|pair| pair.contains(':')) {
            self.pair(&pair, "a credential in Base64");
        }
        self.push(form, None, value);
        if value.contains(':') {
            self.pair(value, "a name and a key");
        }
    }

    /// A name and a key, with a colon between them.
    fn pair(&mut self, pair: &str, form: &'static str) {
        let Some((user, key)) = pair.split_once(':') else { return };
        self.push(form, Some(user), key.trim());
    }
}

fn decoded(text: &str) -> Option<String> {
    let alphabet = if text.bytes().any(|b| b"-_".contains(&b)) { &URL_SAFE } else { &STANDARD };
    let bytes = GeneralPurpose::new(alphabet, PADDING_OPTIONAL).decode(text).ok()?;
    String::from_utf8(bytes).ok()
}

/// A text without the quotation marks around it.
fn unquoted(text: &str) -> &str {
    let of = |mark: char| text.strip_prefix(mark)?.strip_suffix(mark);
    of('"').or_else(|| of('\'')).unwrap_or(text)
}

/// The words of a shell's command line. Quotation marks keep words together.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), String::new(), None);
    for c in line.chars() {
        match (quote, c) {
            (Some(mark), c) if c == mark => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, c) if c.is_whitespace() => {
                if !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            (_, c) => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_is_found_in_every_form_in_which_clients_send_it() {
        let key = "old-dora-key-0001-abcdef";
        let basic = GeneralPurpose::new(&STANDARD, PADDING_OPTIONAL).encode(format!("dora:{key}"));
        for (text, user) in [
            (key.to_owned(), None),
            (format!("  {key}\r\n"), None),
            (format!("\"{key}\""), None),
            (format!("dora:{key}"), Some("dora")),
            (basic.clone(), Some("dora")),
            (basic.trim_end_matches('=').to_owned(), Some("dora")),
            (format!("API-KEY: {key}"), None),
            (format!("API-KEY: {basic}"), Some("dora")),
            (format!("Authorization: Basic {basic}"), Some("dora")),
            (format!("authorization: bearer {key}"), None),
            (format!("curl http://x/ -H 'API-KEY: {basic}'"), Some("dora")),
            (format!("curl -u dora:{key} https://x"), Some("dora")),
            (format!("/usr/bin/curl \"https://x/?api_key={key}&a=b\""), None),
            (format!("curl http://x/ \\\n  -H 'API-KEY: {basic}' \\\n  -d x"), Some("dora")),
            (format!("curl -H\"Authorization: Bearer {key}\" x"), None),
            (format!("{{\"auth\": [{{\"token\": \"{key}\"}}]}}"), None),
            (format!("token = \"{key}\""), None),
            (format!("export API_KEY='{key}'"), None),
            (format!("API_KEY={key}"), None),
            (format!("  token: \"{key}\","), None),
            (format!("# comment\n[api]\nkey = '{key}' "), None),
        ] {
            let found = candidates(&text);
            let hit = found.iter().find(|candidate| candidate.key.expose() == key);
            let hit = hit.unwrap_or_else(|| panic!("{text}: {} candidates", found.len()));
            assert_eq!(hit.user.as_deref(), user, "{text}");
        }
    }

    #[test]
    fn number_of_candidates_is_limited() {
        let many: String =
            (0..1000).map(|number| format!("name{number}: value-{number}\n")).collect();
        assert_eq!(candidates(&many).len(), MOST);
        assert!(candidates("").is_empty() && candidates("short").is_empty());
    }
}
