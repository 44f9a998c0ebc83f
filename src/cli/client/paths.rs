//! Builds paths and queries of the admin API.

use std::fmt::Write as _;

const ROOT: &str = "/api/v1";

/// Returns the path of a record or a list: `["users", "7", "keys"]` gives `/api/v1/users/7/keys`.
/// Each segment is percent-encoded, so user input cannot add segments or a query.
pub fn path(segments: &[&str]) -> String {
    let mut path = ROOT.to_owned();
    for segment in segments {
        path.push('/');
        for byte in segment.bytes() {
            if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a string cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
    }
    path
}

/// Returns `path` with a query.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("{path}?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_input_is_percent_encoded() {
        assert_eq!(path(&["users", "7", "keys"]), "/api/v1/users/7/keys");
        assert_eq!(path(&["roles", "a/../b?c#d é"]), "/api/v1/roles/a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(
            with_query("/x", &[("name", "O'Neil & co+1"), ("limit", "2")]),
            "/x?name=O%27Neil+%26+co%2B1&limit=2"
        );
    }
}
