//! The files of a service's migrations: which there are, what their names say.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};

/// Files of a folder at most.
const MAX_FILES: usize = 10_000;
/// Bytes of one file at most.
const MAX_BYTES: u64 = 8 * 1024 * 1024;
/// First lines that ask for no transaction.
const NO_TRANSACTION: [&str; 2] = ["-- outrigger: no-transaction", "-- no-transaction"];

/// SHA-256 over a file's text with LF line ends and no byte order mark.
pub(super) type Checksum = [u8; 32];

/// One migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MigrationFile {
    pub(super) version: i64,
    /// As the folder has it: `2_create_orders.up.sql`.
    pub(super) name: String,
    pub(super) checksum: Checksum,
    pub(super) text: String,
    /// Whether everything in it happens or nothing.
    pub(super) in_transaction: bool,
}

/// How the names of a folder are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    /// `001_x.sql` (sqlx).
    Plain,
    /// `001_x.up.sql` (golang-migrate).
    UpDown,
    /// `V1__x.sql` (Flyway).
    Flyway,
}

impl Style {
    fn example(self) -> &'static str {
        match self {
            Self::Plain => "1_name.sql",
            Self::UpDown => "1_name.up.sql",
            Self::Flyway => "V1__name.sql",
        }
    }
}

/// Why the files of a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::pg) enum FilesError {
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{folder} has more than {MAX_FILES} files")]
    TooMany { folder: PathBuf },
    #[error("{path} is larger than 8 MiB")]
    TooLarge { path: PathBuf },
    #[error("{path} is not UTF-8")]
    NotText { path: PathBuf },
    #[error(
        "{path}: the name says no version: use 1_name.sql, 1_name.up.sql (with or without a \
         .down.sql) or V1__name.sql"
    )]
    Name { path: PathBuf },
    #[error("{path}: the version does not fit into 63 bits")]
    Version { path: PathBuf },
    #[error("{one} and {other}: {one_style} and {other_style} are mixed; use one of them")]
    Mixed {
        one: String,
        one_style: &'static str,
        other: String,
        other_style: &'static str,
    },
    #[error("{one} and {other} have the same version {version}")]
    Duplicate {
        version: i64,
        one: String,
        other: String,
    },
}

/// Reads a folder, in order of version. One that is not there has no migrations.
/// Blocks on the file system.
///
/// # Errors
/// The first thing wrong in order of names.
pub(super) fn read(folder: &Path) -> Result<Vec<MigrationFile>, FilesError> {
    let names = names(folder)?;
    let mut known: Option<(Style, String)> = None;
    let mut files: BTreeMap<i64, MigrationFile> = BTreeMap::new();
    for name in names {
        let path = folder.join(&name);
        let Some((style, version)) = parse(&name, &path)? else {
            continue;
        };
        match &known {
            None => known = Some((style, name.clone())),
            Some((first, one)) if *first != style => {
                return Err(FilesError::Mixed {
                    one: one.clone(),
                    one_style: first.example(),
                    other: name,
                    other_style: style.example(),
                });
            }
            Some(_) => {}
        }
        let file = read_one(&path, version, name)?;
        if let Some(other) = files.get(&version) {
            return Err(FilesError::Duplicate {
                version,
                one: other.name.clone(),
                other: file.name,
            });
        }
        files.insert(version, file);
    }
    Ok(files.into_values().collect())
}

/// The names that count, sorted: `.sql`, not hidden, not a way back.
fn names(folder: &Path) -> Result<Vec<String>, FilesError> {
    let failed = |source| FilesError::Read {
        path: folder.to_path_buf(),
        source,
    };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut names = Vec::new();
    for (count, entry) in entries.enumerate() {
        if count >= MAX_FILES {
            let folder = folder.to_path_buf();
            return Err(FilesError::TooMany { folder });
        }
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy().into_owned();
        let counts =
            name.ends_with(".sql") && !name.ends_with(".down.sql") && !name.starts_with('.');
        if counts {
            names.push(name);
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Style and version; `None` for what is no file.
fn parse(name: &str, path: &Path) -> Result<Option<(Style, i64)>, FilesError> {
    if path.is_dir() {
        return Ok(None);
    }
    let stem = name.strip_suffix(".sql").unwrap_or(name);
    let (style, digits) = if let Some(rest) = stem.strip_prefix('V') {
        (Style::Flyway, rest.split_once("__"))
    } else if let Some(rest) = stem.strip_suffix(".up") {
        (Style::UpDown, rest.split_once('_'))
    } else {
        (Style::Plain, stem.split_once('_'))
    };
    let digits = digits
        .filter(|(digits, title)| {
            !title.is_empty()
                && !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
        .map(|(digits, _)| digits);
    let Some(digits) = digits else {
        return Err(FilesError::Name {
            path: path.to_path_buf(),
        });
    };
    match digits.parse() {
        Ok(version) => Ok(Some((style, version))),
        Err(_) => Err(FilesError::Version {
            path: path.to_path_buf(),
        }),
    }
}

fn read_one(path: &Path, version: i64, name: String) -> Result<MigrationFile, FilesError> {
    let failed = |source| FilesError::Read {
        path: path.to_path_buf(),
        source,
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_BYTES {
        let path = path.to_path_buf();
        return Err(FilesError::TooLarge { path });
    }
    let bytes = fs::read(path).map_err(failed)?;
    let text = String::from_utf8(bytes).map_err(|_| FilesError::NotText {
        path: path.to_path_buf(),
    })?;
    Ok(MigrationFile::new(version, name, &text))
}

impl MigrationFile {
    fn new(version: i64, name: String, raw: &str) -> Self {
        let text = raw.strip_prefix('\u{feff}').unwrap_or(raw);
        let text = text.replace("\r\n", "\n");
        let mut checksum = [0; 32];
        checksum.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
        let first = text.lines().next().unwrap_or_default().trim_end();
        Self {
            version,
            name,
            checksum,
            in_transaction: !NO_TRANSACTION.contains(&first),
            text,
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(version: i64, text: &str) -> Self {
        Self::new(version, format!("{version}_x.sql"), text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("folder");
        for (name, text) in files {
            fs::write(folder.path().join(name), text).expect("file");
        }
        folder
    }

    fn versions(names: &[&str]) -> Result<Vec<i64>, String> {
        let files: Vec<(&str, &str)> = names.iter().map(|name| (*name, "select 1;")).collect();
        let folder = folder(&files);
        let root = folder.path().display().to_string();
        match read(folder.path()) {
            Ok(files) => Ok(files.iter().map(|file| file.version).collect()),
            Err(error) => Err(error.to_string().replace(&root, "")),
        }
    }

    #[test]
    fn every_style_by_itself() {
        assert_eq!(
            versions(&["10_b.sql", "002_a.sql", "notes.txt"]),
            Ok(vec![2, 10])
        );
        assert_eq!(
            versions(&[
                "1_a.up.sql",
                "1_a.down.sql",
                "20260101120000_b.up.sql",
                "2_gone.down.sql"
            ]),
            Ok(vec![1, 20_260_101_120_000])
        );
        assert_eq!(
            versions(&["V1__a.sql", "V2__b_c.sql", ".V3__d.sql"]),
            Ok(vec![1, 2])
        );
        assert_eq!(versions(&["9223372036854775807_x.sql"]), Ok(vec![i64::MAX]));
        assert_eq!(versions(&[]), Ok(vec![]));
        let gone = tempfile::tempdir().expect("folder").path().join("gone");
        assert!(read(&gone).expect("no migrations").is_empty());
    }

    #[test]
    fn other_names_mixes_and_duplicates_are_refused() {
        for bad in [
            "create.sql",
            "a1_x.sql",
            "V1_x.sql",
            "R__views.sql",
            "1.sql",
            "1_.sql",
            "V1.1__x.sql",
        ] {
            let message = versions(&[bad]).expect_err(bad);
            assert!(
                message.starts_with(&format!("/{bad}: the name says no version")),
                "{message}"
            );
        }
        insta::assert_snapshot!(
            versions(&["1_a.sql", "2_b.up.sql"]).expect_err("mixed"),
            @"1_a.sql and 2_b.up.sql: 1_name.sql and 1_name.up.sql are mixed; use one of them"
        );
        insta::assert_snapshot!(
            versions(&["01_a.sql", "1_b.sql"]).expect_err("twice"),
            @"01_a.sql and 1_b.sql have the same version 1"
        );
        insta::assert_snapshot!(
            versions(&["9223372036854775808_a.sql"]).expect_err("large"),
            @"/9223372036854775808_a.sql: the version does not fit into 63 bits"
        );
    }

    #[test]
    fn line_ends_and_marks_do_not_count() {
        let plain = MigrationFile::for_test(1, "select 1;\nselect 2;\n");
        let windows = MigrationFile::for_test(1, "\u{feff}select 1;\r\nselect 2;\r\n");
        assert_eq!(plain, windows);
        assert!(plain.in_transaction);
        assert_ne!(
            plain.checksum,
            MigrationFile::for_test(1, "select 1; \n").checksum
        );
        for first in NO_TRANSACTION {
            let file = MigrationFile::for_test(1, &format!("{first}\r\nvacuum;"));
            assert!(!file.in_transaction, "{first}");
        }
        assert!(MigrationFile::for_test(1, "\n-- no-transaction\nvacuum;").in_transaction);
    }
}
