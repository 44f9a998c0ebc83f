//! The upstreams of all proxy resources.
//!
//! Each change of a record creates a new policy. The upstreams are kept outside of the policy, so
//! that a change of a record other than their resource does not close their connections.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::{endpoint::Endpoint, networks::UpstreamNetworks};
use ipnet::IpNet;

use crate::{
    accounts::Accounts,
    model::{Proxy, Resource, Target},
};

/// The maximum number of upstreams that a request tries.
const TRIES: usize = 3;

/// The upstreams of all resources, by the resource's id.
#[derive(Default)]
pub struct Proxies {
    entries: papaya::HashMap<String, ResourceUpstreams>,
    networks: UpstreamNetworks,
}

#[derive(Clone)]
struct ResourceUpstreams {
    /// The record that the upstreams were created for. Records are compared by address: no other
    /// record can have the same address while this reference exists.
    resource: Weak<Resource>,
    upstreams: Arc<Upstreams>,
}

/// The upstreams of one resource.
pub(super) struct Upstreams {
    pub settings: Proxy,
    endpoints: Vec<Arc<Endpoint>>,
    /// The index of the first upstream for the next request.
    next: AtomicUsize,
}

impl Proxies {
    /// The upstreams of resources, which may be in these networks only.
    pub fn for_networks(networks: impl IntoIterator<Item = IpNet>, accounts: &Accounts) -> Self {
        let networks = UpstreamNetworks::new(networks, accounts.clone());
        Self { networks, ..Self::default() }
    }

    /// The upstreams of a resource. `None` means that the resource has no upstreams.
    pub(super) fn of(&self, resource: &Arc<Resource>) -> Option<Arc<Upstreams>> {
        let entries = self.entries.pin();
        let entry = entries.get(&resource.id);
        if let Some(entry) = entry
            && std::ptr::eq(entry.resource.as_ptr(), Arc::as_ptr(resource))
        {
            return Some(entry.upstreams.clone());
        }
        let settings = resource.proxy.as_ref()?;
        let upstreams = match entry {
            Some(entry) if entry.upstreams.settings == *settings => entry.upstreams.clone(),
            _ => Arc::new(Upstreams::new(settings, &self.networks)?),
        };
        let resource_ref = Arc::downgrade(resource);
        let entry = ResourceUpstreams { resource: resource_ref, upstreams: upstreams.clone() };
        entries.insert(resource.id.clone(), entry);
        // Removes entries of deleted resources.
        entries.retain(|_, entry| entry.resource.strong_count() > 0);
        Some(upstreams)
    }
}

impl Upstreams {
    fn new(settings: &Proxy, networks: &UpstreamNetworks) -> Option<Self> {
        let endpoint = |address: &String| {
            let target = Target::parse(address).ok()?;
            Endpoint::new(target, settings, networks.clone()).ok().map(Arc::new)
        };
        let endpoints: Vec<_> = settings.upstreams.iter().filter_map(endpoint).collect();
        (!endpoints.is_empty()).then(|| Self {
            settings: settings.clone(),
            endpoints,
            next: AtomicUsize::new(0),
        })
    }

    /// The upstreams that the next request tries, round-robin and without ejected upstreams. A
    /// single upstream is always tried, because there is no other upstream to try instead.
    pub fn next_candidates(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        let count = self.endpoints.len();
        let first = if count == 1 { 0 } else { self.next.fetch_add(1, Relaxed) % count };
        let candidates = self.endpoints[first..].iter().chain(&self.endpoints[..first]);
        let is_usable =
            move |upstream: &&Arc<Endpoint>| count == 1 || upstream.ejected_for().is_none();
        candidates.filter(is_usable).take(TRIES).cloned()
    }

    /// The seconds until the first ejected upstream may be used again, rounded up.
    pub fn seconds_until_return(&self) -> u32 {
        let soonest = self.endpoints.iter().filter_map(|upstream| upstream.ejected_for()).min();
        let seconds = soonest.map_or(0, |left| left.as_secs());
        u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{handlers::proxy::health::UpstreamResult, model::Handler};

    fn resource(upstreams: &[&str]) -> Arc<Resource> {
        let upstreams = upstreams.iter().map(|address| (*address).to_owned()).collect();
        let proxy = Some(Proxy { upstreams, ..Proxy::default() });
        let path = Some("/x".to_owned());
        Arc::new(Resource { handler: Handler::Proxy, path, proxy, ..Resource::entity_user() })
    }

    #[test]
    fn upstreams_are_kept_until_their_settings_change() {
        let proxies = Proxies::default();
        let first = proxies.of(&resource(&["http://a"])).unwrap();
        let same = proxies.of(&resource(&["http://a"])).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        let other = proxies.of(&resource(&["http://b"])).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(proxies.of(&Arc::new(Resource::entity_user())).is_none());
    }

    #[test]
    fn candidates_rotate_and_exclude_ejected_upstreams() {
        let upstreams = Proxies::default().of(&resource(&["http://a", "http://b"])).unwrap();
        let names = || -> Vec<String> {
            upstreams.next_candidates().map(|upstream| upstream.name().to_string()).collect()
        };
        assert_eq!(
            (names(), names()),
            (vec!["a".into(), "b".into()], vec!["b".into(), "a".into()])
        );
        for _ in 0..3 {
            upstreams.endpoints[0].record(UpstreamResult::Failed, &upstreams.settings);
        }
        assert_eq!((names(), names()), (vec!["b".to_owned()], vec!["b".to_owned()]));
        for _ in 0..3 {
            upstreams.endpoints[1].record(UpstreamResult::Failed, &upstreams.settings);
        }
        assert_eq!(names(), [""; 0]);
        assert!((1..=11).contains(&upstreams.seconds_until_return()));
        let single = Proxies::default().of(&resource(&["http://a"])).unwrap();
        let settings = Proxy { eject_after: 1, ..Proxy::default() };
        single.endpoints[0].record(UpstreamResult::Failed, &settings);
        assert_eq!(single.next_candidates().count(), 1);
    }
}
