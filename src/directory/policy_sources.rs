//! The records that the policy is compiled from: roles, applications, resources, and the
//! combinations of roles that users have.

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
pub(super) struct PolicySources {
    roles: HashMap<String, Role>,
    applications: HashMap<String, Application>,
    resources: BTreeMap<String, Resource>,
    /// The limits of applications and resources. The limits outlive a policy, so that a new policy
    /// does not reset their counts.
    bounds: HashMap<(Table, String), Arc<Bounds>>,
    /// Every combination of roles that any user has had, each with sorted ids. The index of a
    /// combination is its number.
    role_sets: Vec<Arc<[String]>>,
    role_set_numbers: HashMap<Arc<[String]>, u32>,
}

impl PolicySources {
    pub(super) fn new() -> Self {
        let mut sources = Self::default();
        sources.role_set_number(&[]);
        sources
    }

    /// Inserts or replaces a record. If `json` is `None`, removes the record.
    pub(super) fn put(
        &mut self,
        table: Table,
        key: &[u8],
        json: Option<&[u8]>,
    ) -> Result<(), StoreError> {
        let Some(json) = json else {
            self.remove(table, key);
            return Ok(());
        };
        let id = String::from_utf8_lossy(key).into_owned();
        match table {
            Table::Roles => drop(self.roles.insert(id, decode(table, key, json)?)),
            Table::Applications => {
                let record: Application = decode(table, key, json)?;
                self.set_limit(table, &id, record.rate_limit);
                self.applications.insert(id, record);
            }
            Table::Resources => {
                let record: Resource = decode(table, key, json)?;
                self.set_limit(table, &id, record.rate_limit);
                self.resources.insert(id, record);
            }
            _ => {}
        }
        Ok(())
    }

    /// Sets the limit of a record, and keeps the count of the previous limit.
    fn set_limit(&mut self, table: Table, id: &str, rate: Option<RateLimit>) {
        let key = (table, id.to_owned());
        match Bounds::renewed(self.bounds.get(&key), rate, None) {
            Some(bounds) => drop(self.bounds.insert(key, bounds)),
            None => drop(self.bounds.remove(&key)),
        }
    }

    /// Removes a record. `true` means that the record existed, so the policy must be compiled
    /// again.
    pub(super) fn remove(&mut self, table: Table, key: &[u8]) -> bool {
        let id = String::from_utf8_lossy(key);
        self.set_limit(table, &id, None);
        match table {
            Table::Roles => self.roles.remove(&*id).is_some(),
            Table::Applications => self.applications.remove(&*id).is_some(),
            Table::Resources => self.resources.remove(&*id).is_some(),
            _ => false,
        }
    }

    /// The number of a combination of roles, and whether the combination is new. The empty
    /// combination has number 0.
    pub(super) fn role_set_number(&mut self, roles: &[RoleId<'_>]) -> (u32, bool) {
        let mut roles: Vec<String> = roles.iter().map(|role| role.0.to_string()).collect();
        roles.sort_unstable();
        if let Some(number) = self.role_set_numbers.get(roles.as_slice()) {
            return (*number, false);
        }
        let number = self.role_sets.len() as u32;
        let ids: Arc<[String]> = roles.into();
        self.role_sets.push(ids.clone());
        self.role_set_numbers.insert(ids, number);
        (number, true)
    }

    pub(super) fn compile(&self) -> Policy {
        let bounds = |table, id: &str| self.bounds.get(&(table, id.to_owned())).cloned();
        let of_resource = |id: &str| bounds(Table::Resources, id);
        let (routes, problems) = Routes::with_bounds(self.resources.values().cloned(), of_resource);
        let applications = self.applications.values().map(|record| {
            CompiledApplication::new(record.clone(), bounds(Table::Applications, &record.id))
        });
        for problem in problems {
            tracing::error!("a resource has no route: {}", problem.message);
        }
        Policy {
            roles: Arc::new(RoleTable::new(self.roles.clone(), &self.role_sets)),
            applications: Arc::new(Applications::new(applications)),
            routes: Arc::new(routes),
        }
    }
}
