//! Panics go to the log, where nobody waits for standard error to take them.

use std::panic::{PanicHookInfo, set_hook};

/// Replaces what prints panics.
pub(super) fn report_to_log() {
    set_hook(Box::new(|panic| {
        let thread = std::thread::current();
        let location = panic.location().map(ToString::to_string);
        tracing::error!(
            thread = thread.name().unwrap_or("unnamed"),
            location = location.as_deref().unwrap_or("unknown"),
            what = constant_text(panic),
            "a panic"
        );
    }));
}

/// The message, if it is a constant: one that was put together may hold a
/// header's value (`str` slicing quotes the string).
fn constant_text(panic: &PanicHookInfo<'_>) -> &'static str {
    panic
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("not shown")
}
