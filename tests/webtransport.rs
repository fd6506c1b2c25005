//! The adapter of `tandem-webtransport`: frames, codes and datagrams as the session loop has them. The sessions
//! themselves are tested in crates/tandem-webtransport.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

#[path = "support/webtransport.rs"]
mod support;

use bytes::{Buf, Bytes};
use support::{CLOSE, Seen, TestServer, capsule, closed_with, framed, read_message, soon};
use tandem::domain::CloseCode;

#[tokio::test]
async fn messages_and_datagrams_go_both_ways() {
    let (server, session) = TestServer::with_session().await;
    let (mut send, mut recv) = session.open_bi().await.unwrap();

    send.write_all(&framed(b"{\"type\":\"PING\"}")).await.unwrap();
    assert_eq!(read_message(&mut recv).await, b"{\"type\":\"PING\"}");

    session.send_datagram(Bytes::from_static(b"\x01tick")).unwrap();
    assert_eq!(soon("a datagram", session.read_datagram()).await.unwrap(), &b"\x01tick"[..]);
    session.close(0, b"");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_closes_is_seen_at_once_with_its_code() {
    let (mut server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&framed(b"hello")).await.unwrap();
    assert_eq!(server.sees().await, Seen::Message(Bytes::from_static(b"hello")));

    session.close(4321, "genug für heute".as_bytes());
    assert_eq!(server.sees().await, Seen::Closed(4321));
    server.stop().await;
}

#[tokio::test]
async fn a_close_of_the_server_reaches_the_client_with_code_and_reason() {
    let (server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&framed(b"close")).await.unwrap();
    let closed = closed_with(soon("the close", session.closed()).await);
    assert_eq!(closed, (u32::from(CloseCode::Kicked.number()), "removed by the höst".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn a_session_whose_task_ends_takes_its_connection_with_it() {
    let (server, client, _session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"vanish")).await.unwrap();
    soon("the end", client.quic.closed()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_second_stream_is_refused_and_the_first_goes_on() {
    let (server, session) = TestServer::with_session().await;
    let (mut send, mut recv) = session.open_bi().await.unwrap();
    send.write_all(&framed(b"first")).await.unwrap();
    assert_eq!(read_message(&mut recv).await, b"first");

    let (mut second, mut answer) = session.open_bi().await.unwrap();
    // The stop may come before the write.
    let _ = second.write_all(&framed(b"second")).await;
    assert_eq!(soon("the stop", second.stopped()).await.unwrap(), Some(4000));
    assert_eq!(soon("the reset", answer.received_reset()).await.unwrap(), Some(4000));

    send.write_all(&framed(b"third")).await.unwrap();
    assert_eq!(read_message(&mut recv).await, b"third");
    session.close(0, b"");
    server.stop().await;
}

#[tokio::test]
async fn an_oversized_close_capsule_is_a_protocol_error() {
    let (mut server, _client, mut session) = TestServer::with_h3_session().await;
    session.send_data(capsule(CLOSE, &[0; 1029])).await.unwrap();
    assert_eq!(server.sees().await, Seen::Violation(CloseCode::ProtocolError));
    let mut close = soon("our close", session.recv_data()).await.unwrap().unwrap();
    assert_eq!(close.copy_to_bytes(7)[3..], 4000u32.to_be_bytes());
    server.stop().await;
}

#[tokio::test]
async fn drain_is_a_capsule() {
    let (server, client, mut session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"drain")).await.unwrap();
    let mut drain = soon("the capsule", session.recv_data()).await.unwrap().unwrap();
    assert_eq!(drain.copy_to_bytes(drain.remaining()), &[0x80, 0, 0x78, 0xae, 0][..]);
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_length_above_the_limit_closes_with_too_big() {
    let (mut server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&65_537u32.to_be_bytes()).await.unwrap();
    assert_eq!(server.sees().await, Seen::Violation(CloseCode::TooBig));
    assert_eq!(closed_with(soon("the close", session.closed()).await).0, 4001);
    server.stop().await;
}

#[tokio::test]
async fn garbage_on_the_control_stream_closes_the_session() {
    for (garbage, code) in [(&b"GET / HTTP/1.1\r\n"[..], 4001), (&[0, 0, 0, 0][..], 4000)] {
        let (server, session) = TestServer::with_session().await;
        let (mut send, _recv) = session.open_bi().await.unwrap();
        send.write_all(garbage).await.unwrap();
        assert_eq!(closed_with(soon("the close", session.closed()).await).0, code);
        server.stop().await;
    }
}
