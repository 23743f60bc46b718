//! Resource usage of a process so far, from `/proc`.

use std::fs;
use std::time::Duration;

/// CPU time of all threads of a process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cpu {
    pub(crate) user: Duration,
    pub(crate) system: Duration,
}

impl Cpu {
    /// Returns the CPU time of a process so far, in the kernel's clock ticks of usually 10 ms.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The second field is the program's name in parentheses and may contain anything; the times are fields 14 and 15.
        let (_, rest) = stat.rsplit_once(") ")?;
        let mut fields = rest.split(' ').skip(11).map(str::parse::<u64>);
        let tick =
            Duration::from_secs(1) / u32::try_from(rustix::param::clock_ticks_per_second()).ok()?;
        let mut time = || Some(tick * u32::try_from(fields.next()?.ok()?).ok()?);
        Some(Self { user: time()?, system: time()? })
    }

    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            user: self.user.saturating_sub(earlier.user),
            system: self.system.saturating_sub(earlier.system),
        }
    }

    pub(crate) fn total(self) -> Duration {
        self.user + self.system
    }
}

/// Resident memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Memory {
    pub(crate) now: u64,
    pub(crate) peak: u64,
}

impl Memory {
    pub(crate) fn of(pid: u32) -> Option<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let figure = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(1024 * line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?)
        };
        Some(Self { now: figure("VmRSS:")?, peak: figure("VmHWM:")? })
    }
}

/// Returns the CPU time of the calling thread so far, to the nanosecond.
pub(crate) fn thread_cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    Duration::from_nanos(
        text.split(' ').next().and_then(|nanos| nanos.parse().ok()).unwrap_or_default(),
    )
}
