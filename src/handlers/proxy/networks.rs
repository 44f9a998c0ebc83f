//! The networks in which upstreams may be, checked when a connection is opened, because a name can
//! resolve to another address at any time.

use std::{net::SocketAddr, sync::Arc};

use ipnet::IpNet;

use crate::{
    accounts::Accounts,
    model::{SpecialAddress, Target},
};

/// The networks in which upstreams may be. Cheap to clone.
#[derive(Clone, Default)]
pub(super) struct UpstreamNetworks {
    /// Empty means the default: every network without a [`SpecialAddress`].
    allowed: Arc<[IpNet]>,
    /// Knows the server's own listeners.
    accounts: Option<Accounts>,
}

impl UpstreamNetworks {
    pub fn new(allowed: impl IntoIterator<Item = IpNet>, accounts: Accounts) -> Self {
        Self { allowed: allowed.into_iter().collect(), accounts: Some(accounts) }
    }

    /// Checks an address of an upstream.
    ///
    /// # Errors
    /// The reason why the upstream must not have this address, as the end of a sentence.
    pub fn check(&self, target: &Target, address: SocketAddr) -> Result<(), String> {
        let ip = address.ip().to_canonical();
        if !self.allowed.is_empty() {
            let is_allowed = self.allowed.iter().any(|network| network.contains(&ip));
            return is_allowed.then_some(()).ok_or_else(|| {
                format!("{ip} is not in proxy.allowed_networks of the configuration")
            });
        }
        let is_written = target.address().is_some() || target.is_localhost();
        match SpecialAddress::of(ip) {
            // An administrator wrote that the upstream is on this machine.
            Some(SpecialAddress::Loopback) if is_written => return Ok(()),
            Some(special) => {
                return Err(format!(
                    "{ip} is {}. To allow it, list the networks of all upstreams in \
                     proxy.allowed_networks of the configuration",
                    special.name()
                ));
            }
            None => {}
        }
        let is_own = |accounts: &Accounts| accounts.is_own_listener(address);
        if !is_written && self.accounts.as_ref().is_some_and(is_own) {
            return Err(format!("{address} is a listener of Keyward"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], url: &str, address: &str) -> bool {
        let allowed = allowed.iter().map(|network| network.parse().unwrap()).collect();
        let networks = UpstreamNetworks { allowed, accounts: None };
        networks.check(&Target::parse(url).unwrap(), address.parse().unwrap()).is_ok()
    }

    #[test]
    fn name_must_not_resolve_to_a_special_address() {
        for address in [
            "127.0.0.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "0.0.0.0:80",
            "224.0.0.1:80",
            "[fd00:ec2::254]:80",
            "[64:ff9b::a9fe:a9fe]:80",
        ] {
            assert!(!check(&[], "http://rebound.example", address), "{address}");
        }
        assert!(check(&[], "http://api.example", "10.0.0.7:80"));
        assert!(check(&[], "http://127.0.0.1", "127.0.0.1:80"));
        assert!(check(&[], "http://localhost", "[::1]:80"));
        // Nobody forwards to the metadata service without saying so in the configuration.
        assert!(!check(&[], "http://169.254.169.254", "169.254.169.254:80"));
    }

    #[test]
    fn allowed_networks_are_the_only_ones() {
        let allowed = ["10.0.0.0/8", "169.254.7.0/24"];
        assert!(check(&allowed, "http://a.example", "10.1.2.3:80"));
        assert!(check(&allowed, "http://a.example", "169.254.7.1:80"));
        assert!(!check(&allowed, "http://a.example", "192.0.2.1:80"));
        assert!(!check(&allowed, "http://127.0.0.1", "127.0.0.1:80"));
        assert!(check(&["127.0.0.0/8"], "http://local.example", "127.0.0.1:80"));
    }
}
