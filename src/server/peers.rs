//! Counts the open connections of each address, so that one address cannot take all connections of
//! a listener.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::model::client_network;

/// The maximum number of open connections of one address at a listener. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeerLimit(Arc<Peers>);

#[derive(Debug)]
struct Peers {
    max: usize,
    exempt: Vec<IpNet>,
    open: Mutex<HashMap<u128, usize>>,
}

/// An open connection, which counts until it is dropped.
#[derive(Debug)]
pub(super) struct PeerConnection {
    peers: Arc<Peers>,
    /// `None` means that the connection is not counted.
    network: Option<u128>,
}

impl PeerLimit {
    /// A limit of `max` connections. An IPv6 address is reduced to its /64 network. The addresses
    /// in `exempt`, such as trusted proxies, have no limit.
    pub fn new(max: usize, exempt: impl IntoIterator<Item = IpNet>) -> Self {
        let exempt = exempt.into_iter().collect();
        Self(Arc::new(Peers { max, exempt, open: Mutex::default() }))
    }

    /// No limit.
    pub fn none() -> Self {
        Self::new(usize::MAX, [])
    }

    /// Counts a connection. A `peer` of `None` is a Unix socket, which has no limit. The result is
    /// `None` if the address has too many open connections.
    pub(super) fn admit(&self, peer: Option<IpAddr>) -> Option<PeerConnection> {
        let peers = &self.0;
        let is_exempt = |peer: &IpAddr| {
            let peer = peer.to_canonical();
            peers.exempt.iter().any(|network| network.contains(&peer))
        };
        let counted = peer.filter(|peer| peers.max != usize::MAX && !is_exempt(peer));
        let network = counted.map(client_network);
        if let Some(network) = network {
            let mut open = peers.open.lock();
            let count = open.entry(network).or_default();
            if *count >= peers.max {
                return None;
            }
            *count += 1;
        }
        Some(PeerConnection { peers: peers.clone(), network })
    }
}

impl Drop for PeerConnection {
    fn drop(&mut self) {
        let Some(network) = self.network else { return };
        let mut open = self.peers.open.lock();
        if let Some(count) = open.get_mut(&network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&network);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_its_limit_and_others_have_theirs() {
        let limit = PeerLimit::new(2, ["10.0.0.0/8".parse().unwrap()]);
        let admit = |peer: &str| limit.admit(Some(peer.parse().unwrap()));
        let first = admit("192.0.2.1").unwrap();
        let _second = admit("::ffff:192.0.2.1").unwrap();
        assert!(admit("192.0.2.1").is_none());
        assert!(admit("192.0.2.2").is_some());
        // One IPv6 network is one client.
        let _six = [admit("2001:db8::1"), admit("2001:db8::2")].map(Option::unwrap);
        assert!(admit("2001:db8::3").is_none());
        assert!(admit("2001:db8:0:1::1").is_some());
        let exempt: Vec<_> = (0..9).map(|_| admit("10.1.2.3").unwrap()).collect();
        let local: Vec<_> = (0..9).map(|_| limit.admit(None).unwrap()).collect();
        drop((first, exempt, local));
        assert!(admit("192.0.2.1").is_some());
        // Nothing is kept of closed connections: the second, and the IPv6 network, are open.
        assert_eq!(limit.0.open.lock().len(), 2);
    }
}
