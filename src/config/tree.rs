//! The services tree as it was found on disk; `control::discover` makes it.

use std::path::PathBuf;
use std::sync::Arc;

use super::problem::Problem;
use crate::model::ServiceName;

/// Largest file that is read (SPEC §1.1).
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// One scan of the tree.
#[derive(Debug, Clone, Default)]
pub struct Tree {
    /// Absolute path of the services folder.
    pub root: PathBuf,
    /// In order of name, each name once.
    pub files: Vec<TreeFile>,
    /// Of the tree itself: two files for one service, an invalid folder name.
    pub problems: Vec<Problem>,
}

impl Tree {
    /// What a tree looks like, for whoever has none.
    pub const LAYOUT: &str = "a service is <domain>/<service>/service.config.yaml (or .json), \
                              <service>/service.config.yaml or <domain>.<service>.yaml";
}

/// The one file of a service.
#[derive(Debug, Clone)]
pub struct TreeFile {
    /// From the path: the identity.
    pub name: ServiceName,
    /// Absolute.
    pub path: PathBuf,
    /// As printed: relative to the working directory where possible.
    pub shown: PathBuf,
    /// The service's folder: base of its relative paths and `${file:}`.
    /// For the flat layout the folder that holds the file.
    pub folder: PathBuf,
    pub content: FileContent,
}

/// What reading a file gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileContent {
    /// At most [`MAX_FILE_BYTES`].
    Bytes(Arc<[u8]>),
    /// Why it could not be read (too large, no regular file, permissions).
    Unreadable(String),
}
