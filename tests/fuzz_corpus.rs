//! Every input that fuzzing ever found worth keeping, through the bodies of the fuzz targets (`fuzz/`).

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/fuzz_bodies.rs"]
mod fuzz_bodies;

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

/// A target without a replay here would rot.
#[test]
fn every_fuzz_target_is_replayed() {
    let targets = std::fs::read_dir(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets")).unwrap();
    let mut names: Vec<_> = targets.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["client_message.rs", "compact.rs"]);
}
