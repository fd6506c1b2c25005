//! Rate limits and bounds on what clients use: JOINs and wrong PINs by the minute, sessions at a time; and, in this
//! process alone, bytes ([`Bucket`], [`AddressBudgets`]) and connections ([`Caps`]).
//!
//! ```text
//! hub ── take_place(visitor) / guess(room, address) ──► quotas ── QuotaPlace | Exceeded
//!     ◄── the place lives as long as the session, and gives itself back ──┘
//! ```
//!
//! Guarantees that every implementation gives, held by one contract suite:
//! 1. The counts hold over all that share the quotas: [`MemoryQuotas`] over this process, [`redis`] over all nodes.
//! 2. There is an answer within a bounded time. While the shared counts can't be reached, this process's own counts
//!    decide: never unlimited, never blocked.
//! 3. A place comes back when it is dropped, and when the process that held it has died.
//! 4. A member that resumes with its token is never refused ([`Quotas::readmit`]), but is counted.
//!
//! **A user is an id at an address** (as [`counted_as`] counts addresses). User ids are the clients' own choice and
//! unique within a room only: two strangers in two rooms may have the same one, and a client could use up another's
//! places by taking its id.

mod addresses;
mod bucket;
mod caps;
mod memory;
pub mod redis;
mod throttle;

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::domain::{Limits, RoomId, UserId, counted_as};
pub use addresses::{AddressBudget, AddressBudgets, Cost, longest_wait};
pub use bucket::{Bucket, Pace};
pub use caps::{Cap, Caps, CapsFull};
pub use memory::MemoryQuotas;

#[derive(Debug, Clone, Copy)]
pub struct Allowances {
    /// Wrong PINs of an address for a room, a window.
    pub pin_attempts: u64,
    /// JOINs of an address, a window.
    pub joins: u64,
    /// Joined sessions of a user at a time.
    pub user_sessions: u64,
    /// Joined sessions of an address at a time.
    pub address_sessions: u64,
    /// The window of the rates. One that is used up makes the next twice as long, up to 64 times.
    pub window: Duration,
}

impl From<&Limits> for Allowances {
    fn from(limits: &Limits) -> Self {
        Self {
            pin_attempts: limits.pin_attempts,
            joins: limits.joins_per_minute,
            user_sessions: limits.user_sessions,
            address_sessions: limits.address_sessions,
            window: Duration::from_secs(60),
        }
    }
}

/// A user id at an address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Visitor {
    user: UserId,
    address: IpAddr,
}

impl Visitor {
    pub fn new(user: UserId, address: IpAddr) -> Self {
        Self { user, address: counted_as(address) }
    }

    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// As it is counted.
    pub fn address(&self) -> IpAddr {
        self.address
    }
}

/// The allowance that is used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// JOINs, or PINs, in this window.
    Rate {
        /// How long to wait.
        retry_after: Duration,
    },
    UserSessions,
    AddressSessions,
}

impl Exceeded {
    /// Zero where a session has to end first: nothing is known of when.
    pub fn retry_after(&self) -> Duration {
        match self {
            Self::Rate { retry_after } => *retry_after,
            Self::UserSessions | Self::AddressSessions => Duration::ZERO,
        }
    }
}

/// Asked by the hub before a JOIN, and before a PIN is compared.
pub trait Quotas: Send + Sync + 'static {
    /// A JOIN of a session that has no place yet: counts it, and takes a place.
    fn take_place<'a>(&'a self, visitor: &'a Visitor) -> BoxFuture<'a, Result<QuotaPlace, Exceeded>>;

    /// A JOIN of a session that keeps its place: only counted.
    fn count_join(&self, address: IpAddr) -> BoxFuture<'_, Result<(), Exceeded>>;

    /// A place for a member that resumes with its token.
    fn readmit(&self, visitor: &Visitor) -> QuotaPlace;

    /// A PIN is about to be compared. Counted before the work, so that concurrent guesses count too.
    fn guess<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, Result<(), Exceeded>>;

    /// The PIN was right: takes the count back.
    fn guessed_right<'a>(&'a self, room: &'a RoomId, address: IpAddr) -> BoxFuture<'a, ()>;
}

/// A session's place; given back when dropped.
pub struct QuotaPlace {
    visitor: Visitor,
    give_back: Option<Box<dyn FnOnce() + Send + Sync>>,
}

impl QuotaPlace {
    pub fn new(visitor: Visitor, give_back: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { visitor, give_back: Some(Box::new(give_back)) }
    }

    pub fn visitor(&self) -> &Visitor {
        &self.visitor
    }
}

impl Drop for QuotaPlace {
    fn drop(&mut self) {
        if let Some(give_back) = self.give_back.take() {
            give_back();
        }
    }
}

impl fmt::Debug for QuotaPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuotaPlace").field("user", &self.visitor.user).finish_non_exhaustive()
    }
}
