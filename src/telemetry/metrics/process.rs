//! `process_*`: a small reader of `/proc/self`, so that no crate with its own
//! libc calls is needed. What cannot be read is left out.

use std::fs;

/// Ticks per second of `/proc/*/stat`: `USER_HZ`, 100 on every Linux ABI that
/// Rust supports (`man 5 proc`, `sysconf(_SC_CLK_TCK)`).
const USER_HZ: f64 = 100.0;

/// One reading.
#[derive(Debug, Default, PartialEq)]
pub(super) struct ProcessReading {
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_fds: Option<f64>,
    pub(super) max_fds: Option<f64>,
    pub(super) virtual_bytes: Option<f64>,
    pub(super) resident_bytes: Option<f64>,
    pub(super) start_time_seconds: Option<f64>,
    pub(super) threads: Option<f64>,
}

/// Reads `/proc`; every failure leaves its field empty.
pub(super) fn read() -> ProcessReading {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let system = fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut reading = parse(&stat, &status, &limits, &system);
    reading.open_fds = fs::read_dir("/proc/self/fd")
        .ok()
        // The descriptor of the directory itself is not the process's own.
        .map(|entries| entries.count().saturating_sub(1) as f64);
    reading
}

fn parse(stat: &str, status: &str, limits: &str, system: &str) -> ProcessReading {
    // The second field is the command in parentheses and may hold spaces.
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map(|(_, rest)| rest.split_ascii_whitespace().collect())
        .unwrap_or_default();
    // Numbers of `man 5 proc` minus the two fields cut off, zero-based.
    let field = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
    let boot = system
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|text| text.trim().parse::<f64>().ok());
    ProcessReading {
        cpu_seconds: field(14).zip(field(15)).map(|(u, s)| (u + s) / USER_HZ),
        open_fds: None,
        max_fds: limits
            .lines()
            .find_map(|line| line.strip_prefix("Max open files"))
            .and_then(|rest| rest.split_ascii_whitespace().next()?.parse().ok()),
        virtual_bytes: kibibytes(status, "VmSize:"),
        resident_bytes: kibibytes(status, "VmRSS:"),
        start_time_seconds: boot.zip(field(22)).map(|(b, t)| b + t / USER_HZ),
        threads: field(20),
    }
}

fn kibibytes(status: &str, name: &str) -> Option<f64> {
    let rest = status.lines().find_map(|line| line.strip_prefix(name))?;
    let number: f64 = rest.split_ascii_whitespace().next()?.parse().ok()?;
    Some(number * 1024.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_fields_of_proc() {
        let stat = "42 (out) rigger) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 7 0 1000 1 2";
        let reading = parse(
            stat,
            "VmSize:\t  2048 kB\nVmRSS:\t 1024 kB\n",
            "Max open files            1024                 524288               files\n",
            "cpu 1\nbtime 1700000000\n",
        );
        assert_eq!(
            reading,
            ProcessReading {
                cpu_seconds: Some(3.0),
                open_fds: None,
                max_fds: Some(1024.0),
                virtual_bytes: Some(2_097_152.0),
                resident_bytes: Some(1_048_576.0),
                start_time_seconds: Some(1_700_000_010.0),
                threads: Some(7.0),
            }
        );
    }

    #[test]
    fn nonsense_leaves_fields_empty() {
        assert_eq!(
            parse("", "VmRSS: x", "", "btime"),
            ProcessReading::default()
        );
    }
}
