//! The values of filters: texts, choices, flags, times and users.

use super::ListQuery;
use crate::{
    accounts::{Accounts, TextPattern},
    model::{Timestamp, parse_span},
};

/// The direction of a span: before or after now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Past,
    Future,
}

impl ListQuery {
    /// The text of a filter. `None` means that the query does not have the filter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.filters.get(name).map(String::as_str)
    }

    /// A text, or with a `*` at its end the beginning of a text.
    pub(super) fn pattern(&self, name: &str) -> Option<TextPattern> {
        self.text(name).map(TextPattern::parse)
    }

    /// One of these words.
    pub(super) fn choice(
        &mut self,
        name: &str,
        words: &'static [&'static str],
    ) -> Option<&'static str> {
        let text = self.text(name)?;
        let found = words.iter().copied().find(|word| *word == text);
        if found.is_none() {
            let fix = format!("Use {}.", super::alternatives(words.iter().copied()));
            self.reject(name, "This is not one of the possible values.", fix);
        }
        found
    }

    /// `true` or `false`.
    pub(super) fn flag(&mut self, name: &str) -> Option<bool> {
        self.choice(name, &["true", "false"]).map(|word| word == "true")
    }

    /// A time, a date, or a span before or after now.
    pub(super) fn time(
        &mut self,
        name: &str,
        direction: Direction,
        now: Timestamp,
    ) -> Option<Timestamp> {
        let text = self.text(name)?;
        let found = parse_time(text, direction, now);
        if found.is_none() {
            let span = match direction {
                Direction::Past => "90d for 90 days ago",
                Direction::Future => "30d for 30 days from now",
            };
            let fix = format!(
                "Send a time such as 2027-01-01T00:00:00Z, a date such as 2027-01-01, or {span}."
            );
            self.reject(name, format!("{text:?} is not a time."), fix);
        }
        found
    }

    /// A user: the uid, `#` and the uid, or the name.
    pub(super) fn user(&mut self, name: &str, accounts: &Accounts) -> Option<u64> {
        let text = self.text(name)?;
        let by_name = || accounts.directory().user_by_name(text).map(|user| user.uid);
        let found = parse_uid(text)
            .filter(|uid| *uid != 0 && accounts.directory().user(*uid).is_some())
            .or_else(by_name);
        if found.is_none() {
            self.reject_user(name);
        }
        found
    }

    pub(super) fn reject_user(&mut self, name: &str) {
        let text = self.text(name).unwrap_or_default();
        let message = format!("There is no user {}.", text.escape_debug());
        self.reject(name, message, "Send the number or the name of a user.");
    }
}

/// Parses `7` or `#7`.
pub(super) fn parse_uid(text: &str) -> Option<u64> {
    text.strip_prefix('#').unwrap_or(text).parse().ok()
}

fn parse_time(text: &str, direction: Direction, now: Timestamp) -> Option<Timestamp> {
    // An unescaped + in a query means a space.
    let time = Timestamp::parse(text).or_else(|| Timestamp::parse(&text.replace(' ', "+")));
    if time.is_some() {
        return time;
    }
    if let Some(seconds) = parse_span(text) {
        return Some(match direction {
            Direction::Past => now.plus(-seconds),
            Direction::Future => now.plus(seconds),
        });
    }
    let is_date = text.len() == 10 && text.bytes().all(|b| b.is_ascii_digit() || b == b'-');
    is_date.then(|| Timestamp::parse(&format!("{text}T00:00:00Z"))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_absolute_or_relative_to_now() {
        let now = Timestamp(10 * 86_400);
        let parse = |text, direction| parse_time(text, direction, now).map(|time| time.0);
        for (text, past, future) in [
            ("1970-01-02", 86_400, 86_400),
            ("1970-01-02T00:00:01Z", 86_401, 86_401),
            ("1970-01-02T01:00:00 01:00", 86_400, 86_400),
            ("1d", 9 * 86_400, 11 * 86_400),
        ] {
            assert_eq!(parse(text, Direction::Past), Some(past), "{text}");
            assert_eq!(parse(text, Direction::Future), Some(future), "{text}");
        }
        for text in ["", "soon", "1970-13-01", "19700102", "7", "1970-1-2"] {
            assert_eq!(parse(text, Direction::Past), None, "{text}");
        }
    }
}
