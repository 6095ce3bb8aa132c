//! What is remembered between turns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use super::lookup::Made;
use super::parse::Parsed;
use crate::config::compile::{Outline, Resolution};
use crate::config::problem::Problem;
use crate::config::source::Loaded;
use crate::config::tree::FileContent;
use crate::model::{EffectiveValue, PeerSpec, ServiceSpec};

/// What is remembered of a service.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) content: FileContent,
    pub(super) path: PathBuf,
    pub(super) role: Role,
    pub(super) parsed: Arc<Parsed>,
    /// What others see of it: of this version, unless that is bad.
    pub(super) outline: Option<Arc<Outline>>,
    /// Of the last version without errors.
    pub(super) accepted: Option<Arc<Outline>>,
    /// The last one made from an outline, and its port.
    pub(super) neighbour: Option<Made>,
    pub(super) output: Option<Output>,
}

impl Entry {
    /// Shows others the accepted version; gives whether that is another one.
    pub(super) fn fall_back(&mut self) -> bool {
        let differs = self.accepted.is_some() && self.accepted != self.outline;
        if differs {
            self.outline.clone_from(&self.accepted);
        }
        differs
    }

    /// Whether its file gives no spec.
    pub(super) fn is_bad(&self) -> bool {
        matches!(
            self.output.as_ref().map(|output| &output.produced),
            Some(Produced::Local { spec: None, .. })
        )
    }
}

/// What a service is to this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Role {
    pub(super) is_local: bool,
    /// Variables such as `SERVICE_PORT` mean it.
    pub(super) is_only_local: bool,
}

/// A compiled service and what it was compiled from.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) parsed: Arc<Parsed>,
    /// Before the offset.
    pub(super) port: Option<u16>,
    pub(super) resolutions: Vec<Resolution>,
    pub(super) read: BTreeMap<PathBuf, Loaded>,
    pub(super) produced: Produced,
    pub(super) problems: Vec<Problem>,
}

#[derive(Debug)]
pub(super) enum Produced {
    Local {
        spec: Option<Arc<ServiceSpec>>,
        effective: Arc<[EffectiveValue]>,
    },
    Peer(Arc<PeerSpec>),
}
