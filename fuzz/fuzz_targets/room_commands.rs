#![no_main]

#[path = "../../tests/support/room_script.rs"]
#[allow(dead_code, unreachable_pub, reason = "tests/room_properties.rs takes the same file in")]
mod room_script;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| room_script::run(bytes));
