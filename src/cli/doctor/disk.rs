//! Room on the disk of a database that is on this host: PostgreSQL stops when its WAL has none.
//!
//! The daemon's role may not ask the server for its data directory. A server on this host writes it into the lock
//! file of its socket, which root and the server's account can read.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use secrecy::ExposeSecret;
use sqlx::postgres::PgConnectOptions;

use super::{Level, Report};
use crate::config::Config;

const AREA: &str = "disk";
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Where servers of distributions have their sockets.
const SOCKET_FOLDERS: [&str; 2] = ["/run/postgresql", "/tmp"];

pub(super) fn examine(report: &mut Report, config: &Config) {
    let Ok(options) = PgConnectOptions::from_str(config.database.url.expose_secret()) else { return };
    let local = matches!(options.get_host(), "localhost" | "127.0.0.1" | "::1");
    let folders: Vec<PathBuf> = match options.get_socket() {
        Some(folder) => vec![folder.clone()],
        None if local => SOCKET_FOLDERS.map(PathBuf::from).to_vec(),
        None => return report.ok(AREA, options.get_host(), "the database is on another host; look there"),
    };
    let data = folders.iter().find_map(|folder| data_directory(&folder.join(format!(".s.PGSQL.{}.lock", options.get_port()))));
    let Some(data) = data else {
        return report.ok(AREA, "of the database", "not looked at: only root and the server's account learn its data directory");
    };
    match free(&data) {
        Some((free, size)) => {
            let found = format!("{} GiB of {} GiB free", free / GIB, size / GIB);
            let level = judge(free, size);
            let remedy = if level == Level::Ok { "" } else { "make room before it is needed: PostgreSQL stops when its WAL has none" };
            report.add(level, AREA, data.display().to_string(), found, remedy);
        }
        None => report.warn(AREA, data.display().to_string(), "df does not say how much is free", "look yourself"),
    }
}

/// The second line of a postmaster's lock file.
fn data_directory(lock: &Path) -> Option<PathBuf> {
    std::fs::read_to_string(lock).ok()?.lines().nth(1).map(PathBuf::from)
}

/// Free bytes for ordinary users, and the size of the file system.
fn free(folder: &Path) -> Option<(u64, u64)> {
    let output = Command::new("df").args(["-Pk", "--"]).arg(folder).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut cells = text.lines().nth(1)?.split_whitespace().skip(1);
    let size: u64 = cells.next()?.parse().ok()?;
    let free: u64 = cells.nth(1)?.parse().ok()?;
    Some((free.checked_mul(1024)?, size.checked_mul(1024)?))
}

/// A twentieth or 512 MiB left is too little to wait for anybody; a tenth or 5 GiB is worth a look.
const fn judge(free: u64, size: u64) -> Level {
    if free < 512 * MIB || (free < size / 20 && free < 5 * GIB) {
        Level::Failure
    } else if free < 5 * GIB || free < size / 10 {
        Level::Warning
    } else {
        Level::Ok
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_a_failure_before_it_is_full() {
        assert_eq!(judge(400 * MIB, 1000 * GIB), Level::Failure);
        assert_eq!(judge(4 * GIB, 100 * GIB), Level::Failure);
        assert_eq!(judge(4 * GIB, 40 * GIB), Level::Warning);
        assert_eq!(judge(90 * GIB, 1000 * GIB), Level::Warning);
        assert_eq!(judge(200 * GIB, 1000 * GIB), Level::Ok);
    }

    #[test]
    fn the_root_has_a_size() {
        let (free, size) = free(Path::new("/")).unwrap();
        assert!(size > 0 && free <= size);
    }
}
