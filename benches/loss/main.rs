//! Why this server prefers datagrams: the age of ticks over a line that loses packets, WebTransport beside WebSocket.
//!
//! ```text
//! namespace near: tandem, and the host of each room ══ Line: delay, jitter, loss ══ namespace far: the other members
//! ```
//! For each loss a fresh pair of namespaces and a fresh server. Two rooms are open at the same time, alike but for
//! their transport, so both have the same line, server and machine at the same moments. Every member ticks; the far
//! ones write down how old each tick was when it came. All clocks are the one clock of this machine.

#[cfg(target_os = "linux")]
mod figures;
#[cfg(target_os = "linux")]
#[path = "../support/line/mod.rs"]
mod line;
#[cfg(target_os = "linux")]
mod lines;
#[cfg(target_os = "linux")]
mod panels;
#[cfg(target_os = "linux")]
#[path = "../support/plot.rs"]
mod plot;
#[cfg(target_os = "linux")]
mod report;
#[cfg(target_os = "linux")]
mod run;
#[cfg(target_os = "linux")]
mod setup;
#[cfg(target_os = "linux")]
mod viewer;

#[cfg(target_os = "linux")]
fn main() -> std::process::ExitCode {
    match run::main() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loss: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark needs Linux: network namespaces and TUN devices");
}
