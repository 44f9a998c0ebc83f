//! The upstreams of each proxy resource. They live longer than one policy: connections and what is known of an upstream's health stay when
//! some other record changes.

use std::sync::{
    Arc, Weak,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use super::Endpoint;
use crate::model::{Proxy, Resource, Target};

/// How many upstreams a request tries at most.
const TRIES: usize = 3;

/// The upstreams of all resources, by the resource's id.
#[derive(Default)]
pub struct Proxies(papaya::HashMap<String, Known>);

#[derive(Clone)]
struct Known {
    /// The record that they were made for. It is compared by its address, which cannot be another's while this points there.
    resource: Weak<Resource>,
    upstreams: Arc<Upstreams>,
}

/// The upstreams of one resource.
pub(super) struct Upstreams {
    pub settings: Proxy,
    endpoints: Vec<Arc<Endpoint>>,
    next: AtomicUsize,
}

impl Proxies {
    /// The upstreams of a resource; none: it has none.
    pub(super) fn of(&self, resource: &Arc<Resource>) -> Option<Arc<Upstreams>> {
        let known = self.0.pin();
        let before = known.get(&resource.id);
        if let Some(found) = before
            && std::ptr::eq(found.resource.as_ptr(), Arc::as_ptr(resource))
        {
            return Some(found.upstreams.clone());
        }
        let settings = resource.proxy.as_ref()?;
        let upstreams = match before {
            Some(found) if found.upstreams.settings == *settings => found.upstreams.clone(),
            _ => Arc::new(Upstreams::new(settings)?),
        };
        let resource_now = Arc::downgrade(resource);
        let now = Known { resource: resource_now, upstreams: upstreams.clone() };
        known.insert(resource.id.clone(), now);
        // Those of resources that are gone would stay for ever.
        known.retain(|_, one| one.resource.strong_count() > 0);
        Some(upstreams)
    }
}

impl Upstreams {
    fn new(settings: &Proxy) -> Option<Self> {
        let endpoint = |address: &String| {
            let target = Target::parse(address).ok()?;
            Endpoint::new(target, settings).ok().map(Arc::new)
        };
        let endpoints: Vec<_> = settings.upstreams.iter().filter_map(endpoint).collect();
        (!endpoints.is_empty()).then(|| Self {
            settings: settings.clone(),
            endpoints,
            next: AtomicUsize::new(0),
        })
    }

    /// The upstreams that a request tries, in turn. One that stands alone is always tried: there is nothing to gain by leaving it out.
    pub fn round(&self) -> impl Iterator<Item = Arc<Endpoint>> {
        let count = self.endpoints.len();
        let first = if count == 1 { 0 } else { self.next.fetch_add(1, Relaxed) % count };
        let turn = self.endpoints[first..].iter().chain(&self.endpoints[..first]);
        turn.filter(move |one| count == 1 || one.out_for().is_none()).take(TRIES).cloned()
    }

    /// In how many seconds the first comes back that is left out.
    pub fn returns_in(&self) -> u32 {
        let soonest = self.endpoints.iter().filter_map(|one| one.out_for()).min();
        let seconds = soonest.map_or(0, |left| left.as_secs());
        u32::try_from(seconds).unwrap_or(u32::MAX).saturating_add(1)
    }
}

#[cfg(test)]
mod unit {
    use super::*;
    use crate::{handlers::proxy::Outcome, model::Handler};

    fn resource(upstreams: &[&str]) -> Arc<Resource> {
        let upstreams = upstreams.iter().map(|one| (*one).to_owned()).collect();
        let proxy = Some(Proxy { upstreams, ..Proxy::default() });
        let path = Some("/x".to_owned());
        Arc::new(Resource { handler: Handler::Proxy, path, proxy, ..Resource::entity_user() })
    }

    #[test]
    fn they_stay_as_long_as_their_settings() {
        let proxies = Proxies::default();
        let first = proxies.of(&resource(&["http://a"])).unwrap();
        let same = proxies.of(&resource(&["http://a"])).unwrap();
        assert!(Arc::ptr_eq(&first, &same));
        let other = proxies.of(&resource(&["http://b"])).unwrap();
        assert!(!Arc::ptr_eq(&first, &other));
        assert!(proxies.of(&Arc::new(Resource::entity_user())).is_none());
    }

    #[test]
    fn they_are_asked_in_turn_and_those_that_fail_are_left_out() {
        let upstreams = Proxies::default().of(&resource(&["http://a", "http://b"])).unwrap();
        let turn = || upstreams.round().map(|one| one.name().to_owned()).collect::<Vec<_>>();
        assert_eq!((turn(), turn()), (vec!["a".into(), "b".into()], vec!["b".into(), "a".into()]));
        for _ in 0..3 {
            upstreams.endpoints[0].note(Outcome::Failed, &upstreams.settings);
        }
        assert_eq!((turn(), turn()), (vec!["b".to_owned()], vec!["b".to_owned()]));
        for _ in 0..3 {
            upstreams.endpoints[1].note(Outcome::Failed, &upstreams.settings);
        }
        assert_eq!(turn(), [""; 0]);
        assert!((1..=11).contains(&upstreams.returns_in()));
        let alone = Proxies::default().of(&resource(&["http://a"])).unwrap();
        alone.endpoints[0].note(Outcome::Failed, &Proxy { eject_after: 1, ..Proxy::default() });
        assert_eq!(alone.round().count(), 1);
    }
}
