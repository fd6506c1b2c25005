//! What one step costs, without a network: `cargo bench --bench micro`, or `-- rooms` for a part of it. For finding the
//! expensive step and for comparing two versions of it on one machine; nothing here asserts a time. Under `cargo test`
//! every benchmark runs once, to show that it still works.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]

mod codecs;
mod fan_out;
mod hub_fixture;
#[path = "../../tests/support/memory_transport.rs"]
mod memory_transport;
mod records;
mod rooms;
mod sessions;

fn main() {
    divan::main();
}
