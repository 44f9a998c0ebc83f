//! What is wrong with a field, in the three parts that every face shows: where, what, and what to do.

/// One broken rule.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The field, as a dotted path from the record's root: `name`, `roles.1`, `settings.status`; empty: the whole record.
    pub location: String,
    /// What is wrong, as a sentence for the person who sent it.
    pub message: String,
    /// What to do about it.
    pub fix: String,
}

impl Violation {
    /// A violation at `location`.
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
