//! Every input that fuzzing ever found worth keeping, through the bodies of the fuzz targets (`fuzz/`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fuzz_bodies.rs"]
mod fuzz_bodies;
#[allow(dead_code, unreachable_pub, reason = "tests/room_properties.rs takes the same file in")]
#[path = "support/room_script.rs"]
mod room_script;

use std::path::PathBuf;

fn replay(target: &str, body: fn(&[u8])) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = 0;
    for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
        let path = entry.unwrap().path();
        println!("{}", path.display());
        body(&std::fs::read(&path).unwrap());
        inputs += 1;
    }
    assert!(inputs > 0, "{} is empty", folder.display());
}

#[test]
fn client_messages() {
    replay("client_message", fuzz_bodies::client_message);
}

#[test]
fn compact_messages() {
    replay("compact", fuzz_bodies::compact);
}

#[test]
fn capsules() {
    replay("capsule", fuzz_bodies::capsule);
}

#[test]
fn control_streams() {
    replay("control_stream", fuzz_bodies::control_stream);
}

#[test]
fn relays() {
    replay("relay", fuzz_bodies::relay);
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/relay");
    let inputs = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| bytes::Bytes::from(std::fs::read(entry.unwrap().path()).unwrap()));
    let read = inputs.filter(|bytes| tandem::hub::relay::Relay::decode(bytes).is_some()).count();
    assert!(read >= 12, "most of them are relays, not {read}");
}

#[test]
fn room_commands() {
    replay("room_commands", room_script::run);
}

/// A target without a replay here would rot.
#[test]
fn every_fuzz_target_is_replayed() {
    let targets = std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets")).unwrap();
    let mut names: Vec<_> = targets.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let replayed = ["capsule", "client_message", "compact", "control_stream", "relay", "room_commands"];
    assert_eq!(names, replayed.map(|target| format!("{target}.rs")));
}
