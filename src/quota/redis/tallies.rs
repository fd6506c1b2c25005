//! The keys under which visitors are counted in Redis; they contain no address and no user id.
//!
//! Names are HMACs with a random salt that the nodes share. All keys of an address, its users' too, are in the
//! address's partition.

use std::net::IpAddr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{NodeId, RoomId, counted_as};
use crate::quota::Visitor;
use crate::redis::Partition;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Tallies {
    partition: Partition,
    address: String,
    user: String,
}

impl Tallies {
    pub(super) fn of(salt: &str, visitor: &Visitor) -> Self {
        let user = hash(salt, visitor.address(), visitor.user().as_str());
        Self { user, ..Self::of_address(salt, visitor.address()) }
    }

    /// Without a user.
    pub(super) fn of_address(salt: &str, address: IpAddr) -> Self {
        let address = hash(salt, address, "");
        Self { partition: Partition::of_name(&address), address, user: String::new() }
    }

    /// The counter of its JOINs.
    pub(super) fn joins(&self) -> String {
        self.partition.key(&format!("joins:{}", self.address))
    }

    /// The set of the address's sessions.
    pub(super) fn address(&self) -> String {
        self.partition.key(&format!("address:{}", self.address))
    }

    /// The set of the user's sessions at this address.
    pub(super) fn user(&self) -> String {
        self.partition.key(&format!("user:{}", self.user))
    }
}

/// The counter of an address's guesses at a room's PIN.
pub(super) fn pins(salt: &str, room: &RoomId, address: IpAddr) -> String {
    Tallies::of_address(salt, address).partition.key(&format!("pins:{}", hash(salt, address, room.as_str())))
}

/// A place in a set of sessions, which other nodes use too.
pub(super) fn place_name(node: &NodeId, number: u64) -> String {
    format!("{node}/{number:x}")
}

/// 96 bits, against collisions.
fn hash(salt: &str, address: IpAddr, what: &str) -> String {
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(salt.as_bytes()) else { return String::new() };
    mac.update(format!("{}/{what}", counted_as(address)).as_bytes());
    mac.finalize().into_bytes()[..12].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_addresses_users_and_rooms_apart_and_no_address() {
        let at = |text: &str, what: &str| hash("salt", text.parse().unwrap(), what);
        assert_eq!(at("2001:db8::1", "ann"), at("2001:db8::2", "ann"), "one network");
        let all = [
            at("192.0.2.1", ""),
            at("192.0.2.1", "ann"),
            at("192.0.2.2", ""),
            at("192.0.2.1", "friday"),
            hash("another", "192.0.2.1".parse().unwrap(), ""),
        ];
        let different: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(all.iter().all(|name| name.len() == 24 && name.bytes().all(|byte| byte.is_ascii_hexdigit())));
    }
}
