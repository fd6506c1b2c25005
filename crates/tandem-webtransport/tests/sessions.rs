//! Sessions, seen by clients that nobody here wrote and by one that breaks the rules.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod support;

use std::time::Duration;

use bytes::{Buf, Bytes};
use support::{
    CLOSE, Seen, TestServer, capsule, closed_with, framed, get, read_body, read_message, soon, webtransport,
};
use tandem_webtransport::quic::QuicOptions;

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
async fn a_second_implementation_is_understood_too() {
    let mut server = TestServer::start();
    let session = server.wtransport().await;
    server.opened().await;
    let (mut send, mut recv) = soon("a stream", session.open_bi().await.unwrap()).await.unwrap();

    send.write_all(&framed(b"hello")).await.unwrap();
    let mut echo = [0; 9];
    soon("the echo", recv.read_exact(&mut echo)).await.unwrap();
    assert_eq!(echo[..], framed(b"hello"));

    session.send_datagram(b"tick").unwrap();
    assert_eq!(&soon("a datagram", session.receive_datagram()).await.unwrap()[..], b"tick");

    send.write_all(&framed(b"close")).await.unwrap();
    let closed = soon("the end", session.closed()).await;
    // Having read the capsule it closes the connection itself.
    assert!(matches!(closed, wtransport::error::ConnectionError::LocallyClosed), "{closed}");
    server.stop().await;
}

#[tokio::test]
async fn messages_arrive_whole_and_in_order_however_they_are_cut_and_whenever_reads_are_dropped() {
    let mut server = TestServer::with(QuicOptions::default(), true);
    let session = server.connect().await;
    server.opened().await;
    let (mut send, mut recv) = session.open_bi().await.unwrap();
    let messages: Vec<Vec<u8>> =
        [1, 3, 1200, 65_536, 2, 40_000, 2048, 2049].iter().map(|&size| vec![size as u8; size]).collect();
    let stream: Vec<u8> = messages.iter().flat_map(|message| framed(message)).collect();

    let write = async {
        for (index, piece) in stream.chunks(1777).enumerate() {
            send.write_all(piece).await.unwrap();
            if index % 3 == 0 {
                tokio::task::yield_now().await; // so that pieces travel alone
            }
        }
    };
    let read = async {
        for message in &messages {
            assert!(read_message(&mut recv).await == *message);
        }
    };
    tokio::join!(write, read);
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
async fn a_close_is_answered_with_the_end_of_the_stream_even_while_the_session_does_not_read() {
    let (mut server, client, mut session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"stall")).await.unwrap();
    assert_eq!(server.sees().await, Seen::Message(Bytes::from_static(b"stall")));
    let content = [&77u32.to_be_bytes()[..], b"bye"].concat();
    session.send_data(capsule(CLOSE, &content)).await.unwrap();
    assert_eq!(soon("the end", read_body(&mut session)).await, Bytes::new());
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_the_connect_stream_is_a_close_with_code_0() {
    let (mut server, _client, mut session) = TestServer::with_h3_session().await;
    session.finish().await.unwrap();
    assert_eq!(server.sees().await, Seen::Closed(0));
    server.stop().await;
}

#[tokio::test]
async fn a_close_of_the_server_reaches_the_client_with_code_and_reason() {
    let (server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&framed(b"close")).await.unwrap();
    let closed = closed_with(soon("the close", session.closed()).await);
    assert_eq!(closed, (4007, "removed by the höst".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn what_was_sent_before_a_close_arrives_before_it() {
    let (server, client, mut session) = TestServer::with_h3_session().await;
    let (mut send, mut recv) = client.stream(0).await;
    send.write_all(&framed(b"farewell")).await.unwrap();

    let last = soon("the last message", recv.read_to_end(100_000)).await.unwrap();
    assert!(last == framed(&[b'l'; 60_000]));
    let capsule = soon("the capsule", session.recv_data()).await.unwrap().map(|mut c| c.copy_to_bytes(c.remaining()));
    assert_eq!(capsule.unwrap(), &[&[0x68, 0x43, 7], &4007u32.to_be_bytes()[..], b"bye"].concat()[..]);
    assert!(soon("the end", session.recv_data()).await.unwrap().is_none());
    session.finish().await.unwrap();
    server.stop().await;
}

/// Chromium's page learns the code after its network process has answered the capsule: a connection that the server
/// ends in between takes the code with it.
#[tokio::test]
async fn after_an_answered_close_the_connection_is_the_clients_to_end() {
    let (server, mut client, mut session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"close")).await.unwrap();
    soon("the capsule", session.recv_data()).await.unwrap().unwrap();
    assert!(soon("the end", session.recv_data()).await.unwrap().is_none());
    session.finish().await.unwrap();
    // Round trips behind the answer: the server has seen it, and the connection still carries requests.
    for _ in 0..5 {
        let (response, _) = client.ask(get(&server.url("/nothing"))).await;
        assert_eq!(response.status(), http::StatusCode::NOT_FOUND);
    }
    assert_eq!(client.quic.close_reason(), None);
    client.quic.close(0x100u32.into(), b"");
    server.stop().await;
}

/// A client that never ends its connection costs the server a second.
#[tokio::test]
async fn a_client_that_keeps_its_connection_after_an_answered_close_loses_it() {
    let (server, client, mut session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"close")).await.unwrap();
    soon("the capsule", session.recv_data()).await.unwrap().unwrap();
    session.finish().await.unwrap();
    soon("the end of the connection", client.quic.closed()).await;
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_close_is_not_waited_for() {
    let (server, client, _session) = TestServer::with_h3_session().await;
    let (mut send, _recv) = client.stream(0).await;
    send.write_all(&framed(b"close")).await.unwrap();

    let quinn::ConnectionError::ApplicationClosed(close) = soon("the end", client.quic.closed()).await else {
        panic!("not closed by the server")
    };
    assert_eq!(close.reason, "removed by the höst");
    server.stop().await;
}

#[tokio::test]
async fn a_dropped_connection_is_seen_at_once() {
    let (mut server, client, _session) = TestServer::with_h3_session().await;
    client.quic.close(0x100u32.into(), b"the tab is gone");
    let lost = tokio::time::timeout(Duration::from_secs(1), server.seen.recv()).await;
    assert_eq!(lost.expect("long before the idle timeout"), Some(Seen::Lost));
    server.stop().await;
}

/// Asks for a sign of life after so many milliseconds of silence.
fn patient_for_700_ms(keep_alive: u64) -> TestServer {
    let (keep_alive, idle) = (Duration::from_millis(keep_alive), Duration::from_millis(700));
    TestServer::with(QuicOptions { keep_alive, idle, ..QuicOptions::default() }, false)
}

#[tokio::test]
async fn a_client_that_dies_without_a_word_is_seen_after_the_idle_time() {
    let mut server = patient_for_700_ms(300);
    // On a runtime of its own, which is shut down in the middle: the machine is gone.
    let url: url::Url = server.url("/wt").parse().unwrap();
    let certificate = server.certificate.clone();
    let (ready, opened) = tokio::sync::oneshot::channel();
    let machine = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let session = runtime.block_on(async {
            let builder = web_transport_quinn::ClientBuilder::new().with_server_certificates(vec![certificate]);
            builder.unwrap().connect(url).await.unwrap()
        });
        ready.send(()).unwrap();
        runtime.shutdown_background();
        std::mem::forget(session);
    });
    soon("the session", opened).await.unwrap();
    machine.join().unwrap();
    server.opened().await;
    assert_eq!(server.sees().await, Seen::Lost);
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_says_nothing_is_asked_for_a_sign_of_life_and_stays() {
    let mut server = patient_for_700_ms(200);
    let mut client = server.h3().await;
    let _session = client.session(&server).await;
    server.opened().await;
    // Twice the idle time.
    let pings = async {
        while client.quic.stats().frame_rx.ping < 7 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    soon("seven pings", pings).await;
    assert_eq!(client.quic.close_reason(), None);
    assert!(server.seen.is_empty(), "the session goes on");
    client.quic.close(0x100u32.into(), b"");
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
async fn a_unidirectional_stream_is_refused() {
    let (server, session) = TestServer::with_session().await;
    let mut uni = session.open_uni().await.unwrap();
    let _ = uni.write_all(b"hello").await;
    assert_eq!(soon("the stop", uni.stopped()).await.unwrap(), Some(4000));
    session.close(0, b"");
    server.stop().await;
}

#[tokio::test]
async fn a_control_stream_that_arrives_before_its_session_is_kept() {
    let mut server = TestServer::start();
    let mut client = server.h3().await;
    // The first request takes stream 0, the early stream 4, the session 8.
    let (not_found, _) = client.ask(support::get(&server.url("/nothing"))).await;
    assert_eq!(not_found.status(), 404);
    let (mut send, mut recv) = client.stream(8).await;
    send.write_all(&framed(b"early")).await.unwrap();
    let session = client.session(&server).await;
    assert_eq!(session.id().into_inner(), 8);
    server.opened().await;
    let mut echo = [0; 9];
    soon("the echo", recv.read_exact(&mut echo)).await.unwrap();
    assert_eq!(echo[..], framed(b"early"));

    // Datagrams carry a quarter of that id.
    client.quic.send_datagram(Bytes::from_static(b"\x02tick")).unwrap();
    assert_eq!(soon("a datagram", client.quic.read_datagram()).await.unwrap(), &b"\x02tick"[..]);
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn streams_of_no_session_are_kept_in_small_number_only() {
    let server = TestServer::start();
    let client = server.h3().await;
    let _first = client.stream(40).await;
    let _second = client.stream(40).await;
    let (third, mut answer) = client.stream(40).await;
    assert_eq!(soon("the stop", third.stopped()).await.unwrap(), Some(0x3994_bd84u32.into()));
    assert_eq!(soon("the reset", answer.received_reset()).await.unwrap(), Some(0x3994_bd84u32.into()));
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_of_another_session_is_rejected() {
    let (server, client, _session) = TestServer::with_h3_session().await;
    let (stream, _answer) = client.stream(12).await;
    assert_eq!(soon("the stop", stream.stopped()).await.unwrap(), Some(0x3994_bd84u32.into()));
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_client_that_keeps_opening_useless_streams_loses_its_connection() {
    let server = TestServer::start();
    let client = server.h3().await;
    let flood = async {
        while let Ok((mut send, _recv)) = client.quic.open_bi().await {
            // Fails when the server has had enough.
            let _ = send.write_all(&[0x40, 0x41, 40]).await;
        }
    };
    soon("the server to have enough", flood).await;
    let quinn::ConnectionError::ApplicationClosed(close) = client.quic.closed().await else { panic!("not closed") };
    assert_eq!(close.error_code, 0x107u32.into());
    server.stop().await;
}

#[tokio::test]
async fn unknown_capsules_are_skipped() {
    let (mut server, _client, mut session) = TestServer::with_h3_session().await;
    session.send_data(capsule(0x1717, b"grease")).await.unwrap();
    session.send_data(capsule(0x29, b"")).await.unwrap();
    // One of a megabyte, in many pieces: more than the server would hold.
    session.send_data(Bytes::from_static(&[0x40, 0x99, 0x80, 0x10, 0, 0])).await.unwrap();
    for _ in 0..16 {
        soon("flow control", session.send_data(Bytes::from(vec![7; 0x10000]))).await.unwrap();
    }
    session.send_data(capsule(CLOSE, &[0, 0, 0, 9])).await.unwrap();
    assert_eq!(server.sees().await, Seen::Closed(9));
    server.stop().await;
}

#[tokio::test]
async fn an_oversized_close_capsule_is_a_violation() {
    let (mut server, _client, mut session) = TestServer::with_h3_session().await;
    session.send_data(capsule(CLOSE, &[0; 1029])).await.unwrap();
    assert_eq!(server.sees().await, Seen::Violation("a CLOSE capsule of 1029 bytes".to_owned()));
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
async fn a_length_above_the_limit_is_a_violation() {
    let (mut server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&65_537u32.to_be_bytes()).await.unwrap();
    assert_eq!(server.sees().await, Seen::Violation("a message of 65537 bytes, the limit is 65536".to_owned()));
    assert_eq!(closed_with(soon("the close", session.closed()).await).0, 4000);
    server.stop().await;
}

#[tokio::test]
async fn garbage_on_the_control_stream_closes_the_session() {
    for garbage in [&b"GET / HTTP/1.1\r\n"[..], &[0, 0, 0, 0]] {
        let (server, session) = TestServer::with_session().await;
        let (mut send, _recv) = session.open_bi().await.unwrap();
        send.write_all(garbage).await.unwrap();
        assert_eq!(closed_with(soon("the close", session.closed()).await).0, support::VIOLATION);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_stream_that_ends_inside_a_message_is_a_violation() {
    let (mut server, session) = TestServer::with_session().await;
    let (mut send, _recv) = session.open_bi().await.unwrap();
    send.write_all(&framed(b"hello")[..6]).await.unwrap();
    send.finish().unwrap();
    assert_eq!(server.sees().await, Seen::Violation("the control stream ended inside a message".to_owned()));
    server.stop().await;
}

#[tokio::test]
async fn datagrams_that_are_too_long_or_of_another_session_are_dropped() {
    let (mut server, client, _session) = TestServer::with_h3_session().await;
    for datagram in [vec![0; 1002], b"\x05other".to_vec(), b"".to_vec(), [&[0][..], &[1; 1000]].concat()] {
        client.quic.send_datagram(datagram.into()).unwrap();
    }
    assert_eq!(server.sees().await, Seen::Datagram(Bytes::from(vec![1; 1000])));
    client.quic.close(0u32.into(), b"");
    server.stop().await;
}

#[tokio::test]
async fn a_hundred_sessions_leave_no_task_behind() {
    let server = TestServer::start();
    let client = server.web_transport_quinn();
    let url: url::Url = server.url("/wt").parse().unwrap();
    for round in 0..100 {
        let session = soon("a session", client.connect(url.clone())).await.unwrap();
        let (mut send, mut recv) = session.open_bi().await.unwrap();
        send.write_all(&framed(b"hello")).await.unwrap();
        assert_eq!(read_message(&mut recv).await, b"hello");
        if round % 2 == 0 {
            session.close(0, b"");
        }
    }
    let alone = async {
        while server.tracker.len() > 1 {
            tokio::task::yield_now().await;
        }
    };
    soon("all but the listener's own task to end", alone).await;
    server.stop().await;
}

#[tokio::test]
async fn a_session_whose_answer_is_not_taken_gives_its_place_back() {
    let mut server = TestServer::start();
    for _ in 0..20 {
        let mut client = server.h3().await;
        let mut unread = client.send(webtransport(&server.url("/wt"))).await;
        // The request and the refusal of its answer leave together.
        unread.stop_sending(h3::error::Code::H3_REQUEST_CANCELLED);
        let mut second = client.send(webtransport(&server.url("/wt"))).await;
        let answer = soon("an answer", second.recv_response()).await;
        if answer.is_ok_and(|response| response.status() == http::StatusCode::OK) {
            return server.opened().await;
        }
    }
    panic!("the first request kept the place, each time");
}
