//! Opening a file that anybody may have put there: regular files only, bounded,
//! and never a wait.
//!
//! A FIFO blocks whoever opens it and a device may act on being opened, so the
//! kind is looked at first; `O_NONBLOCK` and a second look at the open file
//! cover the moment in between.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file was not read.
#[derive(Debug)]
pub(super) enum ReadError {
    /// Cleanly not there.
    Absent,
    /// The folder does not let us look (permissions, I/O): nothing is known of
    /// what is in it.
    Hidden(io::Error),
    /// There, but not readable: the text says why.
    Refused(String),
}

/// Reads at most `limit` bytes of the regular file at `path`, links followed,
/// into `buffer`, which is cleared first.
pub(super) fn regular_file(path: &Path, limit: u64, buffer: &mut Vec<u8>) -> Result<(), ReadError> {
    buffer.clear();
    let metadata = std::fs::metadata(path).map_err(|error| explain_missing(path, error))?;
    check(&metadata, limit)?;
    let file = open(path)?;
    let metadata = file.metadata().map_err(|error| refused(&error))?;
    check(&metadata, limit)?;
    let expected = usize::try_from(metadata.len()).unwrap_or(0);
    buffer.reserve(expected.saturating_add(1));
    // One byte more than allowed shows a file that grew after the look.
    file.take(limit + 1)
        .read_to_end(buffer)
        .map_err(|error| refused(&error))?;
    if buffer.len() as u64 > limit {
        return Err(too_large(limit));
    }
    Ok(())
}

fn open(path: &Path) -> Result<File, ReadError> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => ReadError::Absent,
            _ => refused(&error),
        })
}

/// Tells a name that is not there from a link that leads nowhere: the second
/// may be a mount that is gone, and is not an absence.
fn explain_missing(path: &Path, error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound => match std::fs::symlink_metadata(path) {
            Err(_) => ReadError::Absent,
            Ok(_) => ReadError::Refused("is a symbolic link to nowhere".to_owned()),
        },
        _ if error.raw_os_error() == Some(libc::ELOOP) => {
            ReadError::Refused("is a symbolic link that loops".to_owned())
        }
        _ => ReadError::Hidden(error),
    }
}

fn check(metadata: &Metadata, limit: u64) -> Result<(), ReadError> {
    let kind = metadata.file_type();
    if !kind.is_file() {
        let what = if kind.is_dir() {
            "a folder"
        } else if kind.is_fifo() {
            "a FIFO"
        } else if kind.is_socket() {
            "a socket"
        } else {
            "a device"
        };
        return Err(ReadError::Refused(format!("is {what}, not a regular file")));
    }
    if metadata.len() > limit {
        return Err(too_large(limit));
    }
    Ok(())
}

fn too_large(limit: u64) -> ReadError {
    ReadError::Refused(format!("is larger than {} KiB", limit / 1024))
}

fn refused(error: &io::Error) -> ReadError {
    ReadError::Refused(format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let folder = tempfile::tempdir().expect("folder");
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("good"), "abc").expect("write");
        std::fs::write(path("large"), "abcd").expect("write");
        symlink(path("good"), path("link")).expect("link");
        symlink(path("nowhere"), path("dangling")).expect("link");
        symlink(path("round"), path("round")).expect("link");
        let mut buffer = b"old".to_vec();
        for name in ["good", "link"] {
            regular_file(&path(name), 3, &mut buffer).expect(name);
            assert_eq!(buffer, b"abc");
        }
        let mut refusal = |name: &str| match regular_file(&path(name), 3, &mut buffer) {
            Err(ReadError::Refused(text)) => text,
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(refusal("large"), "is larger than 0 KiB");
        assert_eq!(refusal("dangling"), "is a symbolic link to nowhere");
        assert_eq!(refusal("round"), "is a symbolic link that loops");
        assert_eq!(refusal("."), "is a folder, not a regular file");
        assert!(matches!(
            regular_file(&path("absent"), 3, &mut buffer),
            Err(ReadError::Absent)
        ));
        assert!(matches!(
            regular_file(&path("good/x"), 3, &mut buffer),
            Err(ReadError::Hidden(_))
        ));
        assert!(matches!(
            regular_file(Path::new("/dev/null"), 3, &mut buffer),
            Err(ReadError::Refused(_))
        ));
    }
}
