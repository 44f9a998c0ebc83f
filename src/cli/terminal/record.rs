//! Formats one record for people: one field per line, nothing left out.

use serde_json::Value;

use super::{
    display::{Display, Style},
    screen::printable,
    table::{cell, cell_or},
    width::{width, wrap},
};

/// The words for `null` or an empty list in fields where this means something.
const WORDS: [(&str, &str); 11] = [
    ("application", "all"),
    ("networks", "all"),
    ("scopes", "all"),
    ("host", "all"),
    ("expires", "never"),
    ("ends", "never"),
    ("last_used", "never"),
    ("access", "never"),
    ("login", "never"),
    ("rate_limit", "none"),
    ("credits", "none"),
];

/// Formats a record. In a terminal, long values are wrapped.
pub fn record(record: &Value, display: &Display) -> String {
    let fields: Vec<(String, String)> = record
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, _)| !(*name == "username" && has_owner(record)))
        .map(|(name, value)| (printable(name), text_of(name, value, record)))
        .collect();
    let names = fields.iter().map(|(name, _)| width(name)).max().unwrap_or_default();
    let mut text = String::new();
    for (name, value) in &fields {
        let gap = " ".repeat(names - width(name) + 2);
        let room = display.width.map(|all| all.saturating_sub(names + 2));
        let lines = match room.filter(|room| width(value) > *room) {
            Some(room) => wrap(value, room).join(&format!("\n{}", " ".repeat(names + 2))),
            None => value.clone(),
        };
        let is_state = ["state", "active", "enabled"].contains(&name.as_str());
        let style = Style::of_state(value).filter(|_| is_state && display.colours);
        let lines = style.map_or(lines.clone(), |style| style.paint(&lines));
        text.push_str(&format!("{name}{gap}{lines}\n"));
    }
    text
}

/// Whether a record has an owner whose name it also has.
fn has_owner(record: &Value) -> bool {
    record["user"].is_number() && record["username"].is_string()
}

fn text_of(name: &str, value: &Value, record: &Value) -> String {
    match name {
        "user" if has_owner(record) => format!("{} (#{})", cell(&record["username"]), cell(value)),
        // An empty list of scopes means no permission.
        "scopes" if value.is_array() => cell_or(value, "none"),
        name => match WORDS.iter().find(|(known, _)| *known == name) {
            Some((_, word)) => cell_or(value, word),
            None => cell(value),
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn record_has_one_field_per_line() {
        let value = json!({ "id": "x", "is_admin": false, "label": "\x1b[1mA" });
        let text = record(&value, &Display::plain());
        assert_eq!(text, "id        x\nis_admin  no\nlabel     [1mA\n");
    }

    #[test]
    fn values_of_a_key_say_what_they_mean() {
        let key = json!({
            "user": 2, "username": "ann", "scopes": null, "networks": [], "application": null,
            "expires": null, "last_used": "2027-01-01T00:00:00+00:00", "label": "",
        });
        let text = record(&key, &Display::plain());
        let expected = "user         ann (#2)\nscopes       all\nnetworks     all\n\
                        application  all\nexpires      never\nlast_used    2027-01-01T00:00:00Z\n\
                        label        -\n";
        assert_eq!(text, expected);
        let none = record(&json!({ "scopes": [] }), &Display::plain());
        assert_eq!(none, "scopes  none\n");
    }

    #[test]
    fn long_values_are_wrapped_in_a_terminal() {
        let display = Display { width: Some(20), ..Display::plain() };
        let text = record(&json!({ "label": "one two three 日本語日本語日本語" }), &display);
        assert_eq!(text, "label  one two three\n       日本語日本語\n       日本語\n");
    }
}
