//! Paths of the admin API.

use std::fmt::Write as _;

const ROOT: &str = "/api/v1";

/// The path of a record or a list: `["users", "7", "keys"]` is `/api/v1/users/7/keys`. What people typed stays inside its segment.
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

/// `path` with a query.
pub fn with_query(path: &str, pairs: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    format!("{path}?{}", query.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_typed_stays_where_it_belongs() {
        assert_eq!(path(&["users", "7", "keys"]), "/api/v1/users/7/keys");
        assert_eq!(path(&["roles", "a/../b?c#d é"]), "/api/v1/roles/a%2F..%2Fb%3Fc%23d%20%C3%A9");
        assert_eq!(
            with_query("/x", &[("name", "O'Neil & co+1"), ("limit", "2")]),
            "/x?name=O%27Neil+%26+co%2B1&limit=2"
        );
    }
}
