//! The QUIC driver with this server's connection limits, and beneath its WebTransport sessions: addresses that flood or
//! move, a planned stop, panics.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/half_open.rs"]
mod half_open;
#[path = "support/webtransport.rs"]
mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use half_open::HalfOpen;
use quinn::ConnectionError;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use support::{H3, Setup, TestServer, get, soon};
use tandem::quota::Caps;
use tandem::vital::Vital;
use tandem_quic::QuicOptions;

fn node(tune: impl FnOnce(&mut QuicOptions)) -> TestServer {
    let mut options = Setup::default().options;
    tune(&mut options);
    TestServer::with(Setup { options, ..Setup::default() })
}

#[tokio::test]
async fn a_client_whose_address_changes_stays_connected_whichever_endpoint_gets_its_packets() {
    const ENDPOINTS: usize = 4;
    let mut node = node(|options| options.endpoints = ENDPOINTS);
    let mut clients = Vec::new();
    // The kernel chooses the endpoint by the client's port: with so many, all of them have some.
    for _ in 0..3 * ENDPOINTS {
        let client = support::client(node.tls(vec![b"h3".to_vec()]), |_| {});
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
    let node = node(|options| {
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
    let node = node(|options| options.limits = Arc::new(Caps::new(100, Some(3))));
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
    let node = node(|_| {});
    let client = support::client(node.tls(vec![b"h3".to_vec()]), |_| {});
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
    let client = support::client(node.tls(vec![b"h3".to_vec()]), |_| {});
    let _connecting = client.connect(node.address, "localhost").unwrap();
    let lost = soon("the report", vital.lost()).await;
    assert!(lost.to_string().contains("a QUIC endpoint is gone (panic: injected)"), "{lost}");
    drop(neighbour);
    // Nobody waits for connections that nobody drives.
    node.stop().await;
}
