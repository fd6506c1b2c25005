//! What decoding refuses, and what it accepts.

use tandem::domain::{
    Dialect, ErrorCode, Fallback, Head, HostPattern, Limits, Measurement, MediaTime, RoomTime, StatusReport,
    TickReport, UrlPolicy,
};
use tandem::hub::delivery::Signal;
use tandem::protocol::{ClientMessage, Compact, JoinMessage, Rules, decode, decode_compact};
use tandem::room::Ask;

use super::wire_samples::{CLIENT_MESSAGES, V2_MESSAGES, position};
use super::{message, refused, refused_with, request};

fn join(text: &str) -> JoinMessage {
    match message(text) {
        ClientMessage::Join(join) => join,
        other => panic!("{other:?}"),
    }
}

fn ask(text: &str) -> Ask {
    match message(text) {
        ClientMessage::Ask(ask) => ask,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_message_keeps_its_type_as_its_kind() {
    let mut seen = Vec::new();
    for text in CLIENT_MESSAGES {
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(message(text).kind(), value["type"]);
        seen.push(message(text).kind());
    }
    assert_eq!(seen, ClientMessage::KINDS, "there is a sample of every kind, in the order of the documentation");
}

#[test]
fn v2_clients_are_understood() {
    for text in V2_MESSAGES {
        request(text);
    }
}

#[test]
fn join_without_a_version_is_v2_and_unknown_versions_are_refused() {
    assert_eq!(join(r#"{"type":"JOIN","roomId":"r","userId":"u"}"#).dialect, Dialect::V2);
    assert_eq!(join(r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":null}"#).dialect, Dialect::V2);
    assert_eq!(join(r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":3}"#).dialect, Dialect::V3);
    refused_with(
        ErrorCode::OutOfRange,
        &[
            r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":4}"#,
            r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":1}"#,
            r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":2.5}"#,
        ],
    );
    refused_with(ErrorCode::BadMessage, &[r#"{"type":"JOIN","roomId":"r","userId":"u","protocol":"3"}"#]);
}

#[test]
fn an_empty_name_pin_or_token_is_none() {
    for name in ["\"\"", "\"  \"", "\"\\t\\u0000\"", "null"] {
        let join = join(&format!(
            r#"{{"type":"JOIN","roomId":"r","userId":"u","username":{name},"pin":"","resumeToken":""}}"#
        ));
        assert!(join.name.is_none() && join.pin.is_none() && join.token.is_none(), "{name}");
    }
}

#[test]
fn what_was_seen_last_counts_only_with_its_epoch() {
    let seen = |fields: &str| join(&format!(r#"{{"type":"JOIN","roomId":"r","userId":"u"{fields}}}"#)).last_seen;
    assert_eq!(seen(r#","epoch":5,"lastSeq":7"#), Some(Head { epoch: 5, seq: 7 }));
    assert_eq!(seen(r#","lastSeq":7"#), None);
    assert_eq!(seen(r#","epoch":5,"lastSeq":null"#), None);
}

#[test]
fn why_a_client_fell_back_is_one_of_a_few_words_or_other() {
    let fallback =
        |word: &str| join(&format!(r#"{{"type":"JOIN","roomId":"r","userId":"u","fallback":{word}}}"#)).fallback;
    assert_eq!(fallback("\"slow\""), Some(Fallback::Slow));
    assert_eq!(fallback("\"credit\""), Some(Fallback::Credit));
    assert_eq!(fallback("\"not_offered\""), Some(Fallback::NotOffered));
    assert_eq!(fallback("\"a word of tomorrow\""), Some(Fallback::Other));
    assert_eq!((fallback("null"), fallback("\"\"")), (None, None));
    refused_with(ErrorCode::BadMessage, &[r#"{"type":"JOIN","roomId":"r","userId":"u","fallback":1}"#]);
}

#[test]
fn a_reference_is_a_whole_number_that_javascript_can_count_to() {
    assert_eq!(request(r#"{"type":"LEAVE","ref":0}"#).reference, Some(0));
    assert_eq!(request(r#"{"type":"LEAVE","ref":9007199254740992}"#).reference, Some(1 << 53));
    assert_eq!(request(r#"{"type":"LEAVE","ref":null}"#).reference, None);
    for bad in ["9007199254740993", "-1", "1.5", "1e3", "1e999"] {
        assert_eq!(refused(format!(r#"{{"type":"LEAVE","ref":{bad}}}"#)).code, ErrorCode::OutOfRange, "{bad}");
    }
    for bad in ["\"1\"", "[1]", "{}", "true"] {
        assert_eq!(refused(format!(r#"{{"type":"LEAVE","ref":{bad}}}"#)).code, ErrorCode::BadMessage, "{bad}");
    }
}

#[test]
fn a_refusal_names_its_reference_and_its_type_wherever_they_stand() {
    let bad = refused(r#"{"currentTime":-1,"ref":7,"type":"SEEK"}"#);
    assert_eq!((bad.code, bad.reference, bad.request), (ErrorCode::OutOfRange, Some(7), "SEEK"));
    let cut = refused(r#"{"type":"SEEK","ref":7,"currentTime":"#);
    assert_eq!((cut.code, cut.reference, cut.request), (ErrorCode::BadMessage, Some(7), "SEEK"));
    let unknown = refused(r#"{"type":"NOVEL","ref":7}"#);
    assert_eq!((unknown.code, unknown.reference, unknown.request), (ErrorCode::UnknownType, Some(7), ""));
    let wrong = refused(r#"{"type":"SEEK","ref":"7","currentTime":1}"#);
    assert_eq!((wrong.code, wrong.reference, wrong.request), (ErrorCode::BadMessage, None, "SEEK"));
}

#[test]
fn an_unknown_type_is_named_short_and_clean() {
    let bad = refused(format!(r#"{{"type":"<b>\n\u202e{}"}}"#, "X".repeat(500)));
    assert_eq!(bad.code, ErrorCode::UnknownType);
    assert_eq!(bad.message, format!("no such message: ?b???{}", "X".repeat(35)));
}

#[test]
fn what_is_not_one_json_object_is_refused() {
    let deep = format!(r#"{{"type":{}{}}}"#, "[".repeat(30_000), "]".repeat(30_000));
    let texts: &[&[u8]] = &[
        b"",
        b" ",
        b"null",
        b"[]",
        b"[{\"type\":\"LEAVE\"}]",
        b"\"LEAVE\"",
        b"1",
        b"{",
        b"{}",
        b"{}{}",
        b"{\"type\":\"LEAVE\"} x",
        b"{\"type\":\"LEAVE\",}",
        b"{'type':'LEAVE'}",
        b"{\"type\":\"\xff\"}",
        b"\xef\xbb\xbf{}",
        b"{\"type\":null}",
        b"{\"type\":1}",
        b"{\"type\":[\"LEAVE\"]}",
        b"{\"type\":\"\\ud800\"}",
        b"{\"\\ud800\":1}",
        b"{\"type\":\"LEA\nVE\"}",
        deep.as_bytes(),
    ];
    for text in texts {
        let bad = refused(text);
        assert_eq!(bad.code, ErrorCode::BadMessage, "{}", String::from_utf8_lossy(text));
        assert!(bad.message.len() < 200, "{}", bad.message);
    }
}

#[test]
fn a_field_that_stands_twice_is_refused_and_an_unknown_one_does_not_matter() {
    refused_with(
        ErrorCode::BadMessage,
        &[
            r#"{"type":"LEAVE","type":"LEAVE"}"#,
            r#"{"type":"KICK","targetUserId":"a","targetUserId":"b"}"#,
            r#"{"type":"KICK","targetUserId":"a","targetUserI\u0064":"b"}"#,
            r#"{"type":"LEAVE","ref":1,"ref":1}"#,
        ],
    );
    request(r#"{"type":"LEAVE","x":1,"x":{"deep":[1]}}"#);
}

#[test]
fn escapes_in_names_and_values_are_read() {
    assert!(
        matches!(ask(r#"{"typ\u0065":"K\u0049CK","targetUserId":"b\u006fb"}"#), Ask::Kick { target } if target.as_str() == "bob")
    );
}

#[test]
fn a_missing_field_and_one_of_the_wrong_kind_are_refused() {
    refused_with(
        ErrorCode::BadMessage,
        &[
            r#"{"type":"JOIN","roomId":"r"}"#,
            r#"{"type":"JOIN","roomId":"r","userId":null}"#,
            r#"{"type":"KICK"}"#,
            r#"{"type":"TOGGLE_GUEST_CONTROL","enabled":1}"#,
            r#"{"type":"TOGGLE_GUEST_CONTROL","enabled":"true"}"#,
            r#"{"type":"PLAY_PAUSE","control":"stop"}"#,
            r#"{"type":"PLAY_PAUSE"}"#,
            r#"{"type":"PLAY_PAUSE","control":"play","currentTime":"12"}"#,
            r#"{"type":"PLAY_PAUSE","control":"play","eventTimestamp":"1795000000000"}"#,
            r#"{"type":"SEEK"}"#,
            r#"{"type":"SEEK","currentTime":[1]}"#,
            r#"{"type":"SET_RATE","rate":"1"}"#,
            r#"{"type":"READY","gateId":"3"}"#,
            r#"{"type":"SET_PIN"}"#,
            r#"{"type":"SET_PIN","pin":4711}"#,
            r#"{"type":"URL_CHANGE"}"#,
            r#"{"type":"POSITION_UPDATE","currentTime":1}"#,
            r#"{"type":"HOST_HEARTBEAT","isPlaying":true}"#,
            r#"{"type":"SYNC_RESPONSE","currentTime":1,"isPlaying":true}"#,
            r#"{"type":"PLAYBACK_ACK","control":"play"}"#,
            r#"{"type":"OFFER","to":"bob"}"#,
            r#"{"type":"OFFER","to":"bob","offer":null}"#,
            r#"{"type":"OFFER","offer":{}}"#,
            r#"{"type":"ICE_CANDIDATE","to":"bob"}"#,
            r#"{"type":"CUSTOM","namespace":"n"}"#,
            r#"{"type":"CUSTOM","namespace":"n","payload":1,"to":7}"#,
            r#"{"type":"CHAT","text":7}"#,
            r#"{"type":"CHAT","text":"\udc00"}"#,
        ],
    );
}

#[test]
fn what_is_out_of_range_is_refused() {
    refused_with(
        ErrorCode::OutOfRange,
        &[
            r#"{"type":"SEEK","currentTime":604800.1}"#,
            r#"{"type":"SET_RATE","rate":0.2}"#,
            r#"{"type":"SET_RATE","rate":4.1}"#,
            r#"{"type":"READY","gateId":4294967296}"#,
            r#"{"type":"READY","gateId":-1}"#,
            r#"{"type":"URL_CHANGE","url":"https://example.org/","currentTime":604800001}"#,
            r#"{"type":"UPDATE_USERNAME","username":" "}"#,
            r#"{"type":"CHAT","text":" "}"#,
            r#"{"type":"CUSTOM","namespace":"Not A Name","payload":1}"#,
        ],
    );
    refused_with(ErrorCode::BadPinFormat, &[r#"{"type":"SET_PIN","pin":"\u0007"}"#, r#"{"type":"SET_PIN","pin":""}"#]);
    refused_with(
        ErrorCode::BadId,
        &[r#"{"type":"KICK","targetUserId":""}"#, r#"{"type":"JOIN","roomId":"a/b","userId":"u"}"#],
    );
}

#[test]
fn minus_zero_is_zero() {
    let Ask::Seek { position, .. } = ask(r#"{"type":"SEEK","currentTime":-0.0}"#) else { panic!() };
    assert!(position.seconds().is_sign_positive());
}

#[test]
fn a_moment_that_cannot_be_one_counts_as_absent() {
    let moment = |text: &str| match ask(&format!(r#"{{"type":"PLAY_PAUSE","control":"play","eventTimestamp":{text}}}"#))
    {
        Ask::PlayPause { true_at, .. } => true_at,
        other => panic!("{other:?}"),
    };
    assert_eq!(moment("1795000000000.25"), Some(RoomTime::from_micros(1_795_000_000_000_250)));
    assert_eq!(moment("0"), Some(RoomTime::default()));
    for none in ["null", "-1", "1e300", "1e999", "-1e999"] {
        assert_eq!(moment(none), None, "{none}");
    }
}

#[test]
fn url_change_alone_speaks_milliseconds() {
    let at = |fields: &str| match ask(&format!(r#"{{"type":"URL_CHANGE","url":"https://example.org/"{fields}}}"#)) {
        Ask::SetUrl { position, .. } => position,
        other => panic!("{other:?}"),
    };
    assert_eq!(at(r#","currentTime":93250"#), position(93.25));
    assert_eq!(at(""), MediaTime::ZERO);
    assert!(
        matches!(ask(r#"{"type":"SEEK","currentTime":93.25}"#), Ask::Seek { position: p, resume: None, .. } if p == position(93.25))
    );
}

#[test]
fn custom_goes_to_all_or_to_one() {
    assert!(
        matches!(ask(r#"{"type":"CUSTOM","namespace":"n","payload":[ 1 ]}"#), Ask::Custom { payload, .. } if payload == "[1]")
    );
    assert!(matches!(
        message(r#"{"type":"CUSTOM","namespace":"n","payload":null,"to":"bob"}"#),
        ClientMessage::Signal { to, signal: Signal::Custom { payload, .. } } if to.as_str() == "bob" && payload == "null"
    ));
}

#[test]
fn free_json_is_kept_as_compact_text_and_bounded() {
    let offer = |value: &str| format!(r#"{{"type":"OFFER","to":"bob","offer":{value}}}"#);
    assert!(matches!(
        message(&offer(r#"{ "sdp" : "\u0041\r\n" }"#)),
        ClientMessage::Signal { signal: Signal::Offer { offer }, .. } if offer == r#"{"sdp":"A\r\n"}"#
    ));
    let limit = Limits::default().signal_bytes as usize;
    request(&offer(&format!("\"{}\"", "x".repeat(limit - 2))));
    assert_eq!(refused(offer(&format!("\"{}\"", "x".repeat(limit - 1)))).code, ErrorCode::TooBig);
    for broken in [r#""\ud800""#, "1e999", r#"{"a":1,"a":2}"#, &("[".repeat(200) + &"]".repeat(200))] {
        assert_eq!(refused(offer(broken)).code, ErrorCode::BadMessage, "{broken}");
    }
}

#[test]
fn ping_gives_back_any_number_and_nothing_else() {
    let echo = |text: &str| match message(&format!(r#"{{"type":"PING","timestamp":{text}}}"#)) {
        ClientMessage::Ping { echo } => echo.map(|number| number.to_string()),
        other => panic!("{other:?}"),
    };
    assert_eq!(echo("1795000000000").as_deref(), Some("1795000000000"));
    assert_eq!(echo("1.5").as_deref(), Some("1.5"));
    for none in ["null", "\"x\"", "1e999", "[1]"] {
        assert_eq!(echo(none), None, "{none}");
    }
}

#[test]
fn films_come_only_from_hosts_on_the_list() {
    let hosts = vec![HostPattern::parse("*.example.org").unwrap()];
    let rules = Rules { urls: UrlPolicy::new(hosts, false), ..Rules::default() };
    let change = |url: &str| decode(format!(r#"{{"type":"URL_CHANGE","url":"{url}"}}"#).as_bytes(), &rules);
    change("https://films.example.org/1").unwrap();
    assert_eq!(change("https://example.com/1").unwrap_err().code, ErrorCode::BadUrl);
}

#[test]
fn compact_messages_are_measured_before_they_are_read() {
    let limits = Limits::default();
    let mut tick = vec![3, 3, 0, 9, 0, 0, 0, 7];
    tick.extend(12.5f64.to_be_bytes());
    tick.extend(1_795_000_000_000.25f64.to_be_bytes());
    tick.extend(1.0f32.to_be_bytes());
    let Ok(Compact::Tick(TickReport { playing: true, seq: 7, position: p, at, rate })) = decode_compact(&tick, &limits)
    else {
        panic!()
    };
    assert_eq!((p, at.as_millis_f64(), rate.factor()), (position(12.5), 1_795_000_000_000.25, 1.0));

    let mut probe = vec![1, 0, 1, 2];
    probe.extend(f64::NAN.to_be_bytes());
    assert!(matches!(decode_compact(&probe, &limits), Ok(Compact::ClockProbe { id: 258, t0 }) if t0.is_nan()));

    let status = vec![4, 1 | 2 | 4 | 16 | 32, 0, 9, 0, 0, 0, 7, 0, 0, 0x38, 0xa4, 0xff, 0xff, 0xf3, 0xe4, 1, 2, 3, 4];
    let read = StatusReport {
        seq: 7,
        buffering: true,
        in_call: true,
        rtt: Measurement::from_micros(14_500).ok(),
        drift: Measurement::from_micros(-3100).ok(),
        clock_error: None,
    };
    assert_eq!(decode_compact(&status, &limits), Ok(Compact::Status(read)));

    for (bytes, why) in [(&tick, "tick"), (&probe, "probe"), (&status, "status")] {
        for length in (1..bytes.len()).chain([bytes.len() + 1]) {
            let mut cut = bytes.clone();
            cut.resize(length, 0);
            assert_eq!(decode_compact(&cut, &limits).unwrap_err().code, ErrorCode::BadMessage, "{why} of {length}");
        }
    }
    assert_eq!(decode_compact(&[], &limits).unwrap_err().code, ErrorCode::BadMessage);
    assert_eq!(decode_compact(&[2, 0], &limits).unwrap(), Compact::Unknown);
    assert_eq!(decode_compact(&[255], &limits).unwrap(), Compact::Unknown);
}

#[test]
fn a_measurement_beyond_ten_minutes_is_refused_where_its_flag_is_set() {
    for (flag, start) in [(2, 8), (4, 12), (8, 16)] {
        for micros in [600_000_001, -600_000_001, i32::MAX, i32::MIN] {
            let mut bytes = vec![4, flag, 0, 0, 0, 0, 0, 7];
            bytes.resize(20, 0);
            bytes[start..start + 4].copy_from_slice(&micros.to_be_bytes());
            assert_eq!(decode_compact(&bytes, &Limits::default()).unwrap_err().code, ErrorCode::OutOfRange, "{micros}");
            bytes[1] = 0;
            decode_compact(&bytes, &Limits::default()).unwrap();
        }
    }
}

#[test]
fn a_tick_out_of_range_is_refused() {
    let tick = |position: f64, at: f64, rate: f32| {
        let mut bytes = vec![3, 0, 0, 0, 0, 0, 0, 0];
        bytes.extend(position.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(rate.to_be_bytes());
        decode_compact(&bytes, &Limits::default())
    };
    tick(1.0, 1e12, 1.0).unwrap();
    for (position, at, rate) in [
        (f64::NAN, 1e12, 1.0),
        (f64::INFINITY, 1e12, 1.0),
        (-0.1, 1e12, 1.0),
        (1e308, 1e12, 1.0),
        (1.0, f64::NAN, 1.0),
        (1.0, 1e300, 1.0),
        (1.0, f64::NEG_INFINITY, 1.0),
        (1.0, 1e12, f32::NAN),
        (1.0, 1e12, 0.0),
        (1.0, 1e12, -1.0),
        (1.0, 1e12, f32::INFINITY),
    ] {
        assert_eq!(tick(position, at, rate).unwrap_err().code, ErrorCode::OutOfRange, "{position} {at} {rate}");
    }
}
