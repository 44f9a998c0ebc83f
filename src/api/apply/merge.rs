//! Merges the records of a partial document into the records that the store has.

use serde_json::Value;

use crate::{
    accounts::{AccountError, Accounts, DocumentFields, PatchBases},
    api::fields::merge,
};

/// Prepares the records of a document before they are read.
pub(super) struct RecordMerge<'a> {
    accounts: &'a Accounts,
    /// Whether a field that the document leaves out keeps its value.
    is_patch: bool,
    /// The names of the fields that each record has.
    pub fields: DocumentFields,
    /// The revisions of the records that the document was merged into.
    pub bases: PatchBases,
}

impl<'a> RecordMerge<'a> {
    pub fn new(accounts: &'a Accounts, is_patch: bool) -> Self {
        let (fields, bases) = (DocumentFields::default(), PatchBases::default());
        Self { accounts, is_patch, fields, bases }
    }

    /// The next record of a list. In a patch it has the fields of the document, and otherwise those
    /// of the current record. Tables are merged, and lists are replaced (RFC 7396).
    pub fn record(
        &mut self,
        list: &'static str,
        index: usize,
        item: Value,
    ) -> Result<Value, AccountError> {
        let item = match item {
            Value::Object(fields) if self.is_patch => {
                let current = self.accounts.state_record(list, &fields)?;
                self.bases.insert(list, index, current.as_ref().map(|found| found.revision));
                let mut merged = Value::Object(current.map_or_else(Default::default, |c| c.record));
                merge(&mut merged, Value::Object(fields));
                merged
            }
            item => item,
        };
        self.fields.push(list, &item);
        Ok(item)
    }
}
