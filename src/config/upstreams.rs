//! The section `[proxy]` of the configuration file: which upstreams resources may have.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `[proxy]`
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ProxySection {
    /// The networks in which upstreams may be, separated by commas. They are checked at each
    /// connect, after names are resolved. Empty means every network, except link-local, multicast,
    /// unspecified and cloud metadata addresses; and then only localhost and an address in the
    /// resource lead to this machine, not another name that resolves to it.
    pub allowed_networks: String,
}
