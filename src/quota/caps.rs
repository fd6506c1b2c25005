//! Bounds on connections, or sessions: in all, from one address, and from one network of IPv6 addresses.
//!
//! ```text
//! QUIC endpoint ─┐ open(address): a handshake in progress
//! TLS listener ──┼──────────────► Caps ──► Cap: counted until it is dropped
//! plain listener ┘ admit(address): an established connection
//! ```
//! QUIC and TCP share one table, so an address has its places once, over all transports. An address counts only after
//! its validation (RFC 9000 §8.1, or TCP's handshake): otherwise packets with a forged source would use up another's
//! places.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{counted_as, network_of};

/// How many times an address's places an IPv6 /48 may hold. A /48 has 65,536 networks that count as addresses, and an
/// attacker gets a /48 easily.
const NETWORK_SHARE: usize = 8;
/// The same for handshakes in progress.
const NETWORK_HANDSHAKES: usize = 4;

/// The bound that is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CapsFull {
    /// The node's number (`MAX_SESSIONS`).
    #[error("this server has no place for another session")]
    Node,
    /// The address's number (`MAX_SESSIONS_PER_ADDRESS`), or its network's.
    #[error("this address has too many sessions")]
    Address,
    /// A planned stop has begun.
    #[error("this server is going away")]
    Draining,
}

/// Counts the [`Cap`]s that are held; clones share the count.
#[derive(Debug, Clone)]
pub struct Caps {
    table: Arc<CapTable>,
    /// Places that this handle leaves to other handles.
    leaves: usize,
}

#[derive(Debug)]
struct CapTable {
    total: usize,
    per_address: Option<AddressBound>,
    held: Mutex<HeldCaps>,
}

#[derive(Debug, Clone, Copy)]
struct AddressBound {
    places: usize,
    handshakes: usize,
}

impl AddressBound {
    fn of(places: usize) -> Self {
        // A quarter is enough for clients that reconnect together after a restart; at least 64, for an office behind a
        // NAT.
        Self { places, handshakes: (places / 4).clamp(64, 256).min(places) }
    }
}

#[derive(Debug, Default)]
struct HeldCaps {
    total: usize,
    by_address: HashMap<IpAddr, AddressCount>,
    /// Networks of IPv6 addresses.
    by_network: HashMap<IpAddr, AddressCount>,
    closed: bool,
}

#[derive(Debug, Default, Clone, Copy)]
struct AddressCount {
    places: usize,
    /// Those of them whose handshake is in progress.
    handshakes: usize,
}

impl AddressCount {
    fn has_place(&self, places: usize, handshakes: usize, is_handshake: bool) -> bool {
        self.places < places && (!is_handshake || self.handshakes < handshakes)
    }

    fn add(&mut self, is_handshake: bool) {
        self.places += 1;
        self.handshakes += usize::from(is_handshake);
    }
}

impl Caps {
    /// `per_address` `None`: only the total counts.
    pub fn new(total: usize, per_address: Option<usize>) -> Self {
        let per_address = per_address.map(AddressBound::of);
        Self { table: Arc::new(CapTable { total, per_address, held: Mutex::default() }), leaves: 0 }
    }

    /// A handle of the same table that leaves `places` of the total to other handles.
    #[must_use]
    pub fn leaving(&self, places: usize) -> Self {
        Self { table: Arc::clone(&self.table), leaves: places }
    }

    /// A place for an established connection.
    pub fn admit(&self, address: IpAddr) -> Result<Cap, CapsFull> {
        self.take(address, false)
    }

    /// A place for a handshake in progress: an address may have fewer of these.
    pub fn open(&self, address: IpAddr) -> Result<Cap, CapsFull> {
        self.take(address, true)
    }

    /// Whether [`Caps::open`] would succeed, for an address that is not validated yet.
    pub fn check(&self, address: IpAddr) -> Result<(), CapsFull> {
        self.has_place(&self.table.held.lock(), address, true)
    }

    fn has_place(&self, held: &HeldCaps, address: IpAddr, is_handshake: bool) -> Result<(), CapsFull> {
        if held.closed {
            return Err(CapsFull::Draining);
        }
        if held.total >= self.table.total.saturating_sub(self.leaves) {
            return Err(CapsFull::Node);
        }
        let Some(AddressBound { places, handshakes }) = self.table.per_address else { return Ok(()) };
        let count = |counts: &HashMap<IpAddr, AddressCount>, key| counts.get(&key).copied().unwrap_or_default();
        let (of_network, hands_of_network) = (places * NETWORK_SHARE, handshakes * NETWORK_HANDSHAKES);
        let has_place = count(&held.by_address, counted_as(address)).has_place(places, handshakes, is_handshake)
            && network_of(address).is_none_or(|network| {
                count(&held.by_network, network).has_place(of_network, hands_of_network, is_handshake)
            });
        if has_place { Ok(()) } else { Err(CapsFull::Address) }
    }

    fn take(&self, address: IpAddr, is_handshake: bool) -> Result<Cap, CapsFull> {
        let mut held = self.table.held.lock();
        self.has_place(&held, address, is_handshake)?;
        let (address, network) = (counted_as(address), network_of(address));
        if self.table.per_address.is_some() {
            held.by_address.entry(address).or_default().add(is_handshake);
            if let Some(network) = network {
                held.by_network.entry(network).or_default().add(is_handshake);
            }
        }
        held.total += 1;
        Ok(Cap { table: Arc::clone(&self.table), address, network, is_handshake })
    }

    /// Refuses everything from now on.
    pub fn close(&self) {
        self.table.held.lock().closed = true;
    }

    /// Places held now.
    pub fn held(&self) -> usize {
        self.table.held.lock().total
    }

    /// The address that holds more than half of all places, with their number.
    pub fn majority(&self) -> Option<(IpAddr, usize)> {
        let held = self.table.held.lock();
        let most = held.by_address.iter().max_by_key(|(_, count)| count.places)?;
        (most.1.places * 2 > held.total).then_some((*most.0, most.1.places))
    }
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Cap {
    table: Arc<CapTable>,
    address: IpAddr,
    network: Option<IpAddr>,
    is_handshake: bool,
}

impl Cap {
    /// The handshake is done: the place no longer counts as one in progress.
    pub fn established(&mut self) {
        if std::mem::take(&mut self.is_handshake) {
            self.change(|count| count.handshakes -= 1);
        }
    }

    /// Changes the counts that this place is in, and removes empty ones.
    fn change(&self, change: impl Fn(&mut AddressCount)) {
        let held = &mut *self.table.held.lock();
        let of_network = self.network.map(|network| (&mut held.by_network, network));
        for (counts, key) in [Some((&mut held.by_address, self.address)), of_network].into_iter().flatten() {
            if let Some(count) = counts.get_mut(&key) {
                change(count);
                if count.places == 0 {
                    counts.remove(&key);
                }
            }
        }
    }
}

impl Drop for Cap {
    fn drop(&mut self) {
        let handshakes = usize::from(self.is_handshake);
        self.change(|count| {
            count.places -= 1;
            count.handshakes -= handshakes;
        });
        self.table.held.lock().total -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::{Caps, CapsFull, NETWORK_HANDSHAKES, NETWORK_SHARE};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let caps = Caps::new(2, Some(1));
        let (a, b, c) = (address("192.0.2.1"), address("192.0.2.2"), address("192.0.2.3"));
        let first = caps.admit(a).unwrap();
        assert_eq!(caps.admit(a).err(), Some(CapsFull::Address), "one address, one place");
        let second = caps.admit(b).unwrap();
        assert_eq!(caps.admit(c).err(), Some(CapsFull::Node), "two places in all");
        drop(first);
        assert!(caps.admit(c).is_ok());
        drop(second);
        assert_eq!(caps.held(), 0);
        assert!(caps.table.held.lock().by_address.is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let caps = Caps::new(9, Some(1));
        let _first = caps.admit(address("2001:db8::1")).unwrap();
        assert!(caps.admit(address("2001:db8::2")).is_err());
        assert!(caps.admit(address("2001:db8:0:1::1")).is_ok());
    }

    /// The `number`th /64 of one /48.
    fn of_site(number: usize) -> IpAddr {
        address(&format!("2001:db8:7:{number:x}::1"))
    }

    #[test]
    fn a_site_s_network_holds_a_few_addresses_shares_and_not_the_whole_node() {
        let caps = Caps::new(100_000, Some(2));
        let held: Vec<_> = (0..1000).filter_map(|number| caps.admit(of_site(number)).ok()).collect();
        assert_eq!(held.len(), 2 * NETWORK_SHARE);
        assert!(caps.admit(address("2001:db8:8::1")).is_ok(), "another site");
        assert!(caps.admit(address("192.0.2.1")).is_ok());
        drop(held);
        assert!(caps.table.held.lock().by_network.is_empty());
    }

    #[test]
    fn an_address_has_fewer_handshakes_under_way_than_places() {
        let caps = Caps::new(100_000, Some(400));
        let mut opened: Vec<_> = (0..500).filter_map(|_| caps.open(address("192.0.2.1")).ok()).collect();
        assert_eq!(opened.len(), 100, "a quarter");
        assert!(caps.admit(address("192.0.2.1")).is_ok(), "its finished ones are counted apart");
        opened.iter_mut().for_each(super::Cap::established);
        assert!(caps.open(address("192.0.2.1")).is_ok(), "those are established");
        let of_network: Vec<_> = (0..1000).filter_map(|number| caps.open(of_site(number)).ok()).collect();
        assert_eq!(of_network.len(), 100 * NETWORK_HANDSHAKES);
    }

    #[test]
    fn a_handle_leaves_the_last_places_to_others() {
        let caps = Caps::new(3, None);
        let public = caps.leaving(1);
        let _held = [public.admit(address("192.0.2.1")).unwrap(), public.admit(address("192.0.2.2")).unwrap()];
        assert_eq!(public.admit(address("192.0.2.3")).err(), Some(CapsFull::Node));
        assert!(caps.admit(address("192.0.2.3")).is_ok());
    }

    #[test]
    fn an_address_that_holds_more_than_half_is_named() {
        let caps = Caps::new(9, Some(9));
        assert_eq!(caps.majority(), None);
        let _two = [caps.admit(address("10.0.0.1")).unwrap(), caps.admit(address("10.0.0.1")).unwrap()];
        let one = caps.admit(address("192.0.2.1")).unwrap();
        assert_eq!(caps.majority(), Some((address("10.0.0.1"), 2)));
        let _more = caps.admit(address("192.0.2.1")).unwrap();
        assert_eq!(caps.majority(), None);
        drop(one);
    }

    #[test]
    fn who_closes_admits_nobody() {
        let caps = Caps::new(9, None);
        caps.close();
        assert_eq!(caps.admit(address("192.0.2.1")).err(), Some(CapsFull::Draining));
    }
}
