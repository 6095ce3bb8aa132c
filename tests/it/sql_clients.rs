//! Programs that people would write, against the SQL door.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use crate::support::daemon::Daemon;
use crate::support::figures::figure;
use crate::support::postgres::Cluster;
use crate::support::sql::{daemon_with, post};
use crate::support::wait::shared_machine;

/// The version the door is tried with.
const CLIENT: &str = "@neondatabase/serverless@1.2.0";
const TOKEN: &str = "the-token-of-users";

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn has(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        figure!("SKIPPED: `{program}` is not installed, so a client of the SQL door was not tried");
    }
    found
}

/// A folder with the npm client in it; `None` where it cannot be had.
fn npm_folder() -> Option<TempDir> {
    if !has("node") || !has("npm") {
        return None;
    }
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let installed = Command::new("npm")
        .args(["install", "--no-audit", "--no-fund", "--silent", CLIENT])
        .current_dir(folder.path())
        .output()
        .expect("npm can be started");
    if !installed.status.success() {
        figure!("SKIPPED: npm cannot install {CLIENT}, so it was not tried against the SQL door");
        return None;
    }
    Some(folder)
}

/// Runs a program with the door's address; what it printed.
#[track_caller]
fn run(command: &mut Command, daemon: &Daemon) -> String {
    let output = command
        .env("SQL_URL", format!("http://127.0.0.1:{}/sql", daemon.sql))
        .env("SQL_TOKEN", TOKEN)
        .output()
        .expect("the program can be started");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\n{errors}");
    text
}

/// Copies a script to where it finds its modules.
fn placed(folder: &TempDir, script: &str) -> PathBuf {
    let from = project().join(script);
    let to = folder.path().join(from.file_name().expect("a file"));
    std::fs::copy(from, &to).expect("the script is there");
    to
}

#[test]
fn the_npm_client_works_as_it_is_published() {
    let _machine = shared_machine();
    let Some(folder) = npm_folder() else { return };
    let token = format!("  doorToken: {TOKEN}\n");
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "npm", &token);
    let script = placed(&folder, "tests/it/neon/neon.mjs");
    let mut node = Command::new("node");
    node.arg(script).arg(daemon.sql.to_string());
    assert!(run(&mut node, &daemon).contains("the npm client is content"));
    let example = placed(&folder, "examples/sql/query.mjs");
    let printed = run(Command::new("node").arg(example), &daemon);
    assert_eq!(printed, "javascript 1\n");
}

#[test]
fn the_examples_in_python_and_curl_work() {
    let _machine = shared_machine();
    let token = format!("  doorToken: {TOKEN}\n");
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "examples", &token);
    let example = |name: &str| project().join("examples/sql").join(name);
    if has("python3") {
        let printed = run(Command::new("python3").arg(example("query.py")), &daemon);
        assert_eq!(
            printed,
            "relation \"no_such_table\" does not exist\npython 1\n"
        );
    }
    if has("curl") {
        let printed = run(Command::new("sh").arg(example("query.sh")), &daemon);
        let last = printed.lines().last().expect("three answers");
        let answer: serde_json::Value = serde_json::from_str(last).expect("JSON");
        let rows = answer["rows"].as_array().expect("rows");
        assert!(
            rows.iter()
                .any(|row| row["name"] == "curl" && row["count"] == "1"),
            "{rows:?}"
        );
    }
}

#[test]
fn the_example_of_the_documentation_is_answered_as_it_says() {
    let _machine = shared_machine();
    let (_tree, daemon, _) = daemon_with(Cluster::shared(), "documented", "");
    let text = std::fs::read_to_string(project().join("docs/postgres.md")).expect("it is there");
    let mut blocks = text.split("```json\n").skip(1);
    let mut next = || {
        let block = blocks.next().and_then(|rest| rest.split("```").next());
        serde_json::from_str::<serde_json::Value>(block.expect("two blocks")).expect("JSON")
    };
    let (request, expected) = (next(), next());
    let response = post(&daemon, "/sql", &request);
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json(), expected);
}
