//! Selections of users and keys by conditions such as `role=editor, created-before=90d`.
//!
//! Conditions are separated by commas or by `and`, and all of them must hold. A value in quotation
//! marks may contain commas. In names, labels and mail addresses `*` stands for any text.

use crate::{
    accounts::Accounts,
    model::{AUTHENTICATED, Key, Timestamp, User, Violation, fold, parse_span},
};

/// The form of a selection, for messages.
const FORM: &str = "Write conditions such as role=editor or name=\"build-*\", separated by commas.";

/// Selects users.
#[derive(Debug, Clone)]
pub struct UserSelection(Vec<UserCondition>);

#[derive(Debug, Clone)]
enum UserCondition {
    Name(Glob),
    Mail(Glob),
    Role(String),
    Active(bool),
    CreatedBefore(Timestamp),
    CreatedAfter(Timestamp),
}

/// Selects keys.
#[derive(Debug, Clone)]
pub struct KeySelection(Vec<KeyCondition>);

#[derive(Debug, Clone)]
enum KeyCondition {
    User(u64),
    Label(Glob),
    Application(String),
    CreatedBefore(Timestamp),
    CreatedAfter(Timestamp),
    ExpiresBefore(Timestamp),
}

impl UserSelection {
    /// Parses a selection. Spans of time end now.
    ///
    /// # Errors
    /// The first violation, with the location `where`.
    pub fn parse(text: &str, now: Timestamp) -> Result<Self, Violation> {
        let condition = |(field, value): (String, String)| {
            Ok(match field.as_str() {
                "name" => UserCondition::Name(Glob::new(&value)),
                "mail" => UserCondition::Mail(Glob::new(&value)),
                "role" => UserCondition::Role(value),
                "active" => UserCondition::Active(flag(&field, &value)?),
                "created-before" => UserCondition::CreatedBefore(time(&field, &value, now)?),
                "created-after" => UserCondition::CreatedAfter(time(&field, &value, now)?),
                _ => {
                    let fields = "name, mail, role, active, created-before or created-after";
                    return Err(unknown(&field, fields));
                }
            })
        };
        conditions(text)?.into_iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all conditions hold for a user.
    pub fn selects(&self, user: &User) -> bool {
        self.0.iter().all(|condition| match condition {
            UserCondition::Name(glob) => glob.matches(&user.name),
            UserCondition::Mail(glob) => user.mail.as_deref().is_some_and(|m| glob.matches(m)),
            // Every user has this role, and no record lists it.
            UserCondition::Role(role) => role == AUTHENTICATED || user.roles.contains(role),
            UserCondition::Active(active) => user.status == *active,
            UserCondition::CreatedBefore(time) => user.created < *time,
            UserCondition::CreatedAfter(time) => user.created >= *time,
        })
    }
}

impl KeySelection {
    /// Parses a selection. Spans of time end now. A user is given by name, or by # and number.
    ///
    /// # Errors
    /// The first violation, with the location `where`.
    pub fn parse(text: &str, accounts: &Accounts) -> Result<Self, Violation> {
        let now = accounts.clock().now();
        let condition = |(field, value): (String, String)| {
            Ok(match field.as_str() {
                "user" => KeyCondition::User(user(accounts, &value)?),
                "label" => KeyCondition::Label(Glob::new(&value)),
                "application" => KeyCondition::Application(value),
                "created-before" => KeyCondition::CreatedBefore(time(&field, &value, now)?),
                "created-after" => KeyCondition::CreatedAfter(time(&field, &value, now)?),
                "expires-before" => KeyCondition::ExpiresBefore(time(&field, &value, now)?),
                _ => {
                    let fields = "user, label, application, created-before, created-after or \
                                  expires-before";
                    return Err(unknown(&field, fields));
                }
            })
        };
        conditions(text)?.into_iter().map(condition).collect::<Result<_, _>>().map(Self)
    }

    /// Whether all conditions hold for a key.
    pub fn selects(&self, key: &Key) -> bool {
        self.0.iter().all(|condition| match condition {
            KeyCondition::User(uid) => key.user == *uid,
            KeyCondition::Label(glob) => glob.matches(&key.label),
            KeyCondition::Application(id) => key.application.as_ref() == Some(id),
            KeyCondition::CreatedBefore(time) => key.created < *time,
            KeyCondition::CreatedAfter(time) => key.created >= *time,
            KeyCondition::ExpiresBefore(time) => key.expires.is_some_and(|end| end < *time),
        })
    }

    /// The only user whose keys can be selected. `None` means that there are several.
    pub(super) fn only_user(&self) -> Option<u64> {
        self.0.iter().find_map(|condition| match condition {
            KeyCondition::User(uid) => Some(*uid),
            _ => None,
        })
    }
}

/// A text in which `*` stands for any text. Letters match in both cases.
#[derive(Debug, Clone)]
struct Glob(Vec<String>);

impl Glob {
    fn new(text: &str) -> Self {
        Self(fold(text).split('*').map(str::to_owned).collect())
    }

    fn matches(&self, text: &str) -> bool {
        let text = fold(text);
        let [first, middle @ .., last] = self.0.as_slice() else {
            return self.0.first().is_some_and(|only| *only == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            let Some(at) = rest.find(part.as_str()) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last.as_str())
    }
}

/// The fields and values of a selection.
fn conditions(text: &str) -> Result<Vec<(String, String)>, Violation> {
    let mut found = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let Some((field, after)) = rest.split_once('=') else {
            return Err(invalid(format!("{rest:?} is not a condition."), FORM));
        };
        let (value, after) = value(after.trim_start())?;
        if value.is_empty() {
            return Err(invalid(format!("The condition {} has no value.", field.trim()), FORM));
        }
        found.push((field.trim().to_owned(), value));
        rest = after.trim_start();
    }
    let fix = "Write a condition. To select every user, write role=authenticated.";
    if found.is_empty() { Err(invalid("There is no condition.", fix)) } else { Ok(found) }
}

/// A value, and the text after its separator.
fn value(text: &str) -> Result<(String, &str), Violation> {
    let Some(quoted) = text.strip_prefix('"') else {
        let comma = text.find(',').map(|at| (at, 1));
        let and = text.find(" and ").map(|at| (at, " and ".len()));
        let Some((at, length)) = comma.into_iter().chain(and).min() else {
            return Ok((text.trim().to_owned(), ""));
        };
        return Ok((text[..at].trim().to_owned(), &text[at + length..]));
    };
    let Some((value, after)) = quoted.split_once('"') else {
        return Err(invalid("A quotation mark is not closed.", FORM));
    };
    let after = after.trim_start();
    let rest = after.strip_prefix(',').or_else(|| after.strip_prefix("and "));
    match rest {
        Some(rest) => Ok((value.to_owned(), rest)),
        None if after.is_empty() => Ok((value.to_owned(), "")),
        None => Err(invalid("A comma is missing after a value in quotation marks.", FORM)),
    }
}

fn invalid(message: impl Into<String>, fix: &str) -> Violation {
    Violation::new("where", message, fix)
}

fn unknown(field: &str, fields: &str) -> Violation {
    let field: String = field.chars().take(64).collect();
    invalid(format!("There is no condition {field:?}."), &format!("Use {fields}."))
}

fn flag(field: &str, value: &str) -> Result<bool, Violation> {
    value.parse().map_err(|_| {
        invalid(format!("{field} is not true or false."), &format!("Write {field}=true."))
    })
}

fn time(field: &str, value: &str, now: Timestamp) -> Result<Timestamp, Violation> {
    let ago = parse_span(value).map(|seconds| Timestamp(now.0.saturating_sub(seconds)));
    ago.or_else(|| Timestamp::parse(value)).ok_or_else(|| {
        let fix = "Write a time such as 2027-01-01T00:00:00Z, or a span such as 90d.";
        invalid(format!("{field} is not a time."), fix)
    })
}

fn user(accounts: &Accounts, value: &str) -> Result<u64, Violation> {
    let uid = match value.strip_prefix('#') {
        Some(number) => number.parse().ok(),
        None => accounts.directory().user_by_name(value).map(|user| user.uid),
    };
    uid.ok_or_else(|| {
        let fix = "Give the user's name, or # and the user's number.";
        invalid(format!("There is no user {value:?}."), fix)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_700_000_000);

    #[test]
    fn conditions_are_separated_by_commas_or_and() {
        for text in ["a=1,b=x y", " a = 1 , b = x y ", "a=1 and b=x y", "a=\"1\", b=\"x y\""] {
            let expected = [("a", "1"), ("b", "x y")].map(|(a, b)| (a.to_owned(), b.to_owned()));
            assert_eq!(conditions(text).unwrap(), expected, "{text}");
        }
        assert_eq!(conditions("a=\"1, 2 and 3\"").unwrap()[0].1, "1, 2 and 3");
        for text in ["", " ", "a", "a=", "a=\"1", "a=\"1\" b=2", "a=1,b"] {
            assert!(conditions(text).is_err(), "{text}");
        }
    }

    #[test]
    fn unknown_condition_or_value_is_refused_and_named() {
        for (text, named) in [
            ("rolle=x", "\"rolle\""),
            ("active=yes", "active is not true or false"),
            ("created-before=soon", "created-before is not a time"),
        ] {
            let problem = UserSelection::parse(text, NOW).unwrap_err();
            assert_eq!(problem.location, "where");
            assert!(problem.message.contains(named), "{problem}");
        }
    }

    #[test]
    fn star_stands_for_any_text() {
        for (glob, text) in [("a*", "A"), ("*", ""), ("*a*b*", "xaxbx"), ("a*b", "ab"), ("a", "A")]
        {
            assert!(Glob::new(glob).matches(text), "{glob} {text}");
        }
        for (glob, text) in [("a*", "ba"), ("a*a", "a"), ("a", "ab"), ("*a*b*", "ba"), ("", "a")] {
            assert!(!Glob::new(glob).matches(text), "{glob} {text}");
        }
    }
}
