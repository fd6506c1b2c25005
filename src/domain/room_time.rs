//! Room time: the time base of all nodes, in microseconds since the Unix epoch.

use std::ops::{Add, Sub};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A moment of room time. Whole microseconds, so that it orders and compares exactly; the wire has ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct RoomTime(i64);

impl RoomTime {
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    pub const fn from_millis(millis: i64) -> Self {
        Self(millis * 1000)
    }

    /// From the wire's ms. `None` if not finite or outside ±2^42 ms (the year 2109): beyond that a double of ms can't
    /// represent every microsecond, so a moment would come back from the wire as another one.
    pub fn from_millis_f64(millis: f64) -> Option<Self> {
        const LIMIT_MICROS: f64 = (1000 * (1_u64 << 42)) as f64;
        let micros = (millis * 1000.0).round();
        (micros.abs() < LIMIT_MICROS).then_some(Self(micros as i64))
    }

    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// With fractions.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    pub const fn as_millis(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Negative if `self` is before `earlier`.
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / 1e6
    }

    /// Zero if `self` is before `earlier`.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0 - earlier.0).unwrap_or(0))
    }
}

impl Add<Duration> for RoomTime {
    type Output = Self;
    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for RoomTime {
    type Output = Self;
    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(by.as_micros()).unwrap_or(i64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT_MS: f64 = (1_u64 << 42) as f64;

    proptest! {
        #[test]
        fn a_moment_that_the_wire_can_say_comes_back_as_the_same_moment(millis in -LIMIT_MS..LIMIT_MS) {
            let moment = RoomTime::from_millis_f64(millis);
            prop_assume!(moment.is_some());
            prop_assert_eq!(moment.map(RoomTime::as_millis_f64).and_then(RoomTime::from_millis_f64), moment);
        }
    }

    #[test]
    fn a_moment_that_would_change_on_the_wire_is_refused() {
        assert_eq!(RoomTime::from_millis_f64(4_431_220_930_561.020_5), None, "found by fuzzing: it came back 1 µs off");
        for millis in [LIMIT_MS, -LIMIT_MS, LIMIT_MS.next_down(), f64::MAX, f64::INFINITY, f64::NAN] {
            assert_eq!(RoomTime::from_millis_f64(millis), None, "{millis}");
        }
    }
}
