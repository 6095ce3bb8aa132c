//! Process settings that a running process cannot change.

use crate::model::ProcessSettings;

/// `loaded` with what needs a restart put back to what runs, and the keys of
/// those that differ.
pub(super) fn keep_fixed(
    running: &ProcessSettings,
    loaded: &ProcessSettings,
) -> (ProcessSettings, Vec<&'static str>) {
    let mut settings = loaded.clone();
    let mut differs = Vec::new();
    let mut fixed = |key: &'static str, changed: bool| {
        if changed {
            differs.push(key);
        }
    };
    fixed("servicesDir", running.services_dir != loaded.services_dir);
    settings.services_dir.clone_from(&running.services_dir);
    fixed("listen", running.listen != loaded.listen);
    settings.listen = running.listen;
    fixed("workers", running.workers != loaded.workers);
    settings.workers = running.workers;
    fixed("observe.listen", running.observe != loaded.observe);
    settings.observe = running.observe;
    fixed("admin.listen", running.admin.listen != loaded.admin.listen);
    settings.admin.listen = running.admin.listen;
    fixed(
        "outbound.listen",
        running.outbound.listen != loaded.outbound.listen,
    );
    settings.outbound.listen = running.outbound.listen;
    fixed("sql.listen", running.sql.listen != loaded.sql.listen);
    settings.sql.listen = running.sql.listen;
    (settings, differs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Environment, ProcessFlags, load_process};
    use crate::model::{DoorListen, LogLevel};

    #[test]
    fn what_needs_a_restart_is_kept_and_named() {
        let loaded = load_process(&ProcessFlags::default(), &Environment::default());
        let running = (*loaded.expect("defaults load").settings).clone();
        let mut other = running.clone();
        other.log_level = LogLevel::Debug;
        other.workers += 1;
        other.admin.listen = DoorListen::Off;
        let (kept, differs) = keep_fixed(&running, &other);
        assert_eq!(differs, ["workers", "admin.listen"]);
        let expected = ProcessSettings {
            log_level: LogLevel::Debug,
            ..running.clone()
        };
        assert_eq!(kept, expected);
        assert_eq!(keep_fixed(&running, &running), (running.clone(), vec![]));
    }
}
