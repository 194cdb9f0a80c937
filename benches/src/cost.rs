//! What work costs: processor time by thread, memory, bytes written. As Linux tells it in `/proc`, without unsafe code.

use std::fs;
use std::io::{self, ErrorKind};
use std::ops::Sub;
use std::path::Path;
use std::time::{Duration, Instant};

/// What this process has spent so far; the difference of two of them is what something cost.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Time that has passed.
    pub wall: Duration,
    /// Processor time of all threads that still run, but for those that merge segments.
    pub cpu: Duration,
    /// Processor time of the threads that merge segments.
    pub upkeep: Duration,
    /// Bytes that were handed to the disk.
    pub written: u64,
}

impl Spent {
    /// Since `start`.
    ///
    /// # Errors
    /// Where there is no such `/proc`.
    pub fn since(start: Instant) -> io::Result<Self> {
        let (mut cpu, mut upkeep) = (Duration::ZERO, Duration::ZERO);
        for task in fs::read_dir("/proc/self/task")? {
            let task = task?.path();
            // A thread may end meanwhile.
            let (Ok(name), Ok(time)) = (fs::read_to_string(task.join("comm")), on_cpu(&task.join("schedstat"))) else {
                continue;
            };
            *if name.trim_end() == "slung-upkeep" { &mut upkeep } else { &mut cpu } += time;
        }
        let written = field("/proc/self/io", "write_bytes:")?;
        Ok(Self { wall: start.elapsed(), cpu, upkeep, written })
    }
}

impl Sub for Spent {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            wall: self.wall.saturating_sub(before.wall),
            cpu: self.cpu.saturating_sub(before.cpu),
            upkeep: self.upkeep.saturating_sub(before.upkeep),
            written: self.written.saturating_sub(before.written),
        }
    }
}

/// Processor time of the thread that asks.
///
/// # Errors
/// Where there is no such `/proc`.
pub fn thread_cpu() -> io::Result<Duration> {
    on_cpu(Path::new("/proc/thread-self/schedstat"))
}

/// Processor time of all threads of another process that still run.
///
/// # Errors
/// Where there is no such process, or no such `/proc`.
pub fn process_cpu(pid: u32) -> io::Result<Duration> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))?;
    // A thread may end meanwhile.
    tasks.map(|task| Ok(on_cpu(&task?.path().join("schedstat")).unwrap_or_default())).sum()
}

/// The memory that another process has now, bytes.
///
/// # Errors
/// As [`process_cpu`].
pub fn process_memory_bytes(pid: u32) -> io::Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmRSS:")? << 10)
}

/// The memory that another process has now, bytes, with a page that it maps many times, as the image of a module, counted once.
///
/// # Errors
/// As [`process_cpu`].
pub fn process_proportional_bytes(pid: u32) -> io::Result<u64> {
    Ok(field(&format!("/proc/{pid}/smaps_rollup"), "Pss:")? << 10)
}

/// The most memory that another process had so far, bytes.
///
/// # Errors
/// As [`process_cpu`].
pub fn process_memory_peak_bytes(pid: u32) -> io::Result<u64> {
    Ok(field(&format!("/proc/{pid}/status"), "VmHWM:")? << 10)
}

/// The first number of a `schedstat`: nanoseconds on a processor.
fn on_cpu(path: &Path) -> io::Result<Duration> {
    let text = fs::read_to_string(path)?;
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    nanos.map(Duration::from_nanos).ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The first number behind a name that begins a line.
fn field(path: &str, name: &str) -> io::Result<u64> {
    let text = fs::read_to_string(path)?;
    let rest = text.lines().find_map(|line| line.strip_prefix(name));
    let number = rest.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.ok_or_else(|| ErrorKind::InvalidData.into())
}

/// The memory that this process has now, bytes.
///
/// # Errors
/// Where there is no such `/proc`.
pub fn memory_bytes() -> io::Result<u64> {
    Ok(field("/proc/self/status", "VmRSS:")? << 10)
}

/// The most memory that this process had since [`forget_memory_peak`], bytes.
///
/// # Errors
/// Where there is no such `/proc`.
pub fn memory_peak_bytes() -> io::Result<u64> {
    Ok(field("/proc/self/status", "VmHWM:")? << 10)
}

/// Lets [`memory_peak_bytes`] begin anew. Where the system does not allow it, the peak stays that of the whole run.
pub fn forget_memory_peak() {
    let _ = fs::write("/proc/self/clear_refs", "5");
}
