//! The parts of a request that carry a credential. They are removed before the request reaches an
//! upstream.

mod spelling;

use http::HeaderName;

pub use spelling::{has_similar_prefix, is_similar, is_similar_parameter};

/// Header fields, query parameters and cookies that carry a credential.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialParts {
    /// The names of header fields.
    pub headers: Vec<HeaderName>,
    /// The names of query parameters, decoded.
    pub parameters: Vec<String>,
    /// The names of cookies.
    pub cookies: Vec<String>,
    /// Whether the credential can be anywhere in the query, so that the whole query carries it.
    pub whole_query: bool,
    /// Whether the credential can be in the body, from which it cannot be removed.
    pub body: bool,
}

impl CredentialParts {
    /// Adds a header field.
    pub fn add_header(&mut self, name: &HeaderName) {
        if !self.headers.contains(name) {
            self.headers.push(name.clone());
        }
    }

    /// Adds a query parameter.
    pub fn add_parameter(&mut self, name: &str) {
        if !self.parameters.iter().any(|known| known == name) {
            self.parameters.push(name.to_owned());
        }
    }

    /// Adds a cookie.
    pub fn add_cookie(&mut self, name: &str) {
        if !self.cookies.iter().any(|known| known == name) {
            self.cookies.push(name.to_owned());
        }
    }

    /// Adds all parts of `other`.
    pub fn add(&mut self, other: &Self) {
        other.headers.iter().for_each(|name| self.add_header(name));
        other.parameters.iter().for_each(|name| self.add_parameter(name));
        other.cookies.iter().for_each(|name| self.add_cookie(name));
        self.whole_query |= other.whole_query;
        self.body |= other.body;
    }

    /// The first part, in words for a message: `header field X-Signature`. `None` means that there
    /// is no part with a name.
    pub fn first(&self) -> Option<String> {
        let header = self.headers.first().map(|name| format!("header field {}", title(name)));
        let parameter = || Some(format!("query parameter {}", self.parameters.first()?));
        let cookie = || Some(format!("cookie {}", self.cookies.first()?));
        header.or_else(parameter).or_else(cookie)
    }
}

/// The usual spelling of a header field's name, with capitals at the beginning of each word.
pub fn title(name: &HeaderName) -> String {
    let mut is_start = true;
    name.as_str()
        .chars()
        .map(|c| {
            let c = if is_start { c.to_ascii_uppercase() } else { c };
            is_start = !c.is_ascii_alphanumeric();
            c
        })
        .collect()
}
