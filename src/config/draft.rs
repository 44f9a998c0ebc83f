//! A configuration that is being read: every key with its value and the place that set the value.

use std::{
    num::{IntErrorKind, ParseIntError},
    path::Path,
};

use serde::Deserialize as _;
use toml::{
    Spanned, Value,
    de::{DeTable, DeValue},
};

use super::{
    ConfigError, File, Place, Problem,
    error::{line_of, printable, syntax},
    file::WebhookSection,
};
use crate::model::suggest;

/// The section whose subsections have names chosen by the operator.
const WEBHOOKS: &str = "webhooks";

/// All keys with their values: the defaults, overridden by the file and the environment.
pub(super) struct Draft {
    pub(super) keys: Vec<Entry>,
    pub(super) found: Vec<Problem>,
}

/// A key with its value.
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    value: Value,
    place: Place,
}

/// The reason why a value is invalid, and the fix.
pub(super) struct Unfit {
    pub(super) message: String,
    pub(super) fix: String,
}

impl Draft {
    /// Creates a draft with the defaults.
    pub(super) fn new() -> Self {
        let sections = toml::Table::try_from(File::default()).expect("the defaults are TOML");
        let mut keys = Vec::new();
        for (section, table) in sections {
            for (key, value) in table.as_table().into_iter().flatten() {
                keys.push(Entry {
                    section: section.clone(),
                    key: key.clone(),
                    value: value.clone(),
                    place: Place::Default,
                });
            }
        }
        Self { keys, found: Vec::new() }
    }

    /// Applies the keys of a file. Each invalid key or value is added to `found`, and the key keeps
    /// its default.
    pub(super) fn read(&mut self, path: &Path, text: &str) -> Result<(), ConfigError> {
        let document = DeTable::parse(text).map_err(|error| syntax(path, text, &error))?;
        let reader = Reader { path, text };
        for (name, value) in document.get_ref() {
            match value.get_ref() {
                DeValue::Table(table) if self.has_section(name.get_ref()) => {
                    self.read_section(&reader, name.get_ref(), table);
                }
                DeValue::Table(table) if *name.get_ref() == WEBHOOKS => {
                    self.read_webhooks(&reader, table);
                }
                _ => {
                    let problem = self.stray_problem(&reader, name, value.get_ref());
                    self.found.push(problem);
                }
            }
        }
        Ok(())
    }

    /// Reads the sections `[webhooks.NAME]`, which all have the same keys.
    fn read_webhooks(&mut self, reader: &Reader<'_>, table: &DeTable<'_>) {
        for (name, value) in table {
            let DeValue::Table(table) = value.get_ref() else {
                let message = "Every webhook needs a section.".into();
                let fix = "Write [webhooks.NAME] on a separate line, with url and secret below it."
                    .into();
                let key = format!("{WEBHOOKS}.{}", printable(name.get_ref()));
                self.found.push(Problem { place: reader.place(name), key, message, fix });
                continue;
            };
            let section = format!("{WEBHOOKS}.{}", printable(name.get_ref()));
            let keys =
                toml::Table::try_from(WebhookSection::default()).expect("the defaults are TOML");
            for (key, value) in keys {
                let place = reader.place(name);
                self.keys.push(Entry { section: section.clone(), key, value, place });
            }
            self.read_section(reader, &section, table);
        }
    }

    fn read_section(&mut self, reader: &Reader<'_>, section: &str, table: &DeTable<'_>) {
        for (name, value) in table {
            let place = reader.place(name);
            let key = format!("{section}.{}", printable(name.get_ref()));
            let is_named = |e: &Entry| e.section == section && e.key == **name.get_ref();
            let result = match self.keys.iter().position(is_named) {
                None => Err(self.unknown_key(section, name.get_ref())),
                Some(index) => self.keys[index].take(value.get_ref(), &place),
            };
            if let Err(Unfit { message, fix }) = result {
                self.found.push(Problem { place, key, message, fix });
            }
        }
    }

    fn has_section(&self, name: &str) -> bool {
        self.sections().any(|section| section == name)
    }

    /// Returns the problem of a key outside of all sections, or of an unknown section.
    fn stray_problem(
        &self,
        reader: &Reader<'_>,
        name: &Spanned<toml::de::DeString<'_>>,
        value: &DeValue<'_>,
    ) -> Problem {
        let word = name.get_ref().as_ref();
        let is_section = value.is_table();
        let (message, fix) = if self.has_section(word) {
            (
                "This is a section, not a key.".into(),
                format!(
                    "Write [{word}] on a separate line, with the keys of the section below it."
                ),
            )
        } else if is_section {
            let fix = match suggest(word, self.sections()) {
                Some(near) => format!("Did you mean [{near}]?"),
                None => format!("The sections are {}.", listed(self.sections())),
            };
            ("There is no such section.".into(), fix)
        } else {
            ("Every key belongs in a section.".into(), self.stray_fix(word))
        };
        let key = if is_section { format!("[{}]", printable(word)) } else { printable(word) };
        Problem { place: reader.place(name), key, message, fix }
    }

    /// Returns the fix for a key before the first section: the sections that have such a key.
    fn stray_fix(&self, word: &str) -> String {
        let sections = |key: &str| -> String {
            let names: Vec<String> =
                self.sections_with(key).map(|name| format!("[{name}]")).collect();
            names.join(" or ")
        };
        if self.sections_with(word).next().is_some() {
            return format!("Move the key below {}.", sections(word));
        }
        match suggest(word, self.keys.iter().map(|entry| entry.key.as_str())) {
            Some(near) => format!("Did you mean `{near}` in {}?", sections(near)),
            None => format!("The sections are {}.", listed(self.sections())),
        }
    }

    fn sections(&self) -> impl Iterator<Item = &str> + Clone {
        self.keys.iter().map(|entry| entry.section.as_str())
    }

    fn sections_with(&self, key: &str) -> impl Iterator<Item = &str> {
        self.keys.iter().filter(move |entry| entry.key == key).map(|entry| entry.section.as_str())
    }

    fn unknown_key(&self, section: &str, word: &str) -> Unfit {
        if let Some(place) = moved_to(section, word) {
            let fix = format!("Use {place}.");
            return Unfit { message: "This key has moved.".into(), fix };
        }
        let known = self.keys.iter().filter(|e| e.section == section).map(|e| e.key.as_str());
        let fix = if let Some(other) = self.sections_with(word).next() {
            format!("`{word}` belongs in [{other}].")
        } else if let Some(near) = suggest(word, known.clone()) {
            format!("Did you mean `{near}`?")
        } else {
            format!("The keys of [{section}] are {}.", listed(known))
        };
        Unfit { message: "There is no such key.".into(), fix }
    }

    /// Returns the key to blame if `keys` contradict each other, and the place that set it: the
    /// first key that the file or the environment set, else the first of `keys`.
    pub(super) fn blame(&self, keys: &[&str]) -> (Place, String) {
        let places = keys.iter().filter_map(|key| {
            let entry = self.keys.iter().find(|entry| entry.name() == *key)?;
            Some((entry.place.clone(), entry.name()))
        });
        let given = places.clone().find(|(place, _)| *place != Place::Default);
        let first = keys.first().copied().unwrap_or_default();
        given.unwrap_or_else(|| (Place::Default, first.into()))
    }

    /// Returns the raw configuration with all keys of this draft.
    pub(super) fn file(&self) -> File {
        let mut sections = toml::Table::new();
        for entry in &self.keys {
            let mut table = Some(&mut sections);
            for part in entry.section.splitn(2, '.') {
                table = table.and_then(|table| {
                    let inner =
                        table.entry(part).or_insert_with(|| Value::Table(toml::Table::new()));
                    inner.as_table_mut()
                });
            }
            if let Some(table) = table {
                table.insert(entry.key.clone(), entry.value.clone());
            }
        }
        File::deserialize(sections).expect("a draft holds every key with the type of its default")
    }
}

impl Entry {
    /// The key with its section: `server.listen`.
    pub(super) fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    fn take(&mut self, given: &DeValue<'_>, place: &Place) -> Result<(), Unfit> {
        let value = match (&self.value, given) {
            (Value::String(_), DeValue::String(text)) => Value::String(text.clone().into_owned()),
            (Value::Integer(_), DeValue::Integer(number)) => {
                let digits = number.as_str().replace('_', "");
                let number = i64::from_str_radix(&digits, number.radix());
                Value::Integer(number.map_err(|_| self.unfit("This number is far out of range."))?)
            }
            _ => return Err(self.unfit(&format!("The value is {}.", kind(given)))),
        };
        self.set(value, place)
    }

    /// Sets the value from a variable's text, which is parsed with the type of the key's default.
    pub(super) fn take_text(&mut self, text: &str, place: &Place) -> Result<(), Unfit> {
        let value = match &self.value {
            Value::Integer(_) => {
                let number = text.trim().parse().map_err(|e: ParseIntError| match e.kind() {
                    IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => {
                        self.unfit("This number is far out of range.")
                    }
                    _ => self.unfit("The value is not a whole number."),
                });
                Value::Integer(number?)
            }
            _ => Value::String(text.into()),
        };
        self.set(value, place)
    }

    fn set(&mut self, value: Value, place: &Place) -> Result<(), Unfit> {
        let text = value.as_str().unwrap_or_default();
        if text.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
            let message = "The value contains a control character, or bytes that are not UTF-8.";
            return Err(self.unfit(message));
        }
        self.value = value;
        self.place = place.clone();
        Ok(())
    }

    fn unfit(&self, message: &str) -> Unfit {
        let fix = match &self.value {
            Value::Integer(number) => format!("Use a whole number, such as {number}."),
            Value::String(text) if !text.is_empty() => format!("Use text, such as {text:?}."),
            _ => "Use text, or \"\" for none.".into(),
        };
        Unfit { message: message.into(), fix }
    }
}

/// Returns the name of a key that an older version had at another place.
pub(super) fn moved_to(section: &str, key: &str) -> Option<&'static str> {
    const MOVED: [(&str, &str, &str); 1] = [("server", "grpc_listen", "verify.grpc_listen")];
    let known = MOVED.iter().find(|(old, name, _)| *old == section && *name == key);
    known.map(|(_, _, place)| *place)
}

/// The text of a file, to compute line numbers from byte offsets.
struct Reader<'a> {
    path: &'a Path,
    text: &'a str,
}

impl Reader<'_> {
    fn place<T>(&self, item: &Spanned<T>) -> Place {
        let line = line_of(self.text.as_bytes(), item.span().start);
        Place::File { path: self.path.to_owned(), line }
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

fn listed<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut words: Vec<&str> = words.collect();
    words.dedup();
    words.join(", ")
}
