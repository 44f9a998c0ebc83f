//! The section `[entity_user]` of the configuration file: the custom fields of the user entity.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[entity_user]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct EntityUserSection {
    /// The custom fields, separated by commas, each with its attribute, such as "field_first_name =
    /// first_name, field_age: integer = age, field_tag: string[5] = tags". The types are string,
    /// integer and boolean; [5] means at most five values.
    #[allow(rustdoc::broken_intra_doc_links, reason = "[5] is a number of values")]
    pub fields: String,
    /// The custom fields that users may change in their own account, separated by commas. Users
    /// with the permission administer users may change all of them.
    pub own_fields: String,
}
