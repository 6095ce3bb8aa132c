//! What the documents tell people to type, typed: files are written where they
//! say, commands are run in a folder of their own, and what they are said to
//! end with is what they have to end with.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::client::{Request, Response, accepts};
use super::daemon::{BINARY, Daemon, run_to_end};
use super::manifests::project;
use super::tree::Tree;
use super::wait::{SOON, wait_until};

/// A fenced block: its language and lines.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) lines: Vec<String>,
}

/// The fenced blocks of a document of the project.
#[track_caller]
pub(crate) fn blocks(path: &str) -> Vec<Block> {
    let text =
        std::fs::read_to_string(project(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let mut blocks: Vec<Block> = Vec::new();
    let mut open = None;
    for line in text.lines() {
        let inner = line.trim_start();
        match (inner.strip_prefix("```"), open) {
            (Some(_), Some(_)) => open = None,
            (Some(language), None) => {
                open = Some(line.len() - inner.len());
                blocks.push(Block {
                    language: language.to_owned(),
                    lines: Vec::new(),
                });
            }
            (None, Some(indent)) => {
                let line = line.get(indent..).unwrap_or_default().to_owned();
                blocks.last_mut().expect("a block is open").lines.push(line);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "{path}: a block is not closed");
    blocks
}

/// The commands of a document.
#[track_caller]
pub(crate) fn commands(path: &str) -> Vec<String> {
    let shell = blocks(path)
        .into_iter()
        .filter(|block| block.language == "sh");
    shell
        .flat_map(|block| block.lines)
        .filter(|line| !line.is_empty())
        .collect()
}

/// Splits a shell line: spaces, single quotes, a comment at the end.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for character in line.chars() {
        match character {
            '\'' => quoted = !quoted,
            '#' if !quoted && words.last().is_some_and(String::is_empty) => break,
            ' ' if !quoted => words.push(String::new()),
            other => words.last_mut().expect("never empty").push(other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

/// The number a comment at the end begins with: `# 401`, `# 64: a secret is
/// missing`.
fn said(line: &str) -> Option<u16> {
    let (_, comment) = line.rsplit_once(" # ")?;
    let digits: String = comment.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// Does what `curl` would do with the options the project uses.
#[track_caller]
pub(crate) fn curl(words: &[String]) -> Response {
    let (mut headers, mut url) = (Vec::new(), None);
    let (mut method, mut body) = ("GET", "");
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().expect("an option has a value");
        match word.as_str() {
            "-i" | "-s" => {}
            "-H" => headers.push(value().split_once(": ").expect("a header")),
            "-X" => method = value(),
            "-d" => (method, body) = ("POST", value()),
            other if other.starts_with("http://") && url.is_none() => url = Some(other),
            other => panic!("curl {other}: not understood"),
        }
    }
    let rest = url.and_then(|url| url.strip_prefix("http://127.0.0.1:"));
    let (port, path) = rest
        .and_then(|rest| rest.split_once('/'))
        .expect("a URL here");
    let request = headers.iter().fold(
        Request::new(method, &format!("/{path}")).body(body),
        |request, (name, value)| request.header(name, value),
    );
    request.send(port.parse().expect("a port"))
}

/// A person at a terminal, in a folder with the examples of the project.
pub(crate) struct Terminal {
    pub(crate) tree: Tree,
    environment: Vec<(String, String)>,
    daemon: Option<Daemon>,
    background: Vec<Daemon>,
    pub(crate) commands: usize,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        let tree = Tree::new();
        symlink(project("examples"), tree.root().join("examples")).expect("the folder is ours");
        Self {
            tree,
            environment: Vec::new(),
            daemon: None,
            background: Vec::new(),
            commands: 0,
        }
    }

    /// Writes the block to the file that its first line names, or runs it.
    #[track_caller]
    pub(crate) fn follow(&mut self, block: &Block) {
        let first = block.lines.first().map(String::as_str).unwrap_or_default();
        match block.language.as_str() {
            "sh" => {
                for line in block.lines.iter().filter(|line| !line.is_empty()) {
                    self.commands += 1;
                    self.run(line);
                }
            }
            "yaml" => {
                let path = first.strip_prefix("# ").expect("a file names its path");
                self.tree.put(path, block.lines.join("\n") + "\n");
            }
            "json" if first.starts_with("// ") => {
                let path = first.trim_start_matches("// ");
                self.tree.put(path, block.lines[1..].join("\n") + "\n");
            }
            "json" | "text" => {}
            other => panic!("a block of `{other}` is not tried"),
        }
    }

    #[track_caller]
    fn run(&mut self, line: &str) {
        let words = words(line);
        match words[0].as_str() {
            "export" => {
                let (name, value) = words[1].split_once('=').expect("NAME=value");
                self.environment.push((name.to_owned(), value.to_owned()));
            }
            "outrigger" if words[1] == "run" => self.start(&words),
            "outrigger" => {
                let arguments: Vec<&str> = words[1..].iter().map(String::as_str).collect();
                let environment: Vec<(&str, &str)> = self
                    .environment
                    .iter()
                    .map(|(name, value)| (name.as_str(), value.as_str()))
                    .collect();
                let (code, output) = run_to_end(self.tree.root(), &arguments, &environment);
                assert_eq!(code, i32::from(said(line).unwrap_or(0)), "{line}: {output}");
            }
            "curl" => {
                let response = curl(&words[1..]);
                let expected = said(line).unwrap_or(200);
                assert_eq!(response.status, expected, "{line}: {}", response.text());
            }
            _ if words.last().is_some_and(|word| word == "&") => self.start_beside(line, &words),
            "sed" => {
                let status = self.shell(line).status().expect("sh is there");
                assert!(status.success(), "{line}: {status}");
            }
            other => panic!("`{other}` is not tried: {line}"),
        }
    }

    fn shell(&self, line: &str) -> Command {
        let folder = Path::new(BINARY).parent().expect("a target folder");
        let mut command = Command::new("sh");
        command
            .args(["-c", line])
            .current_dir(self.tree.root())
            .stdin(Stdio::null())
            .env(
                "PATH",
                format!("{}:/usr/local/bin:/usr/bin:/bin", folder.display()),
            );
        command
    }

    #[track_caller]
    fn start(&mut self, words: &[String]) {
        let mut command = Command::new(BINARY);
        command
            .args(&words[1..])
            .current_dir(self.tree.root())
            .env_clear()
            .envs(self.environment.iter().cloned());
        let mut started = Daemon::spawn(command, 9900, 9909);
        wait_until("the daemon is ready", SOON, || {
            assert!(started.is_running(), "{}", started.output());
            Request::get("/readyz").status(9909) == Some(200)
        });
        // The monitors of its services come a moment later.
        wait_until("its services are healthy", SOON, || {
            Request::get("/health/services").status(9900) == Some(200)
        });
        self.daemon = Some(started);
    }

    /// An app of the example, with the port it listens on in front.
    #[track_caller]
    fn start_beside(&mut self, line: &str, words: &[String]) {
        let port = words.iter().find_map(|word| word.strip_prefix("PORT="));
        let port: u16 = port.and_then(|port| port.parse().ok()).expect("PORT=…");
        let line = line.trim_end_matches(" &");
        let assignments = words.iter().take_while(|word| word.contains('=')).count();
        let program = words[assignments..words.len() - 1].join(" ");
        let line = line.replace(&program, &format!("exec {program}"));
        self.background.push(Daemon::spawn(self.shell(&line), 0, 0));
        wait_until("the app answers", SOON, || accepts(port));
    }

    /// Ends the apps, then the daemon with Ctrl-C.
    #[track_caller]
    pub(crate) fn interrupt(&mut self) {
        self.background.clear();
        let mut daemon = self.daemon.take().expect("`outrigger run` was typed");
        daemon.signal("INT");
        let (status, output) = daemon.wait_for_exit(SOON);
        assert_eq!(status.code(), Some(0), "{output}");
    }
}
