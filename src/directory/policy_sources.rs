//! What the policy is compiled from: roles, applications and resources, and the combinations of roles that users have.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{
    Application, Applications, CompiledApplication, Policy, RateLimit, Resource, Role, RoleId,
    RoleTable, Routes, StoreError, Table, decode,
};
use crate::limits::Bounds;

#[derive(Default)]
pub(super) struct Sources {
    roles: HashMap<String, Role>,
    applications: HashMap<String, Application>,
    resources: BTreeMap<String, Resource>,
    /// The limits of applications and resources, which outlive every policy.
    bounds: HashMap<(Table, String), Arc<Bounds>>,
    /// Every combination of roles that a user has had; a member holds its place in this list.
    sets: Vec<Arc<[String]>>,
    set_numbers: HashMap<Arc<[String]>, u32>,
}

impl Sources {
    pub(super) fn new() -> Self {
        let mut sources = Self::default();
        sources.set_number(&[]);
        sources
    }

    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        json: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let Some(json) = json else {
            self.forget(table, key);
            return Ok(());
        };
        let id = String::from_utf8_lossy(key).into_owned();
        match table {
            Table::Roles => drop(self.roles.insert(id, decode(table, key, json)?)),
            Table::Applications => {
                let record: Application = decode(table, key, json)?;
                self.bound(table, &id, record.rate_limit);
                self.applications.insert(id, record);
            }
            Table::Resources => {
                let record: Resource = decode(table, key, json)?;
                self.bound(table, &id, record.rate_limit);
                self.resources.insert(id, record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the limits of a record. What was taken of them before is taken still.
    fn bound(&mut self, table: Table, id: &str, rate: Option<RateLimit>) {
        let at = (table, id.to_owned());
        match Bounds::renewed(self.bounds.get(&at), rate, None) {
            Some(bounds) => drop(self.bounds.insert(at, bounds)),
            None => drop(self.bounds.remove(&at)),
        }
    }

    /// Takes a record out. True when the policy was made from it.
    pub(super) fn forget(&mut self, table: Table, key: &[u8]) -> bool {
        let id = String::from_utf8_lossy(key);
        self.bound(table, &id, None);
        match table {
            Table::Roles => self.roles.remove(&*id).is_some(),
            Table::Applications => self.applications.remove(&*id).is_some(),
            Table::Resources => self.resources.remove(&*id).is_some(),
            _ => false,
        }
    }

    /// The number of a combination of roles, and whether it is a new one. None at all is number 0.
    pub(super) fn set_number(&mut self, roles: &[RoleId<'_>]) -> (u32, bool) {
        let mut roles: Vec<String> = roles.iter().map(|role| role.0.to_string()).collect();
        roles.sort_unstable();
        if let Some(number) = self.set_numbers.get(roles.as_slice()) {
            return (*number, false);
        }
        let number = self.sets.len() as u32;
        let ids: Arc<[String]> = roles.into();
        self.sets.push(ids.clone());
        self.set_numbers.insert(ids, number);
        (number, true)
    }

    pub(super) fn compile(&self) -> Policy {
        let bounds = |table, id: &str| self.bounds.get(&(table, id.to_owned())).cloned();
        let of_resource = |id: &str| bounds(Table::Resources, id);
        let (routes, problems) = Routes::bounded(self.resources.values().cloned(), of_resource);
        let applications = self.applications.values().map(|record| {
            CompiledApplication::new(record.clone(), bounds(Table::Applications, &record.id))
        });
        for problem in problems {
            tracing::error!("a resource has no route: {}", problem.message);
        }
        Policy {
            roles: Arc::new(RoleTable::new(self.roles.clone(), &self.sets)),
            applications: Arc::new(Applications::new(applications)),
            routes: Arc::new(routes),
        }
    }
}
