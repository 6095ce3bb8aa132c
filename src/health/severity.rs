//! How bad it is. Severity only rises: nothing that is well makes up for what
//! is not.

use super::check::CheckState;

/// The `status` of a report, from best to worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    Healthy,
    /// Something optional is missing.
    Degraded,
    /// The service cannot do its work.
    Unhealthy,
    /// Draining.
    Stopped,
}

impl Severity {
    /// As printed in `/health`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Stopped => "stopped",
        }
    }

    /// HTTP status of a report; `degraded` is `health.degradedStatus`.
    pub const fn http_status(self, degraded: u16) -> u16 {
        match self {
            Self::Healthy => 200,
            Self::Degraded => degraded,
            Self::Unhealthy | Self::Stopped => 503,
        }
    }
}

/// Severity of a service: app, and each database and dependency with whether
/// it is required (SPEC §5).
pub fn severity(
    draining: bool,
    app: CheckState,
    others: impl IntoIterator<Item = (CheckState, bool)>,
) -> Severity {
    let mut worst = Severity::Healthy;
    if !app.is_up() {
        worst = Severity::Unhealthy;
    }
    for (state, required) in others {
        if !state.is_up() {
            worst = worst.max(if required {
                Severity::Unhealthy
            } else {
                Severity::Degraded
            });
        }
    }
    if draining {
        worst = Severity::Stopped;
    }
    worst
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn state() -> impl Strategy<Value = CheckState> {
        proptest::sample::select(vec![
            CheckState::Unknown,
            CheckState::Up,
            CheckState::Down,
            CheckState::Stale,
            CheckState::Off,
        ])
    }

    #[test]
    fn what_is_required_decides() {
        use CheckState::{Down, Off, Stale, Unknown, Up};
        for (app, others, expected) in [
            (Up, vec![], Severity::Healthy),
            (Off, vec![(Off, true)], Severity::Healthy),
            (Down, vec![], Severity::Unhealthy),
            (Stale, vec![], Severity::Unhealthy),
            (Unknown, vec![(Up, true)], Severity::Unhealthy),
            (Up, vec![(Down, true)], Severity::Unhealthy),
            (Up, vec![(Down, false)], Severity::Degraded),
            (Up, vec![(Stale, false), (Up, true)], Severity::Degraded),
            (Down, vec![(Down, false)], Severity::Unhealthy),
        ] {
            assert_eq!(severity(false, app, others), expected, "{app:?}");
        }
        assert_eq!(severity(true, Up, []), Severity::Stopped);
    }

    proptest! {
        #[test]
        fn one_more_check_never_lowers_it(
            app in state(),
            mut others in proptest::collection::vec((state(), any::<bool>()), 0..8),
            more in (state(), any::<bool>()),
            draining in any::<bool>(),
        ) {
            let before = severity(draining, app, others.clone());
            others.push(more);
            prop_assert!(severity(draining, app, others) >= before);
        }
    }
}
