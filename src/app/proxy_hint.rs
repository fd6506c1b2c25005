//! A private address that holds most sessions is a proxy rather than a person: said once, with what to set.
//!
//! Behind a container engine's port forwarding, or a proxy on the same machine, all clients have one address. Limits by
//! address then hold for all of them together, and the operator sees only that newcomers are refused.

use std::net::IpAddr;

use crate::domain::is_private;

/// Fewer sessions than this are a household.
const CROWD: u64 = 20;

/// Says it once.
#[derive(Debug, Default)]
pub(super) struct ProxyHint {
    is_said: bool,
}

impl ProxyHint {
    /// `majority`: the address that holds more than half of all sessions, and how many. `most`: what one address may
    /// hold.
    pub(super) fn look(&mut self, majority: Option<(IpAddr, usize)>, most: u64) {
        let Some((address, sessions)) = majority.filter(|_| !self.is_said) else { return };
        if is_private(address) && sessions as u64 >= CROWD.max(most / 4).min(most) {
            self.is_said = true;
            tracing::warn!(
                %address, sessions, most,
                "most sessions come from one private address: a proxy, or a container engine's port forwarding. At `most` \
                 newcomers are refused. For a proxy on PORT set TRUSTED_PROXIES to its address; what forwards UDP or TCP \
                 itself needs host networking, or a larger MAX_SESSIONS_PER_ADDRESS"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ProxyHint;

    fn said(hint: &mut ProxyHint, address: &str, sessions: usize) -> bool {
        let before = hint.is_said;
        hint.look(Some((address.parse().unwrap(), sessions)), 200);
        hint.is_said && !before
    }

    #[test]
    fn a_private_address_with_a_quarter_of_its_places_and_most_sessions_is_told_of_once() {
        let mut hint = ProxyHint::default();
        hint.look(None, 200);
        assert!(!said(&mut hint, "172.17.0.1", 49));
        assert!(!said(&mut hint, "203.0.113.7", 150), "a public address is an office, or an attacker");
        assert!(said(&mut hint, "172.17.0.1", 50));
        assert!(!said(&mut hint, "172.17.0.1", 200), "once");
    }
}
