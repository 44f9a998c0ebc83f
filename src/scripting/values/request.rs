//! `req`, as scripts see it: what came, and the notes that hooks leave for each other.

use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use rhai::{Dynamic, ImmutableString};

/// What a request is made of, handed in by the pipeline.
#[derive(Clone)]
pub struct RequestParts {
    /// The method, in capitals.
    pub method: String,
    /// The path, normalised.
    pub path: String,
    /// The query, as it came, without the question mark.
    pub query: Option<String>,
    /// The header fields.
    pub headers: HeaderMap,
    /// Where it comes from.
    pub client: IpAddr,
    /// The host that was asked for, without the port.
    pub host: Option<String>,
    /// The body, where the resource buffers it.
    pub body: Option<Bytes>,
}

/// A request for scripts. A cheap handle: all hooks of one request share one, and with it the notes.
#[derive(Clone)]
pub struct ScriptRequest(Arc<Parts>);

type Notes = BTreeMap<ImmutableString, Dynamic>;

struct Parts {
    given: RequestParts,
    /// Method, path and the client's address in the engine's own form, made when a script asks for them.
    method: OnceLock<ImmutableString>,
    path: OnceLock<ImmutableString>,
    client: OnceLock<ImmutableString>,
    notes: Mutex<Notes>,
}

impl ScriptRequest {
    /// Takes the parts in.
    pub fn new(given: RequestParts) -> Self {
        let (method, path, client) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Self(Arc::new(Parts { given, method, path, client, notes: Mutex::default() }))
    }

    pub(in crate::scripting) fn method(&self) -> ImmutableString {
        self.0.method.get_or_init(|| (&self.0.given.method).into()).clone()
    }

    pub(in crate::scripting) fn path(&self) -> ImmutableString {
        self.0.path.get_or_init(|| (&self.0.given.path).into()).clone()
    }

    pub(in crate::scripting) fn client(&self) -> ImmutableString {
        let made = || match self.0.given.client.to_canonical() {
            IpAddr::V4(address) => dotted(address.octets()).as_str().into(),
            IpAddr::V6(address) => address.to_string().into(),
        };
        self.0.client.get_or_init(made).clone()
    }

    /// What it was made of.
    pub fn parts(&self) -> &RequestParts {
        &self.0.given
    }

    /// The same request with another part, for tests. The notes are not shared.
    pub(in crate::scripting) fn changed(&self, change: impl FnOnce(&mut RequestParts)) -> Self {
        let mut given = self.0.given.clone();
        change(&mut given);
        Self::new(given)
    }

    /// The values of a header field that are text.
    pub(in crate::scripting) fn header_values(&self, name: &str) -> impl Iterator<Item = &str> {
        // A name that cannot be one is in no request.
        self.0.given.headers.get_all(name.to_ascii_lowercase()).iter().filter_map(text)
    }

    /// Whether a header field is there whose value is no text: what a script cannot see, it must not take for absent.
    pub(in crate::scripting) fn has_unreadable(&self, name: &str) -> bool {
        let values = self.0.given.headers.get_all(name.to_ascii_lowercase());
        values.iter().any(|value| text(value).is_none())
    }

    /// The first value of a query parameter, decoded.
    pub(in crate::scripting) fn param(&self, name: &str) -> Option<String> {
        let query = self.0.given.query.as_deref()?;
        form_urlencoded::parse(query.as_bytes())
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.into_owned())
    }

    /// A note that an earlier hook left.
    pub(in crate::scripting) fn note(&self, name: &str) -> Option<Dynamic> {
        self.lock().get(name).cloned()
    }

    /// Leaves a note.
    ///
    /// # Errors
    /// There are too many, or the value is no plain data.
    pub(in crate::scripting) fn leave(
        &self,
        name: ImmutableString,
        value: Dynamic,
        most: usize,
    ) -> Result<(), String> {
        if !is_plain(&value, 0) {
            return Err(format!("a note is plain data, not {}", value.type_name()));
        }
        let mut notes = self.lock();
        if notes.len() >= most && !notes.contains_key(&name) {
            return Err(format!("a request has at most {most} notes"));
        }
        notes.insert(name, value);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, Notes> {
        self.0.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header may hold a credential, and so may the query, the body and the notes.
impl fmt::Debug for ScriptRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ScriptRequest({} {})", self.0.given.method, self.0.given.path)
    }
}

impl fmt::Debug for RequestParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestParts({} {})", self.method, self.path)
    }
}

/// An IPv4 address as its `Display` has it: that takes ten times as long, and most scripts that look at a request look at this.
fn dotted(octets: [u8; 4]) -> String {
    let mut text = String::with_capacity(15);
    for (at, octet) in octets.into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for (least, unit) in [(100, 100), (10, 10), (0, 1)] {
            if octet >= least {
                text.push(char::from(b'0' + octet / unit % 10));
            }
        }
    }
    text
}

fn text(value: &HeaderValue) -> Option<&str> {
    std::str::from_utf8(value.as_bytes()).ok()
}

/// Whether a value is data alone: no function, no object of Keyward's.
pub(in crate::scripting) fn is_plain(value: &Dynamic, depth: usize) -> bool {
    if depth > 32 {
        return false;
    }
    if let Ok(items) = value.as_array_ref() {
        return items.iter().all(|item| is_plain(item, depth + 1));
    }
    if let Ok(map) = value.as_map_ref() {
        return map.values().all(|item| is_plain(item, depth + 1));
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
mod unit {
    use super::*;

    #[test]
    fn an_address_is_written_as_it_always_is() {
        for octet in 0..=255 {
            for octets in [[octet, 0, 10, 255], [1, octet, 100, octet], [9, 99, 199, octet]] {
                assert_eq!(dotted(octets), std::net::Ipv4Addr::from(octets).to_string());
            }
        }
    }
}
