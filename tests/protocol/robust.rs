//! No bytes of a client break the decoders.

use proptest::prelude::*;
use tandem::protocol::{Rules, decode};

use super::fuzz_bodies;
use super::wire_samples::{CLIENT_MESSAGES, V2_MESSAGES};

/// A valid message with some of its bytes changed, cut out or doubled.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<&'static str> = CLIENT_MESSAGES.iter().chain(V2_MESSAGES).copied().collect();
    let bytes = prop_oneof![any::<u8>(), proptest::sample::select(&b"{}[]\",:\\u0eE-+.9ntf \x00\xff"[..])];
    let change = (any::<proptest::sample::Index>(), 0..3u8, bytes);
    (proptest::sample::select(samples), proptest::collection::vec(change, 0..6)).prop_map(|(text, changes)| {
        let mut out = text.as_bytes().to_vec();
        for (place, how, byte) in changes {
            let place = place.index(out.len().max(1)).min(out.len().saturating_sub(1));
            match how {
                0 if !out.is_empty() => out[place] = byte,
                1 if !out.is_empty() => drop(out.remove(place)),
                _ => out.insert(place, byte),
            }
        }
        out
    })
}

/// A valid message in which one field has any other value.
fn swapped() -> impl Strategy<Value = Vec<u8>> {
    let samples: Vec<&'static str> = CLIENT_MESSAGES.to_vec();
    let values = prop_oneof![
        Just("null".to_owned()),
        any::<f64>().prop_filter("JSON has no such number", |n| n.is_finite()).prop_map(|n| format!("{n:e}")),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<String>().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("true".to_owned()),
        Just("[[]]".to_owned()),
        Just("{\"a\":{}}".to_owned()),
    ];
    (proptest::sample::select(samples), any::<proptest::sample::Index>(), values).prop_map(|(text, which, value)| {
        let mut fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).unwrap();
        let name = fields.keys().nth(which.index(fields.len())).unwrap().clone();
        fields.insert(name, serde_json::from_str(&value).unwrap());
        serde_json::to_vec(&fields).unwrap()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_message_or_a_refusal(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_bodies::client_message(&bytes);
        fuzz_bodies::compact(&bytes);
    }

    #[test]
    fn any_text_is_a_message_or_a_refusal(text in any::<String>()) {
        fuzz_bodies::client_message(text.as_bytes());
    }

    #[test]
    fn a_damaged_message_is_a_message_or_a_refusal(bytes in mutated()) {
        fuzz_bodies::client_message(&bytes);
    }

    #[test]
    fn a_message_with_another_value_is_a_message_or_a_refusal(bytes in swapped()) {
        fuzz_bodies::client_message(&bytes);
    }

    #[test]
    fn any_tick_is_read_and_written_alike(flags in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 2..=2),
                                          seq in any::<u32>(), position in 0.0..604_800.0f64, at in 0.0..4e15f64,
                                          rate in 0.25..=4.0f32) {
        let mut bytes = vec![3, flags];
        bytes.extend(rest);
        bytes.extend(seq.to_be_bytes());
        bytes.extend(position.to_be_bytes());
        bytes.extend(at.to_be_bytes());
        bytes.extend(rate.to_be_bytes());
        fuzz_bodies::compact(&bytes);
    }

    #[test]
    fn any_status_is_read_and_written_alike(flags in any::<u8>(), rest in proptest::collection::vec(any::<u8>(), 18..=18)) {
        fuzz_bodies::compact(&[&[4, flags], &rest[..]].concat());
    }

    /// Free JSON keeps its meaning through the decoder and the encoder.
    #[test]
    fn free_json_means_the_same_afterwards(text in any::<String>(), number in any::<i64>(), flag in any::<bool>()) {
        let payload = serde_json::json!({"text": text, &*text: [number, flag, null_or(number)], "nested": {"a": [[]]}});
        let message = format!(r#"{{"type":"CUSTOM","namespace":"n","payload":{payload:#}}}"#);
        let request = decode(message.as_bytes(), &Rules::default()).unwrap();
        let tandem::protocol::ClientMessage::Ask(tandem::room::Ask::Custom { payload: kept, .. }) = request.message
        else { panic!() };
        prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&kept).unwrap(), &payload);
        prop_assert_eq!(kept, payload.to_string());
    }
}

fn null_or(number: i64) -> serde_json::Value {
    if number % 2 == 0 { serde_json::Value::Null } else { number.into() }
}
