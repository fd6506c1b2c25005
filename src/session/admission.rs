//! Who may open a session: a number for the node, a number for each client address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::domain::{Limits, counted_as};

/// No place for another session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// `MAX_SESSIONS`.
    #[error("this server has no place for another session")]
    Node,
    /// `MAX_SESSIONS_PER_ADDRESS`.
    #[error("this address has too many sessions")]
    Address,
    /// A planned stop has begun.
    #[error("this server is going away")]
    Draining,
}

/// Counts the sessions of a node; clones share the count.
#[derive(Clone)]
pub struct Admission(Arc<Inner>);

struct Inner {
    sessions: u64,
    address_sessions: u64,
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    all: u64,
    by_address: HashMap<IpAddr, u64>,
    closed: bool,
}

impl Admission {
    /// `rates`: whether the number per address holds (`RATE_LIMITS`).
    pub fn new(limits: &Limits, rates: bool) -> Self {
        let address_sessions = if rates { limits.address_sessions } else { u64::MAX };
        Self(Arc::new(Inner { sessions: limits.sessions, address_sessions, counts: Mutex::default() }))
    }

    /// A place for one session, given back when the permit is dropped.
    pub fn admit(&self, address: IpAddr) -> Result<Permit, Full> {
        let address = counted_as(address);
        let mut counts = self.0.counts.lock();
        if counts.closed {
            return Err(Full::Draining);
        }
        if counts.all >= self.0.sessions {
            return Err(Full::Node);
        }
        let of_address = counts.by_address.entry(address).or_default();
        if *of_address >= self.0.address_sessions {
            return Err(Full::Address);
        }
        *of_address += 1;
        counts.all += 1;
        Ok(Permit { admission: self.clone(), address })
    }

    /// From now on nobody.
    pub fn close(&self) {
        self.0.counts.lock().closed = true;
    }

    /// Sessions now.
    pub fn count(&self) -> u64 {
        self.0.counts.lock().all
    }
}

/// One session's place.
pub struct Permit {
    admission: Admission,
    address: IpAddr,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut counts = self.admission.0.counts.lock();
        counts.all -= 1;
        if let Some(count) = counts.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(sessions: u64, address_sessions: u64) -> Limits {
        Limits { sessions, address_sessions, ..Limits::default() }
    }

    #[test]
    fn one_address_can_not_take_every_place() {
        let admission = Admission::new(&limits(10, 2), true);
        let (here, there): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let _first = admission.admit(here).unwrap();
        let second = admission.admit(here).unwrap();
        assert_eq!(admission.admit(here).err(), Some(Full::Address));
        assert!(admission.admit(there).is_ok());
        drop(second);
        assert!(admission.admit(here).is_ok());
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let admission = Admission::new(&limits(10, 1), true);
        let _first = admission.admit("2001:db8::1".parse().unwrap()).unwrap();
        assert_eq!(admission.admit("2001:db8::2".parse().unwrap()).err(), Some(Full::Address));
        assert!(admission.admit("2001:db8:0:1::1".parse().unwrap()).is_ok());
    }

    #[test]
    fn a_node_that_stops_admits_nobody() {
        let admission = Admission::new(&limits(10, 10), true);
        admission.close();
        assert_eq!(admission.admit([127, 0, 0, 1].into()).err(), Some(Full::Draining));
    }
}
