//! Every command and every file of the README and of the documents works as
//! written there.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::{Client, Request};
use crate::support::daemon::{BINARY, Daemon, run_to_end};
use crate::support::document::{Terminal, blocks, commands, curl, words};
use crate::support::isolation::with_own_ports;
use crate::support::manifests::project;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

#[test]
fn the_first_commands_are_the_demo_and_the_tests() {
    let commands = &commands("README.md")[..2];
    assert_eq!(commands, ["cargo run -- demo", "./scripts/test"]);
    // What checks every change runs the second one, alone on its line.
    let ci = fs::read_to_string(project(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line == commands[1].as_str()), "{ci}");
    // And that one runs everything: no filter, no exclusion.
    let script = fs::read_to_string(project("scripts/test")).unwrap();
    assert!(
        script.contains("--no-fail-fast --lib --bins --tests"),
        "{script}"
    );
}

/// The README and everything in `docs/`.
fn documents() -> Vec<String> {
    let mut found = vec!["README.md".to_owned()];
    for entry in fs::read_dir(project("docs")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".md") {
            found.push(format!("docs/{name}"));
        }
    }
    found
}

/// What a heading is linked by: lower case, spaces as hyphens, no punctuation.
fn anchor(line: &str) -> String {
    let heading = line.trim_start_matches('#').trim().to_lowercase();
    let kept = heading
        .chars()
        .filter(|byte| byte.is_alphanumeric() || " -_".contains(*byte));
    kept.map(|byte| if byte == ' ' { '-' } else { byte })
        .collect()
}

#[test]
fn links_lead_somewhere() {
    for file in documents() {
        let path = project(&file);
        let text = fs::read_to_string(&path).unwrap();
        for target in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let (target, heading) = target.split_once('#').unwrap_or((target, ""));
            if target.contains("://") {
                continue;
            }
            let found = match target {
                "" => path.clone(),
                target => path.parent().unwrap().join(target),
            };
            assert!(found.exists(), "{file}: {target} is not there");
            if !heading.is_empty() {
                let text = fs::read_to_string(&found).unwrap();
                let there = text.lines().any(|line| anchor(line) == heading);
                assert!(there, "{file}: {target} has no heading #{heading}");
            }
        }
    }
}

#[test]
fn every_command_and_metric_is_described() {
    let (_, help) = run_to_end(&project(""), &["--help"], &[]);
    let listed = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next());
    let text = fs::read_to_string(project("docs/operation.md")).unwrap();
    let table = text
        .split("## Commands")
        .nth(1)
        .and_then(|rest| rest.split("##").next())
        .unwrap();
    let described: Vec<&str> = table
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .collect();
    let commands: Vec<&str> = listed
        .unwrap()
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .filter(|command| *command != "help")
        .collect();
    assert!(commands.len() >= 9, "{help}");
    for command in &commands {
        assert!(described.contains(command), "`{command}` is not described");
    }
    assert_eq!(
        described.len(),
        commands.len(),
        "{described:?} {commands:?}"
    );
    // Every metric that the documentation names exists.
    let metrics = fs::read_to_string(project("docs/metrics.md")).unwrap();
    for file in documents() {
        let text = fs::read_to_string(project(&file)).unwrap();
        for (at, _) in text.match_indices("outrigger_") {
            let rest = &text[at..];
            let end = rest
                .find(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_')
                .unwrap_or(rest.len());
            // The one table of ours has such a name, too.
            if &rest[..end] == "outrigger_migrations" {
                continue;
            }
            assert!(
                metrics.contains(&format!("`{}`", &rest[..end])),
                "{file}: {}",
                &rest[..end]
            );
        }
    }
}

#[test]
fn the_files_of_the_configuration_reference_are_good() {
    let tree = Tree::new();
    let mut files = 0;
    for block in blocks("docs/configuration.md")
        .iter()
        .filter(|block| block.language == "yaml")
    {
        let path = block.lines[0].strip_prefix("# ").unwrap();
        tree.put(path, block.lines.join("\n") + "\n");
        files += 1;
    }
    let (code, output) = run_to_end(tree.root(), &["check", "--no-secrets"], &[]);
    assert_eq!((code, files), (0, 5), "{output}");
}

#[test]
fn the_demo_answers_and_its_commands_work() {
    let _machine = shared_machine();
    with_own_ports("readme::inside_the_demo", inside_the_demo);
}

#[test]
#[ignore = "run by the_demo_answers_and_its_commands_work in a network namespace"]
fn inside_the_demo() {
    let folder = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = Command::new(BINARY);
        command
            .arg("demo")
            .env("TMPDIR", folder.path())
            .current_dir(folder.path());
        Daemon::spawn(command, 9900, 9909)
    };
    let mut demo = start();
    demo.wait_for_line(&["Ctrl-C"]);
    wait_until("the demo's app answers through its sidecar", SOON, || {
        Request::get("/payments/7").status(3003) == Some(200)
    });
    wait_until("its monitor has seen the app", SOON, || {
        Request::get("/health").status(3001) == Some(200)
    });
    let printed = demo.output();
    let mut statuses = Vec::new();
    for line in printed
        .lines()
        .filter_map(|line| line.trim().strip_prefix("curl "))
    {
        let response = curl(&words(line));
        println!("curl {line}: {}", response.status);
        statuses.push(response.status);
    }
    assert_eq!(
        statuses,
        [401, 200, 401, 200, 200, 200, 200, 200],
        "{printed}"
    );
    assert!(printed.contains("Postgres"), "{printed}");

    // A second one says which port is taken.
    let (status, output) = start().wait_for_exit(SOON);
    assert_eq!(status.code(), Some(64), "{output}");
    assert!(
        output.contains("port 3001 is in use") && output.contains("--port-offset"),
        "{output}"
    );

    // The file it names can be edited.
    let file = printed
        .lines()
        .map(str::trim)
        .find(|line| line.ends_with("payments/service.config.json"))
        .unwrap();
    let text = fs::read_to_string(file)
        .unwrap()
        .replace("\"none\"", "\"api-key\"");
    fs::write(file, text).unwrap();
    wait_until("the edit is in force", Duration::from_secs(20), || {
        Request::get("/payments/7").status(3003) == Some(401)
    });

    // Ctrl-C ends it cleanly: soon, with 0, ports and files gone.
    let open = Client::connect(3003).unwrap();
    demo.signal("INT");
    let (status, output) = demo.wait_for_exit(SOON);
    assert_eq!(status.code(), Some(0), "{output}");
    assert!(Client::connect(3001).is_err() && Client::connect(13001).is_err());
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        0,
        "files are left behind"
    );
    drop(open);
}

#[test]
fn the_readme_s_own_service_works() {
    let _machine = shared_machine();
    with_own_ports("readme::inside_own_service", inside_own_service);
}

#[test]
#[ignore = "run by the_readme_s_own_service_works in a network namespace"]
fn inside_own_service() {
    let mut terminal = Terminal::new();
    let app = App::start_on(8080, scripts::ok);
    // The demo and the tests have tests of their own.
    for block in blocks("README.md").iter().skip(2) {
        terminal.follow(block);
    }
    terminal.interrupt();
    assert!(
        terminal.commands >= 8 && app.count() >= 2,
        "{} commands, {} requests",
        terminal.commands,
        app.count()
    );
}

#[test]
fn the_first_hour_works() {
    let _machine = shared_machine();
    with_own_ports("readme::inside_the_first_hour", inside_the_first_hour);
}

#[test]
#[ignore = "run by the_first_hour_works in a network namespace"]
fn inside_the_first_hour() {
    let mut terminal = Terminal::new();
    // Only the tree that the page names.
    fs::remove_dir(terminal.tree.services()).unwrap();
    for block in blocks("docs/first-hour.md") {
        terminal.follow(&block);
    }
    terminal.interrupt();
    assert!(terminal.commands >= 25, "{}", terminal.commands);
}

#[test]
fn the_other_pages_commands_work() {
    let _machine = shared_machine();
    with_own_ports("readme::inside_the_other_pages", inside_the_other_pages);
}

#[test]
#[ignore = "run by the_other_pages_commands_work in a network namespace"]
fn inside_the_other_pages() {
    for page in ["docs/operation.md", "docs/upgrade.md"] {
        let mut terminal = Terminal::new();
        terminal.tree.write("shop/cart", "port: 3001\nauth: none\n");
        let script = "#!/bin/sh\ntest \"$1\" = --all && test \"$PORT\" = 13001\n";
        let script = terminal.tree.put("nightly-report", script);
        fs::set_permissions(script, fs::Permissions::from_mode(0o755)).unwrap();
        for block in blocks(page) {
            terminal.follow(&block);
        }
        assert!(terminal.commands > 0, "{page}");
    }
}

/// Pages whose every command is typed by a test here.
const TYPED: [&str; 4] = [
    "README.md",
    "docs/first-hour.md",
    "docs/operation.md",
    "docs/upgrade.md",
];

/// Commands that need more than a test machine has, and what is tried instead.
const ELSEWHERE: [(&str, &str); 12] = [
    (
        "docker build ",
        "deploy::lint and deploy::compose; the binary in such a root: deploy::pods",
    ),
    ("docker compose ", "deploy::compose, deploy::lint"),
    (
        "kubectl apply -k ",
        "deploy::lint builds and validates them, deploy::pods runs the pods",
    ),
    ("kubectl create -f ", "deploy::jobs"),
    ("install ", "deploy::lint: the unit is verified"),
    ("systemctl ", "deploy::lint: the unit is verified"),
    (
        "cargo build --release",
        "scripts/footprint, which is too slow for every run",
    ),
    ("benches/compare/auth.py", "a measurement of an hour"),
    ("python3 benches/compare ", "a measurement of minutes"),
    ("benches/compare/tracing.py", "a measurement of an hour"),
    (
        "scripts/footprint",
        "footprint::footprint on the debug build",
    ),
    (
        "cargo run -- demo",
        "the_demo_answers_and_its_commands_work",
    ),
];

#[test]
fn no_command_is_forgotten() {
    for page in documents() {
        for command in commands(&page) {
            if TYPED.contains(&page.as_str()) {
                continue;
            }
            let found = ELSEWHERE
                .iter()
                .any(|(start, _)| command.starts_with(start));
            assert!(
                found,
                "{page}: `{command}` is run by no test: type it in one (Terminal), or say \
                 in ELSEWHERE what is tried instead"
            );
            // What it names of this project is there.
            for word in words(&command) {
                let here = ["docker/", "examples/", "benches/", "scripts/", "config/"];
                if here.iter().any(|folder| word.starts_with(folder)) {
                    assert!(project(&word).exists(), "{page}: {command}: {word}");
                }
            }
        }
    }
    let pages: BTreeSet<String> = documents().into_iter().collect();
    assert!(TYPED.iter().all(|page| pages.contains(*page)));
}
