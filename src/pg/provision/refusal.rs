//! What provisioning keeps its hands off.

/// Something is there that was not made by us for this service.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::pg) enum Refusal {
    #[error(
        "the role `{role}` {why}: a service gets a role without privileges; set `database.role`"
    )]
    Privileged { role: String, why: String },
    #[error("the role `{role}` may not log in: somebody locked it out (NOLOGIN)")]
    LockedOut { role: String },
    #[error("the {what} belongs to {owner}. To hand it over, run:\n{script}")]
    Foreign {
        what: String,
        owner: String,
        script: String,
    },
    #[error("the database `{name}` does not exist")]
    NoDatabase { name: String },
}

impl Refusal {
    pub(super) fn privileged(role: &str, why: &str) -> Self {
        Self::Privileged {
            role: role.to_owned(),
            why: why.to_owned(),
        }
    }

    pub(super) fn foreign(what: String, owner: String, script: String) -> Self {
        Self::Foreign {
            what,
            owner,
            script,
        }
    }
}
