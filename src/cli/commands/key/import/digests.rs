//! Refuses keys that look like digests. As clear text they would be new keys, which everybody knows
//! who has seen the other system's table, and the real keys would not work.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    accounts::{LikelyDigest, likely_digest},
    cli::{CliError, commands::upload::refused},
};

/// Returns an error if keys look like digests and the form of the keys was not given.
pub(super) fn refuse_digests(rows: &[Value]) -> Result<(), CliError> {
    let mut found: BTreeMap<LikelyDigest, (u64, usize)> = BTreeMap::new();
    for row in rows {
        let Some(kind) = row["key"].as_str().and_then(likely_digest) else { continue };
        let line = row["line"].as_u64().unwrap_or_default();
        let (first, count) = found.entry(kind).or_insert((line, 0));
        *first = line.min(*first);
        *count += 1;
    }
    if found.is_empty() {
        return Ok(());
    }
    let problems = found.iter().map(|(kind, (line, count))| {
        json!({
            "location": format!("line {line}"),
            "message": message(*kind),
            "fix": format!("{count} of {} keys look like this.", rows.len()),
        })
    });
    Err(refused(problems.collect(), found.len()))
}

fn message(LikelyDigest { name, option }: LikelyDigest) -> String {
    match option {
        Some(option) => format!(
            "These look like {name} digests: add --digest {option}, or --digest clear if they \
             really are keys."
        ),
        None => format!(
            "These look like {name} digests, which cannot be imported: give the users new keys, \
             or add --digest clear if they really are keys."
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_look_like_digests_are_refused_with_their_kind() {
        let row = |line: u64, key: &str| json!({ "line": line, "username": "ann", "key": key });
        let sha256 = "ab".repeat(32);
        assert!(refuse_digests(&[row(1, "a-key-of-ann"), row(2, "another-key")]).is_ok());
        let rows = [row(4, &sha256), row(2, &sha256), row(3, "$2y$10$x"), row(9, "a-key-of-ann")];
        let problem = refuse_digests(&rows).unwrap_err().problem;
        let errors = problem["errors"].as_array().unwrap();
        assert_eq!(errors.len(), 2, "{problem}");
        let message = "These look like SHA-256 digests: add --digest sha256, or --digest clear if \
                       they really are keys.";
        assert_eq!(
            (&errors[0]["location"], &errors[0]["message"]),
            (&json!("line 2"), &json!(message))
        );
        assert_eq!(errors[0]["fix"], "2 of 4 keys look like this.");
        assert!(errors[1]["message"].as_str().unwrap().contains("--digest bcrypt"), "{problem}");
        let problem = refuse_digests(&[row(1, &"ab".repeat(20))]).unwrap_err().problem;
        let message = problem["errors"][0]["message"].as_str().unwrap();
        assert!(message.contains("SHA-1 digests, which cannot be imported"), "{message}");
    }
}
