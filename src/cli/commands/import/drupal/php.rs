//! Reads values that PHP has serialized. Drupal keeps its configuration in this form.
//!
//! Only the types that configuration consists of are read: no objects and no references.

/// The maximum nesting of arrays.
const MAX_DEPTH: usize = 16;

/// A value of PHP.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Php {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// The keys and values of an array.
    Array(Vec<(Php, Php)>),
}

impl Php {
    /// Reads a whole value. `None` means that the text is not one.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader { bytes };
        let value = reader.value(0)?;
        reader.bytes.is_empty().then_some(value)
    }

    /// The value of an array's key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().find(|(name, _)| name.text().as_deref() == Some(key)).map(|(_, v)| v)
    }

    /// The keys and values of an array. Any other value has none.
    pub fn entries(&self) -> &[(Self, Self)] {
        match self {
            Self::Array(entries) => entries,
            _ => &[],
        }
    }

    /// The text of a text or a number.
    pub fn text(&self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text.clone()),
            Self::Int(number) => Some(number.to_string()),
            _ => None,
        }
    }

    /// Whether PHP takes the value for true.
    pub fn is_true(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(flag) => *flag,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Text(text) => !text.is_empty() && text != "0",
            Self::Array(entries) => !entries.is_empty(),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn value(&mut self, depth: usize) -> Option<Php> {
        if depth > MAX_DEPTH {
            return None;
        }
        let kind = self.take(1)?[0];
        if kind == b'N' {
            self.expect(b";")?;
            return Some(Php::Null);
        }
        self.expect(b":")?;
        match kind {
            b'b' => match self.until(b';')? {
                "0" => Some(Php::Bool(false)),
                "1" => Some(Php::Bool(true)),
                _ => None,
            },
            b'i' => Some(Php::Int(self.until(b';')?.parse().ok()?)),
            b'd' => Some(Php::Float(self.until(b';')?.parse().ok()?)),
            b's' => {
                let length: usize = self.until(b':')?.parse().ok()?;
                self.expect(b"\"")?;
                let text = self.take(length)?;
                self.expect(b"\";")?;
                Some(Php::Text(String::from_utf8_lossy(text).into_owned()))
            }
            b'a' => {
                let count: usize = self.until(b':')?.parse().ok()?;
                self.expect(b"{")?;
                // Each entry takes bytes, so a count that is too large ends in `None`.
                let mut entries = Vec::new();
                for _ in 0..count {
                    entries.push((self.value(depth + 1)?, self.value(depth + 1)?));
                }
                self.expect(b"}")?;
                Some(Php::Array(entries))
            }
            _ => None,
        }
    }

    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    fn expect(&mut self, expected: &[u8]) -> Option<()> {
        self.bytes = self.bytes.strip_prefix(expected)?;
        Some(())
    }

    fn until(&mut self, end: u8) -> Option<&'a str> {
        let length = self.bytes.iter().take(32).position(|byte| *byte == end)?;
        let text = std::str::from_utf8(self.take(length)?).ok()?;
        self.take(1)?;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_configuration_are_read() {
        let role = r#"a:4:{s:2:"id";s:6:"editor";s:6:"weight";i:-2;s:8:"is_admin";b:0;s:11:"permissions";a:2:{i:0;s:14:"access content";i:1;s:5:"r"é";}}"#;
        assert_eq!(Php::parse(role.as_bytes()), None, "the length counts bytes");
        let role = "a:4:{s:2:\"id\";s:6:\"editor\";s:6:\"weight\";i:-2;s:8:\"is_admin\";b:0;s:11:\"permissions\";a:2:{i:0;s:14:\"access content\";i:1;s:4:\"r\"é\";}}";
        let role = Php::parse(role.as_bytes()).unwrap();
        assert_eq!(role.get("id").unwrap().text().as_deref(), Some("editor"));
        assert_eq!(role.get("weight"), Some(&Php::Int(-2)));
        assert!(!role.get("is_admin").unwrap().is_true());
        let permissions: Vec<_> = role
            .get("permissions")
            .unwrap()
            .entries()
            .iter()
            .map(|(_, v)| v.text().unwrap())
            .collect();
        assert_eq!(permissions, ["access content", "r\"é"]);
        assert_eq!(Php::parse(b"a:1:{i:0;d:0.5;}").unwrap().entries()[0].1, Php::Float(0.5));
        assert_eq!(Php::parse(b"N;"), Some(Php::Null));
    }

    #[test]
    fn hostile_values_are_refused() {
        let deep = format!("{}N;{}", "a:1:{i:0;".repeat(1000), "}".repeat(1000));
        for bad in [
            &deep,
            "",
            "O:8:\"stdClass\":0:{}",
            "C:1:\"x\":0:{}",
            "R:1;",
            "a:99999999999:{}",
            "a:18446744073709551616:{}",
            "s:99999:\"a\";",
            "s:-1:\"\";",
            "i:1",
            "b:2;",
            "N;N;",
            "a:1:{i:0;i:1;",
        ] {
            assert_eq!(Php::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
