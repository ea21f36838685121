//! What this machine takes: the disk that a server writes to, and the processes of a run.

#![allow(dead_code, reason = "every bench takes its own part")]

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// As Postgres writes: pages of 8 kB into a file that has its size already.
const PAGE: usize = 8_192;
const PROBE_PAGES: u64 = 2_048;
/// Linux counts a process's time in hundredths of a second.
const TICK: Duration = Duration::from_millis(10);

/// The disk that the server writes to.
pub(crate) struct Probe {
    file: File,
    page: RefCell<u64>,
}

impl Probe {
    pub(crate) fn create(folder: &Path) -> Self {
        let path = folder.join("probe");
        let file = OpenOptions::new().create_new(true).write(true).open(path).expect("a file beside the database");
        for page in 0..PROBE_PAGES {
            file.write_all_at(&[1; PAGE], page * PAGE as u64).expect("space");
        }
        file.sync_all().expect("a disk");
        Self { file, page: RefCell::new(0) }
    }

    pub(crate) fn write(&self) -> Duration {
        let mut page = self.page.borrow_mut();
        *page += 1;
        let started = Instant::now();
        self.file.write_all_at(&[page.to_le_bytes()[0]; PAGE], (*page % PROBE_PAGES) * PAGE as u64).expect("space");
        self.file.sync_data().expect("a disk");
        started.elapsed()
    }

    /// In picoseconds.
    pub(crate) fn median(&self) -> u128 {
        let mut times: Vec<u128> = (0..200).map(|_| self.write().as_nanos() * 1_000).collect();
        times.sort_unstable();
        times[times.len() / 2]
    }
}

/// Processor time of a process so far.
pub(crate) fn cpu(pid: u32) -> Duration {
    stat(pid).map_or(Duration::ZERO, |stat| TICK * (stat.user + stat.system))
}

/// Processor time of a server, the processes it started and those that have ended.
pub(crate) fn cpu_of_family(pid: u32) -> Duration {
    let Some(own) = stat(pid) else { return Duration::ZERO };
    let ended = TICK * (own.user + own.system + own.ended);
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    ids.filter_map(stat).filter(|stat| stat.parent == pid).fold(ended, |sum, stat| sum + TICK * (stat.user + stat.system))
}

/// From now on [`memory_peak_kb`] counts anew.
pub(crate) fn forget_memory_peak() {
    // Not everywhere allowed; the peak is then that of the whole run.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

/// The most memory that this process had resident.
pub(crate) fn memory_peak_kb() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

struct Stat {
    parent: u32,
    user: u32,
    system: u32,
    ended: u32,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the parenthesis may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let number = |place: usize| fields.get(place)?.parse::<u32>().ok();
    Some(Stat { parent: number(1)?, user: number(11)?, system: number(12)?, ended: number(13)? + number(14)? })
}
