//! Linters and the like, where `scripts/test` has put them or on the path.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The command `name`. `None`, with a line that says so, where it is not there;
/// on the machines that check changes it has to be.
#[track_caller]
#[allow(
    clippy::disallowed_methods,
    reason = "settings of the tests themselves"
)]
pub(crate) fn tool(name: &str) -> Option<Command> {
    let tools = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("tools");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = vec![tools.join("bin"), tools.join("python/bin")];
    folders.extend(std::env::split_paths(&path));
    let found: Option<PathBuf> = folders
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    if found.is_none() {
        assert!(
            std::env::var_os("CI").is_none(),
            "no `{name}`: ./scripts/test installs it"
        );
        println!("skipped: no `{name}`; ./scripts/test installs it");
    }
    found.map(Command::new)
}

/// Runs a tool over these arguments in the project's folder; panics with what
/// it said when it finds something.
#[track_caller]
pub(crate) fn passes(mut tool: Command, arguments: &[&str]) -> String {
    let output = tool
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .expect("the tool starts");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}:\n{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
