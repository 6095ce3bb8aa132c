//! From files to what is in force: the one loop that changes anything.

#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the loop that uses it is not built yet")
)]
mod discover;
mod read;

use std::path::Path;

use crate::config::Tree;

/// Looks at a services folder once, as the loop does. Blocks on the file system.
pub fn discover(root: &Path) -> Tree {
    // Without a working directory paths are shown absolute.
    let working_dir = std::env::current_dir().unwrap_or_default();
    discover::scan(root, &working_dir, None).tree
}
