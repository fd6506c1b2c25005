//! The bytes on the wire: a difference here is a difference for existing clients.

use std::fmt::Write as _;

use tandem::domain::{
    Measurement, MemberSlot, Rate, RelayedStatus, RelayedTick, RoomDigest, StandOut, StatusReport, TransportKind,
};
use tandem::protocol::{bundles, encode_clock_reply, encode_digest, encode_status, encode_tick};

use super::request;
use super::wire_samples::*;

#[test]
fn every_server_message_stands_on_the_wire_as_it_always_did() {
    let mut golden = String::new();
    for (name, bytes) in server_messages() {
        writeln!(golden, "# {name}\n{}", std::str::from_utf8(&bytes).unwrap()).unwrap();
    }
    insta::assert_snapshot!("server_messages", golden);
}

#[test]
fn every_client_message_is_understood_as_it_always_was() {
    let mut golden = String::new();
    for text in CLIENT_MESSAGES.iter().chain(V2_MESSAGES) {
        writeln!(golden, "{text}\n  {:?}", request(text)).unwrap();
    }
    insta::assert_snapshot!("client_messages", golden);
}

#[test]
fn compact_messages_keep_their_bytes() {
    let tick = RelayedTick {
        slot: MemberSlot(258),
        seq: 0x0102_0304,
        playing: true,
        from_host: true,
        position: position(12.5),
        at: at(250),
        rate: Rate::parse(1.25).unwrap(),
    };
    let still = RelayedTick { playing: false, from_host: false, ..tick };
    let status = RelayedStatus {
        slot: MemberSlot(258),
        transport: TransportKind::WebTransport,
        report: StatusReport {
            seq: 0x0102_0304,
            buffering: true,
            in_call: false,
            rtt: Measurement::from_micros(14_200).ok(),
            drift: Measurement::from_micros(-3100).ok(),
            clock_error: None,
        },
    };
    let digest = RoomDigest {
        members: 200,
        audience: 1004,
        measured: 1190,
        in_step: 1166,
        buffering: 3,
        distance: Measurement::from_micros(3100)
            .ok()
            .zip(Measurement::from_micros(17_000).ok())
            .map(|(p50, p95)| [p50, p95]),
        stand_outs: vec![
            StandOut { slot: MemberSlot(258), buffering: true, in_call: false, drift: None },
            StandOut {
                slot: MemberSlot(2),
                buffering: false,
                in_call: true,
                drift: Measurement::from_micros(-90_000).ok(),
            },
        ],
    };
    let bundle = bundles(vec![encode_tick(&tick), (&[9, 1][..]).into()]);
    let golden = format!(
        "reply {:02x?}\nhost's tick {:02x?}\nstill tick {:02x?}\nstatus {:02x?}\ndigest {:02x?}\nbare digest {:02x?}\nbundle {:02x?}\n",
        &encode_clock_reply(0x0102, 1.5, at(1), at(2))[..],
        &encode_tick(&tick)[..],
        &encode_tick(&still)[..],
        &encode_status(&status)[..],
        &encode_digest(&digest)[..],
        &encode_digest(&RoomDigest::default())[..],
        &bundle[0][..],
    );
    insta::assert_snapshot!("compact_messages", golden);
}
