//! Every command and every file of the README works as written there.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::app::App;
use crate::support::client::{Client, Request, Response};
use crate::support::daemon::{BINARY, Daemon, run_to_end};
use crate::support::isolation::with_own_ports;
use crate::support::scripts;
use crate::support::tree::Tree;
use crate::support::wait::{SOON, shared_machine, wait_until};

fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A fenced block: its language and lines.
struct Block {
    language: String,
    lines: Vec<String>,
}

fn blocks(text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(language) => {
                open = true;
                blocks.push(Block {
                    language: language.to_owned(),
                    lines: Vec::new(),
                });
            }
            None if open => blocks.last_mut().unwrap().lines.push(line.to_owned()),
            None => {}
        }
    }
    assert!(!open, "a block is not closed");
    blocks
}

fn readme() -> Vec<Block> {
    blocks(&fs::read_to_string(project().join("README.md")).unwrap())
}

/// Splits a shell line: spaces, single quotes, a comment at the end.
fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            '#' if !quoted && words.last().is_some_and(String::is_empty) => break,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().unwrap().push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// Does what `curl` would do with the options the project uses.
fn curl(words: &[String]) -> Response {
    let (mut headers, mut url) = (Vec::new(), None);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "-i" | "-s" => {}
            "-H" => headers.push(words.next().unwrap().split_once(": ").unwrap()),
            other if other.starts_with("http://") && url.is_none() => url = Some(other),
            other => panic!("curl {other}: not understood"),
        }
    }
    let rest = url.unwrap().strip_prefix("http://127.0.0.1:").unwrap();
    let (port, path) = rest.split_once('/').unwrap();
    let request = headers.iter().fold(
        Request::get(&format!("/{path}")),
        |request, (name, value)| request.header(name, value),
    );
    request.send(port.parse().unwrap())
}

#[test]
fn the_first_commands_are_the_demo_and_the_tests() {
    let readme = readme();
    let commands: Vec<&String> = readme
        .iter()
        .filter(|block| block.language == "sh")
        .take(2)
        .flat_map(|block| &block.lines)
        .collect();
    assert_eq!(commands, ["cargo run -- demo", "./scripts/test"]);
    // What checks every change runs the second one, alone on its line.
    let ci = fs::read_to_string(project().join(".ci/run")).unwrap();
    assert!(ci.lines().any(|line| line == commands[1].as_str()), "{ci}");
    // And that one runs everything: no filter, no exclusion.
    let script = fs::read_to_string(project().join("scripts/test")).unwrap();
    assert!(
        script.contains("--no-fail-fast --lib --bins --tests"),
        "{script}"
    );
}

#[test]
fn links_lead_somewhere() {
    for file in [
        "README.md",
        "docs/configuration.md",
        "docs/health.md",
        "docs/operation.md",
    ] {
        let path = project().join(file);
        let text = fs::read_to_string(&path).unwrap();
        for target in text
            .split("](")
            .skip(1)
            .map(|rest| rest.split(')').next().unwrap())
        {
            let target = target.split('#').next().unwrap();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            let found = path.parent().unwrap().join(target);
            assert!(found.exists(), "{file}: {target} is not there");
        }
    }
}

#[test]
fn every_command_and_metric_is_described() {
    let (_, help) = run_to_end(project(), &["--help"], &[]);
    let listed = help
        .split("Commands:")
        .nth(1)
        .and_then(|rest| rest.split("\n\n").next());
    let text = fs::read_to_string(project().join("docs/operation.md")).unwrap();
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
    let metrics = fs::read_to_string(project().join("docs/metrics.md")).unwrap();
    for file in [
        "README.md",
        "docs/health.md",
        "docs/operation.md",
        "docs/configuration.md",
    ] {
        let text = fs::read_to_string(project().join(file)).unwrap();
        for (at, _) in text.match_indices("outrigger_") {
            let rest = &text[at..];
            let end = rest
                .find(|byte: char| !byte.is_ascii_alphanumeric() && byte != '_')
                .unwrap_or(rest.len());
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
    let text = fs::read_to_string(project().join("docs/configuration.md")).unwrap();
    let tree = Tree::new();
    let mut files = 0;
    for block in blocks(&text)
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
    let tree = Tree::new();
    let mut environment: Vec<(String, String)> = Vec::new();
    let mut daemon: Option<Daemon> = None;
    let app = App::start_on(8080, scripts::ok);
    let mut commands = 0;
    for block in readme().iter().skip(2) {
        match block.language.as_str() {
            "yaml" => {
                let path = block.lines[0].strip_prefix("# ").unwrap();
                tree.put(path, block.lines.join("\n") + "\n");
            }
            "sh" => {
                for line in &block.lines {
                    commands += 1;
                    run_line(line, &tree, &mut environment, &mut daemon);
                }
            }
            other => panic!("a block of `{other}` is not tried"),
        }
    }
    assert!(
        commands >= 8 && app.count() >= 2,
        "{commands} commands, {} requests",
        app.count()
    );
}

fn run_line(
    line: &str,
    tree: &Tree,
    environment: &mut Vec<(String, String)>,
    daemon: &mut Option<Daemon>,
) {
    let words = words(line);
    let environment_now: Vec<(String, String)> = environment.clone();
    match words[0].as_str() {
        "export" => {
            let (name, value) = words[1].split_once('=').unwrap();
            environment.push((name.to_owned(), value.to_owned()));
        }
        "outrigger" if words[1] == "run" => {
            let mut command = Command::new(BINARY);
            command
                .args(&words[1..])
                .current_dir(tree.root())
                .env_clear()
                .envs(environment_now);
            let started = Daemon::spawn(command, 9900, 9909);
            wait_until("the daemon is ready", SOON, || {
                Request::get("/startupz").status(9909) == Some(200)
            });
            *daemon = Some(started);
        }
        "outrigger" => {
            let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
            let environment: Vec<(&str, &str)> = environment_now
                .iter()
                .map(|(name, value)| (name.as_str(), value.as_str()))
                .collect();
            let (code, output) = run_to_end(tree.root(), &arguments, &environment);
            assert_eq!(code, 0, "{line}: {output}");
        }
        "curl" => {
            let expected = line
                .split_once("# ")
                .map_or("200", |(_, comment)| &comment[..3]);
            let response = curl(&words[1..]);
            assert_eq!(
                response.status.to_string(),
                expected,
                "{line}: {}",
                response.text()
            );
        }
        other => panic!("`{other}` is not tried: {line}"),
    }
}
