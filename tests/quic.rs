//! Several nodes behind one UDP address: what their packets look like, and what a client notices whose packets reach
//! another node than the one it is connected to.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/half_open.rs"]
mod half_open;
#[path = "support/webtransport.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use half_open::HalfOpen;
use quinn::ConnectionError;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use support::{H3, Setup, TestServer, get, soon};
use tandem::quota::Caps;
use tandem::vital::Vital;
use tandem_quic::{NodeIdentity, QuicOptions, ServerId, SharedSecret};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

const SECRET: &str = "the same thirty-two bytes or more";

fn identity(server_id: Option<&str>, secret: Option<&str>) -> NodeIdentity {
    NodeIdentity {
        server_id: server_id.map(|id| ServerId::parse(id).unwrap()),
        secret: secret.map(|secret| SharedSecret::parse(secret).unwrap()),
    }
}

fn node(identity: NodeIdentity, tune: impl FnOnce(&mut QuicOptions)) -> TestServer {
    let mut options = QuicOptions { identity, ..Setup::default().options };
    tune(&mut options);
    TestServer::with(Setup { options, ..Setup::default() })
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

fn client(node: &TestServer) -> quinn::Endpoint {
    support::client(node.tls(vec![b"h3".to_vec()]), |_| {})
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

#[tokio::test]
async fn a_client_whose_address_changes_stays_connected_whichever_endpoint_gets_its_packets() {
    const ENDPOINTS: usize = 4;
    let mut node = node(NodeIdentity::default(), |options| options.endpoints = ENDPOINTS);
    let mut clients = Vec::new();
    // The kernel chooses the endpoint by the client's port: with so many, all of them have some.
    for _ in 0..3 * ENDPOINTS {
        let client = client(&node);
        let quic = soon("a connection", client.connect(node.address, "localhost").unwrap()).await.unwrap();
        let mut h3 = H3::over(quic).await;
        let session = h3.session(&node).await;
        node.opened().await;
        clients.push((client, h3, session));
    }
    for (client, h3, _session) in &mut clients {
        for _ in 0..3 {
            client.rebind(std::net::UdpSocket::bind(("127.0.0.1", 0)).unwrap()).unwrap();
            let (answer, _) = h3.ask(get(&node.url("/"))).await;
            assert_eq!(answer.status(), 404, "an answer all the same");
            assert_eq!(h3.quic.close_reason(), None);
        }
    }
    drop(clients);
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

/// Addresses of loopback that no other client of these tests has.
const ATTACKER: [u8; 4] = [127, 0, 0, 66];
const NEIGHBOUR: [u8; 4] = [127, 0, 0, 67];

/// A client of an address of its own.
fn client_at(node: &TestServer, address: [u8; 4]) -> quinn::Endpoint {
    let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(node.tls(vec![b"h3".to_vec()])).unwrap();
    let mut endpoint = quinn::Endpoint::client((address, 0).into()).unwrap();
    endpoint.set_default_client_config(quinn::ClientConfig::new(Arc::new(crypto)));
    endpoint
}

/// `count` handshakes that an attacker begins and never finishes.
async fn flood(node: &TestServer, count: usize) -> (HalfOpen, usize) {
    let mut attacker = HalfOpen::from(ATTACKER.into(), node.address, node.tls(vec![b"h3".to_vec()]));
    let flooding = tokio::task::spawn_blocking(move || {
        let mut proofs = 0;
        for begun in 1..=count {
            attacker.begin();
            if begun % 16 == 0 || begun == count {
                proofs += attacker.prove_address();
            }
        }
        (attacker, proofs)
    });
    soon("the flood", flooding).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn handshakes_that_one_address_proves_and_never_finishes_leave_place_for_everybody_else() {
    let node = node(NodeIdentity::default(), |options| {
        options.max_handshakes = 32;
        options.retry_above = 4;
        options.limits = Arc::new(Caps::new(1000, Some(16)));
    });
    let (_attacker, proofs) = flood(&node, 96).await;
    assert!(proofs >= 8, "{proofs}: it proves its address");
    for address in [NEIGHBOUR, [127, 0, 0, 1]] {
        let connecting = client_at(&node, address).connect(node.address, "localhost").unwrap();
        assert!(soon("a connection", connecting).await.is_ok(), "{address:?}");
    }
    node.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_one_address_are_bounded_and_come_back_when_they_end() {
    let node = node(NodeIdentity::default(), |options| options.limits = Arc::new(Caps::new(100, Some(3))));
    let mut held = Vec::new();
    for number in 0..6 {
        let client = client_at(&node, ATTACKER);
        let connected = soon("an answer", client.connect(node.address, "localhost").unwrap()).await;
        let refused = match connected {
            Ok(connection) => {
                // A server says only after the handshake that an address is full.
                let closed = tokio::time::timeout(Duration::from_millis(300), connection.closed()).await.is_ok();
                held.push((client, connection));
                closed
            }
            Err(_) => true,
        };
        assert_eq!(refused, number >= 3, "connection {number}");
    }
    let connecting = client_at(&node, NEIGHBOUR).connect(node.address, "localhost").unwrap();
    assert!(soon("a connection", connecting).await.is_ok(), "another address");
    for (client, connection) in held {
        connection.close(0u32.into(), b"");
        client.wait_idle().await;
    }
    soon("a place", async {
        loop {
            let connecting = client_at(&node, ATTACKER).connect(node.address, "localhost").unwrap();
            if let Ok(connection) = connecting.await
                && tokio::time::timeout(Duration::from_millis(300), connection.closed()).await.is_err()
            {
                break;
            }
        }
    })
    .await;
    node.stop.cancel();
}

#[tokio::test]
async fn a_client_that_comes_while_the_server_stops_is_refused_at_once() {
    let node = node(NodeIdentity::default(), |_| {});
    let client = client(&node);
    let live = soon("a connection", client.connect(node.address, "localhost").unwrap()).await.unwrap();
    let mut h3 = H3::over(live).await;
    let _session = h3.session(&node).await;
    node.stop.cancel();
    let late = soon("a refusal", client.connect(node.address, "localhost").unwrap()).await;
    assert!(matches!(late, Err(ConnectionError::ConnectionClosed(_))), "{late:?}");
}

/// Asked for the certificate in the middle of a handshake, it panics when it is told to: a panic inside of QUIC.
#[derive(Debug)]
struct Faulty {
    certificates: Arc<dyn ResolvesServerCert>,
    panics: Arc<AtomicBool>,
}

impl ResolvesServerCert for Faulty {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        assert!(!self.panics.swap(false, Ordering::SeqCst), "injected");
        self.certificates.resolve(hello)
    }
}

/// A node that panics in the next handshake once it is told to, and who hears of lost tasks.
fn faulty_node() -> (TestServer, Arc<AtomicBool>, Vital) {
    let (panics, vital) = (Arc::new(AtomicBool::new(false)), Vital::default());
    let told = Arc::clone(&panics);
    let node = TestServer::resolving(Setup { vital: vital.clone(), ..Setup::default() }, |certificates| {
        Arc::new(Faulty { certificates, panics: told })
    });
    (node, panics, vital)
}

#[tokio::test]
async fn a_panic_in_the_state_of_one_connection_costs_that_connection() {
    let (node, panics, vital) = faulty_node();
    let mut neighbour = node.h3().await;
    let _session = neighbour.session(&node).await;
    panics.store(true, Ordering::SeqCst);
    // A hello of two packets: the connection is there already when the certificate is asked for.
    let mut alpn = vec![b"h3".to_vec()];
    alpn.extend((0..60).map(|number| format!("a-protocol-that-nobody-speaks-{number:03}").into_bytes()));
    let victim = support::client(node.tls(alpn), |transport| {
        transport.max_idle_timeout(Some(Duration::from_secs(1).try_into().unwrap()));
    });
    // To its repeated packets the server is one that has never heard of it, so a second attempt may succeed.
    let _ended = soon("the end", victim.connect(node.address, "localhost").unwrap()).await;
    assert!(!panics.load(Ordering::SeqCst), "it panicked");
    let (answer, _) = neighbour.ask(get(&node.url("/"))).await;
    assert_eq!(answer.status(), 404, "the neighbour is still answered");
    let _newcomer = node.quic().await;
    assert_eq!(vital.lost().now_or_never(), None);
    drop((neighbour, victim));
    node.stop().await;
}

#[tokio::test]
async fn a_panic_in_what_all_connections_share_is_reported_as_the_loss_of_the_endpoint() {
    let (node, panics, vital) = faulty_node();
    let neighbour = node.quic().await;
    panics.store(true, Ordering::SeqCst);
    let client = client(&node);
    let _connecting = client.connect(node.address, "localhost").unwrap();
    let lost = soon("the report", vital.lost()).await;
    assert!(lost.to_string().contains("a QUIC endpoint is gone (panic: injected)"), "{lost}");
    drop(neighbour);
    // Nobody waits for connections that nobody drives.
    node.stop().await;
}
