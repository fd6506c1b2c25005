//! The line itself: two network namespaces, a TUN device in each, and the two directions of [`Link`] between them.
//!
//! ```text
//! namespace near (server)                      this process                        namespace far (viewers)
//! kernel TCP, UDP ─► TUN ─► reader ─► Link ─► writer ─► TUN ─► kernel TCP, UDP
//!                    TUN ◄─ writer ◄─ Link ◄─ reader ◄─ TUN
//! ```
//! The packets are those of real kernels. This process makes a device, then moves it into its namespace; the open
//! file stays with us, so no thread has to change namespaces. Nothing leads out of the two: no other device, no route.
//!
//! Plain threads, because a condition variable wakes within 0.1 ms and a runtime's timer within 1 ms.

use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use parking_lot::{Condvar, Mutex};
use tandem::clock::Clock;
use tun_rs::{DeviceBuilder, SyncDevice};

use super::link::{Conditions, Fates, Link};

/// The server's address.
pub(crate) const NEAR: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 1);
/// The viewers'.
pub(crate) const FAR: Ipv4Addr = Ipv4Addr::new(10, 91, 0, 2);
/// A size that every kernel takes.
const MTU: usize = 1500;
/// Names of our namespaces begin with it, then comes the process that made them.
const PREFIX: &str = "tandem-loss-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The server's.
    Near,
    /// The viewers'.
    Far,
}

/// Two namespaces and what lies between. Dropping it takes all of it away again.
pub(crate) struct Tunnel {
    downwards: Arc<Direction>,
    upwards: Arc<Direction>,
    _namespaces: [Namespace; 2],
}

impl Tunnel {
    pub(crate) fn lay(conditions: Conditions, seed: u64) -> Result<Self> {
        let namespaces = [Namespace::make(End::Near)?, Namespace::make(End::Far)?];
        let [near, far] = [device(End::Near, NEAR)?, device(End::Far, FAR)?];
        let downwards = Direction::run(&near, &far, Link::new(conditions, seed))?;
        let upwards = Direction::run(&far, &near, Link::new(conditions, seed.wrapping_add(1)))?;
        Ok(Self { downwards, upwards, _namespaces: namespaces })
    }

    /// Counts of the packets to the viewers, and from them.
    pub(crate) fn fates(&self) -> [Fates; 2] {
        [self.downwards.link.lock().fates(), self.upwards.link.lock().fates()]
    }
}

/// `program` at one of the ends: the words to run.
pub(crate) fn at(end: End, program: &str) -> [String; 5] {
    ["ip", "netns", "exec", &end.namespace(), program].map(str::to_owned)
}

/// Namespaces of processes that are gone (killed before they could clean up) are taken away, and the server in them.
pub(crate) fn sweep() -> Result<()> {
    let listed = ip(&["netns", "list"])?;
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        let maker = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if maker.is_some_and(|pid| !std::path::Path::new("/proc").join(pid).exists()) {
            for left in ip(&["netns", "pids", name])?.lines() {
                // One that ends meanwhile is what is wanted.
                let _ = Command::new("kill").arg(left).status();
            }
            ip(&["netns", "del", name])?;
        }
    }
    Ok(())
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Near => "near",
            Self::Far => "far",
        }
    }

    fn namespace(self) -> String {
        format!("{PREFIX}{}-{}", std::process::id(), self.name())
    }
}

struct Namespace(String);

impl Namespace {
    fn make(end: End) -> Result<Self> {
        let name = end.namespace();
        ip(&["netns", "add", &name]).context("making network namespaces needs root")?;
        let made = Self(name);
        ip(&["-n", &made.0, "link", "set", "dev", "lo", "up"])?;
        Ok(made)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // The device in it goes with it, and with the device our readers.
        if let Err(error) = ip(&["netns", "del", &self.0]) {
            eprintln!("the namespace {} is left behind: {error:#}", self.0);
        }
    }
}

fn device(end: End, address: Ipv4Addr) -> Result<Arc<SyncDevice>> {
    let (namespace, name) = (end.namespace(), format!("tl{}{}", &end.name()[..1], std::process::id()));
    let made = DeviceBuilder::new().name(&name).enable(false).build_sync();
    let device = made.context("opening a TUN device needs root and /dev/net/tun")?;
    ip(&["link", "set", "dev", &name, "netns", &namespace])?;
    ip(&["-n", &namespace, "address", "add", &format!("{address}/30"), "dev", &name])?;
    ip(&["-n", &namespace, "link", "set", "dev", &name, "mtu", &MTU.to_string(), "up"])?;
    Ok(Arc::new(device))
}

fn ip(words: &[&str]) -> Result<String> {
    let done = Command::new("ip").args(words).output().context("`ip` is missing: apt-get install iproute2")?;
    if !done.status.success() {
        bail!("ip {}: {}", words.join(" "), String::from_utf8_lossy(&done.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&done.stdout).into_owned())
}

/// One direction at work.
struct Direction {
    link: Mutex<Link>,
    /// A packet went in, or the device is gone.
    changed: Condvar,
    began: tokio::time::Instant,
}

impl Direction {
    fn run(from: &Arc<SyncDevice>, to: &Arc<SyncDevice>, link: Link) -> Result<Arc<Self>> {
        let direction = Arc::new(Self { link: Mutex::new(link), changed: Condvar::new(), began: Clock::instant() });
        let (reader, from) = (Arc::clone(&direction), Arc::clone(from));
        // A reader ends with its device, and the process with all of them.
        std::thread::Builder::new().name("line-in".to_owned()).spawn(move || reader.take_in(&from))?;
        // It must not keep a line alive that is gone.
        let (writer, to) = (Arc::downgrade(&direction), Arc::clone(to));
        std::thread::Builder::new().name("line-out".to_owned()).spawn(move || {
            while let Some(direction) = writer.upgrade() {
                direction.give_out(&to);
            }
        })?;
        Ok(direction)
    }

    fn take_in(&self, from: &SyncDevice) {
        let mut packet = [0; MTU];
        while let Ok(bytes) = from.recv(&mut packet) {
            self.link.lock().send(self.began.elapsed(), packet[..bytes].to_vec());
            self.changed.notify_one();
        }
    }

    /// Gives out what is due, and waits for what comes next, a while.
    fn give_out(&self, to: &SyncDevice) {
        const LOOK_AGAIN: Duration = Duration::from_millis(500);
        let mut link = self.link.lock();
        let now = self.began.elapsed();
        if let Some(packet) = link.receive(now) {
            drop(link);
            // A device that is down takes nothing, like a cable that hangs in the air.
            let _ = to.send(&packet);
            return;
        }
        let wait = link.next_due().map_or(LOOK_AGAIN, |due| due.saturating_sub(now).min(LOOK_AGAIN));
        self.changed.wait_for(&mut link, wait);
    }
}
