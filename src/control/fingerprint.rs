//! What a referenced file or folder holds, shortened.
//!
//! By `sha2`: the provider that TLS and credentials need is not loaded for it.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use sha2::{Digest as _, Sha256};

use super::read::{ReadError, regular_file};
use crate::config::MAX_FILE_BYTES;

/// Names of a referenced folder (migrations) that are looked at.
const MAX_FOLDER_NAMES: usize = 10_000;

/// What a referenced path holds, enough to tell a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fingerprint {
    Absent,
    /// Did not answer in time.
    Silent,
    Unreadable(String),
    Digest([u8; 32]),
}

/// The fingerprint of what is there now. Blocks as long as the file system does.
pub(super) fn fingerprint(path: &Path) -> Fingerprint {
    if let Ok(metadata) = fs::metadata(path) {
        if metadata.is_dir() {
            return folder_fingerprint(path);
        }
        if metadata.is_file() && metadata.len() > MAX_FILE_BYTES {
            let mut context = Sha256::new();
            add_metadata(&mut context, &metadata);
            return digest(context);
        }
    }
    let mut bytes = Vec::new();
    match regular_file(path, MAX_FILE_BYTES, &mut bytes) {
        Ok(()) => {
            let mut context = Sha256::new();
            context.update(&bytes);
            digest(context)
        }
        Err(ReadError::Absent) => Fingerprint::Absent,
        Err(ReadError::Hidden(error)) => Fingerprint::Unreadable(error.to_string()),
        Err(ReadError::Refused(text)) => Fingerprint::Unreadable(text),
    }
}

fn folder_fingerprint(path: &Path) -> Fingerprint {
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries.take(MAX_FOLDER_NAMES),
        Err(error) => return Fingerprint::Unreadable(error.to_string()),
    };
    let mut files = BTreeMap::new();
    for entry in entries.flatten() {
        files.insert(entry.file_name(), fs::metadata(entry.path()).ok());
    }
    let mut context = Sha256::new();
    for (name, metadata) in files {
        context.update(name.as_encoded_bytes());
        context.update([0]);
        if let Some(metadata) = metadata {
            add_metadata(&mut context, &metadata);
        }
    }
    digest(context)
}

fn add_metadata(context: &mut Sha256, metadata: &Metadata) {
    for number in [metadata.len(), metadata.dev(), metadata.ino()] {
        context.update(number.to_le_bytes());
    }
    for number in [metadata.mtime(), metadata.mtime_nsec()] {
        context.update(number.to_le_bytes());
    }
}

fn digest(context: Sha256) -> Fingerprint {
    Fingerprint::Digest(context.finalize().into())
}
