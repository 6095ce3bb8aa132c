//! Strategy `mtls`: the connection's verified certificate names the caller.
//!
//! That a certificate is signed by the right authority was checked with the
//! handshake; here only its names count, each compared as a whole.

use crate::model::{Identity, MtlsName, MtlsPolicy, Strategy};

use super::BuildError;
use super::named::{Named, PerWorker};

/// Every name that may call.
#[derive(Debug)]
pub(super) struct Certificates {
    listed: Box<[Listed]>,
}

/// One name of `mtls.allow`.
#[derive(Debug)]
pub(super) struct Listed {
    name: MtlsName,
    /// The caller it stands for, a copy for each worker.
    pub(super) named: PerWorker<Named>,
}

impl Certificates {
    pub(super) fn build(policy: &MtlsPolicy, workers: usize) -> Result<Self, BuildError> {
        let mut listed = Vec::with_capacity(policy.allow.len());
        for name in &policy.allow {
            let text = name.as_str();
            let identity = || Identity {
                strategy: Strategy::Mtls,
                subject: Some((**text).into()),
                service: Some((**text).into()),
            };
            Named::new(identity()).is_complete(text)?;
            listed.push(Listed {
                name: name.clone(),
                named: PerWorker::new(workers, || Named::new(identity())),
            });
        }
        Ok(Self {
            listed: listed.into(),
        })
    }

    /// The first listed name that the certificate has.
    pub(super) fn find(&self, shown: &[MtlsName]) -> Option<&Listed> {
        let mut listed = self.listed.iter();
        listed.find(|listed| shown.contains(&listed.name))
    }
}
