//! `req`: the request as scripts see it, and the notes that hooks leave for later hooks.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header::COOKIE};
use parking_lot::Mutex;
use rhai::{Dynamic, ImmutableString};

use super::{
    credential::CredentialDeclaration,
    headers,
    reads::{ReadLog, Recording},
};
use crate::model::CredentialParts;

/// The contents of a request, provided by the pipeline.
#[derive(Clone)]
pub struct RequestParts {
    /// The method, in upper case.
    pub method: String,
    /// The normalised path.
    pub path: String,
    /// The query as received, without the question mark.
    pub query: Option<String>,
    /// The header fields.
    pub headers: HeaderMap,
    /// The client's address.
    pub client: IpAddr,
    /// The requested host, without the port.
    pub host: Option<String>,
    /// The body; `None` means that the resource does not buffer it.
    pub body: Option<Bytes>,
}

/// A request as scripts see it. Cheap to clone: all hooks of one request share the contents and the
/// notes.
#[derive(Clone)]
pub struct ScriptRequest(Arc<RequestInner>);

type Notes = BTreeMap<ImmutableString, Dynamic>;

struct RequestInner {
    parts: RequestParts,
    /// The method, the path and the client's address in the engine's string type. Each text is
    /// converted on first use.
    method: OnceLock<ImmutableString>,
    path: OnceLock<ImmutableString>,
    client: OnceLock<ImmutableString>,
    /// The body, if it was read after the first call of a script.
    late_body: OnceLock<Bytes>,
    notes: Mutex<Notes>,
    /// The header fields that scripts have read.
    fields_read: Mutex<Vec<HeaderName>>,
    reads: ReadLog,
}

impl ScriptRequest {
    /// A request with these contents and no notes.
    pub fn new(parts: RequestParts) -> Self {
        let (method, path, client) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (notes, fields_read) = (Mutex::default(), Mutex::default());
        let (reads, late_body) = (ReadLog::default(), OnceLock::new());
        Self(Arc::new(RequestInner {
            parts,
            method,
            path,
            client,
            late_body,
            notes,
            fields_read,
            reads,
        }))
    }

    /// Makes the body visible to scripts. Has no effect if the request has its body already.
    pub fn provide_body(&self, body: Bytes) {
        if self.0.parts.body.is_none() {
            let _ = self.0.late_body.set(body);
        }
    }

    /// The body, without a note that it was read.
    pub(in crate::scripting) fn received_body(&self) -> Option<&Bytes> {
        self.0.parts.body.as_ref().or_else(|| self.0.late_body.get())
    }

    pub(in crate::scripting) fn method(&self) -> ImmutableString {
        self.0.method.get_or_init(|| (&self.0.parts.method).into()).clone()
    }

    pub(in crate::scripting) fn path(&self) -> ImmutableString {
        self.0.path.get_or_init(|| (&self.0.parts.path).into()).clone()
    }

    pub(in crate::scripting) fn client(&self) -> ImmutableString {
        let convert = || match self.0.parts.client.to_canonical() {
            IpAddr::V4(address) => format_ipv4(address.octets()).as_str().into(),
            IpAddr::V6(address) => address.to_string().into(),
        };
        self.0.client.get_or_init(convert).clone()
    }

    /// The contents.
    pub fn parts(&self) -> &RequestParts {
        &self.0.parts
    }

    /// Whether a header field is the largest part of the request, and not small.
    pub(in crate::scripting) fn is_header_largest(&self) -> bool {
        const SMALL: usize = 1024;
        let (is_header, size) = self.largest_part();
        is_header && size > SMALL
    }

    /// The size of the largest of path, query, body and header fields, and whether it is a header
    /// field. Several values of one header field count as one.
    pub(in crate::scripting) fn largest_part(&self) -> (bool, usize) {
        let parts = &self.0.parts;
        let query = parts.query.as_ref().map_or(0, String::len);
        let body = self.received_body().map_or(0, Bytes::len);
        let other = query.max(body).max(parts.path.len());
        let header = headers::largest_field(&parts.headers);
        (header > other, header.max(other))
    }

    /// A changed copy without notes, for tests.
    pub(in crate::scripting) fn changed(&self, change: impl FnOnce(&mut RequestParts)) -> Self {
        let mut parts = self.0.parts.clone();
        change(&mut parts);
        Self::new(parts)
    }

    /// The names of the header fields that scripts have read, also of fields that the request does
    /// not have: the response depends on them.
    pub fn fields_read(&self) -> Vec<HeaderName> {
        self.0.fields_read.lock().clone()
    }

    fn note_read(&self, name: &str) {
        // An invalid name matches no field.
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
        let mut read = self.0.fields_read.lock();
        if !read.contains(&name) {
            read.push(name);
        }
    }

    /// Records what is read until the returned value is dropped.
    pub(in crate::scripting) fn record_reads(
        &self,
        declaration: Option<&Arc<CredentialDeclaration>>,
    ) -> Recording<'_> {
        self.0.reads.record(declaration)
    }

    /// The parts of the request in which the authentication script looked for the credential.
    pub fn credential_reads(&self) -> CredentialParts {
        self.0.reads.parts()
    }

    /// The query, without the question mark. An empty text means that there is no query.
    pub(in crate::scripting) fn query(&self) -> &str {
        self.0.reads.note_query();
        self.0.parts.query.as_deref().unwrap_or_default()
    }

    /// The body; `None` means that the resource does not buffer it, or that it was not read yet.
    pub(in crate::scripting) fn body(&self) -> Option<&Bytes> {
        self.0.reads.note_body();
        self.received_body()
    }

    /// The values of a header field that are valid UTF-8.
    pub(in crate::scripting) fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        self.note_read(name);
        // An invalid name matches no field.
        let values = self.0.parts.headers.get_all(name.to_ascii_lowercase());
        self.0.reads.note_header(name, values.iter().next().is_some());
        values.iter().filter_map(text)
    }

    /// The values of a cookie, in all `Cookie` fields (RFC 6265, section 5.4).
    pub(in crate::scripting) fn cookies(&self, name: &str) -> impl Iterator<Item = &str> {
        self.note_read(COOKIE.as_str());
        self.0.reads.note_cookie(name);
        let fields = self.0.parts.headers.get_all(COOKIE).iter().filter_map(text);
        fields.flat_map(|field| field.split(';')).filter_map(move |pair| {
            let (known, value) = pair.split_once('=')?;
            (known.trim() == name).then(|| value.trim())
        })
    }

    /// Whether the request has this header field with a value that is not UTF-8. Scripts cannot see
    /// such a value, and must not mistake the field for absent.
    pub(in crate::scripting) fn has_unreadable(&self, name: &str) -> bool {
        let values = self.0.parts.headers.get_all(name.to_ascii_lowercase());
        values.iter().any(|value| text(value).is_none())
    }

    /// The values of a query parameter, percent-decoded.
    pub(in crate::scripting) fn params(&self, name: &str) -> impl Iterator<Item = String> {
        self.0.reads.note_parameter(name);
        let query = self.0.parts.query.as_deref().unwrap_or_default();
        form_urlencoded::parse(query.as_bytes())
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A note that an earlier hook set.
    pub(in crate::scripting) fn note(&self, name: &str) -> Option<Dynamic> {
        self.0.notes.lock().get(name).cloned()
    }

    /// Sets a note.
    ///
    /// # Errors
    /// The request already has `max_notes` notes, or the value is not plain data.
    pub(in crate::scripting) fn set_note(
        &self,
        name: ImmutableString,
        value: Dynamic,
        max_notes: usize,
    ) -> Result<(), String> {
        if !is_plain_data(&value, 0) {
            return Err(format!("a note must be plain data, not {}", value.type_name()));
        }
        let mut notes = self.0.notes.lock();
        if notes.len() >= max_notes && !notes.contains_key(&name) {
            return Err(format!("a request has at most {max_notes} notes"));
        }
        notes.insert(name, value);
        Ok(())
    }
}

/// Shows only method and path, because header, query, body and notes may contain credentials.
impl fmt::Debug for ScriptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptRequest({} {})", self.0.parts.method, self.0.parts.path)
    }
}

impl fmt::Debug for RequestParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestParts({} {})", self.method, self.path)
    }
}

/// Formats an IPv4 address like `Ipv4Addr`'s `Display`, in a tenth of the time. The time matters,
/// because most scripts that read a request read the client's address.
fn format_ipv4(octets: [u8; 4]) -> String {
    let mut text = String::with_capacity(15);
    for (index, octet) in octets.into_iter().enumerate() {
        if index > 0 {
            text.push('.');
        }
        for (min, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= min {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Whether a value is plain data, without functions and without Keyward's objects such as `req`.
/// `depth` is the number of arrays and maps around the value.
pub(in crate::scripting) fn is_plain_data(value: &Dynamic, depth: usize) -> bool {
    if depth > 32 {
        return false;
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().all(|item| is_plain_data(item, depth + 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().all(|item| is_plain_data(item, depth + 1));
    }
    value.is_unit()
        || value.is_bool()
        || value.is_int()
        || value.is_float()
        || value.is_char()
        || value.is_string()
        || value.is_blob()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn format_ipv4_writes_what_display_writes() {
        for octet in 0..=255 {
            for octets in [[octet, 0, 10, 255], [1, octet, 100, octet], [9, 99, 199, octet]] {
                assert_eq!(format_ipv4(octets), std::net::Ipv4Addr::from(octets).to_string());
            }
        }
    }
}
