//! The application's count of connections, as the driver asks for it.

use std::fmt::Debug;
use std::net::IpAddr;

/// Counts connections in the application's own table, in total and for each address.
///
/// The driver calls it from its task, so no method may block.
pub trait ConnectionLimits: Debug + Send + Sync {
    /// Whether a handshake from `address` would be admitted. Counts nothing, because the address may be forged.
    fn check(&self, address: IpAddr) -> Result<(), LimitReached>;

    /// Counts a handshake under way whose address is proved (Retry, RFC 9000 §8.1.2).
    fn open(&self, address: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached>;

    /// Counts an established connection.
    fn admit(&self, address: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached>;
}

/// One counted connection; the count ends when the permit is dropped.
pub trait ConnectionPermit: Send {
    /// The handshake that [`ConnectionLimits::open`] counted is done.
    fn established(&mut self) {}
}

impl ConnectionPermit for () {}

/// The limit that refuses a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LimitReached {
    /// The server's total.
    Total,
    /// The number for one address, or its network.
    Address,
}

/// No limits beside those of [`QuicOptions`](crate::QuicOptions).
#[derive(Debug, Clone, Copy)]
pub struct Unlimited;

impl ConnectionLimits for Unlimited {
    fn check(&self, _: IpAddr) -> Result<(), LimitReached> {
        Ok(())
    }

    fn open(&self, _: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached> {
        Ok(Box::new(()))
    }

    fn admit(&self, _: IpAddr) -> Result<Box<dyn ConnectionPermit>, LimitReached> {
        Ok(Box::new(()))
    }
}
