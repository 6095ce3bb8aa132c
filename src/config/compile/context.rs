//! What a file is compiled in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::outline::Neighbour;
use crate::config::process::Defaults;
use crate::config::raw::RawDuration;
use crate::config::report::Report;
use crate::config::source::{Bounds, Files, Loaded};
use crate::model::{ProcessSettings, ServiceName};

/// Everything around one file, and what compiling it finds out.
pub(in crate::config) struct Context<'a> {
    pub(in crate::config) name: &'a ServiceName,
    /// The service's folder: relative paths start here.
    pub(in crate::config) folder: &'a Path,
    pub(in crate::config) bounds: &'a Bounds,
    pub(in crate::config) settings: &'a ProcessSettings,
    pub(in crate::config) defaults: &'a Defaults,
    /// The named or given port, before the offset.
    pub(in crate::config) port: Option<u16>,
    /// Whether it is the only local service: variables such as `SERVICE_PORT`
    /// mean it.
    pub(in crate::config) only_local: bool,
    /// What each of its dependencies is in the tree, in their order.
    pub(in crate::config) resolutions: &'a [Resolution],
    /// Whether missing secrets are no error.
    pub(in crate::config) tolerant: bool,
    pub(in crate::config) report: Report,
    pub(in crate::config) files: &'a mut Files,
    /// Files that were read, with what that gave.
    pub(in crate::config) read: BTreeMap<PathBuf, Loaded>,
    /// Worth one INFO line each.
    pub(in crate::config) notes: Vec<String>,
}

/// What the name of a dependency stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::config) enum Resolution {
    Known(Arc<Neighbour>),
    /// Several domains have a service of that name.
    Ambiguous(Vec<ServiceName>),
    /// With the likeliest service.
    Unknown(Option<ServiceName>),
}

impl Context<'_> {
    /// A duration above zero.
    pub(super) fn duration(
        &mut self,
        key: &str,
        written: Option<RawDuration>,
        default: Duration,
    ) -> Duration {
        match written {
            Some(RawDuration(duration)) if duration.is_zero() => {
                self.report.error(key, "must be above 0");
                default
            }
            Some(RawDuration(duration)) => duration,
            None => default,
        }
    }

    /// A number of at least one.
    pub(super) fn count(&mut self, key: &str, written: Option<u32>, default: u32) -> u32 {
        if written == Some(0) {
            self.report.error(key, "must be at least 1");
        }
        written.unwrap_or(default).max(1)
    }

    /// The absolute path of a file that a key names; its content is read, so
    /// that a change of it is noticed. `None` after reporting why not.
    pub(super) fn file(&mut self, key: &str, written: Option<&String>) -> Option<PathBuf> {
        self.content(key, written?).map(|(path, _)| path)
    }

    /// The same with the content.
    pub(super) fn content(&mut self, key: &str, written: &str) -> Option<(PathBuf, Arc<[u8]>)> {
        if written.is_empty() {
            self.report.error(key, "names no file");
            return None;
        }
        let path = self.folder.join(written);
        let loaded = self.files.load(&path, self.bounds);
        self.read.insert(path.clone(), loaded.clone());
        match loaded {
            Ok(bytes) => Some((path, bytes)),
            Err(fault) => {
                if !self.tolerant {
                    let shown = self.report.shown(key, &path.to_string_lossy());
                    self.report.error_hint(
                        key,
                        format!("the file {shown} {fault}"),
                        "files are read below the service's folder and `secretsDirs`",
                    );
                }
                None
            }
        }
    }

    /// SHA-256 over the contents of files read for a key; missing ones count as
    /// empty.
    pub(super) fn digest(&self, paths: &[Option<&PathBuf>]) -> [u8; 32] {
        let mut digest = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
        for path in paths.iter().flatten() {
            let content = self.read.get(*path).and_then(|loaded| loaded.as_ref().ok());
            let content = content.map(AsRef::as_ref).unwrap_or_default();
            digest.update(&(content.len() as u64).to_be_bytes());
            digest.update(content);
        }
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest.finish().as_ref());
        bytes
    }
}
