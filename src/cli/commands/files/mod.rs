//! Files to import: their encoding, and tables in text.

pub(in crate::cli) mod table;
pub(in crate::cli) mod text;
