//! Compares names as careless programs do: an application may read another spelling of a name as
//! the name itself.

/// Whether an application could confuse two header field names: CGI and its successors replace
/// every character that is not a letter or a digit by an underscore.
///
/// `known` is in lower case, as header names are.
pub fn is_similar(name: &str, known: &str) -> bool {
    let is_same =
        |(a, b): (u8, u8)| a == b || !(a.is_ascii_alphanumeric() || b.is_ascii_alphanumeric());
    name.len() == known.len() && name.bytes().zip(known.bytes()).all(is_same)
}

/// Whether an application could confuse the beginning of a header field name with this prefix.
pub fn has_similar_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| is_similar(start, prefix))
}

/// Whether an application could confuse two names of parameters or cookies: some ignore case, some
/// replace special characters, and some read `name[]` and `name[0]` as `name`.
pub fn is_similar_parameter(name: &str, known: &str) -> bool {
    let base = |text: &str| text.split('[').next().unwrap_or_default().to_ascii_lowercase();
    name == known || is_similar(base(name).trim(), base(known).trim())
}
