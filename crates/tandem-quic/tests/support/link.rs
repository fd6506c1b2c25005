//! A UDP relay that loses, doubles, delays and reorders packets, as its seed says.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::task::JoinHandle;

use super::rng::Rng;

/// Probabilities of the link's faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LinkFaults {
    loss_percent: usize,
    double_percent: usize,
    /// Packets are delayed by up to this much, and so overtake one another.
    delay_micros: usize,
}

impl LinkFaults {
    pub(crate) const NONE: Self = Self { loss_percent: 0, double_percent: 0, delay_micros: 0 };

    pub(crate) fn random(rng: &mut Rng) -> Self {
        match rng.below(4) {
            0 => Self::NONE,
            _ => Self { loss_percent: rng.below(9), double_percent: rng.below(5), delay_micros: rng.below(4000) },
        }
    }
}

pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<(LinkFaults, Rng)>>,
    relay: JoinHandle<()>,
}

impl Link {
    pub(crate) async fn before(server: SocketAddr, seed: u64) -> Self {
        let front = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
        let address = front.local_addr().unwrap();
        let state = Arc::new(Mutex::new((LinkFaults::NONE, Rng(seed))));
        let relay = tokio::spawn(relay(front, server, Arc::clone(&state)));
        Self { address, state, relay }
    }

    pub(crate) fn set(&self, weather: LinkFaults) {
        self.state.lock().unwrap().0 = weather;
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

/// Each address of the client has a socket of its own toward the server, so that a change of the one is a change of the
/// other.
async fn relay(front: Arc<UdpSocket>, server: SocketAddr, state: Arc<Mutex<(LinkFaults, Rng)>>) {
    let mut sockets: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut returns = tokio::task::JoinSet::new();
    let mut packet = [0; 2048];
    loop {
        let Ok((length, client)) = front.recv_from(&mut packet).await else { continue };
        if let Entry::Vacant(vacant) = sockets.entry(client) {
            let socket = Arc::clone(vacant.insert(Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap())));
            let (front, state) = (Arc::clone(&front), Arc::clone(&state));
            returns.spawn(async move {
                let mut packet = [0; 2048];
                loop {
                    let Ok((length, _)) = socket.recv_from(&mut packet).await else { continue };
                    pass(&state, &front, client, &packet[..length]).await;
                }
            });
        }
        pass(&state, &sockets[&client], server, &packet[..length]).await;
    }
}

async fn pass(state: &Mutex<(LinkFaults, Rng)>, socket: &Arc<UdpSocket>, to: SocketAddr, packet: &[u8]) {
    let (copies, delays) = {
        let (weather, rng) = &mut *state.lock().unwrap();
        let copies = usize::from(!rng.percent(weather.loss_percent)) + usize::from(rng.percent(weather.double_percent));
        let delays: Vec<_> = (0..copies).map(|_| rng.below(weather.delay_micros + 1) as u64).collect();
        (copies, delays)
    };
    if copies == 1 && delays == [0] {
        let _ = socket.send_to(packet, to).await;
        return;
    }
    for delay in delays {
        let (socket, packet) = (Arc::clone(socket), packet.to_vec());
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_micros(delay)).await;
            let _ = socket.send_to(&packet, to).await;
        });
    }
}
