//! Changes of resources that open a path which another resource guards.

use super::Accounts;
use crate::{
    directory::{OpenedGuard, opened_guards},
    model::Resource,
};

/// Whether a change may open a path that another resource guards.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guards {
    /// The change is refused.
    #[default]
    Keep,
    /// The person who makes the change knows about the opened paths.
    Open,
}

impl Accounts {
    /// The guards that a change of one resource opens. `before` is `None` for a new resource,
    /// `after` is `None` for a deletion. The admin API refuses such a change unless the client says
    /// that it knows; a program that writes resources itself decides itself.
    pub fn opened_guards(
        &self,
        before: Option<&Resource>,
        after: Option<&Resource>,
    ) -> Vec<OpenedGuard> {
        let policy = self.directory().policy();
        let changed = before.or(after).map(|resource| resource.id.as_str());
        let others = policy.routes.resources().map(|resource| Resource::clone(resource));
        let others: Vec<Resource> =
            others.filter(|resource| Some(resource.id.as_str()) != changed).collect();
        let with =
            |one: Option<&Resource>| others.iter().cloned().chain(one.cloned()).collect::<Vec<_>>();
        opened_guards(&with(before), &with(after))
    }
}
