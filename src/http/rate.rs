//! Rate limit for requests that use the stores without a membership, for each address.
//!
//! The table has a fixed size and stores no keys. A keyed hash of the address chooses two of its slots, each of which
//! holds the time until when the rate is used up (GCRA). An address is refused only when both slots are used up:
//! sharing one with a busy address costs nothing, and no number of addresses makes the table grow or evicts another.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::counted_as;

const SLOTS: usize = 1 << 14;
/// Burst: a minute's number divided by this.
const BURST: u32 = 4;

pub(super) struct LookupRate {
    /// When each slot is free again.
    slots: Mutex<Box<[Option<Instant>]>>,
    keys: [RandomState; 2],
    interval: Duration,
}

impl LookupRate {
    pub(super) fn per_minute(number: u64) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX).max(1);
        Self {
            slots: Mutex::new(vec![None; SLOTS].into()),
            keys: [RandomState::new(), RandomState::new()],
            interval: Duration::from_secs(60) / number,
        }
    }

    /// Counts a request, or returns the time to wait.
    pub(super) fn take(&self, address: IpAddr) -> Result<(), Duration> {
        let now = Clock::instant();
        let address = counted_as(address);
        let places = self.keys.each_ref().map(|key| key.hash_one(address) as usize % SLOTS);
        let mut slots = self.slots.lock();
        let used_up = places.iter().filter_map(|place| slots[*place]).collect::<Vec<_>>();
        // The slot that is free earlier is nearer to this address's own use.
        let least = if used_up.len() < places.len() { now } else { used_up.into_iter().min().unwrap_or(now).max(now) };
        let wait = (least - now).saturating_sub(Duration::from_secs(60) / BURST);
        if !wait.is_zero() {
            return Err(wait);
        }
        for place in places {
            let until = slots[place].get_or_insert(now);
            *until = (*until).max(least + self.interval);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from(0x0a00_0000 + number).into()
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_has_a_burst_and_then_its_rate() {
        let rate = LookupRate::per_minute(120);
        let taken = (0..100).take_while(|_| rate.take(address(1)).is_ok()).count();
        assert_eq!(taken, 31, "a quarter of a minute, and the first");
        let wait = rate.take(address(1)).unwrap_err();
        assert!(wait <= Duration::from_millis(500), "{wait:?}");
        tokio::time::advance(wait).await;
        assert!(rate.take(address(1)).is_ok());
        assert!(rate.take(address(1)).is_err());
        assert!(rate.take(address(2)).is_ok(), "another address");
    }

    #[tokio::test(start_paused = true)]
    async fn a_thousand_busy_addresses_take_nothing_from_almost_all_others() {
        let rate = LookupRate::per_minute(120);
        for number in 0..1000 {
            while rate.take(address(number)).is_ok() {}
        }
        let refused = (10_000..11_000).filter(|number| rate.take(address(*number)).is_err()).count();
        assert!(refused < 50, "{refused} of 1000");
    }

    #[tokio::test(start_paused = true)]
    async fn the_addresses_of_one_ipv6_network_share_their_rate() {
        let rate = LookupRate::per_minute(4);
        let of = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(rate.take(of("2001:db8::1")).is_ok() && rate.take(of("2001:db8::2")).is_ok());
        assert!(rate.take(of("2001:db8::3")).is_err());
    }
}
