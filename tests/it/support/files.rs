//! Service files that many tests need.

/// A key of 32 characters that differs by number.
pub(crate) fn key(number: u64) -> String {
    format!("key-{number:028}")
}

/// Sends this header to the app, so that a script can tell which version of the
/// file a request followed.
pub(crate) const STEP: &str = "x-step";

/// An open service whose app sees `step`.
pub(crate) fn open(port: u16, app: u16, step: u64) -> String {
    format!(
        "port: {port}\nupstream: {app}\nhealthCheck: false\nauth:\n  strategy: none\n  \
         appToken: {{header: {STEP}, value: \"{step}\"}}\n"
    )
}

/// A service that accepts key 1 under the id `web`.
pub(crate) fn guarded(port: u16, app: u16) -> String {
    format!(
        "port: {port}\nupstream: {app}\nhealthCheck: false\nauth:\n  apiKey:\n    keys:\n      \
         - {{id: web, key: {}}}\n",
        key(1)
    )
}
