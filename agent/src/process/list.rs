//! The processes of a container, as `ps` shows them: pids from its cgroup, the rest from the guest's /proc.
//!
//! /proc/PID/stat is parsed after the last `)`: the name before it is the process's to choose, parentheses included.
//! A process that goes away in between is left out.

use std::{fs, io::Read, os::unix::fs::MetadataExt, path::Path};

/// Bytes of one command line that are reported.
const COMMAND: usize = 4096;
/// x86_64 has one base page size.
const PAGE: u64 = 4096;

/// One line of `ps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    pub pid: u32,
    pub ppid: u32,
    /// Effective, of the guest's root user namespace.
    pub uid: u32,
    /// argv joined by spaces, or the kernel's name in brackets when there is none.
    pub command: String,
    /// utime + stime, USER_HZ = 100.
    pub cpu_ticks: u64,
    pub rss_bytes: u64,
    /// Since boot, USER_HZ = 100.
    pub start_ticks: u64,
    /// One letter of /proc/PID/stat.
    pub state: char,
}

/// What is read of /proc/PID/stat.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    state: char,
    ppid: u32,
    cpu_ticks: u64,
    start_ticks: u64,
    rss_pages: u64,
}

/// Reads one process; `None` when it is gone.
pub fn read(proc: &Path, pid: u32) -> Option<Info> {
    let directory = proc.join(pid.to_string());
    let uid = fs::metadata(&directory).ok()?.uid();
    let stat = parse_stat(&fs::read_to_string(directory.join("stat")).ok()?)?;
    let mut argv = Vec::new();
    fs::File::open(directory.join("cmdline")).ok()?.take(COMMAND as u64).read_to_end(&mut argv).ok()?;
    Some(Info {
        pid,
        ppid: stat.ppid,
        uid,
        command: command(&argv, &stat.name),
        cpu_ticks: stat.cpu_ticks,
        rss_bytes: stat.rss_pages * PAGE,
        start_ticks: stat.start_ticks,
        state: stat.state,
    })
}

fn command(argv: &[u8], name: &str) -> String {
    let argv = argv.strip_suffix(b"\0").unwrap_or(argv);
    if argv.is_empty() {
        return format!("[{name}]");
    }
    let spaced: Vec<u8> = argv.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    String::from_utf8_lossy(&spaced).into_owned()
}

/// proc(5): the fields after the name are numbered from 3.
fn parse_stat(stat: &str) -> Option<Stat> {
    let (head, tail) = stat.rsplit_once(')')?;
    let (_, name) = head.split_once('(')?;
    let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        name: name.to_owned(),
        state: fields.first()?.chars().next()?,
        ppid: number(4)?.try_into().ok()?,
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
        rss_pages: number(24)?,
    })
}

#[cfg(test)]
mod tests;
