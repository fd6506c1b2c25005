//! Faults of v2 that the codec alone can repeat, by the numbers of the list.

use serde_json::Value;
use tandem::domain::{ErrorCode, Limits, NodeId};
use tandem::hub::delivery::NoticeBody;
use tandem::protocol::{ClientMessage, SERVER_KINDS};

use super::wire_samples::{notice, user};
use super::{message, refused, refused_with};

#[test]
fn fault_05_a_client_cannot_say_who_it_is_except_to_join() {
    for text in [
        r#"{"type":"CHAT","text":"hello","userId":"host","roomId":"other"}"#,
        r#"{"type":"PLAY_PAUSE","control":"play","userId":"host"}"#,
    ] {
        let seen = format!("{:?}", message(text));
        assert!(!seen.contains("host") && !seen.contains("other"), "{seen}");
    }
}

#[test]
fn fault_07_nothing_is_relayed_because_it_is_unknown() {
    for kind in SERVER_KINDS.iter().filter(|kind| !ClientMessage::KINDS.contains(kind)) {
        assert_eq!(
            refused(format!(r#"{{"type":"{kind}","hostUserId":"mallory"}}"#)).code,
            ErrorCode::UnknownType,
            "{kind}"
        );
    }
    refused_with(ErrorCode::UnknownType, &[r#"{"type":"host_changed"}"#, r#"{"type":"join"}"#, r#"{"type":""}"#]);
}

#[test]
fn fault_08_the_fields_of_the_server_are_the_servers() {
    let forged = r#"{"type":"OFFER","to":"bob","from":"host","userId":"host","nodeId":"x","timestamp":1,"seq":9,"extra":1,
        "offer":{"sdp":"v=0","from":"host"}}"#;
    let ClientMessage::Signal { to: bob, signal } = message(forged) else { panic!() };
    let (mallory, node) = (user("mallory"), NodeId::parse("node-1").unwrap());
    let sent: Value =
        serde_json::from_slice(&notice(NoticeBody::Signal { from: &mallory, to: &bob, signal: &signal, node: &node }))
            .unwrap();
    let names: Vec<_> = sent.as_object().unwrap().keys().collect();
    assert_eq!(names, ["from", "nodeId", "offer", "timestamp", "to", "type"]);
    assert_eq!((&sent["from"], &sent["nodeId"]), (&Value::from("mallory"), &Value::from("node-1")));
}

#[test]
fn fault_09_an_id_that_is_not_a_text_is_a_refusal_and_no_end() {
    refused_with(
        ErrorCode::BadMessage,
        &[
            r#"{"type":"JOIN","roomId":"friday","userId":42}"#,
            r#"{"type":"JOIN","roomId":42,"userId":"ann"}"#,
            r#"{"type":"JOIN","roomId":"friday","userId":{"toString":1}}"#,
            r#"{"type":"JOIN","roomId":"friday","userId":["ann"]}"#,
            r#"{"type":"JOIN","roomId":"friday","userId":true}"#,
            r#"{"type":"OFFER","to":7,"offer":{}}"#,
            r#"{"type":"KICK","targetUserId":7}"#,
        ],
    );
}

#[test]
fn fault_10_sizes_and_ranges_hold() {
    for number in ["1e308", "1e999", "-1", "-0.001", "1e7"] {
        for kind in ["SEEK", "POSITION_UPDATE", "HOST_HEARTBEAT", "SYNC_PLAYBACK"] {
            let text = format!(r#"{{"type":"{kind}","isPlaying":true,"currentTime":{number}}}"#);
            assert_eq!(refused(text).code, ErrorCode::OutOfRange, "{kind} {number}");
        }
    }
    let limits = Limits::default();
    let padded = |bytes: u64| format!(r#"{{"type":"LEAVE","x":"{}"}}"#, "x".repeat(bytes as usize));
    message(&padded(limits.message_bytes - 23));
    assert_eq!(refused(padded(limits.message_bytes)).code, ErrorCode::TooBig);
    assert_eq!(refused(padded(20_000_000)).code, ErrorCode::TooBig);
    let long = |kind: &str, field: &str, chars: u64| {
        refused(format!(r#"{{"type":"{kind}","namespace":"n","{field}":"{}"}}"#, "x".repeat(chars as usize))).code
    };
    assert_eq!(long("UPDATE_USERNAME", "username", limits.username_chars + 1), ErrorCode::OutOfRange);
    assert_eq!(long("CHAT", "text", limits.chat_chars + 1), ErrorCode::OutOfRange);
    assert_eq!(long("URL_CHANGE", "url", limits.url_bytes + 1), ErrorCode::OutOfRange);
    assert_eq!(long("CUSTOM", "payload", limits.custom_bytes), ErrorCode::TooBig);
}

#[test]
fn fault_12_only_https_is_relayed_to_be_navigated_to() {
    for url in [
        "http://example.org/",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "chrome://settings",
        "//example.org/",
        "https://user:pw@example.org/",
        "https://",
        "not a url",
    ] {
        for text in [
            format!(r#"{{"type":"URL_CHANGE","url":"{url}"}}"#),
            format!(r#"{{"type":"SYNC_PLAYBACK","currentTime":1,"isPlaying":true,"url":"{url}"}}"#),
            format!(r#"{{"type":"SYNC_RESPONSE","to":"bob","currentTime":1,"isPlaying":true,"url":"{url}"}}"#),
        ] {
            assert_eq!(refused(&text).code, ErrorCode::BadUrl, "{text}");
        }
    }
}

#[test]
fn fault_22_a_ping_carries_no_position() {
    let ping = message(r#"{"type":"PING","timestamp":1,"currentTime":0,"isPlaying":false}"#);
    assert!(matches!(ping, ClientMessage::Ping { echo: Some(_) }));
}
