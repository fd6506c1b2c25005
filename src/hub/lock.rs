//! The hub's lock: parking_lot's. In this crate's own tests each acquisition is a point at which a test may let another
//! thread go first, so that races show which need two acquisitions to be torn apart.

#[cfg(not(test))]
pub(super) use parking_lot::Mutex;
pub(super) use parking_lot::MutexGuard;

#[cfg(test)]
pub(super) use perturbed::Mutex;

#[cfg(test)]
pub(super) mod perturbed {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::MutexGuard;

    /// State of the generator that decides which acquisitions are delayed; 0: none.
    pub(in crate::hub) static DELAYS: AtomicU64 = AtomicU64::new(0);

    #[derive(Default)]
    pub(in crate::hub) struct Mutex<T>(parking_lot::Mutex<T>);

    impl<T> Mutex<T> {
        pub(in crate::hub) fn new(value: T) -> Self {
            Self(parking_lot::Mutex::new(value))
        }

        pub(in crate::hub) fn lock(&self) -> MutexGuard<'_, T> {
            if shuttle::current::try_get_current_task().is_none() {
                delay_at_random();
                return self.0.lock();
            }
            // Shuttle runs all of its threads on one: a lock that blocked it would never be released.
            loop {
                shuttle::thread::yield_now();
                if let Some(guard) = self.0.try_lock() {
                    return guard;
                }
            }
        }
    }

    /// One acquisition in 16 comes up to 2 ms late.
    fn delay_at_random() {
        if DELAYS.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Weyl sequence, mixed (SplitMix64).
        let mut word = DELAYS.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word ^= word >> 27;
        if word.is_multiple_of(16) {
            std::thread::sleep(Duration::from_micros(word >> 32 & 2047));
        }
    }
}
