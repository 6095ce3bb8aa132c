//! How many data threads `workers: auto` means.

use std::path::{Path, PathBuf};

/// More data threads than this are asked for explicitly: one is enough for
/// most services, and each costs memory.
const AUTO_MAX: usize = 4;

/// The smaller of the CPU quota rounded up, the usable cores, and four.
pub(super) fn automatic_workers() -> usize {
    let cores = allowed_cores()
        .unwrap_or_else(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get));
    cores.min(quota().unwrap_or(AUTO_MAX)).clamp(1, AUTO_MAX)
}

/// Cores this process may run on, which `available_parallelism` cannot tell
/// apart from a quota that it rounds down.
fn allowed_cores() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let list = status
        .lines()
        .find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    count_list(list.trim())
}

/// `0-3,8` is five.
fn count_list(list: &str) -> Option<usize> {
    let mut count: usize = 0;
    for part in list.split(',') {
        count += match part.split_once('-') {
            Some((first, last)) => {
                let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
                last.checked_sub(first)? + 1
            }
            None => {
                part.parse::<usize>().ok()?;
                1
            }
        };
    }
    (count > 0).then_some(count)
}

/// The control group's CPU quota rounded up, versions 2 and 1.
fn quota() -> Option<usize> {
    let root = Path::new("/sys/fs/cgroup");
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = groups
        .lines()
        .find_map(|line| line.strip_prefix("0::/"))
        .unwrap_or_default();
    let mut folder: PathBuf = root.join(own);
    let mut smallest: Option<usize> = None;
    // A quota of any group above binds too.
    while folder.starts_with(root) {
        let found = std::fs::read_to_string(folder.join("cpu.max"))
            .ok()
            .and_then(|text| parse_max(&text));
        smallest = smallest.into_iter().chain(found).min();
        if !folder.pop() {
            break;
        }
    }
    smallest.or_else(|| {
        let read = |name: &str| {
            let text = std::fs::read_to_string(root.join("cpu").join(name)).ok()?;
            text.trim().parse::<i64>().ok()
        };
        let (quota, period) = (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?);
        divide(u64::try_from(quota).ok()?, u64::try_from(period).ok()?)
    })
}

/// `200000 100000` is two; `max 100000` no quota.
fn parse_max(text: &str) -> Option<usize> {
    let (quota, period) = text.trim().split_once(' ')?;
    divide(quota.parse().ok()?, period.parse().ok()?)
}

fn divide(quota: u64, period: u64) -> Option<usize> {
    if period == 0 {
        return None;
    }
    usize::try_from(quota.div_ceil(period)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_rounded_up() {
        assert_eq!(parse_max("150000 100000\n"), Some(2));
        assert_eq!(parse_max("50000 100000"), Some(1));
        assert_eq!(parse_max("max 100000"), None);
        assert_eq!(parse_max(""), None);
        assert_eq!(count_list("0-3,8"), Some(5));
        assert_eq!(count_list(""), None);
        assert!((1..=AUTO_MAX).contains(&automatic_workers()));
    }
}
