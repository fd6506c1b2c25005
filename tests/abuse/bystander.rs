//! Two members in step during an attack: one over WebSocket, one over WebTransport, in a room of their own.

use std::time::Duration;

use serde_json::json;
use tandem::clock::Clock;
use tokio::time::{Instant, sleep_until};

use crate::support::client::{Carrier, Client};
use crate::support::server::Place;

/// Between two messages: each of the two speaks twenty times a second.
const EVERY: Duration = Duration::from_millis(25);

pub(crate) struct Bystanders {
    clients: [Client; 2],
}

impl Bystanders {
    pub(crate) async fn meet(place: &Place) -> Self {
        let (mut ann, mut bob) = (place.connect(Carrier::WebSocket).await, place.connect(Carrier::Quinn).await);
        ann.join("bystanders", "ann").await;
        bob.join("bystanders", "bob").await;
        ann.until("USER_JOINED").await;
        Self { clients: [ann, bob] }
    }

    /// From one's chat to the other's screen, again and again until then; milliseconds.
    pub(crate) async fn measure(&mut self, until: Instant) -> Vec<f64> {
        let mut latencies = Vec::new();
        let mut due = Clock::instant();
        while due < until {
            sleep_until(due).await;
            due += EVERY;
            let [one, other] = &mut self.clients;
            let text = format!("{}", latencies.len());
            let began = Clock::instant();
            one.send(json!({"type": "CHAT", "text": text})).await;
            other.until("CHAT").await;
            latencies.push(began.elapsed().as_secs_f64() * 1000.0);
            one.until("CHAT").await;
            self.clients.swap(0, 1);
        }
        latencies
    }
}

/// The 99th percentile.
pub(crate) fn p99(mut latencies: Vec<f64>) -> f64 {
    latencies.sort_by(f64::total_cmp);
    latencies.get((latencies.len() * 99 / 100).min(latencies.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
