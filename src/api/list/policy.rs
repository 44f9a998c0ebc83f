//! The filters and orders of the lists of roles, applications and resources.

use super::{ListParameters, ListQuery, SortField};
use crate::{
    accounts::{Filter, PolicyRecord, Rows, Search, Sort, SortKey, TextPattern},
    model::{Application, Resource, Role, fold},
    pipeline::Denial,
};

/// A record of a list with filters.
pub(in crate::api) trait Listed: PolicyRecord + 'static {
    /// The parameters of the list.
    const PARAMETERS: ListParameters;

    /// Reads the filters.
    fn filter(query: &mut ListQuery) -> Filter<Self>;

    /// The value of a field by which the list can be sorted.
    fn sort_key(&self, field: &str) -> SortKey;
}

/// Reads a search for these records.
pub(in crate::api) fn search<T: Listed>(query: &mut ListQuery) -> Result<Search<T>, Denial> {
    let matches = T::filter(query);
    query.finish()?;
    let is_by_id = query.sort == Some(SortField { name: "id", descending: false });
    let sort = query.sort.filter(|_| !is_by_id).map(|SortField { name, descending }| Sort {
        key: Box::new(move |record: &T| Ok(record.sort_key(name))),
        descending,
    });
    let (after, limit) = (query.position()?, query.limit);
    Ok(Search { rows: Rows::Table(T::TABLE), matches, sort, after, limit })
}

fn fits(pattern: &Option<TextPattern>, texts: &[&str]) -> bool {
    pattern.as_ref().is_none_or(|pattern| texts.iter().any(|text| pattern.matches(text)))
}

impl Listed for Role {
    const PARAMETERS: ListParameters =
        ListParameters { filters: &["name", "permission"], sorts: &["id", "label", "weight"] };

    fn filter(query: &mut ListQuery) -> Filter<Self> {
        let (name, permission) = (query.pattern("name"), query.pattern("permission"));
        Box::new(move |role| {
            let permissions: Vec<&str> = role.permissions.iter().map(String::as_str).collect();
            // An administrator's role has all permissions.
            let has_permission = role.is_admin || fits(&permission, &permissions);
            Ok(fits(&name, &[&role.id, &role.label]) && has_permission)
        })
    }

    fn sort_key(&self, field: &str) -> SortKey {
        match field {
            "label" => SortKey::Text(fold(&self.label)),
            "weight" => SortKey::Number(self.weight.into()),
            _ => SortKey::Text(self.id.clone()),
        }
    }
}

impl Listed for Application {
    const PARAMETERS: ListParameters =
        ListParameters { filters: &["name", "type", "enabled"], sorts: &["id", "name"] };

    fn filter(query: &mut ListQuery) -> Filter<Self> {
        let (name, kind) = (query.pattern("name"), query.pattern("type"));
        let enabled = query.flag("enabled");
        Box::new(move |application| {
            Ok(fits(&name, &[&application.id, &application.name])
                && fits(&kind, &[application.auth_type.name()])
                && enabled.is_none_or(|enabled| application.enabled == enabled))
        })
    }

    fn sort_key(&self, field: &str) -> SortKey {
        match field {
            "name" => SortKey::Text(fold(&self.name)),
            _ => SortKey::Text(self.id.clone()),
        }
    }
}

impl Listed for Resource {
    const PARAMETERS: ListParameters = ListParameters {
        filters: &["name", "path", "host", "handler", "application", "permission", "enabled"],
        sorts: &["id", "path", "host"],
    };

    fn filter(query: &mut ListQuery) -> Filter<Self> {
        let [name, path, host, handler, permission] =
            ["name", "path", "host", "handler", "permission"].map(|name| query.pattern(name));
        let application = query.text("application").map(str::to_owned);
        let enabled = query.flag("enabled");
        Box::new(move |resource| {
            let rules: Vec<_> = resource.rules.each().collect();
            let permissions: Vec<&str> = rules
                .iter()
                .flat_map(|rules| rules.permissions.iter().map(String::as_str))
                .collect();
            let accepts = |id: &String| {
                let accepted = |id: &str| rules.iter().any(|rule| rule.authentication.contains(id));
                accepted(id) || accepted("*") && id != "anonymous"
            };
            Ok(fits(&name, &[&resource.id])
                && fits(&path, &resource.paths())
                && (host.is_none() || fits(&host, &[resource.host.as_deref().unwrap_or_default()]))
                && fits(&handler, &[&*resource.handler.name()])
                && fits(&permission, &permissions)
                && application.as_ref().is_none_or(accepts)
                && enabled.is_none_or(|enabled| resource.enabled == enabled))
        })
    }

    fn sort_key(&self, field: &str) -> SortKey {
        match field {
            "path" => SortKey::Text(self.paths().first().copied().unwrap_or_default().to_owned()),
            "host" => SortKey::Text(self.host.clone().unwrap_or_default()),
            _ => SortKey::Text(self.id.clone()),
        }
    }
}
