//! Holds the walls of the house: which room may name which, and the invariants
//! that no type can express.
//!
//! The checker reads source text, so it sees what the compiler would accept and
//! the design does not. Comments are ignored; strings count only where a rule is
//! about strings.

#[path = "layering/source.rs"]
mod source;

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use source::{Source, Token};

/// What a room may name besides itself.
enum May {
    Only(&'static [&'static str]),
    /// Every room of an earlier row, except these.
    NameAllAboveBut(&'static [&'static str]),
}

use May::{NameAllAboveBut, Only};

/// Row, room, and what it may name.
#[rustfmt::skip]
const ROOMS: &[(u8, &str, May)] = &[
    (0, "model", Only(&["secret"])),
    (0, "secret", Only(&[])),
    (0, "drain", Only(&[])),
    (1, "telemetry", Only(&["model"])),
    (1, "health", Only(&["model"])),
    (2, "reply", Only(&["model", "telemetry", "health"])),
    (2, "config", Only(&["model", "secret"])),
    (2, "trace", Only(&["model", "secret"])),
    (3, "net", Only(&["drain", "telemetry", "model", "reply", "secret"])),
    (4, "upstream", Only(&["model", "net", "telemetry", "drain", "health"])),
    (4, "pg", Only(&["model", "secret", "net", "reply", "telemetry", "drain", "health", "trace"])),
    (5, "auth", Only(&["model", "secret", "net", "upstream", "telemetry", "trace"])),
    (5, "forward", Only(&["model", "net", "drain", "upstream", "telemetry", "trace"])),
    (6, "snapshot", NameAllAboveBut(&["config"])),
    (7, "inbound", NameAllAboveBut(&["config", "pg"])),
    (7, "outbound", NameAllAboveBut(&["config", "pg"])),
    (7, "sql", NameAllAboveBut(&["config"])),
    (7, "admin", NameAllAboveBut(&["config"])),
    // `auth` and `trace` for the state each worker keeps, `reply` for answers without a request
    (8, "worker", Only(&["net", "snapshot", "inbound", "outbound", "upstream", "telemetry", "drain", "model", "auth", "trace", "reply"])),
    (9, "control", NameAllAboveBut(&["inbound", "outbound", "sql", "admin", "worker"])),
    (10, "app", NameAllAboveBut(&[])),
    (11, "demo", NameAllAboveBut(&[])),
    (12, "cli", NameAllAboveBut(&[])),
    (13, "main", Only(&["cli"])),
    (13, "lib", Only(&[])),
];

/// Whether `room` may name `other`; `None` if either is no room.
fn may_name(room: &str, other: &str) -> Option<bool> {
    let row_of = |name: &str| ROOMS.iter().find(|(_, room, _)| *room == name);
    let ((row, _, may), (other_row, ..)) = (row_of(room)?, row_of(other)?);
    Some(match may {
        Only(list) => list.contains(&other),
        NameAllAboveBut(list) => other_row < row && !list.contains(&other),
    })
}

/// Rooms on the way of a request: no configuration language, no file watching.
const DATA_PATH: &[&str] = &["inbound", "outbound", "forward", "trace", "auth", "net"];

/// Types of statics that change after start.
const MUTABLE: &[&str] = &[
    "Mutex",
    "RwLock",
    "Cell",
    "RefCell",
    "OnceCell",
    "OnceLock",
    "ArcSwap",
    "AtomicBool",
    "AtomicU8",
    "AtomicU16",
    "AtomicU32",
    "AtomicU64",
    "AtomicUsize",
    "AtomicI64",
];

/// A rule that a file breaks.
#[derive(Debug, PartialEq, Eq)]
struct Violation {
    file: PathBuf,
    line: usize,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}:{}: {}",
            self.file.display(),
            self.line,
            self.rule
        )
    }
}

/// Checks one file, whose path is relative to `src`.
fn check(file: &Path, text: &str) -> Vec<Violation> {
    let source = Source::read(text);
    let mut found = Vec::new();
    let mut report = |line: usize, rule: String| {
        found.push(Violation {
            file: file.to_owned(),
            line,
            rule,
        });
    };
    let room = room_of(file);
    if may_name(room, room).is_none() {
        report(1, format!("`{room}` is no room of the table"));
        return found;
    }
    for (line, named) in source.rooms_named(depth_of(file), room == "main") {
        if named == room {
            continue;
        }
        match may_name(room, &named) {
            Some(true) => {}
            Some(false) => report(line, format!("`{room}` must not name `{named}`")),
            None => report(
                line,
                format!("`crate::{named}` is no room; name rooms one by one"),
            ),
        }
    }
    check_words(file, room, &source, &mut report);
    let tests = file
        .iter()
        .any(|part| part == "tests" || part.to_string_lossy().ends_with("tests.rs"));
    if !tests {
        check_statics(&source, &mut report);
    }
    if !tests && (!file.starts_with("telemetry") || !file_name(file, 1).starts_with("metrics")) {
        for (line, literal) in source.strings_before_tests() {
            // The table of migrations is called like that by its contract.
            if literal.contains("outrigger_") && literal != "outrigger_migrations" {
                report(line, "only telemetry/metrics names a metric".to_owned());
            }
        }
    }
    found
}

/// Words that only some rooms may say.
fn check_words(file: &Path, room: &str, source: &Source, report: &mut impl FnMut(usize, String)) {
    let reads_environment = file.starts_with("config") && file.ends_with("environment.rs");
    for (index, (line, token)) in source.tokens.iter().enumerate() {
        let Token::Word(word) = token else { continue };
        let path_goes_on =
            source.is_punctuation(index + 1, ':') && source.is_punctuation(index + 2, ':');
        match word.as_str() {
            "serde_yaml" | "notify" if DATA_PATH.contains(&room) && path_goes_on => {
                report(*line, format!("the data path must not name `{word}`"));
            }
            "Publisher" if !matches!(room, "control" | "snapshot") => {
                report(*line, "only control holds the Publisher".to_owned());
            }
            "env" if !reads_environment && path_goes_on && source.is_environment(index + 3) => {
                report(
                    *line,
                    "only config/environment reads the environment".to_owned(),
                );
            }
            // `#[arg(env)]` and `#[arg(env = "…")]` of clap read it as well.
            "env" if room == "cli" && source.is_argument_of(index, "arg") => {
                report(
                    *line,
                    "only config/environment reads the environment".to_owned(),
                );
            }
            _ => {}
        }
    }
}

/// No state outside owners.
fn check_statics(source: &Source, report: &mut impl FnMut(usize, String)) {
    for (index, (line, token)) in source.tokens.iter().enumerate() {
        if *token != Token::Word("static".to_owned()) {
            continue;
        }
        let declaration = source.tokens[index + 1..]
            .iter()
            .take_while(|(_, token)| !matches!(token, Token::Punctuation('=' | ';' | ')' | ',')));
        for (_, token) in declaration {
            let Token::Word(word) = token else { continue };
            if word == "mut" || MUTABLE.contains(&word.as_str()) {
                report(*line, "no mutable statics".to_owned());
                break;
            }
        }
    }
}

/// First folder below `src`, or the file's own name without `.rs`.
fn room_of(file: &Path) -> &str {
    file_name(file, 0).trim_end_matches(".rs")
}

fn file_name(file: &Path, index: usize) -> &str {
    file.iter()
        .nth(index)
        .and_then(|part| part.to_str())
        .unwrap_or_default()
}

/// How many modules enclose the file's top level; 0 = the crate root.
fn depth_of(file: &Path) -> usize {
    let parts = file.iter().count();
    match file.file_name().and_then(|name| name.to_str()) {
        Some("lib.rs" | "main.rs") if parts == 1 => 0,
        Some("mod.rs") => parts - 1,
        _ => parts,
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is readable") {
        let path = entry.expect("src is readable").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn every_file_keeps_to_its_row() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(files.len() > 20, "src was not found: {files:?}");
    let violations: Vec<String> = files
        .iter()
        .flat_map(|path| {
            let text = fs::read_to_string(path).expect("a source file is text");
            let file = path.strip_prefix(&root).expect("collected below src");
            check(file, &text)
        })
        .map(|violation| format!("src/{violation}"))
        .collect();
    assert!(violations.is_empty(), "\n{}", violations.join("\n"));
}

#[cfg(test)]
mod the_checker_itself {
    use super::*;

    fn rules(file: &str, text: &str) -> Vec<String> {
        check(Path::new(file), text)
            .into_iter()
            .map(|violation| format!("{}: {}", violation.line, violation.rule))
            .collect()
    }

    #[test]
    fn finds_an_edge_in_every_spelling() {
        for text in [
            "use crate::control::Loop;",
            "use crate::{model::Kind, control::{Loop, diff}};",
            "fn f() { crate::control::run(); }",
            "use crate :: control;",
            "use super::super::control::Loop;",
            "mod inner { use super::super::super::control::Loop; }",
            "macro_rules! m { () => { $crate::control::run() } }",
        ] {
            assert_eq!(
                rules("inbound/route.rs", text),
                ["1: `inbound` must not name `control`"],
                "{text}"
            );
        }
        assert_eq!(
            rules("inbound/mod.rs", "\nuse super::config::Compiler;"),
            ["2: `inbound` must not name `config`"]
        );
        assert_eq!(
            rules("main.rs", "fn main() { outrigger::app::run() }"),
            ["1: `main` must not name `app`"]
        );
    }

    #[test]
    fn refuses_globs_and_unknown_rooms() {
        assert_eq!(
            rules("auth/mod.rs", "use crate::*;"),
            ["1: `crate::*` is no room; name rooms one by one"]
        );
        assert_eq!(
            rules("auth/mod.rs", "use crate::util::f;"),
            ["1: `crate::util` is no room; name rooms one by one"]
        );
        assert_eq!(rules("util.rs", ""), ["1: `util` is no room of the table"]);
    }

    #[test]
    fn comments_strings_and_own_paths_do_not_count() {
        let text = r####"
            //! See [`crate::control`].
            /* crate::control /* nested crate::config */ still */
            use crate::model::Kind; // crate::config
            use super::Thing;
            pub(crate) fn f<'a>(x: &'a str) -> char { let _ = "crate::control \" env::var"; 'c' }
            const RAW: &str = r##"crate::config "# Publisher"##;
            const QUOTE: char = '"'; const AGAIN: char = '\''; use crate::inbound::x;
        "####;
        assert_eq!(rules("inbound/route.rs", text), [""; 0]);
    }

    #[test]
    fn holds_the_invariants() {
        assert_eq!(
            rules("net/conn.rs", "use serde_yaml::Value;\nuse notify::Event;"),
            [
                "1: the data path must not name `serde_yaml`",
                "2: the data path must not name `notify`"
            ]
        );
        assert_eq!(rules("net/conn.rs", "waker.notify_one();"), [""; 0]);
        assert_eq!(
            rules("inbound/mod.rs", "use crate::pg::Pool;"),
            ["1: `inbound` must not name `pg`"]
        );
        assert_eq!(
            rules("app.rs", "use crate::snapshot::Publisher;"),
            ["1: only control holds the Publisher"]
        );
        assert_eq!(
            rules("control/mod.rs", "use crate::snapshot::Publisher;"),
            [""; 0]
        );
        let reading = "let home = std::env::var(\"HOME\");";
        assert_eq!(
            rules("app.rs", reading),
            ["1: only config/environment reads the environment"]
        );
        assert_eq!(rules("config/environment.rs", reading), [""; 0]);
        assert_eq!(
            rules("cli/run.rs", "#[arg(long, env = \"X\")] x: u8"),
            ["1: only config/environment reads the environment"]
        );
        assert_eq!(
            rules("app.rs", "use std::env::{self, vars};"),
            ["1: only config/environment reads the environment"]
        );
        assert_eq!(rules("app.rs", "std::env::current_dir()"), [""; 0]);
        let metric = "let name = \"outrigger_http_requests_total\";";
        assert_eq!(
            rules("admin/mod.rs", metric),
            ["1: only telemetry/metrics names a metric"]
        );
        assert_eq!(rules("telemetry/metrics/names.rs", metric), [""; 0]);
        assert_eq!(
            rules("net/mod.rs", "static COUNT: AtomicU64 = AtomicU64::new(0);"),
            ["1: no mutable statics"]
        );
        assert_eq!(
            rules("net/mod.rs", "static NAME: &'static str = \"x\";"),
            [""; 0]
        );
    }
}
