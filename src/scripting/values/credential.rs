//! The constant `CREDENTIAL` of an authentication script, with which the script declares where a
//! request carries the credential.

use http::HeaderName;
use rhai::{Array, Dynamic};

use crate::model::{CredentialParts, suggest};

/// Header fields that describe the message or the connection. They never carry a credential, so
/// they are never removed from a request.
pub(super) const MESSAGE_FIELDS: &[&str] = &[
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "expect",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
/// The maximum number of names in one list of the constant.
const MAX_NAMES: usize = 16;
/// The fields of the constant.
const FIELDS: [&str; 5] = ["scheme", "headers", "query", "cookies", "kept"];

/// The content of the constant `CREDENTIAL`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CredentialDeclaration {
    /// The authentication scheme that precedes the credential in `Authorization`.
    pub scheme: Option<String>,
    /// The parts of the request that carry the credential.
    pub parts: CredentialParts,
    /// Header fields that the script reads although they carry no credential.
    pub(super) kept: Vec<HeaderName>,
    /// Whether the script declares all parameters that carry a credential. If so, the script may
    /// read the whole query.
    pub(super) has_parameters: bool,
    /// Whether the script declares all cookies that carry a credential. If so, the script may read
    /// the field `Cookie`.
    pub(super) has_cookies: bool,
}

impl CredentialDeclaration {
    /// Reads the constant.
    ///
    /// # Errors
    /// A sentence that says what is wrong with the constant.
    pub(in crate::scripting) fn read(value: &Dynamic) -> Result<Self, String> {
        const FORM: &str = "CREDENTIAL must be a map such as #{ scheme: \"Bearer\", headers: [\"Authorization\"] }, with the fields scheme, headers, query, cookies and kept";
        let map = value.as_map_ref().map_err(|_| FORM.to_owned())?;
        let mut declared = Self::default();
        for (field, value) in map.iter() {
            match field.as_str() {
                "scheme" => declared.scheme = Some(scheme(value)?),
                "headers" => declared.parts.headers = headers("headers", value)?,
                "kept" => declared.kept = headers("kept", value)?,
                "query" => {
                    declared.parts.parameters = texts("query", value)?;
                    declared.has_parameters = true;
                }
                "cookies" => {
                    declared.parts.cookies = texts("cookies", value)?;
                    declared.has_cookies = true;
                }
                other => {
                    let near = suggest(other, FIELDS).map(|near| format!("; did you mean {near}?"));
                    return Err(format!(
                        "CREDENTIAL has no field {other}{}",
                        near.unwrap_or_default()
                    ));
                }
            }
        }
        let parts = &declared.parts;
        if parts.headers.is_empty() && parts.parameters.is_empty() && parts.cookies.is_empty() {
            return Err("CREDENTIAL names no header field, no query parameter and no cookie".into());
        }
        if declared.scheme.is_some() && parts.headers.first().is_none_or(|n| n != "authorization") {
            return Err("CREDENTIAL has a scheme, which only Authorization has; write Authorization as the first of headers, or leave scheme out".into());
        }
        if let Some(name) = declared.kept.iter().find(|name| parts.headers.contains(name)) {
            return Err(format!("CREDENTIAL names {name} in headers and in kept"));
        }
        Ok(declared)
    }
}

fn scheme(value: &Dynamic) -> Result<String, String> {
    // The characters of a token (RFC 9110, section 5.6.2).
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let text = value.clone().into_string().unwrap_or_default();
    if text.is_empty() || text.len() > 64 || !text.bytes().all(is_token) {
        return Err(
            "scheme of CREDENTIAL must be the name of an authentication scheme, such as \"Bearer\""
                .into(),
        );
    }
    Ok(text)
}

fn headers(field: &str, value: &Dynamic) -> Result<Vec<HeaderName>, String> {
    let names = texts(field, value)?.into_iter().map(|text| {
        let name = HeaderName::from_bytes(text.as_bytes()).ok();
        let name = name.filter(|name| !MESSAGE_FIELDS.contains(&name.as_str()));
        name.ok_or_else(|| {
            format!("{field} of CREDENTIAL names {text:?}, which is not a header field that can carry a credential")
        })
    });
    names.collect()
}

fn texts(field: &str, value: &Dynamic) -> Result<Vec<String>, String> {
    let wrong = || {
        format!(
            "{field} of CREDENTIAL must be an array of at most {MAX_NAMES} names, such as [\"name\"]"
        )
    };
    let items: Array = value.clone().try_cast().ok_or_else(wrong)?;
    let texts = items.into_iter().map(|item| item.into_string().ok());
    let texts: Vec<String> = texts.collect::<Option<_>>().ok_or_else(wrong)?;
    let is_valid = |text: &String| !text.is_empty() && text.len() <= 128;
    if texts.len() > MAX_NAMES || !texts.iter().all(is_valid) {
        return Err(wrong());
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(constant: &str) -> Result<CredentialDeclaration, String> {
        let value: Dynamic = rhai::Engine::new().eval(constant).unwrap();
        CredentialDeclaration::read(&value)
    }

    #[test]
    fn declaration_has_its_parts() {
        let declared = read(
            r#"#{ scheme: "Bearer", headers: ["Authorization", "X-Two"], query: ["key"], cookies: [], kept: ["Date"] }"#,
        )
        .unwrap();
        assert_eq!(declared.scheme.as_deref(), Some("Bearer"));
        assert_eq!(declared.parts.headers, ["authorization", "x-two"]);
        assert_eq!(declared.parts.parameters, ["key"]);
        assert_eq!(declared.kept, ["date"]);
        assert!(declared.has_parameters && declared.has_cookies);
    }

    #[test]
    fn invalid_declaration_is_refused_with_the_reason() {
        for (constant, says) in [
            ("7", "must be a map"),
            ("#{}", "names no header field"),
            ("#{ kept: [\"Date\"] }", "names no header field"),
            ("#{ header: [\"A\"] }", "no field header; did you mean headers?"),
            ("#{ headers: \"A\" }", "must be an array"),
            ("#{ headers: [7] }", "must be an array"),
            ("#{ headers: [\"\"] }", "must be an array"),
            ("#{ headers: [\"a b\"] }", "\"a b\", which is not a header field"),
            ("#{ headers: [\"Content-Type\"] }", "which is not a header field that can carry"),
            ("#{ scheme: \"a b\", headers: [\"Authorization\"] }", "must be the name of"),
            ("#{ scheme: \"Bearer\", headers: [\"X-Key\"] }", "only Authorization has"),
            ("#{ headers: [\"X-Key\"], kept: [\"x-key\"] }", "in headers and in kept"),
        ] {
            let problem = read(constant).unwrap_err();
            assert!(problem.contains(says), "{constant}: {problem}");
        }
    }
}
