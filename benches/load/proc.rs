//! What the kernel says of a process: CPU time, memory, threads.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result};

/// A process to be watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pid(pub(crate) u32);

/// CPU time of all its threads, the ended ones too, s.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: f64,
    pub(crate) system: f64,
}

impl Cpu {
    pub(crate) fn total(self) -> f64 {
        self.user + self.system
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self { user: self.user - earlier.user, system: self.system - earlier.system }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        Self { user: self.user + other.user, system: self.system + other.system }
    }
}

impl Pid {
    /// This process.
    pub(crate) fn own() -> Self {
        Self(std::process::id())
    }

    fn file(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.0))
    }

    fn read(self, name: &str) -> Result<String> {
        let file = self.file(name);
        std::fs::read_to_string(&file).with_context(|| format!("can't read {}: has the process ended?", file.display()))
    }

    /// The fields of `stat` from the third on: the second is a name in parentheses, which may contain anything.
    fn stat(self) -> Result<Vec<u64>> {
        let stat = self.read("stat")?;
        let rest = stat.rsplit(')').next().unwrap_or_default();
        Ok(rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect())
    }

    /// utime and stime: fields 14 and 15.
    pub(crate) fn cpu(self) -> Result<Cpu> {
        let stat = self.stat()?;
        let ticks = |field: usize| stat.get(field - 3).copied().unwrap_or(0) as f64 / ticks_a_second();
        Ok(Cpu { user: ticks(14), system: ticks(15) })
    }

    /// num_threads: field 20.
    pub(crate) fn threads(self) -> Result<u64> {
        Ok(self.stat()?.get(17).copied().unwrap_or(0))
    }

    /// Resident memory, bytes.
    pub(crate) fn resident(self) -> Result<u64> {
        let statm = self.read("statm")?;
        let pages: u64 = statm.split_whitespace().nth(1).and_then(|field| field.parse().ok()).unwrap_or(0);
        Ok(pages * page_bytes())
    }
}

/// A value of `getconf`, asked once.
fn getconf(name: &str, default: u64) -> u64 {
    let output = Command::new("getconf").arg(name).output();
    let text = output.ok().and_then(|output| String::from_utf8(output.stdout).ok());
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(default)
}

fn ticks_a_second() -> f64 {
    static TICKS: OnceLock<u64> = OnceLock::new();
    *TICKS.get_or_init(|| getconf("CLK_TCK", 100)) as f64
}

fn page_bytes() -> u64 {
    static BYTES: OnceLock<u64> = OnceLock::new();
    *BYTES.get_or_init(|| getconf("PAGESIZE", 4096))
}

/// Cores of the machine, whether this process may use them or not.
pub(crate) fn cores() -> usize {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    cpuinfo.lines().filter(|line| line.starts_with("processor")).count().max(1)
}

/// The machine, in a line: the figures are nothing without it.
pub(crate) fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let model = model.trim_start_matches([' ', '\t', ':']).trim();
    let cores = cores();
    let kib: u64 = read("/proc/meminfo").split_whitespace().nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} cores of {model}, {} GiB, Linux {}", (kib + (1 << 19)) >> 20, kernel.trim())
}

/// The load average of the last minute: whether others work on the machine.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Raises the limit of open files as far as it goes without rights; what is started inherits it.
pub(crate) fn raise_open_files() -> u64 {
    rlimit::increase_nofile_limit(u64::MAX).unwrap_or(0)
}
