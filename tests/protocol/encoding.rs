//! The contents of encoded messages.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Value, json};
use tandem::domain::{ErrorCode, RoomTime};
use tandem::hub::delivery::{NoticeBody, Refusal};
use tandem::protocol::{SERVER_KINDS, refusal_code};
use tandem::room::{By, Cause, Control, Event, Playback, Reject};

use super::wire_samples::*;

fn parsed(bytes: &Bytes) -> Value {
    serde_json::from_slice(bytes).unwrap()
}

#[test]
fn every_server_type_has_a_sample_and_every_sample_is_one_json_object_in_one_line() {
    let mut seen = Vec::new();
    for (name, bytes) in server_messages() {
        let message = parsed(&bytes);
        let kind = message["type"].as_str().unwrap().to_owned();
        assert!(SERVER_KINDS.contains(&kind.as_str()), "{name}");
        assert!(bytes.starts_with(br#"{"type":""#) && !bytes.contains(&b'\n'), "{name}");
        seen.push(kind);
    }
    for kind in SERVER_KINDS {
        assert!(seen.iter().any(|seen| seen == kind), "no sample of {kind}");
    }
}

#[test]
fn every_message_but_state_and_error_says_when_it_was_sent_in_whole_ms() {
    for (name, bytes) in server_messages() {
        let message = parsed(&bytes);
        let bare = matches!(message["type"].as_str(), Some("ROOM_STATE" | "ERROR"));
        assert_eq!(message.get("timestamp").is_none(), bare, "{name}");
        assert!(bare || message["timestamp"].is_i64() || message["timestamp"].is_u64(), "{name}");
    }
}

#[test]
fn a_message_with_playback_carries_the_gate_too() {
    for (name, bytes) in server_messages() {
        let message = parsed(&bytes);
        if message.get("playback").is_some() {
            assert!(message.get("gate").is_some(), "{name}");
        }
    }
}

#[test]
fn the_beginning_and_the_end_of_a_room_have_no_message() {
    let room = room(playing_from(0.0, at(0)), None);
    assert_eq!(event(&room, &Event::Ended { at: at(0) }), None);
}

#[test]
fn a_v2_client_that_adds_the_time_since_event_timestamp_lands_where_the_room_is() {
    let since = RoomTime::from_micros(EPOCH as i64 * 1000 + 60_400);
    let playback = playing_from(12.5, since);
    let what = Event::Moved { by: By::Server, cause: Cause::Control(Control::Play), playback, key: None };
    let message = parsed(&event(&room(playback, None), &what).unwrap());
    assert_eq!(message["userId"], "server");
    assert_eq!(message["eventTimestamp"], EPOCH + 60);
    let now = at(4060);
    let v2 = message["currentTime"].as_f64().unwrap()
        + (now.as_millis_f64() - message["eventTimestamp"].as_f64().unwrap()) / 1000.0;
    assert!((v2 - playback.position_at(now).seconds()).abs() < 0.001, "{v2}");
}

#[test]
fn state_and_sync_give_the_position_of_now() {
    let playback = playing_from(10.0, at(0));
    let state = parsed(&state(&room(playback, None), None, at(3000)));
    assert_eq!((&state["currentTime"], &state["roomTime"]), (&json!(13.0), &json!(EPOCH + 3000)));
    assert_eq!(state["playback"]["position"], 10.0);
    let sync = parsed(&notice(NoticeBody::Sync { room: &room(playback, None) }));
    assert_eq!((&sync["currentTime"], &sync["fromUserId"]), (&json!(10.01), &json!("server")));
}

#[test]
fn members_stand_in_the_order_of_their_slots_lost_ones_too() {
    let message = parsed(&state(&room(playing_from(0.0, at(0)), None), None, at(0)));
    let users: Vec<_> =
        message["users"].as_array().unwrap().iter().map(|user| (&user["userId"], &user["connected"])).collect();
    let (yes, no) = (json!(true), json!(false));
    assert_eq!(users, [(&json!("zoe"), &yes), (&json!("bob"), &no), (&json!("ann"), &yes)]);
}

#[test]
fn moments_keep_their_microseconds_where_v3_reads_them() {
    let at = RoomTime::from_micros(EPOCH as i64 * 1000 + 250);
    let playback = Playback { at, ..playing_from(0.0, at) };
    let message = parsed(&state(&room(playback, None), None, at));
    assert_eq!(message["roomTime"].as_f64(), Some(EPOCH as f64 + 0.25));
    assert_eq!(message["playback"]["at"].as_f64(), Some(EPOCH as f64 + 0.25));
}

#[test]
fn a_payload_that_is_no_json_any_more_leaves_as_null_and_forges_nothing() {
    let namespace = tandem::domain::Namespace::parse("n").unwrap();
    let payload = r#"1,"userId":"host""#.to_owned();
    let bytes = event(&room(playing_from(0.0, at(0)), None), &Event::Custom { user: user("ann"), namespace, payload });
    let message = parsed(&bytes.unwrap());
    assert_eq!((&message["payload"], &message["userId"]), (&Value::Null, &json!("ann")));
}

#[test]
fn a_refusal_has_its_code_and_the_time_to_wait() {
    let wait = Duration::from_secs(9);
    let cases = [
        (Refusal::Room(Reject::NotHost), ErrorCode::NotHost, None),
        (Refusal::PinThrottled { retry_after: wait }, ErrorCode::PinThrottled, Some(wait)),
        (Refusal::JoinThrottled { retry_after: wait }, ErrorCode::RateLimited, Some(wait)),
        (Refusal::SessionLimit, ErrorCode::SessionLimit, None),
        (Refusal::AddressFull, ErrorCode::Overloaded, Some(Duration::from_secs(5))),
        (Refusal::RoomLimit, ErrorCode::RoomLimit, None),
        (Refusal::Overloaded, ErrorCode::Overloaded, Some(Duration::from_secs(1))),
        (Refusal::Unavailable, ErrorCode::Unavailable, None),
        (Refusal::Draining, ErrorCode::Unavailable, None),
        (Refusal::Internal, ErrorCode::Internal, None),
    ];
    for (refusal, code, retry_after) in cases {
        assert_eq!(refusal_code(&refusal), (code, retry_after), "{refusal}");
    }
}
