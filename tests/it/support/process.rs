//! What `/proc` says about a process, and signals to it.

use std::fs;
use std::process::{Command, Stdio};

/// Resident memory in KiB.
pub(crate) fn resident_kib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process is alive");
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.trim().trim_end_matches("kB").trim().parse().ok())
        .expect("the kernel reports VmRSS")
}

/// Open file descriptors.
pub(crate) fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("the process is ours")
        .count()
}

/// Threads.
pub(crate) fn threads(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/task"))
        .expect("the process is ours")
        .count()
}

/// Sends a signal by its name, `TERM` or `INT`.
pub(crate) fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -{name} {pid}")])
        .stdin(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    assert!(sent, "SIG{name} could not be sent to {pid}");
}

/// Whether the tests run as root.
pub(crate) fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").expect("/proc is there");
    status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .is_some_and(|rest| rest.split_whitespace().nth(1) == Some("0"))
}

/// The letter of a process's state; `None` when it is gone.
pub(crate) fn state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.chars().next()
}

/// Children of a process, with the letter of their state (`Z` = not reaped).
pub(crate) fn children(pid: u32) -> Vec<(u32, char)> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let processes = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    processes
        .filter_map(|child: u32| {
            let stat = fs::read_to_string(format!("/proc/{child}/stat")).ok()?;
            // The command may hold spaces and parentheses.
            let (_, rest) = stat.rsplit_once(") ")?;
            let mut fields = rest.split(' ');
            let state = fields.next()?.chars().next()?;
            (fields.next()?.parse() == Ok(pid)).then_some((child, state))
        })
        .collect()
}
