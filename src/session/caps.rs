//! How many connections, or sessions, are held: in all, and from one address.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use parking_lot::Mutex;

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The node's number (`MAX_SESSIONS`).
    #[error("this server has no place for another session")]
    Node,
    /// The address's number (`MAX_SESSIONS_PER_ADDRESS`).
    #[error("this address has too many sessions")]
    Address,
    /// A planned stop has begun.
    #[error("this server is going away")]
    Draining,
}

/// Counts who holds a [`Cap`] until it ends; clones share the count.
#[derive(Debug, Clone)]
pub struct Caps(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    total: usize,
    per_address: Option<usize>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
    closed: bool,
}

impl Caps {
    /// `per_address` `None`: only the total counts.
    pub fn new(total: usize, per_address: Option<usize>) -> Self {
        Self(Arc::new(Inner { total, per_address, held: Mutex::default() }))
    }

    /// A place for one from there.
    pub fn admit(&self, address: IpAddr) -> Result<Cap, Full> {
        let address = counted_as(address);
        let mut held = self.0.held.lock();
        if held.closed {
            return Err(Full::Draining);
        }
        if held.total >= self.0.total {
            return Err(Full::Node);
        }
        if let Some(most) = self.0.per_address {
            let count = held.by_address.entry(address).or_default();
            if *count >= most {
                return Err(Full::Address);
            }
            *count += 1;
        }
        held.total += 1;
        Ok(Cap { caps: Arc::clone(&self.0), address })
    }

    /// From now on nobody.
    pub fn close(&self) {
        self.0.held.lock().closed = true;
    }

    /// Held now.
    pub fn held(&self) -> usize {
        self.0.held.lock().total
    }
}

/// One IPv6 customer has a /64, so that is what counts as an address.
fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

/// One place; given back when dropped.
#[derive(Debug)]
pub struct Cap {
    caps: Arc<Inner>,
    address: IpAddr,
}

impl Drop for Cap {
    fn drop(&mut self) {
        let mut held = self.caps.held.lock();
        held.total -= 1;
        if let Some(count) = held.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                held.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Caps, Full};

    #[test]
    fn a_place_is_given_back_when_its_connection_ends() {
        let caps = Caps::new(2, Some(1));
        let (a, b, c) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap(), "192.0.2.3".parse().unwrap());
        let first = caps.admit(a).unwrap();
        assert_eq!(caps.admit(a).err(), Some(Full::Address), "one address, one place");
        let second = caps.admit(b).unwrap();
        assert_eq!(caps.admit(c).err(), Some(Full::Node), "two places in all");
        drop(first);
        assert!(caps.admit(c).is_ok());
        drop(second);
        assert_eq!(caps.held(), 0);
        assert!(caps.0.held.lock().by_address.is_empty(), "nothing is kept of those who left");
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one() {
        let caps = Caps::new(9, Some(1));
        let _first = caps.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert!(caps.admit("2001:db8::2".parse().unwrap()).is_err());
        assert!(caps.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn who_closes_admits_nobody() {
        let caps = Caps::new(9, None);
        caps.close();
        assert_eq!(caps.admit("192.0.2.1".parse().unwrap()).err(), Some(Full::Draining));
    }
}
