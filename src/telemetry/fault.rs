//! Panics on demand, for tests: in no ordinary build.

use std::fs;
use std::path::Path;
use std::time::Duration;

use http::HeaderMap;

/// The header that asks for a panic in its request. Clients cannot reach an
/// ordinary build with it: it is reserved and removed.
const HEADER: &str = "x-outrigger-fault";

/// Whether a request asks for this fault.
pub fn asked_for(headers: &HeaderMap, fault: &str) -> bool {
    headers.get(HEADER).is_some_and(|value| value == fault)
}

/// Panics when the request asks for it.
///
/// # Panics
/// That is what it is for.
pub fn in_request(headers: &HeaderMap) {
    assert!(!asked_for(headers, "request"), "a fault in a request");
}

/// Panics in the body of an answer.
///
/// # Panics
/// That is what it is for.
pub fn in_body(wanted: bool) {
    assert!(!wanted, "a fault in a body");
}

/// Panics when there is a file `faults/<thread>` beside the services folder,
/// and removes it; hangs for good when there is `faults/stuck-<thread>`.
///
/// # Panics
/// That is what it is for.
pub fn in_thread(services_dir: &Path, thread: &str) {
    let faults = services_dir.with_file_name("faults");
    if fs::remove_file(faults.join(format!("stuck-{thread}"))).is_ok() {
        loop {
            std::thread::park_timeout(Duration::from_secs(60));
        }
    }
    let wanted = fs::remove_file(faults.join(thread)).is_ok();
    assert!(!wanted, "a fault in {thread}");
}
