//! Every scenario runs over every carrier, and once with all of them in one room.

use crate::support::client::Carrier;

/// The transports of the first member, the second, the third.
pub(crate) type Carriers = [Carrier; 3];

/// One named test per carrier, and one with a member on each.
macro_rules! over_every_carrier {
    ($($(#[doc = $doc:literal])* $name:ident;)*) => { $(
        mod $name {
            use crate::support::client::Carrier::{Quinn, WebSocket, Wtransport};

            #[tokio::test]
            async fn over_websocket() {
                super::$name([WebSocket; 3]).await;
            }

            #[tokio::test]
            async fn over_webtransport_by_web_transport_quinn() {
                super::$name([Quinn; 3]).await;
            }

            #[tokio::test]
            async fn over_webtransport_by_wtransport() {
                super::$name([Wtransport; 3]).await;
            }

            #[tokio::test]
            async fn over_all_of_them_in_one_room() {
                super::$name([Quinn, WebSocket, Wtransport]).await;
            }
        }
    )* };
}
pub(crate) use over_every_carrier;
