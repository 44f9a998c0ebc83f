//! Violations: an invalid field of a record, described by its location, a message and a fix.

pub(super) mod suggest;

/// One broken rule of a record.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The field, as a dotted path from the record's root: `name`, `roles.1`, `settings.status`.
    /// Empty means the whole record.
    pub location: String,
    /// The problem, as a sentence for the person who sent the record.
    pub message: String,
    /// How to correct the field. Empty means that the message says enough.
    pub fix: String,
}

impl Violation {
    /// A violation of the field at `location`.
    pub fn new(
        location: impl Into<String>,
        message: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { location: location.into(), message: message.into(), fix: fix.into() }
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.location.is_empty() {
            write!(f, "{}: ", self.location)?;
        }
        f.write_str(&self.message)?;
        if !self.fix.is_empty() {
            write!(f, " ({})", self.fix)?;
        }
        Ok(())
    }
}
