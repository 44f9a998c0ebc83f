//! The declaration of a custom field of the user entity.

/// A field of the user entity that is an attribute of the user, such as `field_first_name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct CustomField {
    /// The name in JSON.
    pub name: String,
    /// The type of the values.
    pub field_type: CustomType,
    /// The maximum number of values.
    pub cardinality: usize,
    /// The name of the attribute.
    pub attribute: String,
    /// Whether users may change the field of their own account.
    pub is_own: bool,
}

/// The type of the values of a custom field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CustomType {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// `true` or `false`.
    Boolean,
}
