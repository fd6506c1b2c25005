//! The lines themselves: one network namespace of the server, one of each far end, and between them TUN devices with
//! the two directions of a [`Link`].
//!
//! ```text
//! namespace near (server)                      this process                        namespace far-0, far-1 …
//! kernel TCP, UDP ─► TUN ─► reader ─► Link ─► writer ─► TUN ─► kernel TCP, UDP
//!                    TUN ◄─ writer ◄─ Link ◄─ reader ◄─ TUN
//! ```
//! The packets are those of real kernels. This process makes a device, then moves it into its namespace; the open
//! file stays with us, so no thread has to change namespaces. Nothing leads out of the namespaces: no other device, no
//! route; and none leads from one far end to another. The server has one address on all of its devices.
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
/// Far ends have the addresses after the server's.
const MOST_LINES: usize = 100;
/// A size that every kernel takes.
const MTU: usize = 1500;
/// Names of our namespaces begin with it, then comes the process that made them.
const PREFIX: &str = "tandem-loss-";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The server's.
    Near,
    /// The viewers' at the end of the line with this number.
    Far(u8),
}

/// Conditions of one line, each way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BothWays {
    /// From the server.
    pub(crate) down: Conditions,
    pub(crate) up: Conditions,
}

/// The namespaces, and the lines between the server's and the others. Dropping it takes all of it away again.
pub(crate) struct LineSet {
    directions: Vec<[Arc<Direction>; 2]>,
    _namespaces: Vec<Namespace>,
}

impl LineSet {
    pub(crate) fn lay(lines: &[BothWays], seed: u64) -> Result<Self> {
        if lines.len() > MOST_LINES {
            bail!("{} lines, and {MOST_LINES} are the most", lines.len());
        }
        let mut namespaces = vec![Namespace::make(End::Near)?];
        let mut directions = Vec::new();
        for (number, conditions) in (0_u8..).zip(lines) {
            let far = End::Far(number);
            namespaces.push(Namespace::make(far)?);
            let [server, viewer] = [device(End::Near, number)?, device(far, number)?];
            // Each direction has its own sequence of chances.
            let seed = seed.wrapping_add(2 * u64::from(number));
            directions.push([
                Direction::run(&server, &viewer, Link::new(conditions.down, seed))?,
                Direction::run(&viewer, &server, Link::new(conditions.up, seed.wrapping_add(1)))?,
            ]);
        }
        Ok(Self { directions, _namespaces: namespaces })
    }

    /// For each line the counts of the packets to its far end, and from it.
    pub(crate) fn fates(&self) -> Vec<[Fates; 2]> {
        self.directions.iter().map(|pair| [0, 1].map(|way: usize| pair[way].link.lock().fates())).collect()
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
            clear(name)?;
            ip(&["netns", "del", name])?;
        }
    }
    Ok(())
}

/// Kills the processes that are left in a namespace: browsers, say, whose driver was killed.
fn clear(namespace: &str) -> Result<()> {
    for left in ip(&["netns", "pids", namespace])?.lines() {
        // One that ends meanwhile is what is wanted.
        let _ = Command::new("kill").args(["-KILL", left]).stderr(std::process::Stdio::null()).status();
    }
    Ok(())
}

impl End {
    fn name(self) -> String {
        match self {
            Self::Near => "near".to_owned(),
            Self::Far(number) => format!("far-{number}"),
        }
    }

    pub(crate) fn namespace(self) -> String {
        format!("{PREFIX}{}-{}", std::process::id(), self.name())
    }

    pub(crate) fn address(self) -> Ipv4Addr {
        match self {
            Self::Near => NEAR,
            Self::Far(number) => Ipv4Addr::from(u32::from(NEAR) + 1 + u32::from(number)),
        }
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
        if let Err(error) = clear(&self.0).and_then(|()| ip(&["netns", "del", &self.0])) {
            eprintln!("the namespace {} is left behind: {error:#}", self.0);
        }
    }
}

/// The device at one end of a line. Its peer is the only address that the namespace has a route to.
fn device(end: End, line: u8) -> Result<Arc<SyncDevice>> {
    let far = End::Far(line);
    let (letter, peer) = if end == far { ('f', End::Near) } else { ('n', far) };
    let (namespace, name) = (end.namespace(), format!("tl{letter}{line}-{}", std::process::id()));
    let made = DeviceBuilder::new().name(&name).enable(false).build_sync();
    let device = made.context("opening a TUN device needs root and /dev/net/tun")?;
    let (address, peer) = (end.address().to_string(), peer.address().to_string());
    ip(&["link", "set", "dev", &name, "netns", &namespace])?;
    ip(&["-n", &namespace, "address", "add", &address, "peer", &peer, "dev", &name])?;
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
