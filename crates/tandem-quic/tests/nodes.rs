//! Several nodes behind one UDP address: what their packets look like, and what a client notices whose packets reach
//! another node than the one it is connected to.

#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and ends its tasks itself"
)]

mod support;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quinn::ConnectionError;
use rustls::pki_types::CertificateDer;
use tandem_quic::{NodeIdentity, QuicListener, QuicOptions, ServerId, SharedSecret};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const SECRET: &str = "the same thirty-two bytes or more";

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(120), future).await {
        Ok(value) => value,
        Err(_) => panic!("waited in vain for {what}"),
    }
}

fn identity(server_id: Option<&str>, secret: Option<&str>) -> NodeIdentity {
    NodeIdentity {
        server_id: server_id.map(|id| ServerId::parse(id).unwrap()),
        secret: secret.map(|secret| SharedSecret::parse(secret).unwrap()),
    }
}

/// A server that holds its connections until they end.
struct Node {
    address: SocketAddr,
    certificate: CertificateDer<'static>,
    stop: CancellationToken,
    tracker: TaskTracker,
}

fn node(identity: NodeIdentity, tune: impl FnOnce(&mut QuicOptions)) -> Node {
    let (certificate, resolver) = support::certificate();
    let mut options = QuicOptions { identity, socket_buffer_bytes: 0, ..QuicOptions::default() };
    tune(&mut options);
    let listener = QuicListener::bind(([127, 0, 0, 1], 0).into(), resolver, options).unwrap();
    let address = listener.local_addr();
    let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
    let drivers = listener.accept(&tracker, stop.clone(), |accepted| async {
        let Some((connection, handshake)) = accepted.begin().await else { return };
        if handshake.complete(async {}).await.is_ok() {
            connection.closed().await;
        }
    });
    for driver in drivers {
        tracker.spawn(driver);
    }
    Node { address, certificate, stop, tracker }
}

impl Node {
    /// Stops and waits until no task is left.
    async fn stop(self) {
        self.stop.cancel();
        self.tracker.close();
        soon("all tasks to end", self.tracker.wait()).await;
    }
}

/// A load balancer in front of two nodes: everything goes to the first one, until it is told otherwise.
struct Balancer {
    address: SocketAddr,
    /// Packets that the first node still gets.
    left: Arc<AtomicUsize>,
    /// The clients' packets, as they came.
    packets: mpsc::Receiver<Vec<u8>>,
    _stop: DropGuard,
}

impl Balancer {
    async fn before(nodes: [SocketAddr; 2], left: usize) -> Self {
        let front = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let address = front.local_addr().unwrap();
        // The nodes see one address of the client, whichever of them is asked.
        let back = UdpSocket::bind(("127.0.0.1", 0)).await.unwrap();
        let left = Arc::new(AtomicUsize::new(left));
        let of_first = Arc::clone(&left);
        let (sender, packets) = mpsc::channel(10_000);
        let forward = async move {
            let (mut up, mut down) = ([0; 2000], [0; 2000]);
            let mut client = None;
            loop {
                tokio::select! {
                    received = front.recv_from(&mut up) => {
                        let (length, from) = received.unwrap();
                        client = Some(from);
                        let first = of_first.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                        back.send_to(&up[..length], nodes[usize::from(first.is_err())]).await.unwrap();
                        let _ = sender.try_send(up[..length].to_vec());
                    }
                    length = back.recv(&mut down) => {
                        front.send_to(&down[..length.unwrap()], client.unwrap()).await.unwrap();
                    }
                }
            }
        };
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let stopped = stop.clone();
        tracker.spawn(async move { stopped.run_until_cancelled(forward).await });
        Self { address, left, packets, _stop: stop.drop_guard() }
    }

    fn switch(&self) {
        self.left.store(0, Ordering::SeqCst);
    }
}

fn client(node: &Node) -> quinn::Endpoint {
    support::client(&node.certificate)
}

async fn connect(client: &quinn::Endpoint, balancer: &Balancer) -> quinn::Connection {
    soon("a connection", client.connect(balancer.address, "localhost").unwrap()).await.unwrap()
}

/// How a connection to one node ends when the client's packets begin to reach the other.
async fn end_on_the_other_node(one: NodeIdentity, other: NodeIdentity, idle: Duration) -> ConnectionError {
    let tune = |options: &mut QuicOptions| options.idle = idle;
    let (one, other) = (node(one, tune), node(other, tune));
    let balancer = Balancer::before([one.address, other.address], usize::MAX).await;
    let client = client(&one);
    let connection = connect(&client, &balancer).await;
    balancer.switch();
    connection.send_datagram(bytes::Bytes::from_static(b"who are you?")).unwrap();
    let end = soon("the end", connection.closed()).await;
    for node in [one, other] {
        node.stop.cancel();
    }
    end
}

/// Longer than any test waits.
const NEVER: Duration = Duration::from_secs(600);

#[tokio::test]
async fn a_client_whose_packets_reach_another_node_with_the_same_secret_is_told_at_once() {
    for (one, other) in [(None, None), (Some("0x01"), Some("0x02")), (Some("0x0102030405060708"), None)] {
        let (one, other) = (identity(one, Some(SECRET)), identity(other, Some(SECRET)));
        assert_eq!(end_on_the_other_node(one, other, NEVER).await, ConnectionError::Reset);
    }
}

#[tokio::test]
async fn without_the_same_secret_the_client_is_told_by_its_own_node_alone_when_that_gives_up() {
    let another = "thirty-two bytes, but not the same";
    let of = |id, secret| identity(Some(id), secret);
    for (one, other) in [
        (of("0x01", None), of("0x02", None)),
        (of("0x01", Some(SECRET)), of("0x02", Some(another))),
        (of("0x01", Some(SECRET)), of("0x02", None)),
        (NodeIdentity::default(), NodeIdentity::default()),
    ] {
        let end = end_on_the_other_node(one, other, Duration::from_millis(800)).await;
        // In which of the two forms depends on whether the node has heard that the handshake is done.
        let told = matches!(end, ConnectionError::ApplicationClosed(_) | ConnectionError::ConnectionClosed(_));
        assert!(told, "{end:?}");
    }
}

#[tokio::test]
async fn many_clients_that_turn_up_at_once_are_all_told() {
    let tune = |options: &mut QuicOptions| options.idle = NEVER;
    let (one, other) = (node(identity(None, Some(SECRET)), tune), node(identity(None, Some(SECRET)), tune));
    let mut clients = Vec::new();
    for _ in 0..40 {
        let balancer = Balancer::before([one.address, other.address], usize::MAX).await;
        let client = client(&one);
        let connection = connect(&client, &balancer).await;
        clients.push((balancer, client, connection));
    }
    for (balancer, _, connection) in &clients {
        balancer.switch();
        connection.send_datagram(bytes::Bytes::from_static(b"who are you?")).unwrap();
    }
    for (_, _, connection) in &clients {
        assert_eq!(soon("the end", connection.closed()).await, ConnectionError::Reset);
    }
    one.stop.cancel();
    other.stop.cancel();
}

#[tokio::test]
async fn every_packet_of_an_established_connection_names_its_node() {
    let node = node(identity(Some("0x1122334455667788"), None), |_| {});
    let mut balancer = Balancer::before([node.address, node.address], usize::MAX).await;
    let client = client(&node);
    let connection = connect(&client, &balancer).await;
    let id = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88];
    let mut named = 0;
    while named < 10 {
        connection.send_datagram(bytes::Bytes::from_static(b"tick")).unwrap();
        let packet = soon("a packet", balancer.packets.recv()).await.unwrap();
        // A long header: the first ones go to an id of the client's choice.
        if packet[0] & 0x80 == 0 {
            assert_eq!((packet[1] >> 5, &packet[2..10]), (0, &id[..]), "{packet:x?}");
            named += 1;
        }
    }
    connection.close(0u32.into(), b"");
    node.stop().await;
}

/// Both nodes want a proof of address, and the client's second packet, which has it, reaches the other one.
async fn proves_its_address_to_the_other_node(one: NodeIdentity, other: NodeIdentity) -> bool {
    let tune = |options: &mut QuicOptions| {
        options.retry_above = 0;
        options.idle = Duration::from_millis(800);
    };
    let (one, other) = (node(one, tune), node(other, tune));
    let balancer = Balancer::before([one.address, other.address], 1).await;
    let client = client(&other);
    let connecting = client.connect(balancer.address, "localhost").unwrap();
    let connected = tokio::time::timeout(Duration::from_secs(3), connecting).await;
    for node in [one, other] {
        node.stop.cancel();
    }
    matches!(connected, Ok(Ok(_)))
}

#[tokio::test]
async fn a_proof_of_address_from_one_node_is_good_on_another() {
    let with = |secret| identity(None, Some(secret));
    let (same, different, unset) = tokio::join!(
        proves_its_address_to_the_other_node(with(SECRET), with(SECRET)),
        proves_its_address_to_the_other_node(with(SECRET), with("thirty-two bytes, but not the same")),
        proves_its_address_to_the_other_node(NodeIdentity::default(), NodeIdentity::default()),
    );
    assert_eq!((same, different, unset), (true, false, false));
}
